"""Writes the states of a machine that runs a graph as our engine does: forward, and after a failure back.

Invariant: a branch of a ``Parallel`` never fails where something can be undone, since the service would cut the
branches beside it, with their steps in flight. It notes the failure in its document and ends; what follows the
``Parallel`` looks for such notes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from sagas.asl import policy
from sagas.asl.calls import arguments, call, plain_value
from sagas.asl.layout import (
    Branch,
    Lanes,
    Layout,
    Path,
    Plain,
    Stages,
    Tree,
    Work,
    in_graph_order,
    in_order,
    place_of,
    resolved,
)
from sagas.asl.policy import ALL, CUT, NOTHING_HAPPENED, State
from sagas.asl.states import Lane, Names, catch, choose, copy, fail, has_run, is_there, is_true, put, template
from sagas.model.definition import Declared, Probed, Serving, Step, takes_arguments
from sagas.model.graph import GraphDef

INVOKE = "arn:aws:states:::lambda:invoke"
WAIT = f"{INVOKE}.waitForTaskToken"
COMPENSATED = "Compensated"
UNDO_FAILED = "UndoFailed"
STUCK = "Stuck"
"""The errors of the machine's own ends."""

Write = Callable[[Lane, str], str]
"""Writes the states of a branch that end with the given one; returns the first."""


class Machine:
    """The states of one graph.

    Args:
        graph: checked before.
        layout: where its nodes stand.
        function: the Lambda function that serves the tasks.
    """

    def __init__(self, graph: GraphDef[...], layout: Layout, function: str) -> None:
        self._graph = graph
        self._layout = layout
        self._function = function
        self.names = Names([work.key for work in in_order(_all(layout.stages)) if work.node.kind != "sleep"])

    def document(self) -> State:
        """The whole machine."""
        stages = self._layout.stages
        lane = Lane(states={}, chain=(), failed=None)
        lane = attrs.evolve(lane, failed=self._rollback(lane))
        end = lane.add(self.names.of("result"), self._result(stages))
        entry = self._stages(stages, lane, end)
        start = lane.add(self.names.of("start"), {"Type": "Pass", "Parameters": {"input.$": "$"}, "Next": entry})
        about = f"Saga {self._graph.name} version {self._graph.version}"
        return {"Comment": about, **lane.program(start)}

    def _result(self, stages: Stages) -> State:
        output = stages.frame.graph.output
        found = Plain(None) if output is None else resolved(stages.frame, output, ())
        if isinstance(found, Path):
            return {"Type": "Pass", "InputPath": found.text, "End": True}
        return {"Type": "Pass", "Result": found.value, "End": True}

    # -- forward ---------------------------------------------------------------------------------------------------

    def _stages(self, stages: Stages, lane: Lane, following: str) -> str:
        after = attrs.evolve(lane, failed=None) if stages.certain else self._past_pivot(stages, lane)
        entry = self._tree(stages.last, after, following)
        for place, work in reversed(list(enumerate(stages.pivots))):
            entry = self._node(work, lane, entry)
            if place:
                entry = self._one_pivot(work, stages.pivots[:place], lane, entry)
        return self._tree(stages.first, lane, entry)

    def _past_pivot(self, stages: Stages, lane: Lane) -> Lane:
        """A lane for what follows pivots that may all have been skipped: only then is anything undone."""
        if not stages.pivots or stages.last == () or lane.failed is None:
            return lane
        stuck = lane.add(self.names.of("stuck after the pivot"), fail(STUCK, f"{lane.document}.failed"))
        rules = [(_ran(stages.pivots, lane), stuck)]
        return attrs.evolve(lane, failed=lane.add(self.names.of("past the pivot?"), choose(rules, lane.failed)))

    def _one_pivot(self, work: Work, earlier: Sequence[Work], lane: Lane, entry: str) -> str:
        """Where another pivot has run already, this one must not."""
        when = resolved(work.frame, work.node.when, lane.chain)
        if not isinstance(when, Path):
            return entry
        cause = f"{work.node.described} is a second pivot of this run; a saga has one point of no return"
        stuck = lane.add(self.names.of(f"{work.key} is too many"), {"Type": "Fail", "Error": STUCK, "Cause": cause})
        rules = [({"And": [is_true(when), _ran(earlier, lane)]}, stuck)]
        return lane.add(self.names.of(f"{work.key} too?"), choose(rules, entry))

    def _tree(self, tree: Tree, lane: Lane, following: str) -> str:
        match tree:
            case Work():
                return self._node(tree, lane, following)
            case Lanes(fork=fork, lanes=lanes):
                writes = [(branch, self._writing(each)) for branch, each in lanes]
                return self._side_by_side(fork, writes, lane, following, note="failed", noted=lane.failed)
            case parts:
                for part in reversed(parts):
                    following = self._tree(part, lane, following)
                return following

    def _writing(self, tree: Tree) -> Write:
        return lambda lane, following: self._tree(tree, lane, following)

    def _side_by_side(
        self,
        fork: str,
        writes: Sequence[tuple[Branch, Write]],
        lane: Lane,
        following: str,
        *,
        note: str,
        noted: str | None,
    ) -> str:
        """A ``Parallel``, and what looks for the notes of its branches.

        Args:
            fork: the field of its branches' documents.
            writes: its branches.
            lane: where it is written.
            following: the next state.
            note: the field in which a branch notes a failure.
            noted: the next state where one has; None where branches note nothing.
        """
        branches = [self._branch(branch, write, lane) for branch, write in writes]
        rules: list[tuple[State, str]] = []
        for branch, _ in writes if noted is not None else ():
            path = f"{lane.document}.{fork}[{branch.place}].{note}"
            into = lane.add(
                self.names.of(f"{note} in {branch.document}"), copy(path, f"{lane.document}.{note}", noted or "")
            )
            rules.append((is_there(path), into))
        if rules:
            following = lane.add(self.names.of(f"{note} in {fork}?"), choose(rules, following))
        result = f"{lane.document}.{fork}"
        state = {"Type": "Parallel", "Branches": branches, "ResultPath": result, "Next": following}
        return lane.add(self.names.of(f"side by side {fork}"), state)

    def _branch(self, branch: Branch, write: Write, around: Lane) -> State:
        ending = self.names.of(f"end of {branch.document}")
        lane = around.branch((*around.chain, branch), None if around.failed is None else ending)
        lane.add(ending, {"Type": "Pass", "InputPath": lane.document, "End": True})
        entry = write(lane, ending)
        return lane.program(lane.add(self.names.of(f"begin of {branch.document}"), put({}, lane.document, entry)))

    # -- one node --------------------------------------------------------------------------------------------------

    def _node(self, work: Work, lane: Lane, following: str) -> str:
        when = Plain(True) if work.node.when is None else resolved(work.frame, work.node.when, lane.chain)  # noqa: FBT003
        if isinstance(when, Plain) and when.value is True:
            return self._outcome(work, lane, following)
        skipped = {"value": None, "skipped": True}
        skip = lane.add(self.names.of(f"skip {work.key}"), put(skipped, place_of(work, lane.chain), following))
        if isinstance(when, Plain):
            return skip  # a child's constant, which is false
        entry = self._outcome(work, lane, following)
        return lane.add(self.names.of(f"{work.key}?"), choose([(is_true(when), entry)], skip))

    def _outcome(self, work: Work, lane: Lane, following: str) -> str:
        node = work.node
        if work.inner is not None:
            return self._stages(work.inner, lane, self._value_of_child(work, work.inner, lane, following))
        if node.span is not None:
            wait = {"Type": "Wait", "Seconds": policy.seconds(node.span), "Next": following}
            return lane.add(self.names.of(work.key), wait)
        if node.kind == "callback":
            return self._callback(work, lane, following)
        assert work.step is not None  # noqa: S101 - coded children are refused
        return self._step(work, work.step, lane, following)

    def _value_of_child(self, work: Work, inner: Stages, lane: Lane, following: str) -> str:
        output = inner.frame.graph.output
        found = Plain(None) if output is None else resolved(inner.frame, output, lane.chain)
        value = found if isinstance(found, Path) else plain_value(found, inner.frame.graph.draft.input_type, work.node)
        into = place_of(work, lane.chain)
        state = {"Type": "Pass", "Parameters": template({"value": value}), "ResultPath": into, "Next": following}
        return lane.add(self.names.of(f"result of {work.key}"), state)

    def _callback(self, work: Work, lane: Lane, following: str) -> str:
        token, step = Path("$$.Task.Token"), work.step
        more: dict[str, Any] = {"token": token} if step is None else {"arguments": arguments(work, lane.chain)}
        payload = call(self._graph, work, "callback" if step is None else "do", **more)
        state = self._task(payload, {"value.$": "$"}, place_of(work, lane.chain), following, resource=WAIT)
        if work.node.timeout is not None:
            state["TimeoutSeconds"] = policy.seconds(work.node.timeout)
        if work.node.heartbeat is not None:
            state["HeartbeatSeconds"] = policy.seconds(work.node.heartbeat)
        if step is not None:
            _set(state, "Retry", policy.retrier(step.retry, (policy.FAILED, policy.THROTTLED)))
        if lane.failed is not None:
            state["Catch"] = [catch([ALL], f"{lane.document}.failed", lane.failed)]
        return lane.add(work.key, state)

    def _step(self, work: Work, step: Declared[..., Any], lane: Lane, following: str) -> str:
        state = self._doing(work, step, lane, following)
        errors = policy.errors_to_repeat(step.retry, doubtful=step.effect, until_done=step.kind == "retriable")
        _set(state, "Retry", policy.retrier(step.retry, errors))
        if lane.failed is not None and not step.effect:
            state["Catch"] = [catch([ALL], f"{lane.document}.failed", lane.failed)]
        elif lane.failed is not None:
            state["Catch"] = self._catchers(work, step, lane, lane.failed, following)
        return lane.add(work.key, state)

    def _doing(self, work: Work, step: Declared[..., Any], lane: Lane, following: str, **more: Any) -> State:
        payload = call(self._graph, work, "do", arguments=arguments(work, lane.chain), **more)
        state = self._task(payload, {"value.$": "$.Payload.value"}, place_of(work, lane.chain), following)
        return _timed(state, step.timeout)

    def _task(
        self, payload: State, select: State | None, into: str | None, following: str, *, resource: str = INVOKE
    ) -> State:
        state = {
            "Type": "Task",
            "Resource": resource,
            "Parameters": {"FunctionName": self._function, "Payload": payload},
            "ResultPath": into,
            "Next": following,
        }
        return state if select is None else {**state, "ResultSelector": select}

    # -- unknown outcomes ------------------------------------------------------------------------------------------

    def _catchers(self, work: Work, step: Declared[..., Any], lane: Lane, failed: str, following: str) -> list[State]:
        """What follows the errors of a step whose unknown outcome matters.

        One that nothing settles is not caught: the execution fails there, and a redrive attempts the step again.
        """
        doubt = f"{place_of(work, lane.chain)}_doubt"
        settle = self._settle(work, step, lane, failed, following)
        catchers = [catch(NOTHING_HAPPENED, f"{lane.document}.failed", failed)]
        settling = [] if settle is None else [catch([ALL], doubt, settle)]
        if policy.has_doubt_state(step):
            state = self._doing(work, step, lane, following, doubt=Path(doubt))
            errors = (policy.FAILED, policy.UNKNOWN, policy.THROTTLED, *CUT)
            _set(state, "Retry", policy.retrier(step.retry, errors, done=2))
            state["Catch"] = [catch([policy.REJECTED], f"{lane.document}.failed", failed), *settling]
            again = lane.add(self.names.of(f"{work.key} (in doubt)"), state)
            catchers.append(catch([policy.UNKNOWN, *CUT], doubt, again))
        return [*catchers, *settling]

    def _settle(self, work: Work, step: Declared[..., Any], lane: Lane, failed: str, following: str) -> str | None:
        """The state that settles an unknown outcome; None where none can."""
        probing = step.probing if isinstance(step, Probed) else None
        admits = isinstance(step, Step) and step.admits_unknown
        if probing is None and not admits:
            return None
        place = place_of(work, lane.chain)
        nothing = copy(f"{place}_doubt", f"{lane.document}.failed", failed)
        settled = lane.add(self.names.of(f"{work.key} did not happen"), nothing)
        undo = self._undo_in_doubt(work, step, lane, settled) if isinstance(step, Step) and admits else None
        if probing is None:
            return undo
        return self._probe(work, probing, lane, (following, settled, undo))

    def _probe(self, work: Work, probing: Serving, lane: Lane, next_states: tuple[str, str, str | None]) -> str:
        """Asks the probe.

        Args:
            work: whose step is in doubt.
            probing: its probe.
            lane: where it is written.
            next_states: where it happened; where it did not; where the probe is given up, None to leave that open.
        """
        following, settled, undo = next_states
        place = place_of(work, lane.chain)
        answer = f"{place}_probe"
        value = {"Type": "Pass", "Parameters": {"value.$": f"{answer}.value"}, "ResultPath": place, "Next": following}
        happened = lane.add(self.names.of(f"{work.key} happened"), value)
        rules = [(is_true(Path(f"{answer}.happened")), happened)]
        chosen = lane.add(self.names.of(f"{work.key} happened?"), choose(rules, settled))
        payload = call(self._graph, work, "probe", arguments=arguments(work, lane.chain))
        select = {"happened.$": "$.Payload.happened", "value.$": "$.Payload.value"}
        state = _timed(self._task(payload, select, answer, chosen), probing.timeout)
        errors = policy.errors_to_repeat(probing.retry, doubtful=False, until_done=True)
        _set(state, "Retry", policy.retrier(probing.retry, errors))
        if undo is not None:
            state["Catch"] = [catch([ALL], f"{answer}_failed", undo)]
        return lane.add(self.names.of(f"probe {work.key}"), state)

    def _undo_in_doubt(self, work: Work, step: Step[..., Any], lane: Lane, following: str) -> str:
        """Undoes what may have happened; until that is done, nothing else is undone."""
        note = f"{lane.document}.undo_failed"
        end = lane.add(self.names.of("undo in doubt failed"), fail(UNDO_FAILED, note))
        state = self._undoing(work, step, lane, following)
        state["Catch"] = [catch([ALL], note, end)]
        return lane.add(self.names.of(f"undo {work.key} (in doubt)"), state)

    # -- back ------------------------------------------------------------------------------------------------------

    def _rollback(self, lane: Lane) -> str:
        """The undo chain: what has completed, against the graph's order. Returns its first state."""
        end = lane.add(self.names.of("compensated"), fail(COMPENSATED, "$.failed"))
        works = [work for work in in_graph_order(self._layout.stages) if _can_be_undone(work)]
        if not works:
            return end
        failed = lane.add(self.names.of("undo failed"), fail(UNDO_FAILED, "$.undo_failed"))
        entry = lane.add(self.names.of("all undone?"), choose([(is_there("$.undo_failed"), failed)], end))
        back = attrs.evolve(lane, failed=failed)
        if self._graph.parallel_compensation:
            return self._back(_all(self._layout.stages), back, entry)
        for work in works:
            entry = self._undo(work, back, entry)
        return entry

    def _back(self, tree: Tree, lane: Lane, following: str) -> str:
        """Undo a part as it ran, the other way round; what ran side by side side by side."""
        match tree:
            case Work(inner=None):
                return self._undo(tree, lane, following) if _can_be_undone(tree) else following
            case Work(inner=stages):
                assert stages is not None  # noqa: S101 - the case above
                return self._back(_all(stages), lane, following)
            case Lanes(lanes=lanes):
                parts = [each for _, each in lanes if any(map(_can_be_undone, in_order(each)))]
                if len(parts) < 2:  # noqa: PLR2004 - nothing to do side by side
                    return self._back(tuple(parts), lane, following)
                return self._back_side_by_side(parts, lane, following)
            case parts:
                for part in parts:
                    following = self._back(part, lane, following)
                return following

    def _back_side_by_side(self, parts: Sequence[Tree], lane: Lane, following: str) -> str:
        fork = self._layout.name("u")
        writes = [
            (Branch(fork, place, self._layout.name("b")), self._undoing_of(part)) for place, part in enumerate(parts)
        ]
        noted = lane.failed if self._halts else following
        return self._side_by_side(fork, writes, lane, following, note="undo_failed", noted=noted)

    def _undoing_of(self, part: Tree) -> Write:
        return lambda lane, following: self._back(part, lane, following)

    @property
    def _halts(self) -> bool:
        return self._graph.on_compensation_failure == "halt"

    def _undo(self, work: Work, lane: Lane, following: str) -> str:
        step = work.step
        assert isinstance(step, Step)  # noqa: S101 - `_can_be_undone`
        place = place_of(work, lane.chain)
        state = self._undoing(work, step, lane, following, result={"value.$": f"{place}.value"})
        failed = lane.failed if self._halts and lane.failed is not None else following
        state["Catch"] = [catch([ALL], f"{lane.document}.undo_failed.{work.field}", failed)]
        undo = lane.add(self.names.of(f"undo {work.key}", whole=True), state)
        return lane.add(self.names.of(f"{work.key} done?"), choose([(has_run(place), undo)], following))

    def _undoing(self, work: Work, step: Step[..., Any], lane: Lane, following: str, **more: Any) -> State:
        serving = step.compensating
        assert serving is not None  # noqa: S101 - graphs with steps that cannot be undone are refused
        if takes_arguments(serving.fn):
            more["arguments"] = arguments(work, lane.chain)
        state = _timed(self._task(call(self._graph, work, "undo", **more), None, None, following), serving.timeout)
        errors = policy.errors_to_repeat(serving.retry, doubtful=False, until_done=True)
        _set(state, "Retry", policy.retrier(serving.retry, errors))
        return state


def _all(stages: Stages) -> Tree:
    return (stages.first, stages.pivots, stages.last)


def _ran(pivots: Sequence[Work], lane: Lane) -> State:
    """Whether one of these pivots has succeeded."""
    found: list[Work] = []
    todo = list(pivots)
    while todo:
        work = todo.pop()
        if work.inner is None:
            found.append(work)
        else:
            todo.extend(work.inner.pivots)
    conditions = [has_run(place_of(work, lane.chain)) for work in found]
    return conditions[0] if len(conditions) == 1 else {"Or": conditions}


def _can_be_undone(work: Work) -> bool:
    return isinstance(work.step, Step) and work.step.compensating is not None


def _timed(state: State, timeout: Any) -> State:
    return state if timeout is None else {**state, "TimeoutSeconds": policy.seconds(timeout)}


def _set(state: State, field: str, found: list[State]) -> None:
    if found:
        state[field] = found
