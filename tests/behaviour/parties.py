"""The parties of the acceptance tests: what they do is written into a world outside the store, by idempotency key.

Invariant: a party keeps its promises (one effect for a key, however often it is called), so that whatever is live in
the world after a saga has ended is the saga's doing.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs

from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from durable_core.stores.postgres.store import PostgresStore
from sagas import (
    DidNotHappen,
    Happened,
    Orchestrator,
    Pivot,
    Retry,
    SagaDef,
    SagaHandle,
    Step,
    StepInfo,
    Unknown,
    current,
    pivot,
    resource,
    step,
)
from tests.postgres_server import crash
from tests.sagas_for_tests import until
from tests.watching import Watch

ONCE = Retry(attempts=1)
PROMPT = Retry(attempts=3, first=0, jitter=False)


class Refused(Exception):
    """The party's own answer: no."""


class Broken(Exception):
    """The party fails before anything has happened."""


@attrs.frozen
class Effect:
    """Something that a party did."""

    what: str
    about: Any


@attrs.define
class Gate:
    """Holds a party up until the test opens it."""

    entered: asyncio.Event = attrs.field(factory=asyncio.Event)
    opened: asyncio.Event = attrs.field(factory=asyncio.Event)


@attrs.define
class World:
    """All parties, their effects, and what the test has told them to do."""

    live: dict[str, Effect] = attrs.field(factory=dict[str, Effect])
    """Effects that are in force, by the idempotency key of the step."""
    log: list[str] = attrs.field(factory=list[str])
    """What took effect, in order: ``hotel``, ``undo hotel``."""
    taken_back: list[Any] = attrs.field(factory=list[Any])
    """What the effects were about that were taken back, in order."""
    calls: list[tuple[str, StepInfo]] = attrs.field(factory=list[tuple[str, StepInfo]])
    """Every call, also those without effect."""
    plans: dict[str, list[str]] = attrs.field(factory=dict[str, list[str]])
    """What its next calls do: ok, refused, broken, lost (no effect, no answer), silent (effect, no answer)."""
    gates: dict[str, Gate] = attrs.field(factory=dict[str, Gate])
    """Parties that are held up before their effect."""
    together: int = 0
    """Calls under way."""
    most: int = 0
    """The most calls that were under way at the same time."""

    def plan(self, what: str, *does: str) -> "World":
        """Have the next calls of ``what`` (``undo hotel`` for a compensation) do so; the last of it for ever after."""
        self.plans[what] = list(does)
        return self

    def gate(self, what: str) -> Gate:
        """Hold ``what`` up before its effect."""
        return self.gates.setdefault(what, Gate())

    def kept(self) -> list[str]:
        """What is in force, by name."""
        return sorted(effect.what for effect in self.live.values())

    def count(self, what: str) -> int:
        """How often ``what`` was called."""
        return len([name for name, _ in self.calls if name == what])

    async def act(self, what: str, about: Any = None) -> None:
        """The party's part in the step that runs here."""
        info = current()
        await self._call(what, info, lambda: self._took_effect(what, about, info))

    async def undo(self, what: str) -> None:
        """The party takes back what it did in the step that is compensated here."""
        info = current()
        assert info.compensating
        await self._call(f"undo {what}", info, lambda: self._taken_back(what, info))

    def known(self) -> Effect | None:
        """What the party knows of the step that is probed here."""
        return self.live.get(current().forward_key or "")

    async def _call(self, what: str, info: StepInfo, effect: Callable[[], None]) -> None:
        self.calls.append((what, info))
        self.together += 1
        self.most = max(self.most, self.together)
        try:
            gate = self.gates.get(what)
            if gate is not None:
                gate.entered.set()
                await gate.opened.wait()
            await asyncio.sleep(0)  # others get their turn amid the call
            match self._next(what):
                case "refused":
                    raise Refused(what)
                case "broken":
                    raise Broken(what)
                case "lost":
                    raise TimeoutError(f"{what}: no answer")
                case "silent":
                    effect()
                    raise TimeoutError(f"{what}: no answer")
                case _:
                    effect()
        finally:
            self.together -= 1

    def _next(self, what: str) -> str:
        plan = self.plans.get(what, ["ok"])
        return plan.pop(0) if len(plan) > 1 else plan[0]

    def _took_effect(self, what: str, about: Any, info: StepInfo) -> None:
        if info.idempotency_key not in self.live:
            self.live[info.idempotency_key] = Effect(what, about)
            self.log.append(what)

    def _taken_back(self, what: str, info: StepInfo) -> None:
        assert info.forward_key is not None
        effect = self.live.pop(info.forward_key, None)
        if effect is not None:
            self.log.append(f"undo {what}")
            self.taken_back.append(effect.about)


# -- steps ----------------------------------------------------------------------------------------------------------


def party(name: str, *, retry: Retry = ONCE, undo_retry: Retry = ONCE, settled_by: str = "") -> Step[[str], str]:
    """A step of the party ``name``; settled by ``probe``, ``undo`` (a compensation that admits Unknown) or nobody."""

    @step(name=name, rejects=(Refused,), retry=retry)
    async def act(about: str, *, world: World = resource()) -> str:
        await world.act(name, about)
        return about

    if settled_by == "undo":

        @act.compensate(retry=undo_retry)
        async def undo_or_fence(done: str | Unknown, about: str, *, world: World = resource()) -> None:
            assert done in (about, Unknown())
            await world.undo(name)
    else:

        @act.compensate(retry=undo_retry)
        async def undo(done: str, about: str, *, world: World = resource()) -> None:
            assert done == about, "a compensation gets its own step's result and arguments"
            await world.undo(name)

    if settled_by == "probe":

        @act.probe(retry=PROMPT)
        async def probe(about: str, *, world: World = resource()) -> Happened[str] | DidNotHappen:
            return DidNotHappen() if world.known() is None else Happened(about)

    return act


def point_of_no_return(name: str, *, retry: Retry = ONCE, probed: bool = False) -> Pivot[[str], str]:
    """The pivot at the party ``name``."""

    @pivot(name=name, rejects=(Refused,), retry=retry)
    async def act(about: str, *, world: World = resource()) -> str:
        await world.act(name, about)
        return about

    if probed:

        @act.probe(retry=PROMPT)
        async def probe(about: str, *, world: World = resource()) -> Happened[str] | DidNotHappen:
            return DidNotHappen() if world.known() is None else Happened(about)

    return act


# -- processes ------------------------------------------------------------------------------------------------------


@attrs.frozen
class Place:
    """Where sagas are kept, whichever process drives them."""

    url: str
    data: MemoryData | None

    def orchestrator(
        self, *sagas: SagaDef[..., Any], world: World | None, resources: Sequence[object] = (), **options: Any
    ) -> Orchestrator:
        """A new process on these sagas; it knows no parties where ``world`` is None."""
        known = [*([] if world is None else [world]), *resources]
        made = Orchestrator(self.url, sagas=sagas, resources=known, **{"grace": 2, **options})
        if self.data is not None:
            made.engine.store = MemoryStore(self.data)
        return made

    @asynccontextmanager
    async def dying(self, *sagas: SagaDef[..., Any], world: World, **options: Any) -> AsyncGenerator[Orchestrator]:
        """A process that dies at the end of the block: nothing of it runs on, nothing more is written."""
        before = asyncio.all_tasks()
        running = self.orchestrator(*sagas, world=world, **options)
        await running.__aenter__()
        try:
            yield running
        finally:
            store = running.engine.store
            if isinstance(store, PostgresStore):
                crash(store)
            else:
                store.crash()  # type: ignore[attr-defined]  # all stores can, for tests
            left = asyncio.all_tasks() - before
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


@asynccontextmanager
async def working(
    place: Place, sagas: Sequence[SagaDef[..., Any]], watch: Watch, **options: Any
) -> AsyncGenerator[tuple[Orchestrator, Orchestrator]]:
    """A worker, and a process beside it that only tells."""
    async with (
        place.orchestrator(*sagas, world=watch, **options) as worker,
        place.orchestrator(*sagas, world=watch, worker=False, **options) as desk,
    ):
        try:
            yield worker, desk
        finally:
            for gate in watch.gates.values():
                gate.open()


async def entered(gate: Gate, running: Orchestrator) -> None:
    """Wait until the party is being called."""

    async def there() -> bool:
        return gate.entered.is_set()

    await until(there, running)


async def begun(handle: SagaHandle[Any], running: Orchestrator, key: str, *statuses: str) -> None:
    """Wait until the step, sleep or child at ``key`` has begun, or has one of ``statuses``."""

    async def there() -> bool:
        states = {state.key: state.status for state in (await handle.info()).steps}
        return states.get(key) in statuses if statuses else key in states

    await until(there, running)


def play(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run one test."""
    asyncio.run(main())
