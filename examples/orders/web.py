"""``python -m examples.orders.web``: the shop's web application, reduced to its callbacks.

It runs no sagas: it stores the manager's answers, and the worker takes them up when it runs.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import typer
from starlette.applications import Starlette
from starlette.routing import Mount

from examples.participants.serving import serve as serve_app
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
    serve_app(app, port=port, parent_fd=parent_fd, what="the callbacks", log_level="info")


if __name__ == "__main__":
    typer.run(serve)
