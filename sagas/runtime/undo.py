"""Undoes completed steps, last first; a compensation that was given up waits for a person.

Invariant: a compensation is a checkpoint under its step's key, so it completes once, on any worker, and each attempt
has the same idempotency key.
"""

from collections.abc import Awaitable, Iterable
from typing import Any

from durable_core import DefinitionError
from durable_core.layer import CallShape, HostContext, StepRecord, StepStatus, in_words, name_of
from sagas.model.definition import SagaDef, Unknown
from sagas.model.graph import GraphDef, Node
from sagas.model.phases import Mark, MarkKind
from sagas.model.plan import is_undone, to_undo, undo_key
from sagas.model.verbs import OperatorAction
from sagas.runtime.binding import RESULT, Binder, Bound
from sagas.runtime.flow import Release, flow


class Undo:
    """The compensations of one saga."""

    __slots__ = ("_binder", "_ctx", "_definition", "resolved", "skipped")

    def __init__(self, ctx: HostContext, definition: SagaDef[..., Any], binder: Binder) -> None:
        self._ctx = ctx
        self._definition = definition
        self._binder = binder
        self.skipped: list[str] = []
        """The steps whose compensation an operator skipped."""
        self.resolved = False
        """Whether an operator has skipped or settled something."""

    def bound(self, key: str) -> Bound | None:
        """The declared step at ``key``, as the code has it; found by its name if the body is abandoned."""
        spec = self._ctx.spec_of(key) or self._ctx.binding_of(key)
        if spec is not None:
            return self._binder.of(spec)
        return self._binder.named(name_of(key), self._definition)

    def shape(self, key: str) -> CallShape | None:
        """How the result of the step at ``key`` is read; None if the loaded code has no such step."""
        bound = self.bound(key)
        return None if bound is None else bound.spec.shape

    def arguments(self, key: str, bound: Bound) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The step's own arguments, from its intent."""
        payload = self._ctx.steps()[key].arguments or b"[]"
        return bound.spec.shape.decode(payload, what=f"saga {self._ctx.id}, step {key!r}: the arguments")

    async def under(self, prefix: str) -> None:
        """Undo every completed step under ``prefix``, last first; returns when all are undone."""
        await self.these(to_undo(self._ctx.steps(), prefix, skipped=self.skipped))

    async def these(self, keys: list[str]) -> None:
        """Undo these steps, in this order; returns when all are undone."""
        if self._definition.parallel_compensation and len(keys) > 1:
            await self._in_parallel(keys)
            return
        failed: dict[str, BaseException] = {}
        for key in keys:
            error = await self._undo(key)
            if error is None:
                continue
            failed[key] = error
            if self._definition.on_compensation_failure == "halt":
                await self._wait_for_fix(failed)
        await self._wait_for_fix(failed)

    async def _in_parallel(self, keys: list[str]) -> None:
        """Undo in parallel what ran in parallel; what ran one after the other is undone in reverse.

        In a graph: what does not depend on each other, and the rest in reverse of the graph's order.
        """
        if isinstance(self._definition, GraphDef):
            await self._against_the_graph(self._definition, keys)
            return
        failed: dict[str, BaseException] = {}

        async def one(key: str) -> None:
            error = await self._undo(key)
            if error is not None:
                failed[key] = error

        remaining = [self._ctx.steps()[key] for key in keys]
        while remaining:
            together = next_to_undo(remaining)
            remaining = [step for step in remaining if step not in together]
            async with self._ctx.group() as group:
                for step in together:
                    group.spawn(one(step.key))
            if failed and self._definition.on_compensation_failure == "halt":
                await self._wait_for_fix(failed)
        await self._wait_for_fix(failed)

    async def _against_the_graph(self, graph: GraphDef[...], keys: list[str]) -> None:
        """Undo each step once all that depends on it is undone; the steps of one child one after the other.

        The nodes are walked only where several have something to undo: a failure beside a thousand children under way
        undoes each of these by itself.
        """
        plan = graph.plan
        halt = self._definition.on_compensation_failure == "halt"
        failed: dict[str, BaseException] = {}
        left = set(keys)
        of_node: dict[str, list[str]] = {}
        for key in keys:
            of_node.setdefault(_node_key(key), []).append(key)

        async def all_of(found: Iterable[str]) -> None:
            for key in found:
                if key not in left or (failed and halt):
                    continue
                left.discard(key)
                error = await self._undo(key)
                if error is not None:
                    failed[key] = error

        async def one(node: Node, release: Release) -> None:
            await all_of(of_node.get(node.key, ()))
            release(node)

        while left:
            await all_of(key for key in keys if _node_key(key) not in plan.keys)  # the graph was another one then
            if len(of_node) > 1:
                await flow(self._ctx, {node: plan.children[node] for node in reversed(plan.order)}, one)
            else:
                await all_of(keys)
            await self._wait_for_fix(failed)

    async def _undo(self, key: str) -> BaseException | None:
        """Undo one step; returns the last exception of its compensation, or None if it succeeded."""
        bound = self.bound(key)
        steps = self._ctx.steps()
        if (bound is not None and bound.undo is None) or is_undone(steps, key):
            return None
        mine = undo_key(key)
        before = steps.get(mine) if self._ctx.spec_of(mine) is not None else None
        try:
            if before is not None and before.edition == steps[key].edition:
                await self._ctx.reattempt(mine)
            else:
                await self._compensation(key, bound)
        except Exception as error:  # noqa: BLE001 - the border of the user's compensation
            return error
        return None

    def _compensation(self, key: str, bound: Bound | None) -> Awaitable[Any]:
        if bound is None or bound.undo is None:
            raise DefinitionError(
                f"the loaded code does not say how to undo step {key!r}",
                "Load the code that ran it, or undo it by hand",
            )
        args, kwargs = self.arguments(key, bound) if bound.undo_takes_arguments else ((), {})
        step = self._ctx.steps()[key]
        what = f"saga {self._ctx.id}, step {key!r}: the result to undo"
        if step.status is StepStatus.UNKNOWN:
            result: Any = Unknown(self._ctx.error_of(key))
        else:
            result = bound.spec.shape.decode_result(step.result or b"null", what=what)
        extra = {RESULT: result} if bound.undo_extra is None else {RESULT: result, **bound.undo_extra}
        if self._ctx.spec_of(undo_key(key)) is not None:
            return self._ctx.begin_anew(undo_key(key), args, kwargs, extra=extra, edition=step.edition)
        return self._ctx.perform(bound.undo, args, kwargs, extra=extra, key=undo_key(key))

    async def _wait_for_fix(self, failed: dict[str, BaseException]) -> None:
        """Wait for a person until each of these compensations has succeeded or is skipped."""
        while failed:
            first = next(iter(failed))
            why = "; ".join(
                f"the compensation of step {key!r} was given up: {in_words(error)}" for key, error in failed.items()
            )
            verdict = await ask(
                self._ctx,
                undo_key(first),
                f"{why}. Its effect is still there. Fix the cause and run `sagas retry {self._ctx.id}`, or undo it by "
                f"hand and run `sagas skip {self._ctx.id} {first}`",
                tuple(failed),
            )
            for key in [verdict.step] if verdict.step in failed else list(failed):
                if verdict.verb != "retry":
                    self._done_by_hand(key, verdict)
                    del failed[key]
                    continue
                error = await self._undo(key)
                if error is None:
                    del failed[key]
                else:
                    failed[key] = error

    def _done_by_hand(self, key: str, verdict: OperatorAction) -> None:
        """An operator says that the compensation has happened (``resolve``), or counts it as done (``skip``)."""
        self.resolved = True
        if verdict.verb == "resolve" and undo_key(key) in self._ctx.steps():
            self._ctx.settle(undo_key(key), happened=True, result=bytes(verdict.result))
            return
        self.skipped.append(key)
        self._ctx.mark(Mark(MarkKind.SKIPPED, key).text)


def _node_key(key: str) -> str:
    """The key of the node of a graph that the step at ``key`` belongs to."""
    return key.partition("/")[0]


def next_to_undo(remaining: list[StepRecord]) -> list[StepRecord]:
    """The steps after whose end none of the others began: steps that ran in sequence are undone in sequence."""
    last_begun = max(step.started_seq for step in remaining)
    return [step for step in remaining if step.ended_seq > last_begun or step.started_seq == last_begun]


async def ask(ctx: HostContext, key: str, reason: str, steps: tuple[str, ...]) -> OperatorAction:
    """Wait for an operator's verb about one of ``steps``, or about all that is stuck; it may have come already."""
    for early in ctx.unheard:
        if early.step in steps:
            ctx.unheard.remove(early)
            return early  # type: ignore[no-any-return]  # only verdicts are kept there
    verdict: OperatorAction = await ctx.park(key, f"saga {ctx.id}: {reason}", steps)
    return verdict
