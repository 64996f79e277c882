"""What a declaration says about itself, wherever it is used: types that cannot be stored, doubts that nobody settles.

Invariant: nothing here depends on the order in which a body runs; what does is in ``scan``.
"""

from collections.abc import Iterator
from typing import Any

from durable_core import DefinitionError
from durable_core.layer import CallShape, Codec, place_of, to_ns
from sagas.model.definition import Declared, Probed, SagaDef, Step
from sagas.model.worst import Worst

_CODEC = Codec()


def misfits(what: Declared[..., Any] | SagaDef[..., Any]) -> Iterator[str]:
    """Arguments and results whose declared type cannot make the round trip through the store."""
    try:
        _shape(what)
    except DefinitionError as error:
        yield f"{_called(what)}: {str(error).removesuffix(f' [{error.code}]')}"


def doubts(what: Declared[..., Any] | SagaDef[..., Any]) -> Iterator[str]:
    """What is suspicious in a declaration that can work."""
    if isinstance(what, Probed) and what.timeout is not None and what.effect and not what.settles:
        ways = f"`@{what.name}.probe`"
        if isinstance(what, Step):
            ways += " to find out, or a compensation whose first parameter admits `Unknown` to undo it either way"
        yield (
            f"{what.what} has a timeout, and nothing settles whether its effect happened where it has timed out: "
            f"the saga would be stuck until a person says so. Declare {ways}"
        )


def late(definition: SagaDef[..., Any], worst: Worst) -> Iterator[str]:
    """A deadline that passes while every attempt keeps its own timeout."""
    if definition.deadline is None:
        return
    deadline_s, worst_s = to_ns(definition.deadline) / 1e9, worst.saga(definition)
    if worst_s > deadline_s:
        yield (
            f"{place_of(definition.body)}: the attempts of its steps may take {worst_s:g} s together and keep their "
            f"timeouts, and its deadline is {deadline_s:g} s: it would be rolled back although nothing has failed. "
            "Give it a later deadline, or the steps shorter timeouts or fewer attempts"
        )


def _shape(what: Declared[..., Any] | SagaDef[..., Any]) -> CallShape:
    if isinstance(what, SagaDef):
        return CallShape.of(what.body, _CODEC, skip=1)
    return CallShape.of(what.fn, _CODEC, exclude=what.resources)


def _called(what: Declared[..., Any] | SagaDef[..., Any]) -> str:
    return f"saga {what.name!r} ({place_of(what.body)})" if isinstance(what, SagaDef) else what.what
