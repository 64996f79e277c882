"""Drives one saga: its body forward, and after a failure, cancel or deadline its compensations.

Invariant: the driver is a durable body itself, so it makes every decision again, equally, on every replay. The rollback
runs here and not in the user's body: nothing that the body catches or swallows can stop it.
"""

from collections.abc import Callable, Coroutine, Generator
from typing import Any

import msgspec

from durable_core import DefinitionError, Fault, PayloadError, RunStatus, SiblingFailed
from durable_core.layer import (
    BodyContext,
    Branches,
    CallShape,
    ChildBlock,
    End,
    HostContext,
    JournalEntry,
    Operation,
    OutcomeUnknown,
    Perform,
    StepStatus,
    capture,
    derived,
    in_words,
    sentences,
    shown,
    to_ns,
)
from sagas.errors import SagaCompensated
from sagas.model.definition import Declared, Pivot, Retriable, SagaDef, Step
from sagas.model.info import ANSWERING
from sagas.model.phases import CAUSE_OF_SIGNAL, MOVES, Cause, Mark, MarkKind, Phase, skipped_in, stored
from sagas.model.plan import undone
from sagas.model.verbs import OperatorAction
from sagas.runtime.binding import Binder, Bound
from sagas.runtime.resolver import OutcomeResolver
from sagas.runtime.undo import Undo

DEEPEST = 100
"""Levels of children; what is nested deeper runs itself."""
PAST_PIVOT = Phase.PAST_PIVOT  # looked up once: on Python 3.11 a member of an enum costs more than the comparison


class PartExpired(Exception):
    """The deadline of a child has passed; ``__cause__`` is what its body raised when it was closed."""


class Driver:
    """One run of one saga."""

    __slots__ = (
        "_cause",
        "_doubt",
        "_errors",
        "_known",
        "_late",
        "_policies",
        "_undo",
        "at_pivot",
        "binder",
        "body",
        "ctx",
        "definition",
        "parts",
        "phase",
    )

    def __init__(self, ctx: HostContext, definition: SagaDef[..., Any], binder: Binder) -> None:
        self.ctx = ctx
        self.binder = binder
        self._known = binder.known_in(definition)
        self.definition = definition
        self._undo: Undo | None = None
        self._doubt: OutcomeResolver | None = None
        self._errors: dict[str, BaseException] = {}
        """The last exception of each failed step: after the pivot it shows which step to attempt again."""
        self._cause: Cause | None = None
        """Why the body is being closed."""
        self._policies: dict[str, str] = {}
        """What becomes of failures in the children under way, by their keys."""
        self.at_pivot = False
        """The pivot is in flight, or its outcome is being settled."""
        self.parts: list[Part] = []
        """The running children that have a deadline, outermost first; all contain the pivot, because it runs alone."""
        self.phase = Phase.FORWARD
        self._late: Cause | None = None
        """The cause of a cancel or deadline that came while the pivot was in flight."""
        self.body: Branches | None = None
        """The user's body, once it has begun."""
        ctx.on_signal(self._signalled)  # now: a cancel may come before the first step

    @property
    def undo(self) -> Undo:
        """The compensations; created when first needed, because most sagas end without."""
        if self._undo is None:
            self._undo = Undo(self.ctx, self.definition, self.binder)
        return self._undo

    @property
    def doubt(self) -> OutcomeResolver:
        """The unknown outcomes."""
        if self._doubt is None:
            self._doubt = OutcomeResolver(self.ctx, self.undo)
        return self._doubt

    # -- the whole saga --------------------------------------------------------------------------------------------

    async def execute(self, begin: Callable[[], Coroutine[Any, Any, Any]], shape: CallShape) -> End:
        """Run the body to its end, and undo it if it does not complete.

        Args:
            begin: calls the body.
            shape: how its result is stored.
        """
        try:
            if self.ctx.abandoned:
                return await self._roll_back(None)
            self.body = self.ctx.group()
            if self._cause is not None:
                self.body.stop()  # cancelled before it began
            branch = self.body.spawn(begin())
            error: Exception | None = None
            try:
                await self.body.join()
                if self._cause is None:
                    what = f"saga {self.ctx.id}: the result of the body"
                    return End(output=shape.encode_result(branch.result(), what=what))
            except Exception as raised:  # noqa: BLE001 - the border of the user's body: what leaves it starts the rollback
                error = raised
            if self.phase is PAST_PIVOT:
                self.ctx.refuse(self._stuck_past_pivot(error))
            return await self._roll_back(error)
        except Exception as bug:
            # The driver names every end of a saga; any other exception is our bug, and must not look like an end.
            fault = Fault(
                f"saga {self.ctx.id}: internal error ({in_words(bug)})",
                "Please report it, then retry the saga",
            )
            raise fault from bug

    async def _roll_back(self, error: Exception | None) -> End:
        """Undo everything, last first; the direction is journalled before the first compensation."""
        cause = self._cause or Cause.FAILED
        skipped = skipped_in(mark for text in self.ctx.marks() if (mark := Mark.read(text)) is not None)
        self.undo.skipped += skipped
        self.undo.resolved |= bool(skipped)
        self._enter(Phase.COMPENSATING)
        self.ctx.mark(Mark(MarkKind.COMPENSATING).text, {"cause": cause.value}, phase=stored(self.phase, cause))
        await self.doubt.settle_all("")
        steps = self.ctx.steps()
        pivot = next((step.key for step in steps.values() if step.kind == Pivot.kind and step.result is not None), None)
        if pivot is not None:
            self._pass_pivot()
            self.ctx.refuse(
                Fault(
                    f"saga {self.ctx.id}: its pivot {pivot!r} has happened, so nothing is undone, and its body cannot "
                    "continue either",
                    f"Finish the rest by hand, then run `sagas kill {self.ctx.id}`",
                )
            )
        await self.undo.under("")
        steps = self.ctx.steps()
        self._enter(Phase.RESOLVED if self.undo.resolved else Phase.COMPENSATED)
        return End(
            status=RunStatus.FAILED,
            phase=stored(self.phase, cause),
            output=msgspec.json.encode({"compensated": undone(steps), "skipped": self.undo.skipped}),
            error=None if error is None else self._stored(error),
        )

    def _enter(self, phase: Phase) -> None:
        """Move on to another phase, as the table of moves allows."""
        if phase not in MOVES[self.phase]:
            raise RuntimeError(f"a saga cannot move from {self.phase.name} to {phase.name}")
        self.phase = phase

    def _pass_pivot(self) -> None:
        """The pivot has succeeded: from here on nothing is undone."""
        self._enter(PAST_PIVOT)
        self.ctx.mark(Mark(MarkKind.PAST_PIVOT).text, phase=stored(PAST_PIVOT))

    async def undo_block(self, key: str, prefix: str, error: BaseException) -> None:
        """``error`` has left a savepoint or a child: undo the steps within. The journal marks it with the error."""
        with self.ctx.shield():
            keep = isinstance(error, Exception) and not self.ctx.replaying
            mark = Mark(MarkKind.UNDOING, key).text
            self.ctx.mark(mark, {"error": msgspec.Raw(self._captured(error))} if keep else None)
            await self.doubt.settle_all(prefix)
            await self.undo.under(prefix)

    def _captured(self, error: BaseException) -> bytes:
        """The failure as it is stored: as its step stored it, if it is a step's."""
        steps = self.ctx.steps()
        mine = next((steps[key].error for key, seen in self._errors.items() if seen is error and key in steps), None)
        return mine or capture(error)

    def _stored(self, error: Exception) -> bytes:
        """The failure as it is stored at the end. Its frames are released."""
        stored = self._captured(error)
        for link in _chain(error):
            link.with_traceback(None)  # a frozen exception refuses the assignment
        return stored

    def _stuck_past_pivot(self, error: Exception | None, child: str = "") -> Fault:
        """After the pivot nothing is undone: a person must fix the failure, in ``child`` or in the root."""
        steps = self.ctx.steps()
        said = "no error recorded" if error is None else in_words(error)
        chain = _chain(error)
        failed = next((key for key, seen in self._errors.items() if seen in chain and key in steps), "")
        body = f"the body of its child {child!r}" if child else "the body"
        what = f"step {failed!r}" if failed else body
        again = f"it attempts {failed!r} again" if failed else "it runs the body again with the code loaded then"
        fault = Fault(
            f"saga {self.ctx.id}: {what} raised {said}, after the pivot, so nothing is undone",
            f"Fix the cause, then run `sagas retry {self.ctx.id}`: {again}",
        )
        fault.__cause__ = error
        fault.about = (failed or child,) if failed or child else ()
        if failed:
            fault.step = failed
            fault.since = steps[failed].ended_seq
        return fault

    # -- steps -----------------------------------------------------------------------------------------------------

    async def run_in_branch(
        self, declared: Declared[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], key: str
    ) -> Any:
        """Run a step under a key that its branch has claimed."""
        return await Operation(self.ctx, declared.call, self.run_step, (declared, args, kwargs, key))

    def run_step(
        self, declared: Declared[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], key: str | None = None
    ) -> Generator[Any, Any, Any]:
        """Run a step; its outcome is known when this returns or raises. A generator, which ``Operation`` drives."""
        ctx = self.ctx
        step: Perform[Any] | None = None
        bound = self._known.get(declared)
        try:
            if bound is None or bound.pivot or self.phase is PAST_PIVOT:
                bound = self._allowed(declared)
            step = ctx.perform(bound.spec, args, kwargs, extra=bound.extra, key=key)
            self.at_pivot = bound.pivot
            try:
                result = yield step
            except OutcomeUnknown as unknown:
                result = yield from self.doubt.settle(unknown.key, unknown.__cause__).__await__()
        except Exception as error:
            ctx.refuse_own(error)
            if step is None or bound is None:
                raise
            key = step.key or ""
            self._errors[key] = error
            self.at_pivot = False
            if not self._holds_back(declared, key):
                if isinstance(declared, Pivot):
                    yield from self._stop_after_pivot().__await__()
                raise
            result = yield from self._held_back(declared, key, error).__await__()
        if bound.pivot:
            self.at_pivot = False
            self._pass_pivot()
            if self._late is not None:
                ctx.mark(Mark(MarkKind.TOO_LATE, self._late).text)
            for part in self.parts:
                part.pivot_succeeded()
        return result

    def _holds_back(self, declared: Declared[..., Any], key: str) -> bool:
        """Whether the failure of the step waits for an operator. One that a cancel or deadline waits for does not."""
        policy = declared.on_failure or self._policy_at(key)
        if policy != "stuck" or isinstance(declared, Retriable):
            return False
        step = self.ctx.steps().get(key)
        return (
            step is not None
            and step.status is not StepStatus.REJECTED
            and key not in self.undo.skipped
            and self._cause is None
            and self._late is None
            and not any(part.late for part in self.parts)
        )

    def _policy_at(self, key: str) -> str:
        """The policy of the saga or child whose code runs the step at ``key``."""
        while key and self._policies:
            key = key.rpartition("/")[0]
            if key in self._policies:
                return self._policies[key]
        return self.definition.on_failure

    async def _held_back(self, declared: Declared[..., Any], key: str, error: Exception) -> Any:
        """A failure that the body does not see before an operator has decided; the step's result in the end."""
        doubt = self.doubt
        while True:
            verdict = await doubt.decided(key, doubt.why_held_back(key, error))
            self.at_pivot = isinstance(declared, Pivot)
            try:
                if verdict.happened is None:
                    return await doubt.again(key)
                return doubt.resolve(key, verdict, error)
            except Exception as again:  # noqa: BLE001 - the border of the user's step
                self.ctx.refuse_own(again)
                self._errors[key] = error = again
                self.at_pivot = False
            if verdict.happened is not None or not self._holds_back(declared, key):
                break
        if isinstance(declared, Pivot):
            await self._stop_after_pivot()
        raise error

    async def _stop_after_pivot(self) -> None:
        """A cancel or deadline that came while the pivot was in flight counts, because the pivot has failed."""
        if self._late is not None:
            self._cause, self._late = self._late, None
            if self.body is not None:
                self.body.stop()
        elif not any(part.pivot_failed() for part in self.parts):
            return
        await self.ctx.sleep(0)  # the body is closed here

    def hurry_pivot(self) -> None:
        """A cancel or deadline waits for the pivot: do not attempt it again, nor begin it if it has not begun."""
        for key, spec in self.ctx.unended():
            if spec.kind == Pivot.kind:
                self.ctx.give_up(key)

    def _allowed(self, declared: Declared[..., Any]) -> Bound:
        """The step bound to this orchestrator, if the saga may run it at this point."""
        try:
            if self.phase is PAST_PIVOT and isinstance(declared, Step | Pivot):
                raise DefinitionError(  # noqa: TRY301 - one place turns it into a fault
                    f"{declared.what} comes after the pivot, where nothing is undone any more; only lookups, "
                    "waits and retriables may follow",
                    "Move it before the pivot, or declare it @retriable",
                )
            if self.ctx.nesting() > 1:
                self.refuse_nested_pivot(declared)
            bound = self._known[declared] = self.binder.bind(declared)
        except (DefinitionError, PayloadError) as error:
            fault = Fault(f"saga {self.ctx.id}: {error.text}", sentences(error.advice, "Then retry the saga"))
            fault.__cause__ = error
            self.ctx.refuse(fault)
        return bound

    def refuse_nested_pivot(self, declared: Declared[..., Any]) -> None:
        """The pivot runs alone: what runs beside it could neither be undone nor be sure to go forward."""
        if isinstance(declared, Pivot):
            self.ctx.refuse(
                Fault(
                    f"saga {self.ctx.id}: {declared.what} is in a parallel block, a map or a savepoint; the pivot runs "
                    "alone",
                    "Move it out of the block, then retry the saga",
                )
            )

    async def run_child(
        self,
        saga: BodyContext,
        definition: SagaDef[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        key: str | None = None,
    ) -> Any:
        """Run another saga within this one: its steps belong to this run, so they can be undone until the root ends.

        ``key`` was claimed before, or the next one of the child's name is taken.
        """
        shape = self.binder.shape_of(definition)
        named: dict[str, Any] = {"name": definition.name, "version": definition.version, "key": key}
        if definition.deadline is not None and self.phase is not PAST_PIVOT:  # else nothing is undone
            named["within_ns"] = to_ns(definition.deadline)
        self._refuse_endless(definition)
        child = ChildBlock(self.ctx, shape, args, kwargs, **named)
        body = definition.body(saga, *child.args, **child.kwargs)
        self._policies[child.key] = definition.on_failure
        try:
            result = await (body if child.due_at_ns is None else Part(self, child, child.due_at_ns).run(body))
            stored = child.stored(result)
        except PartExpired as expired:
            child.leave()
            raise await self._child_undone(
                child.key, child.prefix, expired, cause=Cause.DEADLINE
            ) from expired.__cause__
        except (Exception, SiblingFailed) as error:
            child.leave()
            self.ctx.refuse_own(error)
            if self.phase is PAST_PIVOT and isinstance(error, Exception):
                raise self._stuck_past_pivot(error, child.key) from error  # nothing is undone: the root is stuck on it
            if self.phase is PAST_PIVOT:
                raise
            raise await self._child_undone(child.key, child.prefix, error) from error
        finally:
            del self._policies[child.key]
        child.leave()
        return child.completed(stored)

    def _refuse_endless(self, definition: SagaDef[..., Any]) -> None:
        """A saga that runs itself, directly or through others, would take all memory before it did anything."""
        if self.ctx.caller().scope.prefix.count("/") >= DEEPEST:
            self.ctx.refuse(
                Fault(
                    f"saga {self.ctx.id}: {definition.name!r} is a child {DEEPEST} levels deep, so a saga seems to run "
                    "itself without end",
                    "Correct the condition under which it does, then retry the saga",
                )
            )

    async def _child_undone(
        self, key: str, prefix: str, error: BaseException, *, cause: Cause = Cause.FAILED
    ) -> BaseException:
        """A child did not complete: undo its steps; returns the exception for its parent."""
        before = set(undone(self.ctx.steps()))
        await self.undo_block(key, prefix, error)
        self.ctx.mark(Mark(MarkKind.CHILD_COMPENSATED, key).text, {"cause": cause.value})
        if not isinstance(error, Exception):
            return error
        keys = [step for step in undone(self.ctx.steps()) if step not in before]
        why = "its deadline has passed" if cause is Cause.DEADLINE else in_words(error)
        return SagaCompensated(
            f"saga {self.ctx.id}/{key} was rolled back ({why}); undone: {', '.join(keys) or 'nothing'}",
            saga_id=f"{self.ctx.id}/{key}",
            cause=cause.value,
            compensated=keys,
        )

    # -- signals ---------------------------------------------------------------------------------------------------

    def _signalled(self, entry: JournalEntry) -> None:
        """An operator's verb, a cancel or the deadline; called at its place in the journal, live and on replay."""
        if entry.key in ANSWERING:
            _hand_out(self.ctx, OperatorAction.read(entry.key, entry.payload))
            return
        cause = CAUSE_OF_SIGNAL.get(entry.key)
        if cause is None or self.phase is not Phase.FORWARD or self._cause is not None or self._late is not None:
            return
        if self.at_pivot:
            self._late = cause  # the pivot's outcome decides whether it comes too late
            self.hurry_pivot()
            return
        self._cause = cause
        if self.body is not None:
            self.body.stop()

    def set_status(self, status: dict[str, Any]) -> None:
        """Publish details for people."""
        if not isinstance(status, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            self.ctx.mistake(DefinitionError(f"s.set_status({shown(status)}): the status is not a dict", "Give a dict"))
        try:
            self.ctx.set_status(self.binder.encode(status, what="the status given to s.set_status"))
        except PayloadError as error:
            self.ctx.mistake(error)


class Part:
    """A child under way that has a deadline of its own.

    Invariant: the deadline counts from its place in the journal on, and once. It is void as soon as the child is over
    or is being closed for another reason, and as soon as the pivot has succeeded.
    """

    __slots__ = ("_branches", "_deadline", "_driver", "_expired", "_key", "late")

    def __init__(self, driver: Driver, child: ChildBlock, due_at_ns: int) -> None:
        self._driver = driver
        self._key = child.key
        self._branches: Branches = driver.ctx.group()
        self._deadline = driver.ctx.deadline(derived(child.key, Cause.DEADLINE), due_at_ns, self._due)
        self._expired = False
        self.late = False
        """The deadline has passed while the pivot was in flight."""

    async def run(self, body: Coroutine[Any, Any, Any]) -> Any:
        """Run the body until it returns, raises or is closed.

        Raises:
            PartExpired: the deadline has passed.
        """
        parts = self._driver.parts
        parts.append(self)
        branch = self._branches.spawn(body, block=False)  # the pivot may be in a child
        try:
            await self._branches.join()
        except Exception as error:
            if self._expired:
                raise PartExpired from error
            raise
        finally:
            self._deadline.void()
            parts.remove(self)
        if self._expired:
            raise PartExpired
        return branch.result()

    def expire(self) -> None:
        """Begin nothing new in it; waits end at once, steps in flight end and are recorded; then it is closed."""
        self._expired = True
        self._driver.ctx.mark(Mark(MarkKind.CHILD_DEADLINE, self._key).text)
        self._branches.stop()

    def pivot_failed(self) -> bool:
        """A deadline that passed while the pivot was in flight counts now. Returns whether there is one."""
        if self.late:
            self.expire()
        return self.late

    def pivot_succeeded(self) -> None:
        """The deadline no longer counts; one that passed meanwhile came too late."""
        self._deadline.void()
        if self.late:
            self._driver.ctx.mark(Mark(MarkKind.TOO_LATE, Cause.DEADLINE).text, {"child": self._key})

    def _due(self) -> None:
        """The deadline has passed; called at its place in the journal, live and on replay."""
        if self._branches.stopped:
            return
        if self._driver.at_pivot:
            self.late = True
            self._driver.hurry_pivot()
        else:
            self.expire()


def _hand_out(ctx: HostContext, verdict: OperatorAction) -> None:
    """Give the verb to the wait for its step; without a step, to all waits.

    Of two verbs that are taken up together, the first may lead to the wait that the second is about.
    """
    found = [key for key, steps in ctx.parked().items() if verdict.step is None or verdict.step in steps]
    for key in found:
        ctx.unpark(key, verdict)
    if not found and ctx.catching_up and verdict.step is not None:
        ctx.unheard.append(verdict)


def _chain(error: BaseException | None) -> list[BaseException]:
    """``error`` and what led to it. A chain may be a circle, if an exception is raised again while it is handled."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
