"""``python -m examples.orders.participants payments --database payments.db``: one participant as a process."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from examples.orders.participants.desk import DESK
from examples.orders.participants.inventory import INVENTORY
from examples.orders.participants.shipping import SHIPPING
from examples.participants.payments import PAYMENTS
from examples.participants.serving import serve_participant

PARTICIPANTS = {p.name: p for p in (INVENTORY, PAYMENTS, SHIPPING, DESK)}


class Name(StrEnum):
    """Which participant to be."""

    INVENTORY = "inventory"
    PAYMENTS = "payments"
    SHIPPING = "shipping"
    DESK = "desk"


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
