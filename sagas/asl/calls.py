"""What a task state sends to the function: which step, in which role, and its arguments."""

from collections.abc import Iterator, Mapping
from inspect import Parameter
from typing import Any, cast

import msgspec

from durable_core import DefinitionError, PayloadError
from durable_core.layer import CallShape, Codec
from sagas.asl.layout import Chain, Path, Plain, Work, resolved
from sagas.asl.policy import State
from sagas.asl.states import template
from sagas.model.graph import GraphDef, Node

_CODEC = Codec()
_EXECUTION = {
    "execution": Path("$$.Execution.Id"),
    "started": Path("$$.Execution.StartTime"),
    "attempt": Path("$$.State.RetryCount"),
}
"""What the service says of the execution, and of how often it has called before."""


def call(saga: GraphDef[...], work: Work, role: str, **more: Any) -> State:
    """The payload of one call.

    Args:
        saga: the exported graph.
        work: whose step is called.
        role: ``do``, ``undo``, ``probe`` or ``callback``.
        more: its other fields; paths are looked up by the service.
    """
    return template({"saga": saga.name, "version": saga.version, "step": work.key, "role": role, **_EXECUTION, **more})


def arguments(work: Work, chain: Chain) -> State:
    """The arguments of the node's step, for states within ``chain``: by name, or by position where names cannot do."""
    fields: dict[str, Any] = {}
    for name, declared, given in _given(work.asker or work.node):
        found = resolved(work.frame, given, chain)
        fields[name] = found if isinstance(found, Path) else plain_value(found, declared, work.asker or work.node)
    return template(fields)


def _given(node: Node) -> Iterator[tuple[str, Any, Any]]:
    """Each argument of a node: its name or position, its declared type, and what was given."""
    shape = _shape(node)
    bound = shape.signature.bind(*node.args, **node.kwargs)
    by_place = any(
        shape.signature.parameters[name].kind in (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL)
        for name in bound.arguments
    )
    for place, given in enumerate(bound.args if by_place else ()):
        yield str(place), _declared_at(shape, place), given
    for name, given in (bound.kwargs if by_place else _by_name(bound.arguments, shape)).items():
        parameter = shape.signature.parameters.get(name)
        yield name, Any if parameter is None else _annotation(parameter), given


def _by_name(bound: Mapping[str, Any], shape: CallShape) -> dict[str, Any]:
    named = dict(bound)
    for name, parameter in shape.signature.parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            named |= named.pop(name, {})
    return named


def _declared_at(shape: CallShape, place: int) -> Any:
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
    positional = [each for each in shape.signature.parameters.values() if each.kind in kinds]
    return _annotation(positional[min(place, len(positional) - 1)])


def _annotation(parameter: Parameter) -> Any:
    return Any if parameter.annotation is Parameter.empty else parameter.annotation


def _shape(node: Node) -> CallShape:
    what: Any = node.what_runs
    return CallShape.of(what.fn, _CODEC, exclude=what.resources)


def plain_value(found: Plain, declared: Any, node: Node) -> Any:
    """A value as the service has it.

    Args:
        found: an argument of ``node``.
        declared: its type.
        node: to which it was given.

    Raises:
        DefinitionError: the service would take a part of it for a path.
        PayloadError: it is of another type.
    """
    what = f"{node.place}: an argument of {node.described}"
    value = msgspec.json.decode(_CODEC.exchange(found.value, _CODEC.typed(declared), what=what)[0])
    if any(key.endswith(".$") for key in _keys(value)):
        raise DefinitionError(
            f"{what} has a key that ends with '.$', which Step Functions would take for a path",
            "Put the value into the saga's input, or let a @lookup return it",
        )
    return value


def _keys(value: Any) -> Iterator[str]:
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            fields = cast("dict[str, Any]", each)
            yield from fields
            todo.extend(fields.values())
        elif isinstance(each, list):
            todo.extend(cast("list[object]", each))


def misfit(work: Work) -> str | None:
    """Why the arguments of a node cannot be written into a state; None if they can."""
    try:
        arguments(work, work.chain)
    except (DefinitionError, PayloadError) as error:
        return error.message
    return None
