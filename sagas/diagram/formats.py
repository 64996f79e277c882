"""Draws pictures in each format, and chooses the picture of a definition."""

from collections.abc import Callable, Mapping
from typing import Any

from sagas.diagram import bpmn, dot, mermaid, svg
from sagas.diagram.coded import coded_picture
from sagas.diagram.graphs import graph_picture
from sagas.diagram.picture import Picture
from sagas.model.definition import SagaDef
from sagas.model.graph import GraphDef

FORMATS: Mapping[str, Callable[[Picture], str]] = {
    "mermaid": mermaid.drawn,
    "dot": dot.drawn,
    "svg": svg.drawn,
    "bpmn": bpmn.drawn,
}


def picture_of(definition: SagaDef[..., Any]) -> Picture:
    """The picture of a saga: of a graph exactly, of code as far as its source shows it."""
    return graph_picture(definition) if isinstance(definition, GraphDef) else coded_picture(definition)


def drawn(picture: Picture, form: str) -> str:
    """The picture as text in one of the formats; the same picture gives the same text.

    Raises:
        ValueError: there is no such format.
    """
    if form not in FORMATS:
        raise ValueError(f"there is no format {form!r} for pictures; use one of {', '.join(FORMATS)}")
    return FORMATS[form](picture)


def diagram_of(definition: SagaDef[..., Any], form: str) -> str:
    """``SagaDef.diagram``."""
    return drawn(picture_of(definition), form)
