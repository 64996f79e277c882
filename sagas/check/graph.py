"""Judges a graph by its nodes and references, without running anything: every fault, each with its place.

Invariant: unlike a body that is written as code, a graph is known exactly, so what is found here is so on every run.
"""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from types import NoneType
from typing import Any, get_args

import attrs

from durable_core import PayloadError
from durable_core.layer import Codec, shown, to_ns
from sagas.check.deadline import patience_s
from sagas.model.definition import Declared, Pivot, SagaDef, Step
from sagas.model.graph import PURE, GraphDef, Node, Plan, Ref, is_pivot, is_ref, type_of

_CODEC = Codec()
PLAIN = (str, int, float, bool, bytes)
WORDS = 60
"""Names shown of a long list."""


Runs = Mapping[Node, Sequence[Any]]
"""The steps that each node runs: its own, or all of its child's."""


def faults_of(definition: GraphDef[...], runs: Runs) -> Iterator[str]:
    """What cannot work in the graph itself.

    Args:
        definition: the graph.
        runs: the steps of its nodes; those of coded children are known to the reader of bodies.
    """
    nodes = definition.nodes
    plan = Plan.of(nodes)
    if not nodes:
        yield f"{definition.place}: the graph {definition.name!r} has no node. Add one with g.step"
    for node in nodes:
        yield from (f"{node.place}: {node.described}{fault}" for fault in _of_node(definition, node))
    yield from _cycle(plan)
    yield from _around_pivots(plan, runs)
    yield from _idle(definition, plan)
    yield from _output(definition)
    yield from _late(definition, plan)


# -- one node ----------------------------------------------------------------------------------------------------------


def _of_node(definition: GraphDef[...], node: Node) -> Iterator[str]:
    """The faults of one node by itself, without the place and the name of the node."""
    yield from _foreign(definition, node)
    yield from _condition(node)
    if node.what_runs is not None:
        yield from _misfit(node, node.what_runs)
    elif node.kind == "callback":
        try:
            _CODEC.decoder(node.answer)
        except PayloadError as error:
            yield f" has answers that cannot be stored: {error.message}"


def _foreign(definition: GraphDef[...], node: Node) -> Iterator[str]:
    for ref in node.refs():
        if ref.graph is not definition.draft:
            yield (
                f" is given {ref.described} of another graph. Take a reference of this graph {definition.name!r}; "
                "a value of another saga comes as the result of g.step(other_saga, ...)"
            )
    for given in (*node.args, *node.kwargs.values()):
        if isinstance(given, list | tuple | dict | set | frozenset) and any(
            isinstance(each, Ref)
            for each in (given.values() if isinstance(given, dict) else given)  # pyright: ignore[reportUnknownVariableType]
        ):
            yield " is given a collection with references in it. Give each reference as an argument of its own"
    for each in node.after:
        if not isinstance(each, Ref):
            yield f" has after={shown(each)}. Give `after=` a list of references"


def _condition(node: Node) -> Iterator[str]:
    if node.when is None:
        return
    declared = type_of(node.when)
    if declared not in (bool, bool | None, Any):
        yield (
            f" has when= {node.when.described}, which is of type {_called(declared)}. Give `when=` a reference to a "
            "bool, such as the result of a @lookup"
        )


def _misfit(node: Node, what: "Declared[..., Any] | SagaDef[..., Any]") -> Iterator[str]:
    """Arguments that the node's function cannot be called with."""
    signature = _signature(what)
    try:
        bound = signature.bind(*node.args, **node.kwargs)
    except TypeError as error:
        yield f" cannot be called so: {error}. It takes {signature}"
        return
    for name, given in bound.arguments.items():
        parameter = signature.parameters[name]
        several = given if parameter.kind is parameter.VAR_POSITIONAL else [given]
        wanted = _parameter_type(what, name)
        for ref in several if parameter.kind is not parameter.VAR_KEYWORD else given.values():
            if is_ref(ref) and (why := _differ(wanted, type_of(ref))):
                yield f" takes a {_called(wanted)} for {name!r} and is given {ref.described}, {why}"


def _signature(what: "Declared[..., Any] | SagaDef[..., Any]") -> inspect.Signature:
    """As a node is given its arguments: without the saga, and without resources."""
    left_out: Collection[str]
    if isinstance(what, SagaDef):
        signature = inspect.signature(what.body)
        left_out = list(signature.parameters)[:1]
    else:
        signature, left_out = inspect.signature(what.fn), what.resources
    return signature.replace(
        parameters=[each for each in signature.parameters.values() if each.name not in left_out],
        return_annotation=inspect.Signature.empty,
    )


def _parameter_type(what: "Declared[..., Any] | SagaDef[..., Any]", name: str) -> Any:
    fn = what.body if isinstance(what, SagaDef) else what.fn
    try:
        return inspect.signature(fn, eval_str=True).parameters[name].annotation
    except (NameError, TypeError, AttributeError, SyntaxError):
        return Any  # an annotation that cannot be read is a fault of its own


def _differ(wanted: Any, brought: Any) -> str:
    """Why two types certainly do not fit; empty if they may.

    Between plain values the codec decides, which reads a text as a UUID and an int as a float.
    """
    if not _is_plain(wanted) and not _has_fields(wanted):
        return ""
    if brought in (None, NoneType):
        return "which is always None. Put it in `after=`"
    if NoneType in get_args(brought):
        return "which is None where it is skipped. Let the parameter admit None"
    if not (_has_fields(wanted) or _has_fields(brought)) or not (_is_plain(brought) or _has_fields(brought)):
        return ""
    if issubclass(brought, wanted) or issubclass(wanted, brought):
        return ""
    return f"a {_called(brought)}. Give it another reference, or correct the types"


def _is_plain(declared: Any) -> bool:
    return declared in PLAIN


def _has_fields(declared: Any) -> bool:
    """Whether it is a class of the user's whose values have named fields."""
    if not isinstance(declared, type):
        return False
    kind: type = declared
    return hasattr(kind, "model_fields") or attrs.has(kind) or is_dataclass(kind)


def _called(declared: Any) -> str:
    return declared.__name__ if isinstance(declared, type) else str(declared)


# -- the whole ---------------------------------------------------------------------------------------------------------


def _cycle(plan: Plan) -> Iterator[str]:
    if len(plan.order) == len(plan.parents):
        return
    cycle = plan.cycle()
    names = " waits for ".join(node.key for node in (*cycle[:WORDS], cycle[0]))
    yield f"{cycle[0].place}: nodes wait for each other, so none of them can begin: {names}. Leave out one reference"
    free = {*plan.order, *cycle}
    for node in plan.parents:
        if node not in free:
            yield f"{node.place}: {node.described} is never reached, because it waits for that cycle"


def _around_pivots(plan: Plan, runs: Runs) -> Iterator[str]:
    """Two pivots on a path, and what can be undone but is not before the pivot."""
    yield from _hidden_pivots(plan, runs)
    certain = next((node for node in plan.pivots if node.when is None), None)
    for node in plan.pivots:
        if node in plan.after:
            yield (
                f"{node.place}: {node.described} is a second pivot on this path; a saga has one point of no return. "
                "Declare what comes after it @retriable"
            )
        elif certain is not None and node is not certain:
            yield (
                f"{node.place}: {node.described} is a second pivot, and {certain.described} is never skipped; a saga "
                "has one point of no return. Give each a `when=`, of which one is true at most"
            )
    for node in plan.order if plan.pivots else ():
        if node not in plan.before and not is_pivot(node) and any(map(_can_be_undone, runs.get(node, ()))):
            yield from _not_before_pivot(plan, node)


def _hidden_pivots(plan: Plan, runs: Runs) -> Iterator[str]:
    for node in plan.order:
        if node.kind == "child" and not is_pivot(node) and any(isinstance(step, Pivot) for step in runs.get(node, ())):
            yield f"{node.place}: {node.described} has a pivot, which is then the graph's own. Add the child by g.pivot"


def _not_before_pivot(plan: Plan, node: Node) -> Iterator[str]:
    if node not in plan.after:
        yield (
            f"{node.place}: {node.described} can be undone, and the pivot does not wait for it: it could fail after "
            f"the point of no return. Give {plan.pivots[0].described} its reference, or put it in `after=`"
        )
    elif node.kind != "child":  # whose steps are judged one by one
        yield (
            f"{node.place}: {node.described} comes after the pivot, where nothing is undone any more. Move it before "
            "the pivot, or declare it @retriable"
        )


def _can_be_undone(step: object) -> bool:
    return isinstance(step, Step)


def _idle(definition: GraphDef[...], plan: Plan) -> Iterator[str]:
    """Nodes without an effect whose result nobody uses."""
    output = None if definition.output is None else definition.output.node
    for node in definition.nodes:
        if node.kind in PURE and not plan.children[node] and node is not output:
            yield (
                f"{node.place}: {node.described} is unused: it changes nothing, and nothing waits for it. Give its "
                "reference to another node or to g.returns, or leave it out"
            )


def _output(definition: GraphDef[...]) -> Iterator[str]:
    outputs = definition.draft.outputs
    if definition.nodes and not outputs:
        yield (
            f"{definition.place}: the graph {definition.name!r} does not say what it returns. Call g.returns with a "
            "reference, or g.returns() if it returns nothing"
        )
    if len(outputs) > 1:
        yield f"{definition.place}: the graph {definition.name!r} calls g.returns {len(outputs)} times. Call it once"
    for ref in outputs:
        if ref is not None and ref.graph is not definition.draft:
            yield f"{definition.place}: g.returns was given {ref.described} of another graph. Take one of this graph"


def _late(definition: GraphDef[...], plan: Plan) -> Iterator[str]:
    """A deadline that passes although every attempt keeps its own timeout."""
    if definition.deadline is None:
        return
    worst_s = longest_s(plan)
    deadline_s = to_ns(definition.deadline) / 1e9
    if worst_s > deadline_s:
        yield (
            f"{definition.place}: the nodes of the graph {definition.name!r} may take {worst_s:g} s together and keep "
            f"their timeouts, and its deadline is {deadline_s:g} s: it would be rolled back although nothing has "
            "failed. Give it a later deadline, or the steps shorter timeouts or fewer attempts"
        )


def longest_s(plan: Plan) -> float:
    """The seconds of the longest path up to the pivot; after it a deadline no longer counts."""
    ends: dict[Node, float] = {}
    for node in plan.order:
        if node in plan.after and plan.pivots:
            continue
        ends[node] = max((ends.get(each, 0.0) for each in plan.parents[node]), default=0.0) + _seconds(node)
    return max(ends.values(), default=0.0)


def _seconds(node: Node) -> float:
    match node.what_runs:
        case Declared() as declared:
            return patience_s(declared)
        case GraphDef() as graph:
            return longest_s(Plan.of(graph.nodes))
        case None if node.span is not None:
            return to_ns(node.span) / 1e9
        case _:
            return 0.0  # a callback may be answered at once; a coded child is judged by its own deadline


# -- as text -----------------------------------------------------------------------------------------------------------


def lines_of(definition: GraphDef[...]) -> Iterator[str]:
    """The graph as text: the same for the same nodes and references, wherever they stand."""
    kind = definition.draft.input_type
    yield f"graph of {'no input' if kind is None else _called(kind)}"
    yield from map(_line, definition.nodes)
    yield f"returns {_said(definition.output)}"


def _line(node: Node) -> str:
    arguments = [_said(each) for each in node.args] + [f"{name}={_said(each)}" for name, each in node.kwargs.items()]
    words = [f"{node.kind} {node.key}({', '.join(arguments)})"]
    if node.kind == "callback":
        words.append(f"of {_called(node.answer)}")
    if node.span is not None:
        words.append(f"for {to_ns(node.span) / 1e9:g} s")
    if node.after:
        words.append(f"after {', '.join(map(_said, node.after))}")
    if node.when is not None:
        words.append(f"when {_said(node.when)}")
    return " ".join([*words, *traits(node.what_runs)])


def traits(what: "Declared[..., Any] | SagaDef[..., Any] | None") -> list[str]:
    """What a line says of a step or child beside its kind and name."""
    match what:
        case SagaDef():
            return [f"version {what.version}"]
        case Step(compensating=None):
            return ["not undone"]
        case _:
            return []


def _said(given: Any) -> str:
    if not is_ref(given):
        return "nothing" if given is None else _plain(given)
    if given.node is None:
        return "input"
    return f"{given.node.key}.token" if given.is_token else given.node.key


def _plain(value: object) -> str:
    """A plain value as it would be stored: always the same text, which a repr is not."""
    try:
        return _CODEC.encode_ordered(value, what="a plain value").decode()
    except PayloadError:
        return f"a {type(value).__name__}"
