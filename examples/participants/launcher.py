"""Child processes of the demo: started, known to be ready, killed by their own pid, and never left behind.

Invariant: leaving the launcher's block ends every child that it started, whatever ended the block. Children are in a
session of their own, so that Ctrl-C reaches the parent alone and the parent decides what they still have to do.
"""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import attrs
import msgspec

ROOT = str(Path(__file__).parents[2])
"""Where ``examples`` is imported from, whatever directory the demo is run in."""

READY_S = 30.0
"""How long a child may take to start; only an overloaded machine needs this long."""
STOP_S = 5.0
"""How long a child may take to end when asked; after that it is killed."""


class ChildFailedError(Exception):
    """A child process ended, or never got ready. The message names its log."""


@attrs.define
class Child:
    """A running child process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    facts: dict[str, Any]
    """What it reported when it was ready."""
    lifeline: socket.socket
    """The parent's end; the child ends when it closes."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def url(self) -> str:
        """Its address, if it reported a port."""
        return f"http://127.0.0.1:{self.facts['port']}"

    def kill(self) -> None:
        """``kill -9``: on return the process is gone, without a chance to clean up."""
        self.process.kill()
        self.process.wait()
        self.lifeline.close()

    async def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self.process.terminate()
        try:
            await asyncio.to_thread(self.process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.lifeline.close()


@attrs.define
class Launcher:
    """Starts children whose logs go to ``directory``; an async context manager that ends them all."""

    directory: Path
    children: list[Child] = attrs.field(factory=list[Child])

    async def start(self, name: str, *arguments: str) -> Child:
        """Run ``python -m`` with ``arguments`` as child ``name``, and return once it has reported that it is ready."""
        child = self.spawn(name, *arguments)
        await self.ready(child)
        return child

    def spawn(self, name: str, *arguments: str) -> Child:
        """Run ``python -m`` with ``arguments`` as child ``name``, without waiting: several may start at a time."""
        log = self.directory / f"{name}.log"
        ours, theirs = socket.socketpair()
        with theirs, log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - our own modules
                [sys.executable, "-m", *arguments, "--parent-fd", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH"))))},
            )
        child = Child(name, process, log, {}, ours)
        self.children.append(child)
        return child

    async def ready(self, child: Child) -> None:
        """Return once the child has reported that it is ready."""
        child.facts = await _ready(child)

    async def __aenter__(self) -> Self:
        """Begin with no children."""
        return self

    async def __aexit__(self, *_ending: object) -> None:
        """End every child that still runs, the youngest first; kill them if even that is interrupted."""
        try:
            for child in reversed(self.children):
                if child.process.poll() is None:
                    await child.stop()
        finally:
            for child in self.children:
                child.kill()


async def _ready(child: Child) -> dict[str, Any]:
    child.lifeline.setblocking(False)  # noqa: FBT003 - the standard library's own spelling
    try:
        async with asyncio.timeout(READY_S):
            line = await _line(child.lifeline)
    except TimeoutError:
        what = f"{child.name} (pid {child.pid}) was not ready after {READY_S:g} s; see {child.log}"
        raise ChildFailedError(what) from None
    if not line:
        code = await asyncio.to_thread(child.process.wait)
        what = f"{child.name} ended with code {code} before it was ready; see {child.log}"
        raise ChildFailedError(what)
    facts: dict[str, Any] = msgspec.json.decode(line)
    return facts


async def _line(reader: socket.socket) -> bytes:
    """The bytes up to the first newline; empty if the other end closes before."""
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\n"):
        more = await loop.sock_recv(reader, 4096)
        if not more:
            return b""
        line += more
    return line
