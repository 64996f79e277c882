"""Processes that die at a chosen commit or in a chosen step, on a store in memory that outlives them."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import attrs

from durable_core.layer import EntryKind
from durable_core.ports import Batch
from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from sagas import SagaDef, StepInfo
from tests.kit import DEADLINE_S, Call, World, orchestrator, state

Side = Literal["before", "after"]


class MortalStore(MemoryStore):
    """A memory store whose process dies right before or right after its n-th commit; nothing is said to anybody."""

    def __init__(self, data: MemoryData, death: asyncio.Event, *, at: int, side: Side) -> None:
        super().__init__(data)
        self._death = death
        self._left = at
        self._side = side
        self._write = self.journal.commit
        self.journal.commit = self._commit_or_die  # type: ignore[method-assign]

    async def _commit_or_die(self, batch: Batch) -> frozenset[int]:
        self._left -= 1
        if self._left:
            return await self._write(batch)
        if self._side == "after":
            await self._write(batch)
        self.crash()
        self._death.set()
        await asyncio.Event().wait()
        raise AssertionError


@attrs.define
class Moment:
    """When a process dies: at a commit, or in a step (or its compensation) before or after its effect."""

    side: Side
    commit: int = 0
    step: str = ""
    compensating: bool = False
    times: int = 1
    """In a step: how many processes die there."""


def live(
    data: MemoryData,
    world: World,
    start: Callable[[Any], Any],
    *sagas: SagaDef[..., Any],
    death: Moment | None = None,
    **options: Any,
) -> Any:
    """One process on ``data``, with an event loop of its own: what ``start`` gives, or None where it died."""

    async def main() -> Any:
        died = asyncio.Event()
        store = (
            MemoryStore(data)
            if death is None or not death.commit
            else MortalStore(data, died, at=death.commit, side=death.side)
        )

        async def die(info: StepInfo) -> None:
            if death is not None and death.times and (info.step, info.compensating) == (death.step, death.compensating):
                death.times -= 1
                store.crash()
                died.set()
                await asyncio.Event().wait()

        world.before = die if death is not None and death.side == "before" else None
        world.after = die if death is not None and death.side == "after" else None
        return await lived(store, died, start, *sagas, resources=[world], **options)

    return asyncio.run(main())


async def lived(
    store: MemoryStore, died: asyncio.Event, start: Callable[[Any], Any], *sagas: SagaDef[..., Any], **options: Any
) -> Any:
    """What ``start`` gives in this process; None as soon as it has ``died``, and nothing of it runs on."""
    running = orchestrator(store, *sagas, **options)

    async def work() -> Any:
        await running.__aenter__()
        return await start(running)

    working, dying = asyncio.create_task(work()), asyncio.create_task(died.wait())
    done, _ = await asyncio.wait({working, dying}, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
    if died.is_set():
        await nothing_runs_on()
        return None
    dying.cancel()
    if working in done:
        await running.__aexit__(None, None, None)
        return working.result()
    raise AssertionError(f"nothing happens any more:\n{await state(running)}")


async def nothing_runs_on() -> None:
    """This process is dead: no timer of it rings, and every task of it ends, also one that is made meanwhile."""
    loop: Any = asyncio.get_running_loop()
    loop.call_at = loop.call_later = lambda *_, **__: asyncio.Handle(lambda: None, (), loop)
    own = asyncio.current_task()
    while left := [task for task in asyncio.all_tasks() if task is not own]:
        for task in left:
            task.cancel()
        await asyncio.wait(left)
    del loop.call_at, loop.call_later


def succeeded(data: MemoryData, info: StepInfo) -> bool:
    """Whether the success of a step or compensation is on disk."""
    num = data.nums[info.saga_id]
    key = f"{info.step}~undo" if info.compensating else info.step
    store = MemoryStore(data)

    async def entries() -> Any:
        await store.open(worker=None)
        found = await store.journal.load([num])
        store.crash()  # it has looked, and leaves nothing to be looked at
        return found[num]

    coroutine = entries()
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return any(entry.kind == EntryKind.SUCCEEDED and entry.key == key for entry in stop.value)
    raise AssertionError("the memory store answers at once")


@attrs.define
class Auditor(World):
    """A world that checks at each call that it was still to be made."""

    data: MemoryData = attrs.field(factory=MemoryData)

    async def act(self, party: str = "", about: Any = None) -> Call:
        call = await super().act(party, about)
        assert not succeeded(self.data, call), f"{call.step} was called although its success is on disk"
        return call
