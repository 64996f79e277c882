"""One run in memory: its body is driven by ``pump``, and learns what happened from ``feed``, live and on replay alike.

Invariant: live, an input is journalled and then fed; on replay, what the journal holds is fed. There is no other way
into a body, so a replay sees what the first run saw, in the same order. While entries of the journal are still to
be fed (``backlog``), what the body asks for is compared with them and nothing leaves this object.
"""

import contextvars
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from durable_core.errors import Closed, DurableError, Fault, NonDeterminismError
from durable_core.model.decide import describe, disagreement
from durable_core.model.entry import ROLES, Entry, EntryKind, Role, effective
from durable_core.model.failure import capture
from durable_core.model.keys import Scope
from durable_core.model.run import ENDS, RunStatus, RunUpdate
from durable_core.model.spec import DurableFunction
from durable_core.runtime import structure
from durable_core.runtime.fibers import REFUSALS, Body, Fiber
from durable_core.runtime.shell import Shell
from durable_core.runtime.steps import PendingStep
from durable_core.runtime.waits import Parked, PendingWait

log = logging.getLogger("durable_core")

SUCCEEDED = EntryKind.SUCCEEDED.value


@attrs.frozen(kw_only=True)
class End:
    """How a body says that its run ends, where a plain return or raise is not enough."""

    status: RunStatus = RunStatus.COMPLETED
    phase: str = ""
    output: bytes | None = None
    error: bytes | None = None
    reason: str | None = None


class Run:
    """A run that this worker owns."""

    __slots__ = (
        "_context",
        "_driving",
        "active",
        "awaited",
        "backlog",
        "current",
        "dead",
        "definition",
        "detail",
        "fault",
        "id",
        "in_flight",
        "last_at_ns",
        "made",
        "memory",
        "num",
        "on_signal",
        "parked",
        "patches",
        "paused",
        "phase",
        "ready",
        "reason",
        "root",
        "seq",
        "shell",
        "status",
        "steps",
        "uid",
        "waits",
    )

    def __init__(  # noqa: PLR0913 - a run's row, without the cost of an object for it
        self,
        shell: Shell,
        definition: DurableFunction,
        *,
        num: int,
        id: str,  # noqa: A002 - the field's name everywhere
        uid: bytes,
        created_at_ns: int,
        status: RunStatus = RunStatus.RUNNING,
        phase: str = "",
        paused: bool = False,
        reason: str | None = None,
        detail: bytes | None = None,
    ) -> None:
        self.shell = shell
        self.definition = definition
        self.num = num
        self.id = id
        self.uid = uid
        self.status = status
        self.phase = phase
        self.paused = paused
        self.reason = reason
        self.detail = detail
        self.last_at_ns = created_at_ns
        self.seq = 0
        self.steps: dict[str, PendingStep] = {}
        self.waits: dict[str, PendingWait] = {}
        self.parked: dict[str, Parked] = {}
        self.patches: dict[str, bool] = {}
        self.backlog: deque[Entry] = deque()
        self.ready: deque[tuple[Fiber, Any, BaseException | None]] = deque()
        self.root: Fiber | None = None
        self.current: Fiber | None = None
        self.fault: Fault | None = None
        self.dead = False
        """No longer this worker's business: ended, evicted, refused or parked. Nothing more is written for it."""
        self.active = False
        """Whether it counts against the worker's concurrency."""
        self.in_flight = 0
        """Attempts announced and not ended."""
        self.made = self.awaited = 0
        self.on_signal: Callable[[Entry], None] | None = None
        self.memory: Any = None
        """Whatever the layer above keeps per run; dropped with it."""
        self._driving = False
        self._context = contextvars.copy_context()

    # -- in and out of the journal ---------------------------------------------------------------------------------

    def input(
        self,
        kind: str,
        key: str,
        attempt: int = 0,
        label: str = "",
        payload: bytes | None = None,
        error: bytes | None = None,
        started_at_ns: int | None = None,
        due_at_ns: int | None = None,
    ) -> Entry:
        """Append an entry; durable when the writer's next flush returns."""
        if self.dead:
            raise Closed
        shell = self.shell
        self.seq += 1
        entry = Entry(
            self.num, self.seq, kind, key, attempt, label, payload, error, started_at_ns, shell.now_ns(), due_at_ns, shell.worker
        )
        shell.append(entry)
        return entry

    def output(
        self, kind: str, key: str, attempt: int = 0, label: str = "", payload: bytes | None = None, due_at_ns: int | None = None
    ) -> tuple[Entry, bool]:
        """What the body asks for: the journal's next entry where it agrees, else a new one. True where it is new.

        Raises:
            NonDeterminismError: the journal holds something else.
        """
        backlog = self.backlog
        if not backlog:
            return self.input(kind, key, attempt, label, payload, None, None, due_at_ns), True
        recorded = backlog[0]
        why = disagreement(recorded, kind=kind, key=key, label=label, payload=payload)
        if why is not None:
            raise self.mismatch(recorded, why, describe(kind, key, label))
        backlog.popleft()
        return recorded, False

    def mismatch(self, recorded: Entry, why: str, asked: str) -> NonDeterminismError:
        """The fault of code that does not fit its journal."""
        holds = describe(recorded.kind, recorded.key, recorded.label)
        return NonDeterminismError(
            f"run {self.id} of {self.definition.name} v{self.definition.version}, entry #{recorded.seq}: {why}, and the code "
            f"asks for {asked}. Nothing was done. Bring back the code that began this run, or keep the old branch behind "
            "patched(...), then retry the run; start new runs under a new version",
            seq=recorded.seq,
            recorded=holds,
            asked=asked,
        )

    def save(self, *, owner: str | None, wake_at_ns: int | None, end: End | None = None) -> None:
        """Queue the run's row as it stands now."""
        now_ns = self.shell.now_ns()
        self.shell.update(
            RunUpdate(
                self.status,
                self.phase,
                owner,
                wake_at_ns,
                int(self.paused),
                end.output if end else None,
                end.error if end else None,
                self.reason,
                self.detail,
                now_ns,
                now_ns if self.status in ENDS else None,
                self.num,
            )
        )

    # -- life ------------------------------------------------------------------------------------------------------

    def begin(self, coro: Body) -> None:
        """Drive the body for the first time in this process: from the start, or along its journal."""
        self.root = Fiber(coro, Scope(), None)
        self.ready.append((self.root, None, None))

    def replay(self, entries: Sequence[Entry]) -> None:
        """Feed the journal, then go live: arm what waits, and attempt again what a crash has cut.

        A run that does not fit its journal is parked before any effect.
        """
        self.backlog.extend(effective(entries))
        self.seq = entries[-1].seq if entries else 0
        self.pump()
        while self.backlog and not self.dead:
            entry = self.backlog[0]
            if ROLES[EntryKind(entry.kind)] is Role.OUTPUT:
                holds = describe(entry.kind, entry.key, entry.label)
                self.park(self.mismatch(entry, f"the journal holds {holds}", "nothing more here"))
                return
            self.backlog.popleft()
            self.take(entry)
            self.pump()
        if not self.dead:
            self.go_live()

    def go_live(self) -> None:
        """The journal is fed: from here on things happen."""
        if self.status is RunStatus.PENDING or (self.status is RunStatus.WAITING):
            self.status = RunStatus.RUNNING
        for step in [step for step in self.steps.values() if step.waiting]:
            if not self.dead:
                step.recover(self)
        for wait in list(self.waits.values()):
            wait.arm(self)
        self.pump()

    def feed(self, entry: Entry) -> None:
        """Take up an input that was just journalled, and let the body answer."""
        self.take(entry)
        self.pump()

    def take(self, entry: Entry) -> None:
        """Hand an input to whom it is for."""
        self.last_at_ns = entry.at_ns
        kind = entry.kind
        if kind == EntryKind.SIGNALLED:
            if entry.label and entry.label in self.steps:
                self.steps[entry.label].reopen()
            if self.on_signal is not None:
                self.on_signal(entry)
            return
        step = self.steps.get(entry.key)
        if step is not None:
            step.take(self, entry)
            return
        wait = self.waits.get(entry.key)
        if wait is not None:
            wait.take(self, entry)
            return
        self.fault = self.mismatch(entry, f"the journal holds {describe(kind, entry.key, entry.label)}", "no such step")

    # -- driving ---------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Drive every ready fiber until each waits for something."""
        if self._driving or self.dead or self.shell.leaving:
            return
        self._driving = True
        guard = self.shell.guard
        guard.enter(self.definition.operations)
        try:
            self._context.run(self._drive)
        except Exception as bug:
            log.exception("run %s of %s: internal error", self.id, self.definition.name)
            self.fault = Fault(f"run {self.id}: internal error of the engine ({bug!r}); please report it, then retry the run")
        except BaseException:
            self.dead = True  # Ctrl-C amid a body: this process knows no more where it stands, its journal does
            raise
        finally:
            self._driving = False
            self.current = None
            caught = guard.leave()
        if self.dead:
            return
        fault = caught or self.fault
        if fault is not None:
            self.park(fault)
        elif not self.in_flight and not self.backlog:
            self.shell.idle(self)

    def _drive(self) -> None:
        ready = self.ready
        while ready and self.fault is None:
            fiber, value, error = ready.popleft()
            if fiber.done or (error is not fiber.signal and isinstance(error, Closed)):
                continue  # a signal that has been dealt with since
            if fiber.signal is not None and error is not fiber.signal:
                structure.advance(self, fiber)
                continue
            self._step(fiber, value, error)

    def _step(self, fiber: Fiber, value: Any, error: BaseException | None) -> None:  # noqa: ANN401
        coro = fiber.coro
        self.current = fiber
        fiber.wait = None
        try:
            command = coro.send(value) if error is None else coro.throw(error)  # type: ignore[union-attr]
        except StopIteration as stop:
            self._finish(fiber, stop.value, None)
            return
        except Closed as closed:
            self._finish(fiber, None, None if fiber.signal is not None else closed)
            return
        except Fault as fault:
            self.fault = fault
            return
        except Exception as failure:  # noqa: BLE001 - the border of the user's body: whatever it raises is its outcome
            self._finish(fiber, None, failure)
            return
        if fiber.signal is not None:
            self._refuse(fiber)
            return
        try:
            issue = command.issue
        except AttributeError:
            self._foreign(fiber, command)
            return
        try:
            issue(self, fiber)
        except Fault as fault:
            self.fault = fault
        except DurableError as refused:
            self.ready.append((fiber, None, refused))

    def _refuse(self, fiber: Fiber) -> None:
        """A closed body asks for more: throw again, and drop it where it never learns."""
        fiber.refusals += 1
        if fiber.refusals < REFUSALS:
            self.ready.append((fiber, None, fiber.signal))
            return
        log.warning(
            "run %s of %s: the body swallowed its closing %d times and is dropped; let BaseException pass in its except blocks",
            self.id,
            self.definition.name,
            REFUSALS,
        )
        self._finish(fiber, None, None)

    def _foreign(self, fiber: Fiber, awaited: object) -> None:
        """The second net: something foreign was yielded. Refuse it at that very line."""
        error = self.shell.guard.refuse_yield(fiber.coro, awaited)
        try:
            fiber.coro.throw(error)  # type: ignore[union-attr]
        except BaseException:  # noqa: BLE001 - what the body makes of it does not matter: the fault is recorded
            log.debug("run %s: the body let go of the foreign await", self.id)

    def _finish(self, fiber: Fiber, value: Any, error: BaseException | None) -> None:  # noqa: ANN401
        fiber.done = True
        fiber.coro = None
        fiber.value = value
        fiber.error = error
        if fiber.group is not None:
            structure.ended(self, fiber)
        elif not self.dead:
            self._finished(value, error)

    def _finished(self, value: Any, error: BaseException | None) -> None:  # noqa: ANN401
        """The root body returned or raised: the run ends, durable with the next flush."""
        if isinstance(value, End):
            end = value
        elif error is None:
            try:
                end = End(output=self.definition.shape.encode_result(value, what=f"run {self.id}: the result"))
            except DurableError as refused:
                end = End(status=RunStatus.FAILED, error=capture(refused))
        else:
            end = End(status=RunStatus.FAILED, error=capture(error))
        if self.made != self.awaited:
            self.fault = Fault(
                f"run {self.id} of {self.definition.name}: {self.made - self.awaited} operation(s) were called without "
                f"await and would be lost; write `await {self.definition.operations}...`, then retry the run"
            )
            return
        if self.backlog:
            entry = self.backlog[0]
            self.fault = self.mismatch(entry, f"the journal holds {describe(entry.kind, entry.key, entry.label)}", "the end")
            return
        self.finish(end)

    def finish(self, end: End) -> None:
        """End the run as ``end`` says; durable with the next flush."""
        self.status = end.status
        self.phase = end.phase or self.phase
        self.reason = end.reason
        self.input(EntryKind.ENDED, "", 0, end.status, end.output, end.error)
        self.save(owner=None, wake_at_ns=None, end=end)
        self.shell.ended(self, end)
        self.release()

    def park(self, fault: Fault) -> None:
        """Park the run as stuck, before any effect: the code does not fit, or breaks a rule."""
        self.fault = None
        self.status = RunStatus.STUCK
        self.reason = str(fault)
        log.error("%s", fault)
        # A remark: it is kept for people, never replayed, so that the run can go on once the code is mended.
        self.input(EntryKind.FAULTED, fault.step, fault.since, type(fault).__name__, None, capture(fault))
        self.save(owner=None, wake_at_ns=None)
        self.shell.parked(self)
        self.evict()

    def evict(self) -> None:
        """Drop the run from memory. The body's ``finally`` blocks run, but every command in them is refused."""
        fibers = structure.alive(self)
        self.dead = True
        for step in self.steps.values():
            step.disarm()
        for wait in self.waits.values():
            wait.disarm()
        if not self._driving:
            self.shell.guard.enter(self.definition.operations)
            try:
                for fiber in fibers:
                    self._context.run(structure.close, self, fiber)
            finally:
                self.shell.guard.leave()
        self.release()

    def release(self) -> None:
        """Cut the cycles between run, fibers and coroutines, so that the collector need not find them."""
        self.dead = True
        self.root = self.current = self.on_signal = self.memory = None
        self.ready.clear()
        self.steps = {}
        self.waits = {}
        self.parked = {}
        self.shell.forget(self)
