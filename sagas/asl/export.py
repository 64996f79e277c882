"""A graph as the text of a state machine, or all reasons for which it cannot be one."""

from collections.abc import Sequence

import msgspec

from durable_core import DefinitionError
from sagas.asl import limits, refusals
from sagas.asl.layout import Layout, of_stages
from sagas.asl.machine import Machine
from sagas.asl.states import LONGEST_NAME
from sagas.check.scan import scan
from sagas.model.definition import SagaDef
from sagas.model.graph import GraphDef

FUNCTION = "${SagasFunction}"
"""Stands for the function that serves the tasks; SAM's ``DefinitionSubstitutions`` fill it in."""
FEWEST_EVENTS = 5
"""Of each node."""


def machine_text(saga: SagaDef[..., object], function: str = FUNCTION) -> str:
    """The state machine of a graph, as JSON in the Amazon States Language.

    Args:
        saga: a graph.
        function: name or ARN of the Lambda function that serves its tasks.

    Raises:
        DefinitionError: it is no graph, has faults, or has something that Step Functions cannot do; the message has
            all reasons, each with its place.
    """
    if not isinstance(saga, GraphDef):
        raise DefinitionError(
            f"{saga.place}: the saga {saga.name!r} is written as code; only graphs can be exported to Step Functions",
            "Declare it as a graph: `SagaGraph(name, version=...)`",
        )
    _refuse(saga, list(_small(saga)) or list(scan(saga).faults) or list(refusals.of_graph(saga)))
    layout = Layout(saga)
    _refuse(saga, [why for work in of_stages(layout.stages) for why in refusals.of_work(work)])
    machine = Machine(saga, layout, function)
    program = machine.document()
    _refuse(
        saga,
        [f"the name of a state is longer than {LONGEST_NAME} characters: {name!r}" for name in machine.names.too_long],
    )
    used = limits.events(program)
    short = limits.bound(program, used)
    text = msgspec.json.format(msgspec.json.encode(program), indent=2) + b"\n"
    if len(text) > limits.LARGEST_DEFINITION:
        text = msgspec.json.encode(program) + b"\n"
    _refuse(saga, [*limits.faults(program, used, text), *([] if short is None else [short])])
    return text.decode()


def _small(saga: GraphDef[...]) -> Sequence[str]:
    """Graphs that are too large are refused before anything else is done with them."""
    if len(saga.nodes) * FEWEST_EVENTS <= limits.MOST_EVENTS:
        return ()
    why = (
        f"{saga.place}: it has {len(saga.nodes):,} nodes, and an execution ends at {limits.MOST_EVENTS:,} events. "
        "Divide the graph"
    )
    return [why]


def _refuse(saga: GraphDef[...], reasons: Sequence[str]) -> None:
    if reasons:
        raise DefinitionError(
            f"graph {saga.name!r} cannot be exported to Step Functions: {refusals.shown(list(reasons))}"
        )
