"""Settles unknown outcomes: by the step's probe, by a compensation that admits ``Unknown``, or by a person.

Invariant: while a step's outcome is unknown nothing is undone, and the body does not continue.
"""

from typing import Any

from durable_core import PayloadError
from durable_core.layer import HostContext, OutcomeUnknown, StepSpec, StepStatus, in_words
from sagas.model.definition import Step
from sagas.model.plan import in_doubt, is_spent, probe_key
from sagas.model.verbs import OperatorAction
from sagas.runtime.binding import Bound, ProbeAnswer
from sagas.runtime.undo import Undo, ask


class OutcomeResolver:
    """The unknown outcomes of one saga."""

    __slots__ = ("_ctx", "_undo")

    def __init__(self, ctx: HostContext, undo: Undo) -> None:
        self._ctx = ctx
        self._undo = undo

    async def settle_all(self, prefix: str) -> None:
        """Settle the unknown outcomes under ``prefix``, before anything is undone."""
        for key in in_doubt(self._ctx.steps(), prefix, skipped=self._undo.skipped):
            bound = self._undo.bound(key)
            if bound is not None and not bound.declared.effect:
                self._ctx.settle(key, happened=False)  # declared to have nothing to undo
                continue
            try:
                await self.settle(key, None)
            except Exception as error:  # noqa: BLE001 - it did not happen: there is nothing to undo
                self._ctx.refuse_own(error)
                self._ctx.log.debug("step %s did not happen: %s", key, error)

    async def settle(self, key: str, error: BaseException | None) -> Any:
        """Find out whether the step at ``key`` happened.

        Returns its result if it did; raises its exception if it did not, or was undone.
        """
        bound = self._undo.bound(key)
        if error is None:
            error = self._ctx.error_of(key) or RuntimeError(f"step {key} was cut short")
        if bound is not None and bound.probe is not None:
            return await self._ask_probe(key, bound, bound.probe, error)
        if bound is not None and isinstance(bound.declared, Step) and bound.declared.admits_unknown:
            await self._undo.these([key])
            raise error
        name = bound.declared.name if bound is not None else key
        return await self._ask_person(
            key,
            f"step {key!r} ended with an unknown outcome ({in_words(error)}): it may or may not have happened. Find "
            f"out, then run `sagas resolve {self._ctx.id} {key} --happened` or `--did-not-happen`. To have it settled "
            f"without a person, declare `@{name}.probe`, or a compensation whose first parameter admits Unknown",
            error,
        )

    async def _ask_probe(self, key: str, bound: Bound, probe: StepSpec, error: BaseException) -> Any:
        misfit = ""
        while True:
            try:
                answer = await self._probe(key, bound, probe)
            except Exception as failed:  # noqa: BLE001 - the border of the user's probe
                if isinstance(bound.declared, Step) and bound.declared.admits_unknown:
                    await self._undo.these([key])
                    raise error from None
                verdict = await ask(
                    self._ctx,
                    key,
                    f"{misfit}step {key!r} ended with an unknown outcome ({in_words(error)}), and its probe was given "
                    f"up ({in_words(failed)}). Fix the probe and run `sagas retry {self._ctx.id}`, or find out "
                    f"yourself and run `sagas resolve {self._ctx.id} {key} --happened` or `--did-not-happen`",
                    (key,),
                )
                misfit = self._misfit(key, verdict)
                if verdict.happened is not None and not misfit:
                    return self.resolve(key, verdict, error)
            else:
                return self._settled(key, happened=answer.happened, result=bytes(answer.value), error=error)

    async def _probe(self, key: str, bound: Bound, probe: StepSpec) -> ProbeAnswer:
        """Call the probe. If it has answered, it is not called again; if it was given up, it keeps its key."""
        mine = probe_key(key)
        edition = self._ctx.steps()[key].edition
        before = self._ctx.steps().get(mine) if self._ctx.spec_of(mine) is not None else None
        if before is not None and before.edition == edition:
            if before.status is StepStatus.SUCCEEDED:
                answered: ProbeAnswer = probe.shape.decode_result(before.result or b"null", what=f"step {mine!r}")
                return answered
            answer: ProbeAnswer = await self._ctx.reattempt(mine)
            return answer
        args, kwargs = self._undo.arguments(key, bound)
        if before is not None:
            anew: ProbeAnswer = await self._ctx.begin_anew(mine, args, kwargs, extra=bound.probe_extra, edition=edition)
            return anew
        first: ProbeAnswer = await self._ctx.perform(probe, args, kwargs, extra=bound.probe_extra, key=mine)
        return first

    async def _ask_person(self, key: str, reason: str, error: BaseException) -> Any:
        while True:
            verdict = await self.decided(key, reason)
            if verdict.happened is not None:
                return self.resolve(key, verdict, error)
            if self._ctx.spec_of(key) is None:
                continue  # an abandoned body's step is not attempted again
            return await self.again(key)

    async def again(self, key: str) -> Any:
        """Attempt the step at ``key`` again, and settle its outcome if that is unknown.

        It keeps its idempotency key, so that a participant which keeps keys answers once; one under which it can no
        longer happen is replaced.
        """
        bound = self._undo.bound(key)
        try:
            if bound is None or not is_spent(self._ctx.steps(), key):
                return await self._ctx.reattempt(key)
            args, kwargs = self._undo.arguments(key, bound)
            edition = self._ctx.steps()[key].edition + 1
            return await self._ctx.begin_anew(key, args, kwargs, extra=bound.extra, edition=edition)
        except OutcomeUnknown as unknown:
            return await self.settle(key, unknown.__cause__)

    def why_held_back(self, key: str, error: BaseException) -> str:
        """For a person: why the failure of the step at ``key`` is kept from the body, and what can be done."""
        return (
            f"step {key!r} has failed ({in_words(error)}) and is not attempted again by itself. Nothing is undone yet, "
            f'because of on_failure="stuck". Fix the cause and run `sagas retry {self._ctx.id}`; or say what is so, by '
            f"`sagas resolve {self._ctx.id} {key} --happened` or `--did-not-happen`; or undo the saga by `sagas "
            f"rollback {self._ctx.id}`"
        )

    async def decided(self, key: str, reason: str) -> OperatorAction:
        """An operator's verb about the step at ``key``; if it gives a result, that is of the step's type."""
        misfit = ""
        while True:
            verdict = await ask(self._ctx, key, misfit + reason, (key,))
            misfit = self._misfit(key, verdict)
            if not misfit:
                return verdict

    def _misfit(self, key: str, verdict: OperatorAction) -> str:
        """Why the result that a person gave does not have the step's type, as a sentence; empty if it does."""
        shape = self._undo.shape(key)
        if not verdict.happened or shape is None:
            return ""
        try:
            what = f"saga {self._ctx.id}, step {key!r}: the result given to resolve"
            shape.decode_result(_result(verdict), what=what)
        except PayloadError as misfit:
            return f"the result given to resolve was refused ({misfit.message}). "
        return ""

    def resolve(self, key: str, verdict: OperatorAction, error: BaseException) -> Any:
        """Settle it as an operator says; its result, or ``error`` if it never happened."""
        self._undo.resolved = True
        return self._settled(key, happened=bool(verdict.happened), result=_result(verdict), error=error)

    def _settled(self, key: str, *, happened: bool, result: bytes, error: BaseException) -> Any:
        self._ctx.settle(key, happened=happened, result=result)
        if not happened:
            raise error
        shape = self._undo.shape(key)
        if shape is None:
            return None
        return shape.decode_result(result, what=f"saga {self._ctx.id}, step {key!r}: the settled result")


def _result(verdict: OperatorAction) -> bytes:
    return bytes(verdict.result)
