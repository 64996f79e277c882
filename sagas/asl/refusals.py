"""What Step Functions cannot do as our engine does it: each with its place, the reason, and what to do instead.

Invariant: what is not refused here behaves on the service as it does on our engine, but for what the how-to lists.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from durable_core import Retry
from durable_core.layer import Duration, to_ns
from sagas.asl import policy
from sagas.asl.calls import misfit
from sagas.asl.layout import Work, joined
from sagas.model.definition import Declared, Pivot, Probed, Retriable, SagaDef, Step
from sagas.model.graph import GraphDef, Node, Plan, type_of

NO_OPERATOR = (
    "and an execution cannot wait for an operator: it fails. Leave it out; after a failure everything is undone"
)
SHOWN = 40
"""Refusals that are shown."""


def of_graph(graph: GraphDef[...]) -> Iterator[str]:
    """What cannot be expressed in a graph and in its children, before anything is laid out."""
    yield from _of_whole(graph)
    for node in graph.nodes:
        if isinstance(node.what_runs, GraphDef):
            yield from of_graph(node.what_runs)
        for reason in _of_node(node):
            yield f"{node.place}: {node.described} {reason}"
    yield from _callbacks(graph)


def of_work(work: Work) -> Iterator[str]:
    """What cannot be expressed in the state of a node, once it has its place."""
    if work.step is not None and (why := misfit(work)) is not None:
        yield why


def _of_whole(graph: GraphDef[...]) -> Iterator[str]:
    if graph.deadline is not None:
        yield (
            f"{graph.place}: the graph {graph.name!r} has a deadline, and the service's own time limit ends an "
            "execution without undoing anything. Leave out `deadline=`, and give the steps and callbacks timeouts"
        )
    if graph.on_failure == "stuck":
        yield f'{graph.place}: the graph {graph.name!r} has on_failure="stuck", {NO_OPERATOR}'
    output = graph.output
    if output is not None and output.is_token:
        yield f"{graph.place}: the graph {graph.name!r} returns {output.described}, which is known to one state only"


def _of_node(node: Node) -> Iterator[str]:
    if node.span is not None and _seconds(node.span) > policy.LONGEST_TIMEOUT_S:
        yield f"is longer than {policy.LONGEST_TIMEOUT_S} s. Divide it"
    if node.when is not None and type_of(node.when) not in (bool, bool | None):
        yield (
            f"has when= {node.when.described}, whose type is not declared as bool: the service takes any other value "
            "for false. Annotate the step's result with `-> bool`"
        )
    if node.when is not None and node.when.is_token:
        yield "has a token for its condition. Give `when=` a bool"
    what = node.what_runs
    if isinstance(what, Declared):
        yield from _of_step(what)
    elif isinstance(what, SagaDef) and not isinstance(what, GraphDef):
        yield "runs a saga that is written as code, and only graphs can be exported. Declare it as a SagaGraph"
    elif node.kind == "callback":
        yield from _of_callback(node)


# -- steps -------------------------------------------------------------------------------------------------------------


def _of_step(step: Declared[..., Any]) -> Iterator[str]:
    yield from _of_attempts("", step.retry, step.timeout, forever=isinstance(step, Retriable))
    if step.at_most_once and step.retry.attempts != 1:
        yield (
            "is at_most_once and has retries: the service would repeat an attempt without knowing whether it was made. "
            "Give it `retry=1`"
        )
    if step.on_failure == "stuck":
        yield f'has on_failure="stuck", {NO_OPERATOR}'
    if isinstance(step, Step) and step.compensating is not None:
        serving = step.compensating
        yield from _of_attempts("its compensation ", serving.retry, serving.timeout, forever=True)
    if isinstance(step, Probed) and step.probing is not None:
        yield from _of_attempts("its probe ", step.probing.retry, step.probing.timeout, forever=True)


def _of_attempts(what: str, retry: Retry, timeout: Duration | None, *, forever: bool) -> Iterator[str]:
    """What the service cannot do of a retry policy and a time limit.

    Args:
        what: whose they are: ``its probe``, or nothing for the step itself.
        retry: the policy.
        timeout: of each attempt.
        forever: whether it may be retried for as long as the service can, and then stands still.
    """
    if retry.rules is not None:
        yield f"{what}has a policy made of tenacity's own conditions. Write it as Retry(attempts=, first=, factor=)"
    elif retry.within is not None:
        yield f"{what}is retried `within` a time, and the service counts attempts only. Give it `attempts=` alone"
    elif retry.attempts is None and not forever:
        yield f"{what}is retried for ever, and the service ends at 25,000 events. Give it `attempts=`"
    elif retry.attempts is not None and retry.attempts > policy.MOST_ATTEMPTS:
        yield f"{what}has more than {policy.MOST_ATTEMPTS} attempts"
    if retry.attempts != 1 and retry.rules is None and _seconds(retry.longest) > policy.LONGEST_DELAY_S:
        yield f"{what}waits longer than {policy.LONGEST_DELAY_S} s between attempts. Lower `longest=`"
    if timeout is not None and _seconds(timeout) > policy.LONGEST_LAMBDA_S:
        yield (
            f"{what}has a timeout above {policy.LONGEST_LAMBDA_S} s, which is how long a Lambda function may run. "
            "Lower it, or wait for the answer by a callback"
        )


# -- callbacks ---------------------------------------------------------------------------------------------------------


def _of_callback(node: Node) -> Iterator[str]:
    timeout, heartbeat = node.timeout, node.heartbeat
    for name, span in (("timeout", timeout), ("heartbeat", heartbeat)):
        if span is not None and _seconds(span) > policy.LONGEST_TIMEOUT_S:
            yield f"has a {name} above {policy.LONGEST_TIMEOUT_S} s"
    limit = policy.LONGEST_TIMEOUT_S if timeout is None else policy.seconds(timeout)
    if heartbeat is not None and policy.seconds(heartbeat) >= limit:
        yield "has a heartbeat that is not shorter than its timeout, in whole seconds. Lower it, or leave it out"


def _callbacks(graph: GraphDef[...]) -> Iterator[str]:
    """A token is known to one state only: the one that calls the step which hands it out, and waits."""
    plan = Plan.of(graph.nodes)
    asked: dict[Node, Node] = {}
    for node in graph.nodes:
        for callback in dict.fromkeys(ref.node for ref in node.refs() if ref.is_token and ref.node is not None):
            if callback in asked.values():
                yield (
                    f"{node.place}: {node.described} is given the token of {callback.described}, and so is another "
                    "node. Let one step hand it out"
                )
            elif node in asked:
                yield f"{node.place}: {node.described} is given the tokens of two callbacks. Give each its own step"
            else:
                asked[node] = callback
                yield from (f"{node.place}: {node.described} {why}" for why in _asker(graph, plan, node, callback))
    if not plan.cycle():
        yield from _waits_for_itself(graph, plan, asked)


def _asker(graph: GraphDef[...], plan: Plan, node: Node, callback: Node) -> Iterator[str]:
    hands = f"hands out the token of {callback.described}, in one state with the wait for its answer, and "
    if not any(ref.is_token for ref in node.arguments()):
        yield f"waits for the token of {callback.described}, which it is not given. Give it as an argument"
    if isinstance(node.what_runs, SagaDef):
        yield f"{hands}is a child. Let a step hand it out"
    elif isinstance(node.what_runs, Pivot) or _can_be_undone(node.what_runs):
        yield f"{hands}its own result is lost there. Declare it as a @lookup, or with `compensation=None`"
    if _when(node) != _when(callback):
        yield f"{hands}has another `when=`. Give both the same"
    if plan.pivots and (node in plan.after) != (callback in plan.after):
        yield f"{hands}one of them is before the pivot and one after it. Put both on one side"
    users = [each for each in graph.nodes if any(ref.node is node for ref in each.refs())]
    below = _below(plan, callback)
    for user in users:
        if any(ref.node is node for ref in user.arguments()) or _when(user) == (node, False):
            yield f"{hands}{user.described} uses its result. Let that depend on another step"
        elif user not in below:
            yield f"{hands}{user.described} waits for it and not for the answer. Let it wait for the answer too"
    if graph.output is not None and graph.output.node is node:
        yield f"{hands}the graph returns its result"


def _can_be_undone(what: object) -> bool:
    return isinstance(what, Step) and what.effect


def _when(node: Node) -> tuple[Node | None, bool] | None:
    return None if node.when is None else (node.when.node, node.when.is_token)


def _below(plan: Plan, callback: Node) -> set[Node]:
    """What waits for the answer."""
    found: set[Node] = set()
    todo = [each for each in plan.children[callback] if (callback, False) in each.waits_for()]
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(plan.children[node])
    return found


def _waits_for_itself(graph: GraphDef[...], plan: Plan, asked: Mapping[Node, Node]) -> Iterator[str]:
    items, _ = joined(plan.order, asked)
    left_out = {asked.get(node, node) for node in plan.order} - set(items)
    for node, callback in asked.items():
        if callback in left_out:
            yield (
                f"{node.place}: {node.described} hands out the token of {callback.described} and waits for what comes "
                f"after its answer. Let it come first (graph {graph.name!r})"
            )


def _seconds(span: Duration) -> float:
    return to_ns(span) / 1e9


def shown(reasons: list[str]) -> str:
    """The reasons as one text."""
    more = len(reasons) - SHOWN
    return "; ".join(reasons[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
