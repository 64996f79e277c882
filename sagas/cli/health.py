"""A worker's health: an HTTP endpoint for monitoring, and the end of a worker whose store is lost.

Invariant: health means that the work goes on, not that the process is alive: without its store a worker is not well.
"""

import asyncio
import errno
import json
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import typer

from durable_core.layer import Health, Runtime
from sagas.cli.output import CommandError

WELL_S = 30.0
"""How long the store may be silent before the worker reports itself as not well."""
REQUEST_S = 5.0
"""How long a request may take to arrive."""
CHECK_S = 1.0


@attrs.frozen
class HealthEndpoint:
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str | None) -> "HealthEndpoint | None":
        """``PORT``, on the loopback interface, or ``HOST:PORT``."""
        if text is None:
            return None
        host, _, port = text.rpartition(":")
        if not port.isdecimal() or int(port) >= 1 << 16:
            raise typer.BadParameter(f"{text!r} is neither PORT nor HOST:PORT", param_hint="--health")
        return cls(host.strip("[]") or "127.0.0.1", int(port))


def report(name: str, health: Health, *, limit_s: float) -> dict[str, Any]:
    """The endpoint's answer for a worker that ends once its store has been silent for ``limit_s``."""
    told = {
        name: round(value, 3) if isinstance(value, float) else value for name, value in attrs.asdict(health).items()
    }
    return {"worker": name, "well": health.silent_s < min(WELL_S, limit_s), **told}


@asynccontextmanager
async def answering(endpoint: HealthEndpoint | None, engine: Runtime, limit_s: float) -> AsyncGenerator[int | None]:
    """Answer at ``endpoint`` until the block ends. Gives the port, which differs from the endpoint's if that is 0.

    Raises:
        CommandError: nothing can listen there.
    """
    if endpoint is None:
        yield None
        return
    handler = _handler(lambda: report(engine.name, engine.health(), limit_s=limit_s))
    try:
        server = await asyncio.start_server(handler, endpoint.host, endpoint.port)
    except (OSError, UnicodeError) as error:  # UnicodeError: what no name of a host can be
        raise _unusable(endpoint, error) from error
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _unusable(endpoint: HealthEndpoint, error: OSError | UnicodeError) -> CommandError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        why = "another process has the port. Give another one, or 0 for any free port"
    elif number in (errno.EACCES, errno.EPERM):
        why = "this user may not listen on that port. Give one from 1024 on, or 0 for any free port"
    elif number in (errno.EADDRNOTAVAIL, None) or isinstance(error, socket.gaierror):  # Python 3.13 gives no number
        why = f"{endpoint.host!r} is no address of this machine. Give one that is, or PORT alone for the loopback"
    else:
        why = f"{error}. Give another HOST:PORT"
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return CommandError(f"--health {host}:{endpoint.port} cannot be used: {why}")


def _handler(facts: Callable[[], dict[str, Any]]) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
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
            return  # the client has gone, was too slow, or did not speak HTTP
        finally:
            writer.close()

    return answer


async def store_lost(engine: Runtime, limit_s: float) -> float:
    """Return once the store has been silent for longer than ``limit_s``, with that duration."""
    while (silent_s := engine.health().silent_s) <= limit_s:  # noqa: ASYNC110 - time passes without an event
        await asyncio.sleep(min(CHECK_S, limit_s / 4))
    return silent_s
