"""A proxy before PostgreSQL that forwards whole messages of its protocol, and cuts the connection at a chosen one.

It takes connections without encryption: ``sslmode=disable``.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import attrs

Direction = Literal["to server", "to client"]


@attrs.define
class Proxy:
    """Forwards connections to ``upstream`` on the loopback."""

    upstream: int
    port: int = 0
    direction: Direction | None = None
    left: int = 0
    """Messages in ``direction`` that are still forwarded; the one after is not, and its connection is cut."""
    instead: Callable[[], object] | None = None
    """Called instead of the cut."""
    deaf: bool = False
    """Whether new connections are refused."""
    cuts: int = 0
    carried: dict[asyncio.StreamWriter, asyncio.StreamWriter] = attrs.Factory(
        dict[asyncio.StreamWriter, asyncio.StreamWriter]
    )
    """The connections: to the client, and to the server."""
    ended: set[asyncio.StreamWriter] = attrs.Factory(set[asyncio.StreamWriter])
    """Those to clients that were told so, and have not noticed yet."""

    def cut(self, direction: Direction, after: int, *, instead: Callable[[], object] | None = None) -> None:
        """Cut the connection that is first to carry so many messages in that direction, instead of the next one.

        Or call ``instead`` then, and carry that message too.
        """
        self.direction, self.left, self.instead = direction, after, instead

    @property
    def armed(self) -> bool:
        """Whether the cut is still to come."""
        return self.direction is not None

    def disarm(self) -> None:
        """Cut nothing."""
        self.direction = None

    def _let_pass(self, direction: Direction) -> bool:
        if self.direction != direction:
            return True
        self.left -= 1
        if self.left >= 0:
            return True
        self.direction = None
        self.cuts += 1
        if self.instead is None:
            return False
        self.instead()
        return True

    async def end_all(self) -> None:
        """End each connection as a server does: the client is told while it is idle, and can still send something."""
        fields = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
        for client, server in list(self.carried.items()):
            self.ended.add(client)
            client.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
            await client.drain()
            server.transport.abort()
        for _ in range(10):  # the driver shares this loop: it has read it then
            await asyncio.sleep(0)

    def cut_all(self) -> None:
        """Cut each connection without a word."""
        for client in list(self.carried):
            client.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: Direction) -> None:
        typed = direction == "to client"
        while True:
            head = await source.readexactly(5 if typed else 4)
            length = int.from_bytes(head[-4:], "big")
            body = await source.readexactly(length - 4)
            typed = True
            if not self._let_pass(direction):
                return
            sink.write(head + body)
            await sink.drain()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends it, or it is cut."""
        if self.deaf:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:  # the server is down
            writer.transport.abort()
            return
        ways = [
            asyncio.create_task(self._carry(reader, back, "to server")),
            asyncio.create_task(self._carry(there, writer, "to client")),
        ]
        self.carried[writer] = back
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if writer in self.ended:
                await asyncio.wait(ways, return_when=asyncio.ALL_COMPLETED)  # until it sends something, or leaves
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            del self.carried[writer]
            self.ended.discard(writer)
            writer.transport.abort()
            back.transport.abort()


@asynccontextmanager
async def proxy(upstream: int) -> AsyncGenerator[Proxy]:
    """A proxy before the server on that port."""
    made = Proxy(upstream)
    carried: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(made.serve(reader, writer))
        carried.add(task)
        task.add_done_callback(carried.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in carried:
            task.cancel()
        await asyncio.gather(*carried, return_exceptions=True)
