"""How a worker shows that it works: an endpoint for whoever watches over it, and its end once its store is lost.

Invariant: the answer is about the work, not about the process: a worker whose store is silent is not well.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import typer

from durable_core import Pulse, Runs

WELL_S = 30.0
"""How long the store may be silent before the worker says that it is not well."""
REQUEST_S = 5.0
"""How long a request may take to arrive."""
WATCH_S = 1.0


@attrs.frozen
class Endpoint:
    """Where to listen."""

    host: str
    port: int


def endpoint_of(text: str | None) -> Endpoint | None:
    """``PORT``, on the loopback, or ``HOST:PORT``."""
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) >= 1 << 16:
        raise typer.BadParameter(f"{text!r} is neither PORT nor HOST:PORT", param_hint="--health")
    return Endpoint(host.strip("[]") or "127.0.0.1", int(port))


def told(name: str, pulse: Pulse, *, limit_s: float) -> dict[str, Any]:
    """What the endpoint says of a worker that ends once its store has been silent for ``limit_s``."""
    return {"worker": name, "well": pulse.silent_s < min(WELL_S, limit_s), **attrs.asdict(pulse)}


@asynccontextmanager
async def shown(endpoint: Endpoint | None, engine: Runs, limit_s: float) -> AsyncGenerator[int | None]:
    """Answer at ``endpoint`` for as long as the block lasts; the port is given, for one that was asked as 0."""
    if endpoint is None:
        yield None
        return
    server = await asyncio.start_server(
        _answering(lambda: told(engine.name, engine.pulse(), limit_s=limit_s)), endpoint.host, endpoint.port
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _answering(facts: Callable[[], dict[str, Any]]) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                await reader.readuntil(b"\r\n\r\n")
                found = facts()
                body = json.dumps(found).encode() + b"\n"
                status = "200 OK" if found["well"] else "503 Service Unavailable"
                head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                writer.write(f"{head}Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode() + body)
                await writer.drain()
        except (OSError, EOFError, asyncio.LimitOverrunError):
            return  # whoever asked has gone, asked too slowly, or did not speak HTTP
        finally:
            writer.close()

    return answer


async def lost(engine: Runs, limit_s: float) -> float:
    """Return once the store has been silent for longer than ``limit_s``: for how long."""
    while (silent_s := engine.pulse().silent_s) <= limit_s:  # noqa: ASYNC110 - time passes without an event
        await asyncio.sleep(min(WATCH_S, limit_s / 4))
    return silent_s
