"""A world outside that watches calls begin and end, so that a test can say what ran when, and what ran beside what.

Invariant: an effect takes place once for an idempotency key, right before the call that brought it about returns.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import attrs

from sagas import Orchestrator, Retry, Saga, StepInfo, Unknown, current, lookup, resource, saga, step
from tests.sagas_for_tests import within

ONCE = Retry(attempts=1)
Role = Literal["step", "undo", "probe"]


class Refused(Exception):
    """The participant's own answer: no."""


class Broken(Exception):
    """The participant fails before anything has happened."""


@attrs.frozen
class Call:
    """One call of a step, of its compensation or of its probe."""

    saga: str
    step: str
    role: Role
    attempt: int
    key: str
    """The idempotency key of the step that it is, or serves."""

    @classmethod
    def here(cls) -> "Call":
        """The call that runs here."""
        info: StepInfo = current()
        role: Role = "step" if info.forward_key is None else "undo" if info.compensating else "probe"
        return cls(info.saga_id, info.step, role, info.attempt, info.forward_key or info.idempotency_key)

    @property
    def what(self) -> str:
        """``charge``, ``undo charge``, ``probe charge``."""
        return self.step if self.role == "step" else f"{self.role} {self.step}"


@attrs.define
class Gate:
    """Holds a call up before its effect until the test opens it; on the loop and on threads."""

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
class Watch:
    """What the calls did, in order."""

    log: list[str] = attrs.field(factory=list[str])
    """``begin charge``, ``end charge``, in order; of all sagas, so a test that reads it has one."""
    calls: list[Call] = attrs.field(factory=list[Call])
    """Every call that has begun."""
    under_way: list[Call] = attrs.field(factory=list[Call])
    beside: list[str] = attrs.field(factory=list[str])
    """Calls that began while another one about the same step had not returned."""
    live: dict[str, Call] = attrs.field(factory=dict[str, Call])
    """Effects that are in force, by the step's idempotency key."""
    undone: list[str] = attrs.field(factory=list[str])
    """Steps whose effect was taken back, in order."""
    plans: dict[str, list[str]] = attrs.field(factory=dict[str, list[str]])
    """What the next calls do: ok, refused, broken, lost (no effect, no answer), silent (effect, no answer)."""
    gates: dict[str, Gate] = attrs.field(factory=dict[str, Gate])
    torn: list[str] = attrs.field(factory=list[str])
    """Calls that were thrown away by the garbage collector."""

    def gate(self, what: str) -> Gate:
        """Hold calls of ``what`` (``undo charge``) up before their effect."""
        return self.gates.setdefault(what, Gate())

    def plan(self, what: str, *does: str) -> None:
        """What the next calls of ``what`` do; the last of it for ever after."""
        self.plans[what] = list(does)

    def kept(self) -> list[str]:
        """The steps whose effects are in force."""
        return sorted(call.step for call in self.live.values())

    def begun(self, what: str) -> int:
        """How often ``what`` has begun."""
        return self.log.count(f"begin {what}")

    # -- calls -----------------------------------------------------------------------------------------------------

    @contextmanager
    def watched(self) -> Generator[Call]:
        """Watch the call that runs here."""
        call = Call.here()
        self.beside += [
            f"{call.what} #{call.attempt} of {call.saga} began beside {other.what} #{other.attempt}"
            for other in self.under_way
            if (other.saga, other.key) == (call.saga, call.key)
        ]
        self.calls.append(call)
        self.log.append(f"begin {call.what}")
        self.under_way.append(call)
        try:
            yield call
        except GeneratorExit:
            self.torn.append(call.what)
            raise
        finally:
            self.under_way.remove(call)
            self.log.append(f"end {call.what}")

    async def act(self) -> None:
        """The participant's part in the call that runs here, on the loop."""
        with self.watched() as call:
            gate = self.gates.get(call.what)
            if gate is not None:
                gate.times += 1
                gate.entered.set()
                await gate.opened.wait()
            self._ends(call)

    def act_on_thread(self) -> None:
        """The participant's part in the call that runs here, on a thread."""
        with self.watched() as call:
            gate = self.gates.get(call.what)
            if gate is not None:
                gate.times += 1
                gate.loop.call_soon_threadsafe(gate.entered.set)
                gate.thread.wait()
            self._ends(call)

    def _ends(self, call: Call) -> None:
        match self._next(call.what):
            case "refused":
                raise Refused(call.what)
            case "broken":
                raise Broken(call.what)
            case "lost":
                raise TimeoutError(f"{call.what}: no answer")
            case "silent":
                self.effect(call)
                raise TimeoutError(f"{call.what}: no answer")
            case _:
                self.effect(call)

    def _next(self, what: str) -> str:
        plan = self.plans.get(what, ["ok"])
        return plan.pop(0) if len(plan) > 1 else plan[0]

    def effect(self, call: Call) -> None:
        """The effect of a step takes place, or is taken back."""
        if call.role == "step":
            self.live.setdefault(call.key, call)
        elif call.role == "undo" and self.live.pop(call.key, None) is not None:
            self.undone.append(call.step)


def act(name: str, *, at: Any = step, undo: Literal["plain", "blind", "none"] = "plain", **options: Any) -> Any:
    """A step of kind ``at`` whose calls are watched; ``blind``: its compensation admits ``Unknown``."""
    if at is step:
        options.setdefault("rejects", (Refused,))
        if undo == "none":
            options |= {"compensation": None, "because": "a mail cannot be taken back"}

    @at(name=name, **options)
    async def acted(*, watch: Watch = resource()) -> str:
        await watch.act()
        return name

    if at is step and undo == "plain":

        @acted.compensate(retry=ONCE)
        async def take_back(_: str, *, watch: Watch = resource()) -> None:
            await watch.act()

    elif at is step and undo == "blind":

        @acted.compensate(retry=ONCE)
        async def take_back_or_fence(_: str | Unknown, *, watch: Watch = resource()) -> None:
            await watch.act()

    return acted


def act_on_thread(name: str, **options: Any) -> Any:
    """A plain function as a step; its compensation runs on the loop."""

    @step(name=name, **options)
    def acted(*, watch: Watch = resource()) -> str:
        watch.act_on_thread()
        return name

    @acted.compensate(retry=ONCE)
    async def take_back(_: str, *, watch: Watch = resource()) -> None:
        await watch.act()

    return acted


# -- waiting for what does not happen -------------------------------------------------------------------------------


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
