"""A worker of a fleet whose sagas are told something, in a process of its own: ``python -m tests.crash.verbs_fleet``.

It takes URL, DIR and LEASE, says ``ready`` and works until it is killed, or cut from outside by one of the signals in
``CUTS``. What its participants do are lines of a file in DIR, each written by one ``write``: whatever dies, they are
there, and a line that was written before something began stands before its line, whichever processes wrote the two.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import attrs

from sagas import Orchestrator
from tests.crash.verbs_sagas import SAGAS
from tests.kit import Call, World

What = Literal["begin", "effect", "end", "dead"]

QUICK_S, SLOW_S = 0.01, 0.2
"""How long a call takes before its effect, and after it: processes die in between, and verbs come."""
PATIENCE_S = 0.005

# -- lines -----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Line:
    """A call begins, has its effect or ends in a process; or that process is dead."""

    what: What
    pid: int
    call: Call | None = None


@attrs.define
class Lines:
    """The file of them, read as it grows."""

    directory: Path
    known: list[Line] = attrs.field(factory=list[Line])
    _by_saga: dict[str, list[Line]] = attrs.field(factory=dict[str, list[Line]])
    _read: int = 0

    @property
    def path(self) -> Path:
        return self.directory / "lines"

    def write(self, line: Line) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, json.dumps(attrs.asdict(line)).encode() + b"\n")
        os.close(descriptor)

    def look(self) -> list[Line]:
        """All that are there by now."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._read)
                whole, _, _ = file.read().rpartition(b"\n")
            if whole:
                self._read += len(whole) + 1
                for each in whole.split(b"\n"):
                    self._sort(_line(**json.loads(each)))
        return self.known

    def _sort(self, line: Line) -> None:
        self.known.append(line)
        if line.call is not None:
            self._by_saga.setdefault(line.call.saga_id, []).append(line)
        else:
            for lines in self._by_saga.values():
                lines.append(line)

    def of(self, saga: str) -> list[Line]:
        """What was done for a saga, and the deaths since it began."""
        self.look()
        return self._by_saga.get(saga, [])

    def calls(self, saga: str) -> list[Call]:
        """The calls for a saga, in the order in which they began."""
        return [line.call for line in self.of(saga) if line.call is not None and line.what == "begin"]

    def under_way(self, saga: str) -> dict[int, list[Call]]:
        """The calls for a saga that have not returned, by the process that lives and has them."""
        found: dict[int, list[Call]] = {}
        for line in self.of(saga):
            if line.call is None:
                found.pop(line.pid, None)
            elif line.what == "begin":
                found.setdefault(line.pid, []).append(line.call)
            elif line.what == "end":
                found[line.pid].remove(line.call)
        return {pid: calls for pid, calls in found.items() if calls}

    def kept(self, saga: str) -> list[str]:
        """The steps whose effects are in force: one that was undone takes no effect any more, whoever comes late."""
        effects = [line.call for line in self.of(saga) if line.call is not None and line.what == "effect"]
        undone = {call.key for call in effects if call.role == "undo"}
        return sorted({call.step for call in effects if call.role == "step" and call.key not in undone})


def _line(what: What, pid: int, call: dict[str, Any] | None) -> Line:
    return Line(what, pid, None if call is None else Call(**call))


# -- the worker ------------------------------------------------------------------------------------------------------


@attrs.define
class Participant(World):
    """What the steps of a worker's sagas call; the file ``closed second`` holds up the calls of ``second``.

    Of one saga some calls are slow, and the same ones each time.
    """

    lines: Lines = attrs.field(kw_only=True)

    async def act(self, party: str = "", about: Any = None) -> Call:
        call = Call.here(party, about)
        span_s = SLOW_S if crc32(f"{call.saga_id} {call.what}".encode()) % 8 == 0 else QUICK_S
        self.lines.write(Line("begin", os.getpid(), call))
        try:
            await asyncio.sleep(span_s)
            while gate(self.lines.directory, call.what).exists():  # noqa: ASYNC110 - another process opens it
                await asyncio.sleep(PATIENCE_S)
            self.lines.write(Line("effect", os.getpid(), call))
            await asyncio.sleep(span_s)
        finally:
            self.lines.write(Line("end", os.getpid(), call))
        return call


def gate(directory: Path, what: str) -> Path:
    """The file that holds up calls of ``what``."""
    return directory / f"closed {what}"


def opened(url: str, directory: Path, *, worker: bool = True, lease: float = 60) -> Orchestrator:
    """An orchestrator of the fleet at ``url``."""
    resources = [Participant(lines=Lines(directory))]
    # A step may meet any number of deaths here, and is not to blame for them.
    return Orchestrator(url, sagas=SAGAS, resources=resources, worker=worker, grace=1, lease=lease, max_crashes=1_000)


class Ended(Exception):
    """The program's own error."""


def cancel_all(_: "asyncio.Future[None]") -> None:
    """The program cancels whatever there is, itself included."""
    for task in asyncio.all_tasks():
        task.cancel()


def fail(ended: "asyncio.Future[None]") -> None:
    """An exception leaves the program's own coroutine, and ends ``asyncio.run``."""
    ended.set_exception(Ended())


def stop(ended: "asyncio.Future[None]") -> None:
    """The loop is stopped, and ``asyncio.run`` cancels what is left."""
    ended.get_loop().stop()


CUTS: dict[signal.Signals, Callable[["asyncio.Future[None]"], None]] = {
    signal.SIGUSR1: cancel_all,
    signal.SIGUSR2: fail,
    signal.SIGHUP: stop,
}
"""Ways to be cut from outside. Whoever is cancelled leaves the orchestrator in good order, and nobody else does."""


async def work(url: str, directory: Path, lease: float) -> None:
    """Serve until killed or cut."""
    logging.basicConfig(level=logging.WARNING, format=f"{os.getpid()} %(name)s: %(message)s")
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    for number, cut in CUTS.items():
        loop.add_signal_handler(number, cut, ended)
    running = opened(url, directory, lease=lease)
    await running.__aenter__()
    print("ready", flush=True)
    try:
        await ended
    except asyncio.CancelledError:
        await running.__aexit__(None, None, None)
        raise


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
