"""One saga with all that there is, in a process that dies at every crash point, and at pairs of them.

What a process has in memory dies with it. So two moments differ only if the process wrote, or did something outside,
between them: the crash points are before and after each writing call to its store, and before and after each effect.
Each has a name, and one run lists them all.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import attrs
import pytest

from durable_core.ports import Batch
from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from sagas import Orchestrator, Saga, saga
from tests.crash.mortal import Auditor, lived
from tests.kit import Call, End, Refused, World, begun, end_of, watched

A_MOMENT = timedelta(milliseconds=1)
ALL_PAIRS = "SAGAS_SOAK" in os.environ
SOME = 97
"""Of so many pairs one is run, unless all are."""


# -- the saga ----------------------------------------------------------------------------------------------------------

begin, scout, blocked, left, right, car, hotel, ask, last = map(
    watched, ("begin", "scout", "blocked", "left", "right", "car", "hotel", "ask", "last")
)


async def branch(s: Saga) -> None:
    await s.run(right)
    await s.sleep(A_MOMENT)


@saga("trip", version=1)
async def trip(s: Saga) -> str:
    return await s.run(car) + await s.run(hotel)


@saga("everything", version=1)
async def everything(s: Saga) -> str:
    await s.run(begin)
    with suppress(Refused):
        async with s.savepoint("scouting"):
            await s.run(scout)
            await s.run(blocked)
    async with s.parallel() as p:
        p.run(left)
        p.run(branch)
    await s.run(trip)
    approval = await s.callback("approval", str)
    await s.run(ask)
    return await approval.result() + await s.run(last)


DONE = ["ask", "begin", "car", "hotel", "last", "left", "right"]


def names(world: World) -> list[str]:
    return sorted(key.rpartition("/")[2] for key in world.kept())


async def play(running: Orchestrator) -> End:
    """The client: starts the saga, answers its callback, and waits for the end; again in each process."""
    handle = await running.start(everything, id="one")
    await begun(handle, running, "approval")
    await running.complete_callback(saga_id="one", name="approval", value="yes ")
    return await end_of(handle, running)


# -- crash points ------------------------------------------------------------------------------------------------------


@attrs.define
class Life:
    """One process on ``data``: it dies at the point number ``dies_at`` of those that it passes."""

    data: MemoryData
    world: Auditor
    dies_at: int | None = None
    points: list[str] = attrs.field(factory=list[str])
    """The names of those that it has passed, in order."""
    _seen: Counter[str] = attrs.field(factory=Counter[str])
    _died: asyncio.Event = attrs.field(factory=asyncio.Event)

    def live(self) -> End | None:
        """How the saga ended; None if the process died before."""

        async def main() -> Any:
            store = MemoryStore(self.data)
            store.journal.commit = self._around(store, store.journal.commit, self._rows)  # type: ignore[method-assign]
            store.claims.claim = self._around(store, store.claims.claim, _named("claim"))  # type: ignore[method-assign]
            store.signals.send = self._around(store, store.signals.send, _named("send"))  # type: ignore[method-assign]
            store.versions.announce = self._around(store, store.versions.announce, _named("announce"))  # type: ignore[method-assign]

            async def reach(side: str, call: Call) -> None:
                await self._reach(store, f"{side} {call.what}")

            self.world.before = lambda call: reach("before", call)
            self.world.after = lambda call: reach("after", call)
            return await lived(store, self._died, play, everything, trip, resources=[self.world])

        return asyncio.run(main())

    def _around(self, store: MemoryStore, write: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        async def written(*args: Any, **kwargs: Any) -> Any:
            what = name(*args)
            self._seen[what] += 1
            point = f"{what} #{self._seen[what]}"
            await self._reach(store, f"before {point}")
            result = await write(*args, **kwargs)
            await self._reach(store, f"after {point}")
            return result

        return written

    def _rows(self, batch: Batch) -> str:
        rows = [f"{entry.key}.{entry.kind}" if entry.key else str(entry.kind) for entry in batch.entries]
        return f"commit of {rows[0] if rows else 'a start' if batch.starts else 'the row'}"

    async def _reach(self, store: MemoryStore, point: str) -> None:
        self.points.append(point)
        if len(self.points) - 1 == self.dies_at:
            store.crash()
            self._died.set()
            await asyncio.Event().wait()


def _named(name: str) -> Callable[..., str]:
    return lambda *_: f"the {name}"


def lives(way: str, *deaths: int) -> list[Life]:
    """The lives of processes one after the other: they die at these points, and one more ends the saga."""
    data = MemoryData()
    world = Auditor(data=data)
    world.plan("scouting/blocked", "refused")
    if way == "rolled back":
        world.plan("last", "refused")
    found: list[Life] = []
    for death in (*deaths, None):
        life = Life(data, world, death)
        found.append(life)
        end = life.live()
        if end is not None:
            check(way, world, end)
            return found
    raise AssertionError("the last life has no end")


def check(way: str, world: Auditor, end: End) -> None:
    """The end and the effects are those of a life without a death, each once, and under one key."""
    undone = [key.rpartition("/")[2] for key in world.undone]
    if way == "forward":
        assert end == End("completed", "yes last")
        assert names(world) == DONE
        assert undone == ["scout"]
    else:
        assert (end.status, end.error[0]) == ("compensated", Refused)
        assert names(world) == []
        assert undone[:4] == ["scout", "ask", "hotel", "car"]
        assert sorted(undone[4:]) == ["begin", "left", "right"]
    assert all(len(keys) == 1 for keys in world.keys().values()), "one step, several idempotency keys"
    assert world.beside == []


KINDS = {"commit", "the announce", "the claim", "the send", "a call"}


def kind(point: str) -> str:
    """What a crash point is about."""
    what = point.partition(" ")[2]
    return next((kind for kind in KINDS if what.startswith(kind)), "a call")


@pytest.mark.parametrize("way", ["forward", "rolled back"])
def test_a_process_that_dies_at_any_crash_point(way: str):
    """Whichever it is, the next process brings the saga to its end; also if that one dies, at any point of its own."""
    (whole,) = lives(way)
    assert {kind(point) for point in whole.points} == KINDS
    pair = 0
    for first in range(len(whole.points)):
        recovery = lives(way, first)[-1]
        for second in range(len(recovery.points)):
            pair += 1
            if ALL_PAIRS or pair % SOME == 0:
                lives(way, first, second)
    assert pair > 1000, "there are fewer points than this test supposes"
