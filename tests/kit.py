"""One kit for the tests: a world outside the store, participants that act in it, places for sagas, and deadlines.

Invariants: an effect takes place once for an idempotency key, right before the call that brought it about returns; and
nothing here waits without a deadline: one that passes fails the test and prints the journal of every saga in the store.
"""

import asyncio
import inspect
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import attrs

from durable_core.ports import Store
from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from durable_core.stores.postgres.store import PostgresStore
from sagas import (
    DidNotHappen,
    Happened,
    Orchestrator,
    Pivot,
    Retry,
    Saga,
    SagaCompensated,
    SagaDef,
    SagaHandle,
    SagaInfo,
    SagaStuck,
    Step,
    StepInfo,
    Unknown,
    current,
    lookup,
    pivot,
    resource,
    saga,
    step,
)
from tests.postgres_server import crash

DEADLINE_S = 30.0
"""Longer than any of these sagas takes on a busy machine; a saga that hangs fails its test after this time."""
ENDS = ("completed", "compensated", "resolved", "killed")
ONCE = Retry(attempts=1)
PROMPT = Retry(attempts=3, first=0, jitter=False)
Role = Literal["step", "undo", "probe"]
Undo = Literal["plain", "blind", "none"]
Hook = Callable[["Call"], Coroutine[Any, Any, None]]
Play = Exception | str | None | Callable[[], Any]

# -- what participants answer ------------------------------------------------------------------------------------------


class Refused(Exception):
    """The participant's own answer: no."""


class Rejected(Exception):
    """The same; its constructor takes two arguments, of which ``args`` holds one text."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code
        self.why = why


class Broken(Exception):
    """The participant fails before anything has happened; another attempt may help."""


class BodyFailed(Exception):
    """Raised by a body of its own accord."""


# -- the world outside -------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Call(StepInfo):
    """One call of a step, of its compensation or of its probe."""

    party: str = ""
    """Who is called, where that is not told by the step's key."""
    about: Any = None

    @classmethod
    def here(cls, party: str = "", about: Any = None) -> "Call":
        """The call that runs here."""
        return cls(**attrs.asdict(current()), party=party, about=about)

    @property
    def role(self) -> Role:
        return "step" if self.forward_key is None else "undo" if self.compensating else "probe"

    @property
    def key(self) -> str:
        """The idempotency key of the step that it is, or serves."""
        return self.forward_key or self.idempotency_key

    @property
    def name(self) -> str:
        """The party, else the step's key."""
        return self.party or self.step

    @property
    def what(self) -> str:
        """``charge``, ``undo charge``, ``probe charge``."""
        return self.name if self.role == "step" else f"{self.role} {self.name}"


@attrs.define
class Gate:
    """Holds calls up before their effect until the test opens it; on the loop and on threads."""

    entered: asyncio.Event = attrs.field(factory=asyncio.Event)
    opened: asyncio.Event = attrs.field(factory=asyncio.Event)
    thread: threading.Event = attrs.field(factory=threading.Event)
    loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop)
    times: int = 0
    """How many calls have come so far."""

    def open(self) -> None:
        """Let everybody through, from now on."""
        self.opened.set()
        self.thread.set()


@attrs.define
class World:
    """What the calls did, by idempotency key, and what the test has told them to do; it outlives any crash."""

    calls: list[Call] = attrs.field(factory=list[Call])
    """Every call that has begun, also those without effect."""
    log: list[str] = attrs.field(factory=list[str])
    """What took effect, in order: ``hotel``, ``undo hotel``."""
    live: dict[str, Call] = attrs.field(factory=dict[str, Call])
    """Effects that are in force, by the step's idempotency key."""
    gone: list[Call] = attrs.field(factory=list[Call])
    """The calls whose effects were taken back, in that order."""
    timeline: list[str] = attrs.field(factory=list[str])
    """``begin charge``, ``end charge``, in order; of all sagas, so a test that reads it has one."""
    under_way: list[Call] = attrs.field(factory=list[Call])
    most: int = 0
    """The most calls that were under way at the same time."""
    beside: list[str] = attrs.field(factory=list[str])
    """Calls that began while another one about the same step had not returned."""
    torn: list[str] = attrs.field(factory=list[str])
    """Calls that were thrown away by the garbage collector."""
    plans: dict[str, list[str]] = attrs.field(factory=dict[str, list[str]])
    """What the next calls do: ok, refused, broken, lost (no effect, no answer), silent (effect, no answer)."""
    gates: dict[str, Gate] = attrs.field(factory=dict[str, Gate])
    before: Hook | None = None
    """Called at the beginning of each call, before its effect."""
    after: Hook | None = None
    """Called right after the effect, before the call returns."""
    tokens: list[str] = attrs.field(factory=list[str])
    """The tokens of callbacks that were handed out."""

    # -- what the test tells -------------------------------------------------------------------------------------------

    def plan(self, what: str, *does: str) -> "World":
        """Have the next calls of ``what`` (``undo hotel``) do so; the last of it for ever after."""
        self.plans[what] = list(does)
        return self

    def gate(self, what: str) -> Gate:
        """Hold calls of ``what`` up before their effect."""
        return self.gates.setdefault(what, Gate())

    # -- what the test asks --------------------------------------------------------------------------------------------

    @property
    def undone(self) -> list[str]:
        """What was taken back, in order."""
        return [call.name for call in self.gone]

    @property
    def taken_back(self) -> list[Any]:
        """What that was about."""
        return [call.about for call in self.gone]

    def kept(self) -> list[str]:
        """What is in force, by name."""
        return sorted(call.name for call in self.live.values())

    def count(self, what: str) -> int:
        """How often ``what`` was called."""
        return [call.what for call in self.calls].count(what)

    def called(self, *, compensating: bool = False) -> Counter[str]:
        """How often each step was called, by step key; or its compensation."""
        return Counter(call.step for call in self.calls if call.compensating is compensating)

    def keys(self) -> dict[tuple[str, str, bool], set[str]]:
        """The idempotency keys that each step of each saga was called with."""
        found: dict[tuple[str, str, bool], set[str]] = {}
        for call in self.calls:
            found.setdefault((call.saga_id, call.step, call.compensating), set()).add(call.idempotency_key)
        return found

    # -- what the participants do --------------------------------------------------------------------------------------

    def note(self, party: str = "", about: Any = None) -> Call:
        """Write the call that runs here down; it is left to the caller what it does."""
        call = Call.here(party, about)
        self.calls.append(call)
        return call

    @contextmanager
    def watched(self, party: str = "", about: Any = None) -> Generator[Call]:
        """Watch the call that runs here from its begin to its end."""
        call = self.note(party, about)
        self.beside += [
            f"{call.what} #{call.attempt} of {call.saga_id} began beside {other.what} #{other.attempt}"
            for other in self.under_way
            if (other.saga_id, other.key) == (call.saga_id, call.key)
        ]
        self.timeline.append(f"begin {call.what}")
        self.under_way.append(call)
        self.most = max(self.most, len(self.under_way))
        try:
            yield call
        except GeneratorExit:
            self.torn.append(call.what)
            raise
        finally:
            self.under_way.remove(call)
            self.timeline.append(f"end {call.what}")

    async def act(self, party: str = "", about: Any = None) -> Call:
        """The participant's part in the call that runs here, on the loop."""
        with self.watched(party, about) as call:
            if self.before is not None:
                await self.before(call)
            gate = self.gates.get(call.what)
            if gate is not None:
                gate.times += 1
                gate.entered.set()
                await gate.opened.wait()
            else:
                await asyncio.sleep(0)  # others get their turn amid the call
            self._play(call)
            if self.after is not None:
                await self.after(call)
        return call

    def act_on_thread(self) -> None:
        """The participant's part in the call that runs here, on a thread."""
        with self.watched() as call:
            gate = self.gates.get(call.what)
            if gate is not None:
                gate.times += 1
                gate.loop.call_soon_threadsafe(gate.entered.set)
                gate.thread.wait()
            self._play(call)

    def _play(self, call: Call) -> None:
        does = self.planned(call.what)
        if does == "refused":
            raise Refused(call.what)
        if does == "broken":
            raise Broken(call.what)
        if does != "lost":
            self.effect(call)
        if does in ("lost", "silent"):
            raise TimeoutError(f"{call.what}: no answer")

    def planned(self, what: str) -> str:
        """What the next call of ``what`` does."""
        plan = self.plans.get(what, ["ok"])
        return plan.pop(0) if len(plan) > 1 else plan[0]

    def effect(self, call: Call) -> None:
        """The effect of a step takes place, or is taken back; twice under one key is once."""
        if call.role == "step" and call.key not in self.live:
            self.live[call.key] = call
            self.log.append(call.what)
        elif call.role == "undo" and (done := self.live.pop(call.key, None)) is not None:
            self.gone.append(done)
            self.log.append(call.what)

    def known(self) -> Call | None:
        """What the participant knows of the step that is probed here."""
        return self.live.get(current().forward_key or "")


# -- steps -------------------------------------------------------------------------------------------------------------


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
            await world.act(name)
    else:

        @act.compensate(retry=undo_retry)
        async def undo(done: str, about: str, *, world: World = resource()) -> None:
            assert done == about, "a compensation gets its own step's result and arguments"
            await world.act(name)

    if settled_by == "probe":
        act.probe(retry=PROMPT)(_ask)
    return act


def point_of_no_return(name: str, *, retry: Retry = ONCE, probed: bool = False) -> Pivot[[str], str]:
    """The pivot at the party ``name``."""

    @pivot(name=name, rejects=(Refused,), retry=retry)
    async def act(about: str, *, world: World = resource()) -> str:
        await world.act(name, about)
        return about

    if probed:
        act.probe(retry=PROMPT)(_ask)
    return act


async def _ask(about: str, *, world: World = resource()) -> Happened[str] | DidNotHappen:
    return DidNotHappen() if world.known() is None else Happened(about)


def watched(name: str, *, at: Any = step, undo: Undo = "plain", **options: Any) -> Any:
    """A step of kind ``at`` without arguments; ``blind``: its compensation admits ``Unknown``."""
    if at is step:
        options.setdefault("rejects", (Refused,))
        if undo == "none":
            options |= {"compensation": None, "because": "a mail cannot be taken back"}

    @at(name=name, **options)
    async def acted(*, world: World = resource()) -> str:
        await world.act()
        return name

    return _undone(acted, undo) if at is step else acted


def watched_on_thread(name: str, *, undo: Undo = "plain", **options: Any) -> Any:
    """The same as a plain function; its compensation runs on the loop."""

    @step(name=name, **options)
    def acted(*, world: World = resource()) -> str:
        world.act_on_thread()
        return name

    return _undone(acted, undo)


def _undone(acted: Any, undo: Undo) -> Any:
    if undo == "plain":

        @acted.compensate(retry=ONCE)
        async def take_back(_: str, *, world: World = resource()) -> None:
            await world.act()

    elif undo == "blind":

        @acted.compensate(retry=ONCE)
        async def take_back_or_fence(_: str | Unknown, *, world: World = resource()) -> None:
            await world.act()

    return acted


class Script:
    """What the calls of one participant do, one after the other; the last play is repeated."""

    def __init__(self, plays: tuple[Play, ...]) -> None:
        self.plays = list(plays) or [None]

    async def next(self) -> Any:
        """Play the next part: raise it, return it, or call it."""
        play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
        if callable(play):
            play = play()
            if asyncio.iscoroutine(play):
                play = await play
        if isinstance(play, Exception):
            raise play
        return play


def act(log: list[str], name: str, *plays: Play, at: Any = step, undo: Any = (), **options: Any) -> Any:
    """A step `name` that writes itself into the log at each attempt, then plays its part; so does its undoing."""
    script = Script(plays)

    async def doing(note: str = "") -> str:
        log.append(f"{name} {note}".strip())
        return await script.next() or f"{name} done"

    made = at(name=name, **options)(doing)
    if at is step and "compensation" not in options and undo is not False:
        undoing = Script(undo if isinstance(undo, tuple) else (undo,))

        async def undo_it(result: str) -> None:
            log.append(f"undo {name}")
            await undoing.next()

        made.compensate(retry=1)(undo_it)
    return made


def never() -> Any:
    """A part that never ends by itself."""
    return asyncio.Event().wait()


# -- processes ---------------------------------------------------------------------------------------------------------


def orchestrator(store: Store | str, *sagas: SagaDef[..., Any], **options: Any) -> Orchestrator:
    """An orchestrator on a store or an address, whose leaving does not wait long for what hangs."""
    kept: dict[str, Any] = {"url": store} if isinstance(store, str) else {"store": store}
    return Orchestrator(sagas=sagas, **{"grace": 1, **kept, **options})


@attrs.frozen
class Place:
    """Where sagas are kept, whichever process drives them."""

    url: str
    data: MemoryData | None = None
    """In memory: what outlives each process."""

    @property
    def store(self) -> Store | str:
        """The store of a new process, or its address."""
        return self.url if self.data is None else MemoryStore(self.data)

    def orchestrator(
        self, *sagas: SagaDef[..., Any], world: Any = None, resources: Sequence[object] = (), **options: Any
    ) -> Orchestrator:
        """A new process on these sagas; it knows no parties where ``world`` is None."""
        known = [*([] if world is None else [world]), *resources]
        return orchestrator(self.store, *sagas, resources=known, **{"grace": 2, **options})

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
    place: Place, sagas: Sequence[SagaDef[..., Any]], world: World, **options: Any
) -> AsyncGenerator[tuple[Orchestrator, Orchestrator]]:
    """A worker, and a process beside it that only tells."""
    async with (
        place.orchestrator(*sagas, world=world, **options) as worker,
        place.orchestrator(*sagas, world=world, worker=False, **options) as desk,
    ):
        try:
            yield worker, desk
        finally:
            for gate in world.gates.values():
                gate.open()


async def interrupted(data: MemoryData, saga: SagaDef[..., Any], step: str, world: World, *args: Any) -> None:
    """Start a saga as ``one`` in a process that dies when it calls ``step``, before that has any effect."""
    async with Place("memory://", data).dying(saga, world=world) as running:
        await running.start(saga, *args, id="one")
        await entered(world.gate(step), running)
    del world.gates[step]


@asynccontextmanager
async def looking_away(running: Orchestrator) -> AsyncGenerator[None]:
    """Within the block the worker's regular look at the store does not end, so nothing from outside reaches it so."""
    store: Any = running.engine.store
    look, back = store.changed, asyncio.Event()

    async def held_up() -> bool:
        await back.wait()
        return bool(await look())

    store.changed = held_up
    try:
        yield
    finally:
        back.set()
        store.changed = look


# -- waiting -----------------------------------------------------------------------------------------------------------


async def within(
    awaited: Coroutine[Any, Any, Any], running: Orchestrator | None = None, *, deadline_s: float = DEADLINE_S
) -> Any:
    """What ``awaited`` gives; after the deadline an AssertionError that tells how every saga stands."""
    try:
        return await asyncio.wait_for(awaited, deadline_s)
    except TimeoutError:
        stands = "" if running is None else await state(running)
        raise AssertionError(f"nothing happens any more:\n{stands}") from None


async def until(condition: Callable[[], Any], running: Orchestrator | None = None) -> None:
    """Wait until ``condition`` holds, asking (or awaiting) it again whenever other tasks have had their turn."""

    async def ask() -> None:
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.002)

    await within(ask(), running)


async def state(running: Orchestrator) -> str:
    """Every saga in the store with its journal, for a message."""
    lines: list[str] = []
    for info in await running.list():
        lines.append(f"{info.id}: {info.status}, wakes {info.wake_at}, reason {info.reason}")
        history = await (await running.get(info.id)).history()
        lines += [f"  {entry.seq} {entry.kind} {entry.key} #{entry.attempt} {entry.detail}" for entry in history]
    return "\n".join(lines)


async def entered(gate: Gate, running: Orchestrator) -> None:
    """Wait until the party is being called."""
    await until(gate.entered.is_set, running)


async def begun(handle: SagaHandle[Any], running: Orchestrator, key: str, *statuses: str) -> None:
    """Wait until the step, sleep or child at ``key`` has begun, or has one of ``statuses``."""

    async def there() -> bool:
        states = steps(await handle.info())
        return states.get(key) in statuses if statuses else key in states

    await until(there, running)


async def journalled(handle: SagaHandle[Any], running: Orchestrator, kind: str, *, times: int = 1) -> None:
    """Wait until the saga's journal holds so many entries of ``kind``."""

    async def there() -> bool:
        return [entry.kind for entry in await handle.history()].count(kind) >= times

    await until(there, running)


async def reaches(handle: SagaHandle[Any], running: Orchestrator | None, *statuses: str) -> SagaInfo:
    """Wait until the saga has one of ``statuses``; its info then."""
    info = await handle.info()

    async def there() -> bool:
        nonlocal info
        info = await handle.info()
        return info.status in statuses

    await until(there, running)
    return info


async def settled(handle: SagaHandle[Any], *statuses: str) -> SagaInfo:
    """The saga's info once it has one of these statuses: any end, or stuck, where none is named."""
    return await reaches(handle, None, *(statuses or (*ENDS, "stuck")))


def steps(info: SagaInfo) -> dict[str, str]:
    """The status of each step of a saga by its key."""
    return {state.key: str(state.status) for state in info.steps}


@lookup
async def ring() -> None: ...


@saga("bell", version=1)
async def bell(s: Saga) -> None:
    await s.run(ring)


async def rung(running: Orchestrator, *, times: int = 3) -> None:
    """Return once as many sagas, started here one after the other, have run from their start to their end.

    Whoever serves them has by then looked as often at what came from outside, and has had as many turns to act on it.
    """
    for _ in range(times):
        handle = await running.start(bell)
        await within(handle.result(), running)


# -- ends --------------------------------------------------------------------------------------------------------------


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


async def end_of(handle: SagaHandle[Any], running: Orchestrator, *, deadline_s: float = DEADLINE_S) -> End:
    """How the saga ends, or what it is stuck on."""
    try:
        value = await within(handle.result(), running, deadline_s=deadline_s)
    except SagaCompensated as compensated:
        return End(compensated.status, None, told(compensated.__cause__), tuple(compensated.compensated))
    except SagaStuck as stuck:
        return End("stuck", None, (stuck.reason, stuck.steps))
    return End("completed", value)


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


def play(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run one test."""
    asyncio.run(main())
