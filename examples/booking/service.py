"""``python -m examples.booking.service airline --database airline.db``: a supplier, or the bank, as a process."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from examples.booking.suppliers import AIRLINE, CARS, HOTEL
from examples.participants.payments import PAYMENTS
from examples.participants.serving import serve_participant

PARTICIPANTS = {p.name: p for p in (CARS, HOTEL, AIRLINE, PAYMENTS)}


class Name(StrEnum):
    """Which participant to be."""

    CARS = "cars"
    HOTEL = "hotel"
    AIRLINE = "airline"
    PAYMENTS = "payments"


def serve(
    name: Name,
    database: Annotated[Path, typer.Option(help="The participant's own SQLite file; made if missing.")],
    port: Annotated[int, typer.Option(help="On 127.0.0.1; 0 takes a free one.")] = 0,
    parent_fd: Annotated[int | None, typer.Option(help="Set by the launcher.", hidden=True)] = None,
) -> None:
    """Serve one participant until SIGTERM."""
    serve_participant(PARTICIPANTS[name], database, port=port, parent_fd=parent_fd)


if __name__ == "__main__":
    typer.run(serve)
