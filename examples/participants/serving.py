"""An application on a port of the loopback interface, until SIGTERM: what every service's process comes down to."""

import socket
from pathlib import Path

import typer
import uvicorn
from starlette.types import ASGIApp

from examples.participants import traces
from examples.participants.child import report_ready
from examples.participants.operation import Participant
from examples.participants.service import open_service


def serve(app: ASGIApp, *, port: int, parent_fd: int | None, what: str, log_level: str = "warning") -> None:
    """Serve ``app`` on ``port`` (0 takes a free one), and report it to the launcher, or, started by hand, print it."""
    listener = socket.create_server(("127.0.0.1", port))
    address, bound = listener.getsockname()
    # Whoever connects from here on waits in the socket's backlog until the server accepts: ready enough to tell.
    report_ready(parent_fd, port=bound)
    if parent_fd is None:
        typer.echo(f"http://{address}:{bound} serves {what}")
    uvicorn.Server(uvicorn.Config(app, log_level=log_level, timeout_graceful_shutdown=1)).run(sockets=[listener])


def serve_participant(participant: Participant, database: Path, *, port: int, parent_fd: int | None) -> None:
    """Serve one participant on its own database."""
    traces.begin(participant.name)
    app = traces.Traced(open_service(participant, database).app())
    serve(app, port=port, parent_fd=parent_fd, what=f"{participant.name} on {database}")
