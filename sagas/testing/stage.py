"""One run of an exploration: a saga on a fresh store and world, with what goes wrong in it, to its end and beyond.

Invariant: time moves only when everything is idle and no answer is due, so one case has one course.
"""

import asyncio
import contextlib
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any

import attrs

from durable_core import CallbackClosed, LeaseLost, StoreError
from durable_core.layer import EntryKind, MortalWorker, StepSpec, name_of
from durable_core.testing import FaultyStore, ManualClock, stores_in_memory
from sagas.errors import SagaPastPivot
from sagas.model.definition import SagaDef
from sagas.model.info import SagaInfo
from sagas.model.phases import SagaStatus
from sagas.orchestrator import Orchestrator, SagaHandle
from sagas.testing.cases import ATTEMPT, Attempt, Case, Event, Trail, Wait, rejection, target_of
from sagas.testing.faults import WorkerDied, lost_answer, made

ID = "explored"
SETTLED = frozenset(
    {SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.RESOLVED, SagaStatus.KILLED, SagaStatus.STUCK}
)
PATIENCE_S = 5.0
"""How long a step's own code may take, in real time."""
LOOK_S = 0.002
FRUITLESS = 100
"""After so many jumps of the clock in which nothing was written, nothing will be."""

Check = Callable[[list[Any], SagaInfo], Awaitable[None] | None]
MakeWorld = Callable[[], "Sequence[object] | Awaitable[Sequence[object]]"]


class Explored(Exception):
    """The exception of a step that fails because an exploration asked for it."""


class NeverEnds(AssertionError):
    """The saga has come to no end; the message says what it waits for."""


@attrs.frozen(kw_only=True)
class Scene:
    """What all cases of an exploration share."""

    saga: SagaDef[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    resources: MakeWorld
    check: Check
    answers: Mapping[str, Any]

    def answers_to(self, key: str) -> bool:
        """Whether the callback at ``key`` is given an answer."""
        return key in self.answers or name_of(key) in self.answers

    def answer(self, key: str, world: list[Any]) -> Any:
        """The answer to the callback at ``key``."""
        given = self.answers[key] if key in self.answers else self.answers[name_of(key)]
        return given(world) if callable(given) and not isinstance(given, type) else given


@attrs.define(eq=False)
class Stage:
    """The course of one case. It is the run's ``faults``, and decides at which commits its worker dies."""

    scene: Scene
    case: Case
    trail: Trail = attrs.field(factory=Trail)
    left: list[Event] = attrs.field(init=False)
    """What has not come up yet."""
    world: list[Any] = attrs.field(factory=list[Any])
    _orchestrator: Orchestrator = attrs.field(init=False)
    _attempts: Counter[str] = attrs.field(factory=Counter[str])
    _rows: Counter[str] = attrs.field(factory=Counter[str])
    _failing: dict[str, int] = attrs.field(factory=dict[str, int])
    """How many further attempts of a step fail."""
    _open: dict[str, Wait] = attrs.field(factory=dict[str, Wait])
    """The waits that have not ended."""
    _answered: set[str] = attrs.field(factory=set[str])

    def __attrs_post_init__(self) -> None:
        self.left = list(self.case.events)

    # -- the course ------------------------------------------------------------------------------------------------

    async def play(self) -> SagaInfo:
        """Run the case to its end, begin once more where it ended, and check; the saga as it was given to the check.

        Raises:
            NeverEnds: it has no end.
            Exception: whatever the check raises.
        """
        scene, clock = self.scene, ManualClock()
        world = scene.resources()
        if inspect.isawaitable(world):
            world = await world
        self.world = world if isinstance(world, list) else list(world)
        make_store = stores_in_memory()
        store = FaultyStore(make_store())
        options: dict[str, Any] = {"sagas": [scene.saga], "resources": self.world, "clock": clock, "grace": 1}
        self._orchestrator = Orchestrator(store=store, faults=self, **options)
        store.on_commit, store.after_commit = self._before_commit, self._after_commit
        async with self._orchestrator as orchestrator:
            await self._to_the_end(await self._start(orchestrator), clock)
        # A restart on the same store: what is over must stay over.
        async with Orchestrator(store=make_store(), **options) as again:
            await clock.idle()
            info = await again.info(ID)
        checked = scene.check(self.world, info)
        if inspect.isawaitable(checked):
            await checked
        return info

    async def _start(self, orchestrator: Orchestrator) -> SagaHandle[Any]:
        """Start the saga as a client does: again under the same id where the worker died meanwhile."""
        scene = self.scene
        while True:
            with contextlib.suppress(StoreError):
                return await orchestrator.start(scene.saga, *scene.args, id=ID, **scene.kwargs)

    async def _to_the_end(self, handle: SagaHandle[Any], clock: ManualClock) -> None:
        engine = self._orchestrator.engine
        waited_s, fruitless, progress = 0.0, 0, -1
        while True:
            await clock.idle()
            if engine.progress() != progress:
                waited_s, fruitless, progress = 0.0, 0, engine.progress()
            if clock.is_awaited_by_all(engine):
                if await handle.status() in SETTLED:
                    return
                if await self._acts(handle):
                    continue
                fruitless += 1
                if fruitless > FRUITLESS or not clock.jump():
                    raise NeverEnds(await self._what_it_waits_for(handle))
            elif waited_s > PATIENCE_S:
                raise NeverEnds(f"a step's own code has not returned for {PATIENCE_S:g} s: {self._last()}")
            else:
                await asyncio.sleep(LOOK_S)
                waited_s += LOOK_S

    def _last(self) -> str:
        last = self.trail.attempts[-1] if self.trail.attempts else None
        return "none was called" if last is None else f"{last.target} #{last.nth}"

    async def _what_it_waits_for(self, handle: SagaHandle[Any]) -> str:
        waits = [wait.key for wait in self._open.values() if wait.is_callback]
        if waits:
            return (
                f"the saga waits for ever for callback {waits[0]!r}: give answers={{{name_of(waits[0])!r}: ...}}, or "
                "the callback a timeout"
            )
        return f"the saga is {await handle.status()} for ever, and nothing will end that"

    async def _acts(self, handle: SagaHandle[Any]) -> bool:
        """Everything is idle: what somebody outside does now; False if nothing."""
        for key, wait in list(self._open.items()):
            if self._take("cancel_at", key):
                await _cancel(handle)
                return True
            if not wait.is_callback or key in self._answered or not self.scene.answers_to(key):
                continue
            self._answered.add(key)
            if self._take("no_answer", key):
                continue
            try:
                await self._answer(key)
            except CallbackClosed:
                pass  # the saga is being undone, and whoever answers learns that it is too late
            except StoreError:
                self._answered.discard(key)  # the worker died meanwhile: a client asks again
            return True
        return False

    async def _answer(self, key: str) -> None:
        orchestrator = self._orchestrator
        value = self.scene.answer(key, self.world)
        if self._take("fail_answer", key):
            value = Explored(f"{key}: refused because an exploration asked for it")
        for _ in range(1 + bool(self._take("answer_twice", key))):
            if isinstance(value, BaseException):
                await orchestrator.fail_callback(saga_id=ID, name=key, message=str(value))
            else:
                await orchestrator.complete_callback(saga_id=ID, name=key, value=value)

    def _take(self, verb: str, target: str, nth: int = 1) -> Event | None:
        """The event of this place, which comes up now."""
        for event in self.left:
            if (event.verb, event.target, event.nth) == (verb, target, nth):
                self.left.remove(event)
                return event
        return None

    # -- commits ---------------------------------------------------------------------------------------------------

    def _before_commit(self, batch: Any) -> None:
        """The worker may die before it; then nothing of it is written."""
        if any(self._take("crash_before_commit", *row) for row in self._rows_in(batch)):
            self._orchestrator.engine.die()
            raise LeaseLost("the worker died before this commit because an exploration asked for it")

    def _after_commit(self, batch: Any) -> None:
        """Note what is in it; the worker may die before it acts on it."""
        rows = self._rows_in(batch)
        self._rows.update(name for name, _ in rows)
        self.trail.commits += rows[:1]
        for entry in batch.entries:
            self._note(entry)
        if any(self._take("crash_after_commit", *row) for row in rows):
            self._orchestrator.engine.die()

    def _rows_in(self, batch: Any) -> list[tuple[str, int]]:
        """Its rows by name, and which of that name each is; those that say most first."""
        entries = sorted(batch.entries, key=lambda entry: not entry.key)
        names = [f"{entry.key}.{entry.kind}" if entry.key else str(entry.kind) for entry in entries]
        names = names or [f"row.{update.status}" for update in batch.updates.values()][:1]
        seen = self._rows.copy()
        rows: list[tuple[str, int]] = []
        for name in names:
            seen[name] += 1
            rows.append((name, seen[name]))
        return rows

    def _note(self, entry: Any) -> None:
        if entry.kind == EntryKind.SUCCEEDED:
            self.trail.succeeded.add(entry.key)
        elif entry.kind == EntryKind.ARMED:
            wait = Wait(entry.key, entry.label == "callback", entry.due_at_ns is not None)
            self._open[entry.key] = wait
            self.trail.waits.append(wait)
        elif entry.kind in {EntryKind.FIRED, EntryKind.ANSWERED, EntryKind.CLOSED}:
            self._open.pop(entry.key, None)

    # -- attempts (see ``StepFaults``) ------------------------------------------------------------------------------

    def check(self, names: Callable[[], Any]) -> None:
        """Cases come from what was seen, so there is nothing to refuse."""

    def function(self, spec: StepSpec, key: str, worker: MortalWorker) -> Callable[..., Any]:
        """Call a step, and have go wrong in it what the case says."""
        target = target_of(spec, key)
        if not spec.is_async:
            return self._on_thread(spec, target, worker)

        async def attempt(*args: Any, **kwargs: Any) -> Any:
            with self._attempted(spec, target) as verbs:
                if "crash_before" in verbs:
                    await _die(worker)
                if "cancel_in" in verbs:
                    await self._cancel()
                result = await spec.fn(*args, **kwargs)
                if "twice" in verbs:
                    result = await spec.fn(*args, **kwargs)
                if "crash_after" in verbs:
                    await _die(worker)
                return result

        return attempt

    def _on_thread(self, spec: StepSpec, target: str, worker: MortalWorker) -> Callable[..., Any]:
        def on_loop(coroutine: Any) -> None:
            asyncio.run_coroutine_threadsafe(coroutine, worker.loop).result()

        def attempt(*args: Any, **kwargs: Any) -> Any:
            with self._attempted(spec, target) as verbs:
                if "crash_before" in verbs:
                    on_loop(_died(worker))
                    raise WorkerDied
                if "cancel_in" in verbs:
                    on_loop(self._cancel())
                result = spec.fn(*args, **kwargs)
                if "twice" in verbs:
                    result = spec.fn(*args, **kwargs)
                if "crash_after" in verbs:
                    on_loop(_died(worker))
                    raise WorkerDied
                return result

        return attempt

    @contextlib.contextmanager
    def _attempted(self, spec: StepSpec, target: str) -> Generator[set[str]]:
        """Note an attempt; it may fail at once, or lose its answer. Gives what else goes wrong in it."""
        self._attempts[target] += 1
        nth = self._attempts[target]
        self.trail.attempts.append(Attempt(target, nth, spec))
        due = [event for event in self.left if event.verb in ATTEMPT and (event.target, event.nth) == (target, nth)]
        verbs: set[str] = set()
        for event in due:
            rejects = rejection(spec, event.error) if event.verb == "reject" else None
            if event.verb == "reject" and rejects is None:
                continue  # it never comes up
            self.left.remove(event)
            verbs.add(event.verb)
            if rejects is not None:
                raise made(rejects, f"{target}: rejected because an exploration asked for it")
        if "fail" in verbs:
            self._failing[target] = spec.retry.attempts or 1 if spec.kind != "compensation" else 1
        if self._failing.get(target):
            self._failing[target] -= 1
            raise Explored(f"{target}: failed because an exploration asked for it")
        if "unknown_before" in verbs:
            raise lost_answer(spec)
        yield verbs
        if "unknown_after" in verbs:
            raise lost_answer(spec)

    async def _cancel(self) -> None:
        await _cancel(await self._orchestrator.get(ID))


async def _cancel(handle: SagaHandle[Any]) -> None:
    with contextlib.suppress(SagaPastPivot):  # then it is too late, and that is no fault
        await handle.cancel("an exploration asked for it")


async def _died(worker: MortalWorker) -> None:
    worker.die()


async def _die(worker: MortalWorker) -> None:
    worker.die()
    await asyncio.Event().wait()  # cut with all attempts of the worker
