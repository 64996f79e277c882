"""Judges a graph by its nodes and references, without running anything: every fault, each with its place.

Invariant: unlike a body that is written as code, a graph is known exactly, so what is found here is so on every run.
"""

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import timedelta
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import attrs

from durable_core import PayloadError
from durable_core.layer import Codec, shown, to_ns
from sagas.check.deadline import patience_s
from sagas.model.definition import Declared, SagaDef, Step
from sagas.model.graph import PURE, GraphDef, Node, Plan, is_pivot, is_ref, type_of

_CODEC = Codec()
PLAIN = (str, int, float, bool)
WIDENED: Mapping[Any, Sequence[Any]] = {float: (int, bool), int: (bool,)}
"""Plain types that are read where another one is wanted."""
COLLECTIONS = (list, tuple, dict, set, frozenset)
WORDS = 60
"""Names shown of a long list."""


@attrs.frozen(eq=False)
class Holds:
    """What is known of steps and of the sagas that a graph may run: those with a pivot, and with a step to undo."""

    pivot: frozenset[object]
    undo: frozenset[object]


def faults_of(definition: GraphDef[...], plan: Plan, holds: Holds, known: dict[GraphDef[...], float]) -> Iterator[str]:
    """What cannot work in the graph itself.

    Args:
        definition: the graph.
        plan: of its nodes.
        holds: what is in the sagas that it runs, which the reader of bodies knows.
        known: how long graphs take that were looked at before; see ``longest_s``.
    """
    nodes = definition.nodes
    if not nodes:
        yield f"{definition.place}: the graph {definition.name!r} has no node. Add one with g.step"
    for node in nodes:
        yield from (f"{node.place}: {node.described}{fault}" for fault in _of_node(definition, node))
    yield from _cycle(plan)
    yield from _around_pivots(plan, holds)
    yield from _waits(plan)
    yield from _idle(definition, plan)
    yield from _output(definition)
    yield from _late(definition, plan, known)


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
        if not is_ref(given) and _holds_ref(given):
            kind = type(given).__name__
            yield f" is given a {kind} with a reference in it. Give each reference as an argument of its own"
    for each in node.after:
        if not is_ref(each):
            yield f" has after={shown(each)}. Give `after=` a list of references"


def _holds_ref(given: Any, depth: int = 5) -> bool:
    """Whether there is a reference within a plain value, as deep as one is likely to be written."""
    if is_ref(given):
        return True
    parts: Iterable[Any] = ()
    whole: Any = given
    if isinstance(given, Mapping):
        parts = given.values()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    elif isinstance(given, COLLECTIONS):
        parts = given  # pyright: ignore[reportUnknownVariableType]
    elif attrs.has(whole.__class__) or is_dataclass(whole.__class__):
        parts = [getattr(whole, name, None) for name in whole.__annotations__]
    return depth > 0 and any(_holds_ref(part, depth - 1) for part in parts)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _condition(node: Node) -> Iterator[str]:
    if node.when is None:
        return
    declared = type_of(node.when)
    kinds = get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)
    if any(_bare(kind) not in (bool, NoneType, Any) for kind in kinds):
        yield (
            f" has when= {node.when.described}, which is of type {_called(declared)}. Give `when=` a reference to a "
            "bool, such as the result of a @lookup"
        )


def _bare(kind: Any) -> Any:
    """A type without its ``Annotated`` and ``NewType``."""
    while get_origin(kind) is Annotated or hasattr(kind, "__supertype__"):
        kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind.__supertype__
    return kind


def _misfit(node: Node, what: "Declared[..., Any] | SagaDef[..., Any]") -> Iterator[str]:
    """Arguments that the node's function cannot be called with."""
    signature = _signature(what)
    try:
        bound = signature.bind(*node.args, **node.kwargs)
    except TypeError as error:
        yield f" cannot be called so: {error}. It takes {signature}"
        return
    for name, given in bound.arguments.items():
        wanted = _parameter_type(what, name)
        for each in _each(given, signature.parameters[name].kind):
            if is_ref(each):
                why = _differ(wanted, type_of(each, when=node.when))
                if why:
                    yield f" takes a {_called(wanted)} for {name!r} and is given {each.described}, {why}"
            elif not _holds_ref(each) and (why := _unusable(wanted, each, name)):
                yield f": {why}"


def _each(given: Any, kind: Any) -> list[Any]:
    """The arguments that go to one parameter."""
    if kind is inspect.Parameter.VAR_KEYWORD:
        return list(given.values())
    return list(given) if kind is inspect.Parameter.VAR_POSITIONAL else [given]


def _unusable(wanted: Any, value: Any, name: str) -> str:
    """Why a plain value cannot be an argument; empty if it can."""
    try:
        typed = _CODEC.typed(Any if wanted is inspect.Parameter.empty else wanted)
    except PayloadError:
        return ""  # the type itself is a fault of its own
    try:
        _CODEC.exchange(value, typed, what=f"the plain value for {name!r}")
    except PayloadError as error:
        return error.message
    return ""


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
    """Why two types certainly do not fit; empty if they may."""
    wanted, brought = _bare(wanted), _bare(brought)
    if brought in (None, NoneType):
        return "" if _admits_none(wanted) else "which is always None. Put it in `after=`"
    if NoneType in get_args(brought) and not _admits_none(wanted):
        return "which is None where it is skipped. Let the parameter admit None"
    if not (_is_known(wanted) and _is_known(brought)) or brought in WIDENED.get(wanted, ()):
        return ""
    if issubclass(brought, wanted) or issubclass(wanted, brought):
        return ""
    if brought.__name__ == wanted.__name__:
        return (
            f"whose type is {_full(brought)} and not {_full(wanted)}. Give it another reference, or correct the types"
        )
    return f"a {_called(brought)}. Give it another reference, or correct the types"


def _admits_none(wanted: Any) -> bool:
    """Whether None may be given where this type is wanted; yes where that is not known."""
    if wanted in (Any, object, None, NoneType, inspect.Parameter.empty):
        return True
    if get_origin(wanted) in (Union, UnionType):
        return any(map(_admits_none, get_args(wanted)))
    return not (_is_known(wanted) or get_origin(wanted) in COLLECTIONS or wanted in COLLECTIONS)


def _is_known(declared: Any) -> bool:
    """Whether values of this type are of no other: a plain type, or a class of the user's with fields."""
    if not isinstance(declared, type):
        return False
    kind: type = declared
    return kind in PLAIN or attrs.has(kind) or is_dataclass(kind)


def _full(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _called(declared: Any) -> str:
    return declared.__name__ if isinstance(declared, type) else str(declared)


# -- the whole ---------------------------------------------------------------------------------------------------------


def _cycle(plan: Plan) -> Iterator[str]:
    if len(plan.order) == len(plan.parents):
        return
    cycle = plan.cycle()
    if len(cycle) == 1:
        yield (
            f"{cycle[0].place}: {cycle[0].described} waits for itself: its own reference was added to the list that it "
            "was given as `after=`. Give it a copy: `after=[*refs]`"
        )
        return
    names = " waits for ".join(node.key for node in (*cycle[:WORDS], cycle[0]))
    yield f"{cycle[0].place}: nodes wait for each other, so none of them can begin: {names}. Leave out one reference"
    free = {*plan.order, *cycle}
    for node in plan.parents:
        if node not in free:
            yield f"{node.place}: {node.described} is never reached, because it waits for that cycle"


def _around_pivots(plan: Plan, holds: Holds) -> Iterator[str]:
    """Two pivots on a path, and what can be undone but is not before the pivot."""
    yield from _hidden_pivots(plan, holds)
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
        if node not in plan.before and not is_pivot(node) and node.what_runs in holds.undo:
            yield from _not_before_pivot(plan, node)


def _hidden_pivots(plan: Plan, holds: Holds) -> Iterator[str]:
    for node in plan.order:
        if node.kind != "child":
            continue
        has_pivot = node.what_runs in holds.pivot
        if has_pivot and not is_pivot(node):
            yield f"{node.place}: {node.described} has a pivot, which is then the graph's own. Add the child by g.pivot"
        if isinstance(node.what_runs, GraphDef) and is_pivot(node) and not has_pivot:
            yield f"{node.place}: {node.described} has no pivot. Add the child by g.step"


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


def _waits(plan: Plan) -> Iterator[str]:
    """Callbacks that could never be answered, or whose end nobody could do anything about."""
    late = {*plan.pivots, *plan.after}
    for node in plan.order:
        if node.kind != "callback":
            continue
        users = [child for child in plan.children[node] if (node, True) in child.waits_for()]
        if node not in late and users and all(user in late for user in users):
            yield (
                f"{node.place}: {node.described} waits for ever: the pivot begins once it is answered, and its token "
                f"is handed out by {users[0].described}, which comes later. Hand the token out before the pivot, or "
                "open the callback `after=` the pivot"
            )
        if node in plan.after and (node.timeout is not None or node.heartbeat is not None):
            yield (
                f"{node.place}: {node.described} comes after the pivot, where nothing is undone any more: once its "
                "time is over the saga could go neither on nor back. Leave out its timeout and heartbeat, or move it "
                "before the pivot"
            )


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


def _late(definition: GraphDef[...], plan: Plan, known: dict[GraphDef[...], float]) -> Iterator[str]:
    """A deadline that passes although every attempt keeps its own timeout."""
    if definition.deadline is None:
        return
    worst_s = longest_s(plan, known)
    deadline_s = to_ns(definition.deadline) / 1e9
    if worst_s > deadline_s:
        yield (
            f"{definition.place}: the nodes of the graph {definition.name!r} may take {worst_s:g} s together and keep "
            f"their timeouts, and its deadline is {deadline_s:g} s: it would be rolled back although nothing has "
            "failed. Give it a later deadline, or the steps shorter timeouts or fewer attempts"
        )


def longest_s(plan: Plan, known: dict[GraphDef[...], float]) -> float:
    """The seconds of the longest path up to the pivot that no condition can shorten; after it no deadline counts.

    ``known`` keeps those of child graphs, because one may be used often.
    """
    ends: dict[Node, float] = {}
    for node in plan.order:
        if node in plan.after and plan.pivots:
            continue
        own = 0.0 if node.when is not None else _seconds(node, known)
        ends[node] = max((ends.get(each, 0.0) for each in plan.parents[node]), default=0.0) + own
    return max(ends.values(), default=0.0)


def _seconds(node: Node, known: dict[GraphDef[...], float]) -> float:
    match node.what_runs:
        case Declared() as declared:
            return patience_s(declared)
        case GraphDef() as graph:
            if graph not in known:
                known[graph] = longest_s(Plan.of(graph.nodes), known)
            return known[graph]
        case None if node.span is not None:
            return to_ns(node.span) / 1e9
        case _:
            return 0.0  # a callback may be answered at once; a coded child is judged by its own deadline


# -- as text -----------------------------------------------------------------------------------------------------------


def lines_of(definition: GraphDef[...]) -> Iterator[str]:
    """The graph as text: the same for the same nodes and references, wherever they stand."""
    kind, own = definition.draft.input_type, definition.declared_in
    yield f"graph of {'no input' if kind is None else _named(kind, own)}"
    yield from (_line(node, own) for node in definition.nodes)
    yield f"returns {_said(definition.output)}"


def _named(kind: Any, own: str) -> str:
    """A type by its name, with that of its module unless it is a builtin or of the graph's module ``own``.

    So types of one name in two modules differ, and a module may be run as a script.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " | ".join(_named(part, own) for part in parts)
    if origin in COLLECTIONS:
        return f"{_named(origin, own)}[{', '.join(_named(part, own) for part in parts)}]"
    if kind in (None, NoneType):
        return "None"
    name = getattr(kind, "__qualname__", None)
    if origin is not None or not isinstance(name, str):
        return str(kind)
    return name if kind.__module__ in ("builtins", own) else f"{kind.__module__}.{name}"


def _line(node: Node, own: str) -> str:
    arguments = [_said(each) for each in node.args] + [f"{name}={_said(each)}" for name, each in node.kwargs.items()]
    words = [f"{node.kind} {node.key}({', '.join(arguments)})"]
    if node.kind == "callback":
        words.append(f"of {_named(node.answer, own)}")
    if node.span is not None:
        words.append(f"for {timedelta(microseconds=to_ns(node.span) // 1000)}")
    if node.after:
        words.append(f"after {', '.join(map(_said, node.after))}")
    if node.when is not None:
        words.append(f"when {_said(node.when)}")
    if node.declared_pivot and node.kind == "child":
        words.append("as the pivot")
    return " ".join([*words, *traits(node.what_runs)])


def traits(what: "Declared[..., Any] | SagaDef[..., Any] | None") -> list[str]:
    """What a line says of a step or child beside its kind and name."""
    match what:
        case SagaDef():
            return [f"version {what.version}"]
        case Declared():
            undone = ["not undone"] if isinstance(what, Step) and what.compensating is None else []
            return undone if what.on_failure is None else [*undone, f"on failure {what.on_failure}"]
        case None:
            return []


def _said(given: Any) -> str:
    if not is_ref(given):
        return "nothing" if given is None else _plain(given)
    if given.node is None:
        return "input"
    key = given.node.key
    plain = key.replace("#", "_").replace("-", "_").isidentifier() and key not in ("input", "nothing")
    return f"{key if plain else f'<{key}>'}{'.token' if given.is_token else ''}"


def _plain(value: object) -> str:
    """A plain value as it would be stored: always the same text, which a repr is not."""
    try:
        return _CODEC.encode_ordered(value, what="a plain value").decode()
    except PayloadError:
        return f"a {type(value).__name__}"
