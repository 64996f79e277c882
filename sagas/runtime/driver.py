"""Drives one saga: the body forward; after a failure, cancel or deadline, its compensations; parked where a person must help.

Invariant: the driver is a durable body itself, so whatever it decides is decided again, equally, on every replay. Rollback
runs here and not in the user's body: nothing that the body catches or swallows can stop it.
"""

from collections.abc import Awaitable, Coroutine
from datetime import datetime
from typing import Any

import msgspec

from durable_core import (
    CallShape,
    Context,
    DefinitionError,
    End,
    Fault,
    JournalEntry,
    OutcomeUnknown,
    PayloadError,
    RunStatus,
    StepStatus,
    capture,
)
from sagas.model.definition import Declared, Pivot, SagaDef, Span, Step
from sagas.model.outcome import Unknown
from sagas.model.plan import in_doubt, probe_key, to_undo, undo_key
from sagas.runtime.binding import RESULT, Binder, Bound, ProbeAnswer
from sagas.runtime.operation import Operation
from sagas.runtime.saga import Saga

UNKNOWN = Unknown()
CAUSES = {"cancel": "cancelled", "deadline": "deadline"}
"""The signals that close a body, and what they are called as the cause of a rollback."""


class Verdict(msgspec.Struct):
    """An operator's verb, as it is journalled."""

    step: str | None = None
    happened: bool | None = None
    result: msgspec.Raw | None = None
    reason: str = ""
    actor: str = ""
    note: str = ""


class Driver:
    """One run of one saga."""

    __slots__ = (
        "_cause",
        "_definition",
        "_errors",
        "_forward",
        "_late",
        "_resolved",
        "_skipped",
        "_undone",
        "binder",
        "body",
        "ctx",
    )

    def __init__(self, ctx: Context, definition: SagaDef[..., Any], binder: Binder) -> None:
        self.ctx = ctx
        self.binder = binder
        self._definition = definition
        self._errors: dict[str, BaseException] = {}
        """The last exception of each failed step: to tell after the pivot which step to attempt again."""
        self._cause: str | None = None
        """Why the body is being closed: ``cancelled`` or ``deadline``."""
        self._late: str | None = None
        """What would be the cause, asked for while the pivot was in flight."""
        self._forward = False
        """The pivot has succeeded."""
        self._undone: list[str] = []
        self._skipped: list[str] = []
        self._resolved = False

    # -- the whole saga --------------------------------------------------------------------------------------------

    async def execute(self, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any) -> End:
        """Run the body to its end, and undo it where it does not come to one."""
        self.ctx.on_signal(self._signalled)
        try:
            return await self._to_its_end(args, kwargs, shape)
        except Exception as bug:
            # A saga ends in ways that its driver names; anything else is our mistake, and must not look like an end.
            fault = Fault(
                f"saga {self.ctx.id}: internal error ({type(bug).__name__}: {bug}); please report it, then retry the saga"
            )
            raise fault from bug

    async def _to_its_end(self, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any) -> End:
        self.body = self.ctx.group()
        branch = self.body.spawn(self._definition.body(Saga(self), *args, **kwargs))
        try:
            await self.body.join()
            if self._cause is None:
                return End(
                    output=shape.encode_result(branch.result(), what=f"saga {self.ctx.id}: the result of the body")
                )
            error: Exception | None = None
        except Exception as raised:  # noqa: BLE001 - the border of the user's body: whatever leaves it starts the rollback
            error = raised
        if self._forward:
            raise self._stuck_past_pivot(error)
        return await self._roll_back(error)

    async def _roll_back(self, error: Exception | None) -> End:
        """Undo everything, last first; the direction is journalled before the first compensation."""
        cause = self._cause or "failed"
        self.ctx.mark("compensating", {"cause": cause}, phase=f"compensating/{cause}")
        await self._settle_doubts("")
        await self.undo("")
        phase = "resolved" if self._resolved else "compensated"
        return End(
            status=RunStatus.FAILED,
            phase=f"{phase}/{cause}",
            output=msgspec.json.encode({"compensated": self._undone, "skipped": self._skipped}),
            error=None if error is None else self._stored(error),
        )

    def _stored(self, error: Exception) -> bytes:
        """The failure as it is kept: the step's own where it is that one. Its frames are let go for the collector."""
        steps = self.ctx.steps()
        mine = next((steps[key].error for key, seen in self._errors.items() if seen is error and key in steps), None)
        stored = mine or capture(error)
        link: BaseException | None = error
        while link is not None:
            link.__traceback__ = None
            link = link.__cause__ or link.__context__
        return stored

    def _stuck_past_pivot(self, error: Exception | None) -> Fault:
        """After the pivot nothing is undone: somebody must mend what failed."""
        steps = self.ctx.steps()
        chain: list[BaseException] = []
        link: BaseException | None = error
        while link is not None and link not in chain:
            chain.append(link)
            link = link.__cause__ or link.__context__
        failed = next((key for key, seen in self._errors.items() if seen in chain and key in steps), "")
        what = f"step {failed!r}" if failed else "the body"
        fault = Fault(
            f"saga {self.ctx.id}: {what} raised {type(error).__name__}: {error}, after the pivot, so nothing is undone. "
            f"Mend the cause, then run `sagas retry {self.ctx.id}`: "
            + (f"it attempts {failed!r} again" if failed else "it runs the body again with the code loaded then")
        )
        fault.__cause__ = error
        if failed:
            fault.step = failed
            fault.since = steps[failed].ended_seq
        return fault

    # -- steps -----------------------------------------------------------------------------------------------------

    def run(self, what: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        """Run a step or a child saga."""
        if isinstance(what, Declared):
            return Operation(self, what.call, self._run_step, (what, args, kwargs))  # pyright: ignore[reportUnknownMemberType]
        self.ctx.refuse(
            Fault(
                f"saga {self.ctx.id}: s.run was given {what!r}; give it a function decorated with @step, @pivot, @retriable "
                "or @lookup, then retry the saga"
            )
        )
        return None

    async def _run_step(
        self, declared: Declared[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], key: str | None = None
    ) -> Any:
        ctx = self.ctx
        bound = self.binder.known.get(declared)
        if bound is None or self._forward:
            bound = self._allowed(declared)
        step = ctx.perform(bound.spec, args, kwargs, extra=bound.extra, key=key)
        try:
            try:
                result = await step
            except OutcomeUnknown as unknown:
                result = await self._settle(unknown.key, unknown.__cause__)
        except Exception as error:
            self._errors[step.key or ""] = error
            if self._late is not None:
                await self._stop_after_pivot()
            raise
        if bound.pivot:
            self._forward = True
            ctx.mark("past-pivot", phase="past-pivot")
            if self._late is not None:
                ctx.mark(f"too-late:{self._late}")
        return result

    async def _stop_after_pivot(self) -> None:
        """The cancel or deadline that came while the pivot was in flight counts: it did not happen."""
        self._cause, self._late = self._late, None
        self.body.stop()
        await self.ctx.sleep(0)  # refused: the body is closed here

    def _allowed(self, declared: Declared[..., Any]) -> Bound:
        """The step bound to this orchestrator, where the saga may run it here and now."""
        try:
            if self._forward and isinstance(declared, Step | Pivot):
                raise DefinitionError(  # noqa: TRY301 - one place turns it into a fault
                    f"{declared.what} comes after the pivot, where nothing is undone any more; only lookups, waits and "
                    "retriables may follow. Move it before the pivot, or declare it @retriable"
                )
            return self.binder.bind(declared)
        except (DefinitionError, PayloadError) as error:
            plain = str(error).rpartition(" [")[0]
            fault = Fault(f"saga {self.ctx.id}: {plain}. Then retry the saga")
            fault.__cause__ = error
            self.ctx.refuse(fault)

    def _bound(self, key: str) -> Bound | None:
        """What the step at ``key`` was run with: the code's side of the journal."""
        return self.binder.of(self.ctx.spec_of(key))

    def _shape(self, key: str) -> CallShape:
        spec = self.ctx.spec_of(key)
        if spec is None:
            raise DefinitionError(f"the code loaded here does not run step {key!r}")
        return spec.shape

    # -- unknown outcomes ------------------------------------------------------------------------------------------

    async def _settle_doubts(self, prefix: str) -> None:
        """Settle what nobody knows, before anything is undone."""
        for key in in_doubt(self.ctx.steps(), prefix, answered=[*self._undone, *self._skipped]):
            try:
                await self._settle(key, None)
            except Exception as error:  # noqa: BLE001 - it did not happen: there is nothing to undo, and that is all we ask
                self.ctx.log.debug("step %s did not happen: %s", key, error)

    async def _settle(self, key: str, error: BaseException | None) -> Any:
        """Find out whether the step at ``key`` happened: by its probe, by its compensation, or by a person.

        Returns its result where it happened; raises its exception where it did not, or was undone.
        """
        bound = self._bound(key)
        if error is None:
            error = self.ctx.error_of(key)
        if bound is not None and bound.probe is not None:
            return await self._ask_probe(key, bound, bound.probe, error)
        if (
            bound is not None
            and bound.undo is not None
            and isinstance(bound.declared, Step)
            and bound.declared.admits_unknown
        ):
            await self._undo_until_done([key])
            raise error or RuntimeError("undone")
        name = bound.declared.name if bound is not None else key
        return await self._ask_person(
            key,
            f"step {key!r} ended with an unknown outcome ({_told(error)}): it may or may not have happened. Find out, then run "
            f"`sagas resolve {self.ctx.id} {key} --happened` or `--did-not-happen`. To have it settled without a person, "
            f"declare `@{name}.probe`, or a compensation whose first parameter admits Unknown",
            error,
        )

    async def _ask_probe(self, key: str, bound: Bound, probe: Any, error: BaseException | None) -> Any:
        args, kwargs = self._arguments(key, bound)
        mine = probe_key(key)
        again = False
        while True:
            try:
                command = (
                    self.ctx.reattempt(mine)
                    if again
                    else self.ctx.perform(probe, args, kwargs, extra=bound.probe_extra, key=mine)
                )
                answer: ProbeAnswer = await command
            except Exception as failed:  # noqa: BLE001 - the border of the user's probe
                verdict = await self._park(
                    key,
                    f"step {key!r} ended with an unknown outcome ({_told(error)}), and its probe was given up "
                    f"({_told(failed)}). Mend the probe and run `sagas retry {self.ctx.id}`, or find out yourself and run "
                    f"`sagas resolve {self.ctx.id} {key} --happened` or `--did-not-happen`",
                    (key,),
                )
                if verdict.happened is not None:
                    return self._resolve(key, verdict, error)
                again = True
            else:
                return self._settled(key, happened=answer.happened, result=bytes(answer.value), error=error)

    async def _ask_person(self, key: str, reason: str, error: BaseException | None) -> Any:
        while True:
            verdict = await self._park(key, reason, (key,))
            if verdict.happened is not None:
                return self._resolve(key, verdict, error)
            # `retry`: attempt the step again, under its own key, so a participant that keeps it answers once.
            try:
                return await self.ctx.reattempt(key)
            except OutcomeUnknown as unknown:
                error = unknown.__cause__

    def _resolve(self, key: str, verdict: Verdict, error: BaseException | None) -> Any:
        self._resolved = True
        result = bytes(verdict.result) if verdict.result is not None else b"null"
        return self._settled(key, happened=bool(verdict.happened), result=result, error=error)

    def _settled(self, key: str, *, happened: bool, result: bytes, error: BaseException | None) -> Any:
        self.ctx.settle(key, happened=happened, result=result)
        if happened:
            return self._shape(key).decode_result(result, what=f"saga {self.ctx.id}, step {key!r}: the settled result")
        failure = error or RuntimeError(f"step {key} did not happen")
        self._errors[key] = failure
        raise failure

    # -- undoing ---------------------------------------------------------------------------------------------------

    async def undo(self, prefix: str) -> None:
        """Undo every completed step under ``prefix``, last first; returns once none is left."""
        await self._undo_until_done(to_undo(self.ctx.steps(), prefix, done=[*self._undone, *self._skipped]))

    async def _undo_until_done(self, keys: list[str]) -> None:
        """Undo these steps in this order. What is given up is left until a person has mended it."""
        failed: dict[str, BaseException] = {}
        for key in keys:
            error = await self._undo(key, again=False)
            if error is None:
                continue
            failed[key] = error
            if self._definition.on_compensation_failure == "halt":
                await self._mend(failed)
        await self._mend(failed)

    async def _undo(self, key: str, *, again: bool) -> BaseException | None:
        """Undo one step; what its compensation was given up with, or None."""
        bound = self._bound(key)
        if bound is not None and bound.undo is None:
            return None  # declared to have nothing to undo
        try:
            if again and undo_key(key) in self.ctx.steps():
                await self.ctx.reattempt(undo_key(key))
            else:
                await self._compensation(key, bound)
        except Exception as error:  # noqa: BLE001 - the border of the user's compensation
            return error
        self._undone.append(key)
        return None

    def _compensation(self, key: str, bound: Bound | None) -> Awaitable[Any]:
        if bound is None or bound.undo is None:
            raise DefinitionError(f"the code loaded here does not say how to undo step {key!r}")
        args, kwargs = self._arguments(key, bound) if bound.undo_takes_arguments else ((), {})
        step = self.ctx.steps()[key]
        what = f"saga {self.ctx.id}, step {key!r}: the result to undo"
        result = (
            UNKNOWN
            if step.status is StepStatus.UNKNOWN
            else bound.spec.shape.decode_result(step.result or b"null", what=what)
        )
        extra = {RESULT: result} if bound.undo_extra is None else {RESULT: result, **bound.undo_extra}
        return self.ctx.perform(bound.undo, args, kwargs, extra=extra, key=undo_key(key))

    async def _mend(self, failed: dict[str, BaseException]) -> None:
        """Wait for a person until no compensation is left undone."""
        while failed:
            told = "; ".join(
                f"the compensation of step {key!r} was given up: {_told(error)}" for key, error in failed.items()
            )
            verdict = await self._park(
                f"undo:{next(iter(failed))}",
                f"{told}. Its effect is still there. Mend the cause and run `sagas retry {self.ctx.id}`, or undo it by hand and "
                f"run `sagas skip {self.ctx.id} {next(iter(failed))}`",
                tuple(failed),
            )
            for key in [verdict.step] if verdict.step in failed else list(failed):
                if verdict.reason == "skip":
                    self._skip(key)
                    del failed[key]
                    continue
                error = await self._undo(key, again=True)
                if error is None:
                    del failed[key]
                else:
                    failed[key] = error

    def _skip(self, key: str) -> None:
        self._resolved = True
        self._skipped.append(key)
        self.ctx.mark(f"skipped:{key}")

    def _arguments(self, key: str, bound: Bound) -> tuple[tuple[Any, ...], dict[str, Any]]:
        payload = self.ctx.steps()[key].arguments or b"[]"
        return bound.spec.shape.decode(payload, what=f"saga {self.ctx.id}, step {key!r}: the arguments")

    # -- people ----------------------------------------------------------------------------------------------------

    async def _park(self, key: str, reason: str, steps: tuple[str, ...]) -> Verdict:
        verdict: Verdict = await self.ctx.park(key, f"saga {self.ctx.id}: {reason}", steps)
        return verdict

    def _signalled(self, entry: JournalEntry) -> None:
        """An operator's verb has come; called at its place in the journal, live and on replay."""
        verdict = msgspec.json.decode(entry.payload or b"{}", type=Verdict)
        if entry.key in ("retry", "skip", "resolve"):
            for key, steps in self.ctx.parked().items():
                if verdict.step is None or verdict.step in steps:
                    verdict.reason = entry.key
                    self.ctx.unpark(key, verdict)
        elif entry.key in CAUSES and self._cause is None and self._late is None and not self._forward:
            if any(spec.kind == Pivot.kind for spec in self.ctx.under_way()):
                self._late = CAUSES[entry.key]  # whether it comes too late is the pivot's to say
            else:
                self._cause = CAUSES[entry.key]
                self.body.stop()

    # -- waits -----------------------------------------------------------------------------------------------------

    def sleep(self, span: Span) -> Awaitable[None]:
        """Wait for ``span``."""
        return Operation(self, "s.sleep(...)", self._awaiting, (self.ctx.sleep(span),))

    def sleep_until(self, when: datetime) -> Awaitable[None]:
        """Wait until ``when``."""
        return Operation(self, "s.sleep_until(...)", self._awaiting, (self.ctx.sleep_until(when),))

    async def _awaiting(self, command: Awaitable[None]) -> None:
        await command

    def set_status(self, status: dict[str, Any]) -> None:
        """Publish details for people."""
        self.ctx.set_status(msgspec.json.encode(status))


def _told(error: BaseException | None) -> str:
    return "no error recorded" if error is None else f"{type(error).__name__}: {error}"


def body_of(definition: SagaDef[..., Any], binder: Binder, shape: Any) -> Any:
    """The durable body that drives ``definition``."""

    def body(ctx: Context, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, End]:
        return Driver(ctx, definition, binder).execute(args, kwargs, shape)

    return body
