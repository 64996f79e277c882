"""``python -m examples.orders.participants payments --database payments.db``: one participant as a process."""

import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from examples.orders import traces
from examples.orders.child import report_ready
from examples.orders.participants.desk import DESK
from examples.orders.participants.inventory import INVENTORY
from examples.orders.participants.payments import PAYMENTS
from examples.orders.participants.service import open_service
from examples.orders.participants.shipping import SHIPPING

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
    traces.begin(name)
    service = open_service(PARTICIPANTS[name], database)
    listener = socket.create_server(("127.0.0.1", port))
    address, bound = listener.getsockname()
    # Whoever connects from here on waits in the socket's backlog until the server accepts: ready enough to tell.
    report_ready(parent_fd, port=bound)
    if parent_fd is None:
        typer.echo(f"{name} serves http://{address}:{bound} on {database}")
    config = uvicorn.Config(traces.Traced(service.app()), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    typer.run(serve)
