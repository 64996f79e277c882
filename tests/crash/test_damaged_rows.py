"""Rows of a journal that were changed by hand or by a disk: an error that says so, and a worker that goes on."""

import asyncio
import copy
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from durable_core.errors import DurableError
from durable_core.model.entry import Entry
from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from sagas import SagaCompensated
from tests.crash.mortal import Auditor
from tests.crash.test_every_crash_point import Life, everything, lives, trip
from tests.kit import End, World, bell, orchestrator, reaches, within

DEEP = b"[" * 3000
GARBAGE: dict[str, tuple[Any, ...]] = {
    "kind": ("", "nonsense", "succeeded", "ended", "suspended"),
    "key": ("", "nope", "\x00<script>", "x" * 10_000),
    "attempt": (-1, 0, 2**62),
    "label": ("", "nonsense"),
    "payload": (None, b"", b"{", b"\xff\x00", b"null", b"[1]", b'{"a":1}', DEEP, b"1e999"),
    "error": (None, b"", b"{", b"[]", b"null", b'{"type":1}', DEEP),
    "at_ns": (-1, 2**62),
    "due_at_ns": (None, -5, 2**62),
}


@pytest.fixture(scope="module", autouse=True)
def sound_traces() -> None:
    """A trace tells what the journal holds: that of a damaged one need not be sound."""


def cut(way: str) -> MemoryData:
    """What a process leaves that dies right before the saga's last step, or at the end of its rollback."""
    points = lives(way)[0].points
    data, world = MemoryData(), planned(way)
    at = points.index("before last") if way == "forward" else points.index("before undo begin")
    life = Life(data, attrs.evolve(world, data=data), at)
    assert life.live() is None
    return data


def planned(way: str) -> Auditor:
    world = Auditor()
    world.plan("scouting/blocked", "refused")
    if way == "rolled back":
        world.plan("last", "refused")
    return world


def damaged(data: MemoryData) -> Iterator[tuple[str, list[Entry]]]:
    """The journal with a piece of garbage in a column of one entry of each kind; and with an entry missing."""
    entries = list(data.journals[1].values())
    seen: set[tuple[str, str]] = set()
    for place, entry in enumerate(entries):
        for column, pieces in GARBAGE.items():
            if (entry.kind, column) not in seen:
                seen.add((entry.kind, column))
                for piece in pieces:
                    bad = [*entries[:place], entry._replace(**{column: piece}), *entries[place + 1 :]]
                    yield f"{column} of #{entry.seq} ({entry.kind}) is {piece!r:.20}", bad
        yield f"#{entry.seq} is missing", [*entries[:place], *entries[place + 1 :]]


async def worked(data: MemoryData, world: World) -> Any:
    """A worker finds the saga, and another one behind it; how the first ends, or why that cannot be told."""
    store = MemoryStore(data)
    async with orchestrator(MemoryStore(data), everything, trip, bell, worker=False) as desk:
        await desk.start(bell, id="behind")
    async with orchestrator(store, everything, trip, bell, resources=[world]) as running:
        await within((await running.get("behind")).result(), running)
        handle = await running.get("one")
        try:
            info = await reaches(handle, running, "completed", "compensated", "stuck")
        except DurableError as unreadable:
            return unreadable
        if info.status == "stuck":
            return End("stuck", info.reason)
        try:
            return End(info.status, await handle.result())
        except SagaCompensated:
            return End("compensated")


@pytest.mark.parametrize("way", ["forward", "rolled back"])
def test_a_damaged_row_stops_its_own_saga_at_most(way: str, caplog: pytest.LogCaptureFixture):
    """It ends, is stuck and says why, or cannot be read and the error names the row; the next saga ends in any case."""
    left = cut(way)
    caplog.clear()  # of the process that died
    stopped = 0
    for what, entries in damaged(left):
        data = MemoryData(secret=left.secret, last_num=left.last_num, last_signal=left.last_signal, nums={"one": 1})
        data.runs[1] = attrs.evolve(left.runs[1], owner=None, wake_at_ns=0)
        data.journals[1] = {entry.seq: entry for entry in copy.copy(entries)}
        data.order = [(1, entry.seq) for entry in entries]
        end = asyncio.run(worked(data, planned(way)))
        assert isinstance(end, DurableError) or end.status != "stuck" or end.value, what
        stopped += isinstance(end, DurableError) or end.status == "stuck"
        assert "internal error" not in caplog.text, what
    assert stopped > 50
