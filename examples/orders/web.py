"""``python -m examples.orders.web``: the shop's web application, reduced to its callbacks.

It runs no sagas: it stores the manager's answers, and the worker takes them up when it runs.
"""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import typer
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from examples.orders.child import report_ready
from sagas import Orchestrator
from sagas.asgi import callbacks


def serve(
    *,
    store: Annotated[str, typer.Option(help="Where the sagas are kept, such as sqlite:///orders.db.")],
    port: Annotated[int, typer.Option(help="On 127.0.0.1; 0 takes a free one.")] = 0,
    parent_fd: Annotated[int | None, typer.Option(help="Set by the launcher.", hidden=True)] = None,
) -> None:
    """Serve the web application until SIGTERM."""
    orchestrator = Orchestrator(store, worker=False)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with orchestrator:
            yield

    app = Starlette(lifespan=lifespan, routes=[Mount("/callbacks", callbacks(orchestrator))])
    listener = socket.create_server(("127.0.0.1", port))
    # Whoever connects from here on waits in the socket's backlog until the server accepts: ready enough to tell.
    report_ready(parent_fd, port=listener.getsockname()[1])
    uvicorn.Server(uvicorn.Config(app, log_level="info", timeout_graceful_shutdown=1)).run(sockets=[listener])


if __name__ == "__main__":
    typer.run(serve)
