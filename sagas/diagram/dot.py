"""Pictures in DOT, the language of Graphviz."""

from collections.abc import Iterator, Mapping

from sagas.diagram.labels import cut, dot
from sagas.diagram.picture import SHADES, SIGNS, Edge, Kind, Mark, Picture, described

SHAPES: Mapping[Kind, str] = {
    "start": "circle",
    "end": "doublecircle",
    "raise": "octagon",
    "step": "box",
    "pivot": "hexagon",
    "retriable": "box",
    "lookup": "parallelogram",
    "child": "box3d",
    "sleep": "oval",
    "callback": "cds",
    "choice": "diamond",
    "fork": "circle",
    "join": "circle",
    "merge": "circle",
    "unreadable": "note",
    "compensation": "box",
}
STYLES: Mapping[Kind, str] = {
    "pivot": "filled,bold",
    "retriable": "filled,rounded",
    "compensation": "filled,dashed",
    "unreadable": "filled,dotted",
}
LINES: Mapping[str, str] = {"flow": "solid", "when": "dashed", "except": "dashed", "back": "dotted"}


def drawn(picture: Picture) -> str:
    """The picture as a directed graph."""
    ids = {mark.key: f"n{place}" for place, mark in enumerate((*picture.nodes, *picture.undos))}
    return "\n".join([*_lines(picture, ids), ""])


def _lines(picture: Picture, ids: Mapping[str, str]) -> Iterator[str]:
    title = f"{picture.title} · {picture.subtitle}" if picture.subtitle else picture.title
    yield "digraph saga {"
    yield f'  graph [rankdir=LR, newrank=true, label="{dot(cut(title))}", labelloc=t, fontname="Helvetica"]'
    yield '  node [fontname="Helvetica", fontsize=11, style=filled, fillcolor="#ffffff", color="#5b6675"]'
    yield '  edge [fontname="Helvetica", fontsize=10, color="#5b6675"]'
    for node in picture.nodes:
        yield f"  {ids[node.key]} [{_attributes(node)}]"
    if picture.undos:
        yield "  subgraph cluster_undo {"
        yield '    label="Undo, in reverse order"; style=dashed; color="#b45309"'
        for mark in picture.undos:
            yield f"    {ids[mark.key]} [{_attributes(mark)}]"
        yield "  }"
    for edge in picture.edges:
        yield f"  {ids[edge.source]} -> {ids[edge.target]} [{_line(edge)}]"
    for mark in picture.undos:
        yield f"  {{ rank=same; {ids[mark.serves]}; {ids[mark.key]} }}"
        yield f"  {ids[mark.serves]} -> {ids[mark.key]} [style=dashed, dir=none]"
    yield "}"


def _attributes(mark: Mark) -> str:
    sign = {"pivot": "◆", "compensation": "↩", "unreadable": "not readable:"}.get(mark.kind, "")
    head = " ".join(filter(None, (SIGNS[mark.state], sign, cut(mark.label))))
    label = "\\n".join(dot(line) for line in (head, described(mark)) if line)
    found = [f'label="{label}"', f"shape={SHAPES[mark.kind]}"]
    if mark.kind in STYLES:
        found.append(f'style="{STYLES[mark.kind]}"')
    if mark.kind == "pivot":
        found.append("penwidth=3")
    if mark.state in SHADES:
        fill, outline = SHADES[mark.state]
        found.append(f'fillcolor="{fill}", color="{outline}"')
    return ", ".join(found)


def _line(edge: Edge) -> str:
    label = " · ".join(filter(None, (cut(edge.label), "" if edge.count is None else str(edge.count))))
    found = [f"style={LINES[edge.kind]}", *([f'label="{dot(label)}"'] if label else [])]
    return ", ".join([*found, "constraint=false"] if edge.kind == "back" else found)
