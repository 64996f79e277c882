"""Drives one saga: its body forward; after a failure, cancel or deadline its compensations; else it waits for a person.

Invariant: the driver is a durable body itself, so whatever it decides is decided again, equally, on every replay. The
rollback runs here and not in the user's body: nothing that the body catches or swallows can stop it.
"""

from collections.abc import Coroutine, Generator, Iterable
from functools import partial
from typing import Any, NoReturn

import msgspec

from durable_core import DefinitionError, DurableError, Fault, PayloadError, RunStatus, SiblingFailed
from durable_core.layer import (
    Branches,
    CallShape,
    ChildBlock,
    DurableFunction,
    End,
    HostContext,
    JournalEntry,
    Operation,
    OutcomeUnknown,
    Perform,
    capture,
    shown,
    to_ns,
)
from sagas.errors import SagaCompensated
from sagas.model.definition import Declared, Pivot, SagaDef, Step
from sagas.model.fingerprint import fingerprint
from sagas.model.plan import undone
from sagas.runtime.binding import Binder, Bound
from sagas.runtime.blocks import map_all, refuse_nested_pivot
from sagas.runtime.operator import hand_out, told, verdict_of
from sagas.runtime.parts import Part, PartExpired
from sagas.runtime.resolver import OutcomeResolver
from sagas.runtime.saga import Saga
from sagas.runtime.undo import Undo

CAUSES = {"cancel": "cancelled", "deadline": "deadline", "rollback": "failed"}
"""The signals that close a body, and what they are called as the cause of a rollback."""


class Driver:
    """One run of one saga."""

    __slots__ = (
        "_back",
        "_cause",
        "_doubt",
        "_errors",
        "_forward",
        "_known",
        "_late",
        "_undo",
        "at_pivot",
        "binder",
        "body",
        "ctx",
        "definition",
        "parts",
        "saga",
    )

    def __init__(self, ctx: HostContext, definition: SagaDef[..., Any], binder: Binder) -> None:
        self.ctx = ctx
        self.binder = binder
        self._known = binder.known_in(definition)
        self.definition = definition
        self.saga = Saga(self)
        self._undo: Undo | None = None
        self._doubt: OutcomeResolver | None = None
        self._errors: dict[str, BaseException] = {}
        """The last exception of each failed step: to tell after the pivot which step to attempt again."""
        self._cause: str | None = None
        """Why the body is being closed: ``cancelled`` or ``deadline``."""
        self.at_pivot = False
        """The pivot is in flight, or its outcome is being settled."""
        self.parts: list[Part] = []
        """The children under way that have a deadline, outermost first; all around the pivot, for that runs alone."""
        self._back = False
        """The rollback has begun: nothing closes the body any more."""
        self._late: str | None = None
        """What would be the cause, asked for while the pivot was in flight."""
        self._forward = False
        """The pivot has succeeded."""
        self.body: Branches | None = None
        """The user's body, once it has begun."""
        ctx.on_signal(self._signalled)  # now: a cancel may come before anything is driven

    @property
    def undo(self) -> Undo:
        """The compensations; made once there is something to undo or to settle, for most sagas end without."""
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

    async def execute(self, args: tuple[Any, ...], kwargs: dict[str, Any], shape: CallShape) -> End:
        """Run the body to its end, and undo it where it does not come to one."""
        try:
            if self.ctx.abandoned:
                return await self._roll_back(None)
            self.body = self.ctx.group()
            if self._cause is not None:
                self.body.stop()  # cancelled before it began: it never does
            branch = self.body.spawn(self.definition.body(self.saga, *args, **kwargs))
            error: Exception | None = None
            try:
                await self.body.join()
                if self._cause is None:
                    what = f"saga {self.ctx.id}: the result of the body"
                    return End(output=shape.encode_result(branch.result(), what=what))
            except Exception as raised:  # noqa: BLE001 - the border of the user's body: what leaves it starts the rollback
                error = raised
            if self._forward:
                self.ctx.refuse(self._stuck_past_pivot(error))
            return await self._roll_back(error)
        except Exception as bug:
            # A saga ends in ways that its driver names; anything else is our mistake, and must not look like an end.
            fault = Fault(f"saga {self.ctx.id}: internal error ({told(bug)}); please report it, then retry the saga")
            raise fault from bug
        finally:
            del self.saga  # it points back here, and a circle is the collector's to find

    async def _roll_back(self, error: Exception | None) -> End:
        """Undo everything, last first; the direction is journalled before the first compensation."""
        self._back = True
        cause = self._cause or "failed"
        for mark in self.ctx.marks():
            if mark.startswith("skipped:"):
                self.undo.skipped.append(mark.removeprefix("skipped:"))
                self.undo.resolved = True
        self.ctx.mark("compensating", {"cause": cause}, phase=f"compensating/{cause}")
        await self.doubt.settle_all("")
        steps = self.ctx.steps()
        pivot = next((step.key for step in steps.values() if step.kind == Pivot.kind and step.result is not None), None)
        if pivot is not None:
            self.ctx.mark("past-pivot", phase="past-pivot")
            self.ctx.refuse(
                Fault(
                    f"saga {self.ctx.id}: its pivot {pivot!r} has happened, so nothing is undone. Its body cannot go "
                    f"on either: finish the rest by hand, then run `sagas kill {self.ctx.id}`"
                )
            )
        await self.undo.under("")
        steps = self.ctx.steps()
        phase = "resolved" if self.undo.resolved else "compensated"
        return End(
            status=RunStatus.FAILED,
            phase=f"{phase}/{cause}",
            output=msgspec.json.encode({"compensated": undone(steps), "skipped": self.undo.skipped}),
            error=None if error is None else self._stored(error),
        )

    async def undo_block(self, key: str, prefix: str, error: BaseException) -> None:
        """``error`` has left a savepoint or a child: undo what was done in it. Its rollback is marked with it."""
        with self.ctx.shield():
            keep = isinstance(error, Exception) and not self.ctx.replaying
            self.ctx.mark(f"undoing:{key}", {"error": msgspec.Raw(self._captured(error))} if keep else None)
            await self.doubt.settle_all(prefix)
            await self.undo.under(prefix)

    def _captured(self, error: BaseException) -> bytes:
        """The failure as it is kept: the step's own where it is that one."""
        steps = self.ctx.steps()
        mine = next((steps[key].error for key, seen in self._errors.items() if seen is error and key in steps), None)
        return mine or capture(error)

    def _stored(self, error: Exception) -> bytes:
        """The failure as it is kept at the end. Its frames are let go for the collector."""
        stored = self._captured(error)
        for link in _chain(error):
            link.with_traceback(None)  # a frozen exception refuses the assignment
        return stored

    def _stuck_past_pivot(self, error: Exception | None, child: str = "") -> Fault:
        """After the pivot nothing is undone: somebody must mend what failed, in ``child`` or in the root."""
        steps = self.ctx.steps()
        chain = _chain(error)
        failed = next((key for key, seen in self._errors.items() if seen in chain and key in steps), "")
        body = f"the body of its child {child!r}" if child else "the body"
        what = f"step {failed!r}" if failed else body
        fault = Fault(
            f"saga {self.ctx.id}: {what} raised {told(error)}, after the pivot, so nothing is undone. "
            f"Mend the cause, then run `sagas retry {self.ctx.id}`: "
            + (f"it attempts {failed!r} again" if failed else "it runs the body again with the code loaded then")
        )
        fault.__cause__ = error
        fault.about = (failed or child,) if failed or child else ()
        if failed:
            fault.step = failed
            fault.since = steps[failed].ended_seq
        return fault

    # -- steps -----------------------------------------------------------------------------------------------------

    def refuse_to_run(self, what: object) -> NoReturn:
        """``s.run`` was given something that cannot be run."""
        self.ctx.refuse(
            Fault(
                f"saga {self.ctx.id}: s.run was given {what!r}; give it a function decorated with @step, @pivot, "
                "@retriable or @lookup, or another @saga, then retry the saga"
            )
        )

    async def run_in_branch(
        self, declared: Declared[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], key: str
    ) -> Any:
        """Run a step under a key that its branch has claimed."""
        return await Operation(self.ctx, declared.call, self.run_step, (declared, args, kwargs, key))

    def run_step(
        self, declared: Declared[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], key: str | None = None
    ) -> Generator[Any, Any, Any]:
        """Run a step; its outcome is known when this returns or raises. A generator, as ``Operation`` begins one."""
        ctx = self.ctx
        step: Perform[Any] | None = None
        try:
            bound = self._known.get(declared)
            if bound is None or bound.pivot or self._forward:
                bound = self._allowed(declared)
            step = ctx.perform(bound.spec, args, kwargs, extra=bound.extra, key=key)
            self.at_pivot = bound.pivot
            try:
                result = yield step
            except OutcomeUnknown as unknown:
                result = yield from self.doubt.settle(unknown.key, unknown.__cause__).__await__()
        except Exception as error:
            ctx.refuse_own(error)
            if step is None:
                raise
            self._errors[step.key or ""] = error
            self.at_pivot = False
            if isinstance(declared, Pivot):
                yield from self._stop_after_pivot().__await__()
            raise
        if bound.pivot:
            self.at_pivot = False
            self._forward = True
            ctx.mark("past-pivot", phase="past-pivot")
            if self._late is not None:
                ctx.mark(f"too-late:{self._late}")
            for part in self.parts:
                part.pivot_succeeded()
        return result

    async def _stop_after_pivot(self) -> None:
        """A cancel or deadline that came while the pivot was in flight counts: that did not happen."""
        if self._late is not None:
            self._cause, self._late = self._late, None
            if self.body is not None:
                self.body.stop()
        elif not any(part.pivot_failed() for part in self.parts):
            return
        await self.ctx.sleep(0)  # refused: the body is closed here

    def hurry_pivot(self) -> None:
        """Something waits for the outcome of the pivot: it is not attempted again, nor begun where it was not yet."""
        for key, spec in self.ctx.unended():
            if spec.kind == Pivot.kind:
                self.ctx.give_up(key)

    def _allowed(self, declared: Declared[..., Any]) -> Bound:
        """The step bound to this orchestrator, where the saga may run it here and now."""
        try:
            if self._forward and isinstance(declared, Step | Pivot):
                raise DefinitionError(  # noqa: TRY301 - one place turns it into a fault
                    f"{declared.what} comes after the pivot, where nothing is undone any more; only lookups, waits and "
                    "retriables may follow. Move it before the pivot, or declare it @retriable"
                )
            if isinstance(declared, Pivot) and self.ctx.nesting() > 1:
                refuse_nested_pivot(self.ctx, declared)
            bound = self._known[declared] = self.binder.bind(declared)
        except (DefinitionError, PayloadError) as error:
            fault = Fault(f"saga {self.ctx.id}: {plain(error)}. Then retry the saga")
            fault.__cause__ = error
            self.ctx.refuse(fault)
        return bound

    async def run_child(self, definition: SagaDef[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run another saga as a part of this one: its steps are this run's, so undoable until the root ends."""
        shape = self.binder.shape_of(definition)
        named: dict[str, Any] = {"name": definition.name, "version": definition.version}
        if definition.deadline is not None and not self._forward:  # past the pivot nothing is undone
            named["within_ns"] = to_ns(definition.deadline)
        child = ChildBlock(self.ctx, shape, args, kwargs, **named)
        body = definition.body(self.saga, *child.args, **child.kwargs)
        try:
            result = await (body if child.due_at_ns is None else Part(self, child, child.due_at_ns).run(body))
            stored = child.stored(result)
        except PartExpired as expired:
            child.leave()
            raise await self._child_undone(child.key, child.prefix, expired, cause="deadline") from expired.__cause__
        except (Exception, SiblingFailed) as error:
            child.leave()
            self.ctx.refuse_own(error)
            if self._forward and isinstance(error, Exception):
                raise self._stuck_past_pivot(error, child.key) from error  # nothing is undone: the root is stuck on it
            if self._forward:
                raise
            raise await self._child_undone(child.key, child.prefix, error) from error
        child.leave()
        return child.completed(stored)

    async def _child_undone(
        self, key: str, prefix: str, error: BaseException, *, cause: str = "failed"
    ) -> BaseException:
        """A child did not come to its end: undo what it did; what its parent sees."""
        before = set(undone(self.ctx.steps()))
        await self.undo_block(key, prefix, error)
        self.ctx.mark(f"child-compensated:{key}", {"cause": cause})
        if not isinstance(error, Exception):
            return error
        keys = [step for step in undone(self.ctx.steps()) if step not in before]
        why = "its deadline has passed" if cause == "deadline" else told(error)
        return SagaCompensated(
            f"saga {self.ctx.id}/{key} was rolled back ({why}); undone: {', '.join(keys) or 'nothing'}",
            saga_id=f"{self.ctx.id}/{key}",
            cause=cause,
            compensated=keys,
        )

    def map(self, what: Any, items: Iterable[Any], max_concurrency: int | None) -> Coroutine[Any, Any, list[Any]]:
        """Run ``what`` for each item."""
        return Operation(self.ctx, "s.map(...)", map_all, (self, what, items, max_concurrency))

    # -- signals ---------------------------------------------------------------------------------------------------

    def _signalled(self, entry: JournalEntry) -> None:
        """An operator's verb, a cancel or the deadline; called at its place in the journal, live and on replay."""
        if entry.key in ("retry", "skip", "resolve"):
            hand_out(self.ctx, verdict_of(entry))
        elif (
            entry.key in CAUSES and not self._back and self._cause is None and self._late is None and not self._forward
        ):
            if not self.at_pivot:
                self._cause = CAUSES[entry.key]
                if self.body is not None:
                    self.body.stop()
                return
            self._late = CAUSES[entry.key]  # whether it comes too late is the pivot's to say
            self.hurry_pivot()

    def set_status(self, status: dict[str, Any]) -> None:
        """Publish details for people."""
        if not isinstance(status, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            self.ctx.mistake(DefinitionError(f"s.set_status({shown(status)}): give a dict"))
        try:
            self.ctx.set_status(self.binder.encode(status, what="the status given to s.set_status"))
        except PayloadError as error:
            self.ctx.mistake(error)


def _chain(error: BaseException | None) -> list[BaseException]:
    """``error`` and what led to it. Chains may be circles: an exception that is raised again while it is handled."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def plain(error: DurableError) -> str:
    """An error's message without its code."""
    return str(error.args[0]).rpartition(" [")[0]


def body_of(definition: SagaDef[..., Any], binder: Binder, shape: CallShape) -> Any:
    """The durable body that drives ``definition``."""

    def body(ctx: HostContext, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, End]:
        return Driver(ctx, definition, binder).execute(args, kwargs, shape)

    return body


def function_of(definition: SagaDef[..., Any], binder: Binder) -> DurableFunction:
    """What an engine or host runs for a saga."""
    shape = binder.shape_of(definition)
    return DurableFunction(
        name=definition.name,
        version=definition.version,
        fn=body_of(definition, binder, shape),
        shape=shape,
        deadline_ns=None if definition.deadline is None else to_ns(definition.deadline),
        operations="s",
        fingerprint=fingerprint(definition, binder.scan(definition)),
        locate=partial(binder.locate, definition),
    )
