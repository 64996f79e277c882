"""What a run offers to the layer that writes operations for bodies: the primitives of ``Context`` and of sagas.

Users of durable functions see ``durable_core.Context``; nothing here touches the world by itself.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any, NoReturn, TypeVar
from uuid import UUID

import msgspec

from durable_core.errors import DefinitionError, DurableError, Fault, PayloadError
from durable_core.model.duration import EPOCH, LONGEST_S, duration_ns, moment_of, seconds_of, shown, to_ns
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.keys import check_name
from durable_core.model.record import StepRecord
from durable_core.model.spec import StepSpec
from durable_core.model.tags import TAGGED, Tagged, check_tags, read_tags, tag_in, write_tags
from durable_core.model.texts import is_text
from durable_core.replay import faults
from durable_core.replay.blocks import Branches, ScopeBlock, Shield
from durable_core.replay.callbacks import AwaitCallback, AwaitFirst, PendingCallback, create
from durable_core.replay.run import CATCHING_UP, Run
from durable_core.replay.scheduler import Command, Fiber
from durable_core.replay.steps import Anew, Extra, PendingStep, Perform, Reattempt
from durable_core.replay.waits import Deadline, Sleep, WaitForPerson

R = TypeVar("R")


class HostContext:
    """The primitives of one run. All coroutines of the body share them; keys are those of the caller's scope."""

    __slots__ = ("_patches", "_run", "tags", "unheard")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._patches: dict[str, bool] = {}
        self.tags: dict[str, dict[str, str]] = {}
        """Those of each child, by the prefix of its keys."""
        self.unheard: list[Any] = []
        """For the layer above: verbs that came amid a catching up for something that is not parked yet."""

    # -- who and when ----------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The run's id."""
        return self._run.id

    @property
    def uid(self) -> bytes:
        """16 random bytes, fixed when the run began."""
        return self._run.uid

    @property
    def version(self) -> int:
        """The version that the run is pinned to."""
        return self._run.identity.version

    @property
    def title(self) -> str:
        """What the layer calls the run, and its id, at the head of messages."""
        return self._run.title

    @property
    def noun(self) -> str:
        """See ``DurableFunction.noun``."""
        return self._run.noun

    @property
    def word(self) -> str:
        """What the body calls its operations' object, for messages: ``ctx``, ``s``."""
        return self._run.definition.operations

    @property
    def abandoned(self) -> bool:
        """Whether the body's part is over and only what it did is to be undone; see ``steps``."""
        return self._run.abandoned is not None

    @property
    def catching_up(self) -> bool:
        """Whether several things are being taken up, one after the other, before the body goes on."""
        return bool(self._run.hold & CATCHING_UP)

    def marks(self) -> Sequence[str]:
        """What an abandoned body has marked."""
        body = self._run.abandoned
        return () if body is None else body.marks

    @property
    def replaying(self) -> bool:
        """Whether what happens now has happened before."""
        return bool(self._run.cursor.backlog)

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that is silent while replaying."""
        return _ReplayLog(self._run)

    def now(self) -> datetime:
        """The time of the last checkpoint, the same on every replay."""
        return EPOCH + timedelta(microseconds=self._run.cursor.last_at_ns // 1000)

    def random(self) -> float:
        """A number in [0, 1), the same on every replay."""
        return self._generator().random()

    def uuid(self) -> UUID:
        """A random UUID (version 4), the same on every replay."""
        return UUID(int=self._generator().getrandbits(128), version=4)

    def patched(self, name: str) -> bool:
        """True for runs that begin, or first come here, with the changed code; False for those that passed before."""
        run = self._run
        self.caller()
        if not _is_name(name) or not is_text(name):
            self.mistake(DefinitionError(f"{self.word}.patched({shown(name)}): give the change a name that is a text"))
        key = f"patched:{name}"
        if key not in self._patches:
            recorded = run.cursor.backlog[0] if run.cursor.backlog else None
            if recorded is None or (recorded.kind == EntryKind.MARKED and recorded.key == key):
                run.output(EntryKind.MARKED, key)
                self._patches[key] = True
            else:
                self._patches[key] = False
        return self._patches[key]

    def _generator(self) -> Random:
        fiber = self.caller()
        if fiber.generator is None:
            fiber.generator = Random(self._run.uid + fiber.scope.prefix.encode())
        return fiber.generator

    def caller(self) -> Fiber:
        """The coroutine that is being driven.

        Raises:
            DefinitionError: none is: an operation was used outside of the body, perhaps in a step.
        """
        fiber = self._run.scheduler.current
        if fiber is None:
            raise DefinitionError(
                f"{self._run.title}: an operation of the body was used outside of it, perhaps inside a step; "
                "a step does its work itself and returns what the body needs"
            )
        return fiber

    # -- steps and waits -------------------------------------------------------------------------------------------

    def perform(
        self,
        spec: StepSpec,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        extra: Extra | None = None,
        key: str | None = None,
    ) -> Perform[Any]:
        """Run a declared step. Its ``key`` is set once it has begun.

        ``extra`` are keyword arguments that are passed to it and not journalled.
        """
        return Perform(spec, args, kwargs or {}, extra=extra, key=key)

    def reattempt(self, key: str) -> Command[Any]:
        """Attempt a given-up step again under its own key, with a fresh policy."""
        return Reattempt(key)

    def begin_anew(
        self,
        key: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        extra: Extra | None,
        edition: int,
    ) -> Command[Any]:
        """Attempt a step that has ended again under another idempotency key, and with these arguments."""
        return Reattempt(key, Anew(edition, args, kwargs, extra))

    def claim_key(self, name: str) -> str:
        """The key of the next occurrence of ``name`` in the caller's scope."""
        return self.caller().scope.key(name)

    def sleep(self, span: timedelta | float, *, key: str | None = None) -> Command[None]:
        """Wait for ``span`` (a timedelta, or seconds). Durable: the time is fixed in the journal.

        ``key`` was claimed before; see ``claim_key``.
        """
        seconds = seconds_of(span, zero=True)
        if seconds is None:
            self.mistake(
                DefinitionError(
                    f"{self.word}.sleep({shown(span)}): give a timedelta or seconds, from 0 to 100 years; "
                    f"{self.word}.sleep_until(...) waits for a time, and not at all for a past one"
                )
            )
        return Sleep(self._run.cursor.last_at_ns + to_ns(seconds), key)

    def sleep_until(self, when: datetime) -> Command[None]:
        """Wait until ``when``, an aware datetime; at once where it is past."""
        now_ns = self._run.cursor.last_at_ns
        until_ns = moment_of(when)
        if until_ns is None or until_ns - now_ns > to_ns(LONGEST_S):
            self.mistake(
                DefinitionError(
                    f"{self.word}.sleep_until({shown(when)}): give a datetime with a time zone, at most 100 years ahead"
                )
            )
        return Sleep(max(until_ns, now_ns))

    def scope(self, name: str, *, block: bool = True, key: str | None = None) -> "ScopeBlock":
        """Give the caller's next keys a prefix of their own, until ``leave``; ``block`` counts as nesting.

        ``key`` was claimed before; see ``claim_key``.
        """
        caller = self.caller()
        try:
            return ScopeBlock(caller, check_name(name, what="a savepoint or child"), block=block, key=key)
        except DefinitionError as error:
            self.mistake(error)

    def shield(self) -> "Shield":
        """A ``with`` block that nothing closes, for what must be finished: the undoing of what was done."""
        return Shield(self._run, self.caller())

    def give_up(self, key: str) -> None:
        """Leave out the attempt promised to the step at ``key``, if it has not begun: it ends as its last one did."""
        step = self._run.steps.get(key)
        if isinstance(step, PendingStep):
            step.give_up()

    def unended(self) -> Iterable[tuple[str, StepSpec]]:
        """The steps that have begun and not ended, and those that wait for a further attempt."""
        return [(step.key, step.spec) for step in self._run.unended() if step.spec is not None]

    def nesting(self) -> int:
        """How many groups and blocks the caller is within."""
        fiber = self.caller()
        return fiber.nesting + len(fiber.groups)

    def callback(
        self,
        name: str,
        type: type[R],
        *,
        timeout: timedelta | float | None = None,
        heartbeat: timedelta | float | None = None,
        key: str | None = None,
    ) -> PendingCallback[R]:
        """A callback that somebody outside may answer; its ``token`` may be handed out by a later step.

        The timeout runs from here. With ``heartbeat``, it also times out where neither an answer nor a heartbeat comes
        within that span. ``key`` was claimed before; see ``claim_key``. See ``wait_for`` and ``wait_for_first``.
        """
        run, caller = self._run, self.caller()
        try:
            what = f"callback {check_name(name, what='a callback')!r}"
            timeout_ns = duration_ns(timeout, what=f"{what}: timeout")
            return create(
                run,
                caller,
                name,
                type,
                key=key,
                due_at_ns=None if timeout_ns is None else run.cursor.last_at_ns + timeout_ns,
                heartbeat_ns=duration_ns(heartbeat, what=f"{what}: heartbeat") or 0,
            )
        except (DefinitionError, PayloadError) as error:
            self.mistake(error)

    def wait_for(self, callback: PendingCallback[R]) -> Command[R]:
        """Wait for a callback's answer; raises ``CallbackTimeout`` or ``CallbackFailed``."""
        return AwaitCallback(callback)

    def wait_for_first(self, callbacks: Sequence[PendingCallback[Any]]) -> Command[int]:
        """Wait until one of ``callbacks`` is over; answers its place among them."""
        return AwaitFirst(list(callbacks))

    # -- structure -------------------------------------------------------------------------------------------------

    def group(self) -> "Branches":
        """An empty group of branches, to be entered with ``async with``."""
        return Branches(self._run, self.caller())

    # -- for the layer above ---------------------------------------------------------------------------------------

    def mark(
        self, key: str, payload: object = None, *, phase: str | None = None, due_at_ns: int | None = None
    ) -> int | None:
        """Note a fact in the journal; with ``phase`` also in the run's row, durable in the same commit.

        Returns ``due_at_ns`` as the journal has it, so that a time is fixed when it is first computed.
        """
        run = self._run
        entry, new = run.output(
            EntryKind.MARKED, key, 0, phase or "", None if payload is None else msgspec.json.encode(payload), due_at_ns
        )
        if phase is not None:
            run.row.phase = phase
            if new:
                run.save(owner=run.effects.worker, wake_at_ns=None)
        return entry.due_at_ns

    def settle(self, key: str, *, happened: bool, result: bytes | None = None) -> None:
        """Settle the unknown outcome of the step at ``key``; ``result`` is its JSON where it happened."""
        entry, _ = self._run.output(
            EntryKind.SETTLED, key, 0, "happened" if happened else "did_not_happen", result if happened else None
        )
        self._run.steps[key].apply(entry)

    def deadline(self, key: str, due_at_ns: int, call: Callable[[], None]) -> Deadline:
        """Have ``call`` made once ``due_at_ns`` has passed, at its place in the journal and before any further step.

        The journal must hold that time: see ``mark``. ``Deadline.void`` takes it back.
        """
        run = self._run
        found = run.waits[key] = Deadline(run, key, self.caller(), due_at_ns, call)
        run.arm(found)
        return found

    def due_in(self, span_ns: int) -> int:
        """The time so long after now, for an entry that is new; on replay the recorded one counts.

        Not after the last checkpoint: a process may have died right behind that, and hours have passed.
        """
        return self._run.effects.now_ns() + span_ns

    def park(self, key: str, reason: str, steps: Sequence[str] = ()) -> Command[Any]:
        """Wait for a person; the answer is what ``unpark`` was given for ``key``.

        Args:
            key: what is stuck; one fiber may be parked under a key.
            reason: for a person: what happened and which verbs mend it.
            steps: the keys of the steps concerned.
        """
        return WaitForPerson(key, reason, tuple(steps))

    def parked(self) -> dict[str, tuple[str, ...]]:
        """What is parked: the steps concerned, by the key given to ``park``."""
        return {key: parked.steps for key, parked in self._run.stuck.items()}

    def unpark(self, key: str, value: object) -> None:
        """Let the body parked under ``key`` go on with ``value``; called from a signal's handler."""
        self._run.stuck[key].go_on(value)

    def on_signal(self, handler: Callable[[Entry], None]) -> None:
        """Have ``handler`` called for each signal, at its place in the journal."""
        self._run.on_signal = handler

    def steps(self) -> dict[str, StepRecord]:
        """The run's steps so far by key, in the order in which they first started."""
        return self._run.steps  # type: ignore[return-value]  # the values are read-only to the caller

    def error_of(self, key: str) -> BaseException | None:
        """What ended the step at ``key``, rebuilt; None where it did not fail."""
        run = self._run
        error = run.steps[key].stored_error()
        if error is not None:
            run.scheduler.thrown.append(error)
        return error

    def set_status(self, detail: bytes) -> None:
        """Publish JSON in the run's row; durable with the next commit."""
        run = self._run
        run.row.detail = detail
        if not run.cursor.backlog and not run.dead:
            run.save(owner=run.effects.worker, wake_at_ns=None)

    def tag(self, key: str, value: str) -> None:
        """Set a tag of the run, or of the child whose code the caller is; durable with the next commit.

        The journal decides: on replay the recorded one counts. Only the run's own tags are searched by.
        """
        run, child = self._run, self.caller().scope.prefix
        while child and child not in self.tags:  # a scope within it
            child = child[: child.rfind("/", 0, -1) + 1]
        row = run.row
        tags = self.tags[child] if child else read_tags(row.tags if row.retagged is None else row.retagged)
        try:
            check_tags({**tags, key: value}, f"{self.word}.tag")
        except PayloadError as error:
            self.mistake(error)
        mark = f"{TAGGED}{child}"
        entry, new = run.output(EntryKind.MARKED, mark, 0, "", msgspec.json.encode(Tagged(key, value)))
        tags.update([tag_in(entry)])
        if not child:
            row.retagged = write_tags(tags)
            if new and not run.dead:
                run.save(owner=run.effects.worker, wake_at_ns=None)

    def refuse(self, fault: Fault) -> NoReturn:
        """Stop this run with ``fault``, even if the body catches what is raised here."""
        self.blame(fault)
        raise fault

    def mistake(self, error: DurableError) -> NoReturn:
        """Stop this run: the code gave an operation something that it cannot take. Nothing is undone."""
        self.refuse(faults.mistake(self._run.identity, error))

    def blame(self, fault: Fault) -> None:
        """Have the run parked with ``fault`` before its next operation, where nothing can be raised."""
        if self._run.fault is None and not self._run.dead:
            self._run.fault = fault

    def refuse_own(self, error: BaseException) -> None:
        """Stop this run where ``error`` came out of our own code: before anything is undone because of it."""
        fault = faults.of_ours(self._run.identity, error, thrown=self._run.scheduler.thrown)
        if fault is not None:
            self.refuse(fault)

    def spec_of(self, key: str) -> StepSpec | None:
        """What the step at ``key`` was run with in this process; None where the code has not asked for it yet."""
        step = self._run.steps.get(key)
        return None if step is None else step.spec

    def binding_of(self, key: str) -> StepSpec | None:
        """What the code loaded here runs the step at ``key`` with, where the body is abandoned and so runs nothing."""
        body = self._run.abandoned
        return None if body is None else body.bindings.get(key)

    def under_way(self) -> Iterable[StepSpec]:
        """What has begun and not ended."""
        return (step.spec for step in self._run.unended() if step.spec is not None)


def _is_name(given: object) -> bool:
    """Whether the code gave a text that names something."""
    return isinstance(given, str) and given != ""


class _ReplayLog(logging.LoggerAdapter[logging.Logger]):
    def __init__(self, run: Run) -> None:
        super().__init__(logging.getLogger(f"durable_core.run.{run.definition.name}"), {"run_id": run.id})
        self._run = run

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the standard library's name
        return not self._run.cursor.backlog and super().isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log, or keep it until the run's start is durable: a start whose id is taken has never been."""
        unsaid = self._run.cursor.start_log
        stacklevel = kwargs.pop("stacklevel", 1) + 1  # this frame is not the caller
        if unsaid is None:
            super().log(level, msg, *args, stacklevel=stacklevel, **kwargs)
        elif self.isEnabledFor(level):
            text, kept = self.process(msg, kwargs)
            file, line, function, stack = self.logger.findCaller(bool(kept.get("stack_info")), stacklevel)
            error = kept.get("exc_info")
            raised = sys.exc_info() if error is True else error
            if isinstance(raised, BaseException):
                raised = (type(raised), raised, raised.__traceback__)
            unsaid.append(
                self.logger.makeRecord(
                    self.logger.name, level, file, line, text, args, raised or None, function, kept.get("extra"), stack
                )
            )
