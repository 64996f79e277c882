"""What the tests of sagas share: a world outside the store that remembers effects, ends to compare, and deadlines.

Invariant: nothing here waits without a deadline; one that passes prints the journal of every saga in the store.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import attrs

from durable_core.ports import Store
from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from sagas import Orchestrator, SagaCompensated, SagaDef, SagaHandle, SagaInfo, SagaStuck, StepInfo, current

DEADLINE_S = 30.0
"""Longer than any of these sagas takes on a busy machine; a saga that hangs fails its test after this time."""


class Rejected(Exception):
    """A participant's own answer; its constructor takes two arguments, of which ``args`` holds one text."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code
        self.why = why


class Flaky(Exception):
    """Nothing happened; another attempt may help."""


class BodyFailed(Exception):
    """Raised by a body of its own accord."""


@attrs.define
class World:
    """What the steps did to the world, by idempotency key: kept outside the store, so that it outlives any crash."""

    calls: list[StepInfo] = attrs.field(factory=list[StepInfo])
    """Every call of a step, compensation or probe, in order."""
    live: dict[str, str] = attrs.field(factory=dict[str, str])
    """Effects that took place and are not undone: step key by idempotency key."""
    undone: list[str] = attrs.field(factory=list[str])
    """Keys of the steps whose compensation took effect, in order."""
    before: Callable[[StepInfo], Coroutine[Any, Any, None]] | None = None
    """Called at the beginning of each call, before its effect."""
    after: Callable[[StepInfo], Coroutine[Any, Any, None]] | None = None
    """Called right after the effect, before the call returns."""

    async def effect(self) -> StepInfo:
        """The effect of the step or compensation that runs here; twice under one key is once."""
        info = current()
        self.calls.append(info)
        if self.before is not None:
            await self.before(info)
        if info.compensating:
            assert info.forward_key is not None
            if self.live.pop(info.forward_key, None) is not None:
                self.undone.append(info.step)
        else:
            self.live[info.idempotency_key] = info.step
        if self.after is not None:
            await self.after(info)
        return info

    def called(self, *, compensating: bool = False) -> Counter[str]:
        """How often each step was called, by step key; or its compensation."""
        return Counter(info.step for info in self.calls if info.compensating is compensating)

    def keys(self) -> dict[tuple[str, str, bool], set[str]]:
        """The idempotency keys that each step of each saga was called with."""
        found: dict[tuple[str, str, bool], set[str]] = {}
        for info in self.calls:
            found.setdefault((info.saga_id, info.step, info.compensating), set()).add(info.idempotency_key)
        return found


@attrs.frozen
class End:
    """How a saga ended, in a form that can be compared."""

    status: str
    value: Any = None
    error: tuple[Any, ...] = ()
    """Class, args and attributes of what left the body."""
    undone: tuple[str, ...] = ()


def told(error: BaseException | None) -> tuple[Any, ...]:
    """An exception in a form that can be compared."""
    return () if error is None else (type(error), error.args, dict(vars(error)))


def orchestrator(store: Store | str, *sagas: SagaDef[..., Any], **options: Any) -> Orchestrator:
    """An orchestrator on a store or an address, whose leaving does not wait long for what hangs."""
    made = Orchestrator(store if isinstance(store, str) else "memory://", sagas=sagas, **{"grace": 1, **options})
    if not isinstance(store, str):
        made.engine.store = store
    return made


async def within(awaited: Coroutine[Any, Any, Any], running: Orchestrator, *, deadline_s: float = DEADLINE_S) -> Any:
    """What ``awaited`` gives; after the deadline an AssertionError that tells how every saga stands."""
    try:
        return await asyncio.wait_for(awaited, deadline_s)
    except TimeoutError:
        raise AssertionError(f"nothing happens any more:\n{await state(running)}") from None


async def state(running: Orchestrator) -> str:
    """Every saga in the store with its journal, for a message."""
    lines: list[str] = []
    for info in await running.list():
        lines.append(f"{info.id}: {info.status}, wakes {info.wake_at}, reason {info.reason}")
        history = await (await running.get(info.id)).history()
        lines += [f"  {entry.seq} {entry.kind} {entry.key} #{entry.attempt} {entry.detail}" for entry in history]
    return "\n".join(lines)


async def end_of(handle: SagaHandle[Any], running: Orchestrator, *, deadline_s: float = DEADLINE_S) -> End:
    """How the saga ends, or what it is stuck on."""
    try:
        value = await within(handle.result(), running, deadline_s=deadline_s)
    except SagaCompensated as compensated:
        return End(compensated.status, None, told(compensated.__cause__), tuple(compensated.compensated))
    except SagaStuck as stuck:
        return End("stuck", None, (stuck.reason, stuck.steps))
    return End("completed", value)


async def until(condition: Callable[[], Coroutine[Any, Any, bool]], running: Orchestrator) -> None:
    """Wait until ``condition`` holds, asking it again whenever other tasks have had their turn."""

    async def ask() -> None:
        while not await condition():  # noqa: ASYNC110 - another process may make it true
            await asyncio.sleep(0.002)

    await within(ask(), running)


async def journalled(handle: SagaHandle[Any], running: Orchestrator, kind: str, *, times: int = 1) -> None:
    """Wait until the saga's journal holds so many entries of ``kind``."""

    async def there() -> bool:
        return [entry.kind for entry in await handle.history()].count(kind) >= times

    await until(there, running)


async def reaches(handle: SagaHandle[Any], running: Orchestrator, *statuses: str) -> SagaInfo:
    """Wait until the saga has one of ``statuses``; its info then."""

    async def there() -> bool:
        return (await handle.info()).status in statuses

    await until(there, running)
    return await handle.info()


def alone(
    saga: SagaDef[..., Any], *args: Any, resources: Sequence[object] = (), **options: Any
) -> tuple[End, SagaInfo]:
    """Run one saga on a store of its own: how it ended, and its info."""

    async def main() -> tuple[End, SagaInfo]:
        async with orchestrator("memory://", saga, resources=resources, **options) as running:
            handle = await running.start(saga, *args, id="one")
            end = await end_of(handle, running)
            return end, await handle.info()

    return asyncio.run(main())


async def interrupted(data: MemoryData, saga: SagaDef[..., Any], step: str, world: World, *args: Any) -> None:
    """Start a saga as ``one`` in a process that dies when it calls ``step``, before that has any effect."""
    called = asyncio.Event()

    async def die(info: StepInfo) -> None:
        if info.step == step:
            called.set()
            await asyncio.Event().wait()

    world.before = die
    store = MemoryStore(data)
    running = orchestrator(store, saga, resources=[world])
    others = asyncio.all_tasks()
    await running.__aenter__()
    await running.start(saga, *args, id="one")
    await within(called.wait(), running)
    store.crash()
    world.before = None
    for task in asyncio.all_tasks() - others:
        task.cancel()
