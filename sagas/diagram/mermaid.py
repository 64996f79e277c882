"""Pictures as Mermaid flowcharts, for pages that draw them: GitHub, GitLab, MkDocs."""

from collections.abc import Iterator, Mapping

from sagas.diagram.labels import cut, mermaid, plain
from sagas.diagram.picture import SHADES, SIGNS, Edge, Kind, Mark, Picture, State, described

SHAPES: Mapping[Kind, tuple[str, str]] = {
    "start": ("([", "])"),
    "end": ("([", "])"),
    "raise": ("([", "])"),
    "step": ("[", "]"),
    "pivot": ("{{", "}}"),
    "retriable": ("([", "])"),
    "lookup": ("[/", "/]"),
    "child": ("[[", "]]"),
    "sleep": ("(", ")"),
    "callback": (">", "]"),
    "choice": ("{", "}"),
    "fork": ("((", "))"),
    "join": ("((", "))"),
    "merge": ("((", "))"),
    "unreadable": ("[", "]"),
    "compensation": ("[", "]"),
}
ARROWS: Mapping[str, str] = {"flow": "-->", "when": "-.->", "except": "-.->", "back": "-.->"}


def drawn(picture: Picture) -> str:
    """The picture as a flowchart."""
    ids = {mark.key: f"n{place}" for place, mark in enumerate((*picture.nodes, *picture.undos))}
    return "\n".join([*_lines(picture, ids), ""])


def _lines(picture: Picture, ids: Mapping[str, str]) -> Iterator[str]:
    title = f"{picture.title} · {picture.subtitle}" if picture.subtitle else picture.title
    yield "flowchart LR"
    yield f"  accTitle: {plain(cut(title))}"
    for node in picture.nodes:
        yield f"  {ids[node.key]}{_shape(node)}"
    if picture.undos:
        yield '  subgraph undo["Undo, in reverse order"]'
        for mark in picture.undos:
            yield f"    {ids[mark.key]}{_shape(mark)}"
        yield "  end"
    for edge in picture.edges:
        yield f"  {ids[edge.source]} {_arrow(edge)} {ids[edge.target]}"
    for mark in picture.undos:
        yield f"  {ids[mark.serves]} -.- {ids[mark.key]}"
    yield from _styles(picture, ids)


def _shape(mark: Mark) -> str:
    opened, closed = SHAPES[mark.kind]
    sign = {"pivot": "◆", "compensation": "↩", "unreadable": "not readable:"}.get(mark.kind, "")
    head = " ".join(filter(None, (SIGNS[mark.state], sign, cut(mark.label))))
    lines = [mermaid(line) for line in (head, described(mark)) if line]
    return f'{opened}"{"<br/>".join(lines) or " "}"{closed}'


def _arrow(edge: Edge) -> str:
    label = " · ".join(filter(None, (cut(edge.label), "" if edge.count is None else str(edge.count))))
    return f'{ARROWS[edge.kind]}|"{mermaid(label)}"|' if label else ARROWS[edge.kind]


def _styles(picture: Picture, ids: Mapping[str, str]) -> Iterator[str]:
    """Colours for states, thick for the pivot, dashed for the undo lane."""
    kinds: dict[str, list[str]] = {"pivot": [], "undo": [], "doubt": []}
    states: dict[State, list[str]] = {}
    for mark in (*picture.nodes, *picture.undos):
        if mark.kind in ("pivot", "compensation", "unreadable"):
            kinds[{"pivot": "pivot", "compensation": "undo"}.get(mark.kind, "doubt")].append(ids[mark.key])
        if mark.state in SHADES:
            states.setdefault(mark.state, []).append(ids[mark.key])
    looks = {"pivot": "stroke-width:4px", "undo": "stroke-dasharray:4 3", "doubt": "stroke-dasharray:2 4"}
    for kind, members in kinds.items():
        if members:
            yield f"  classDef {kind} {looks[kind]}"
            yield f"  class {','.join(members)} {kind}"
    for state, members in states.items():
        fill, stroke = SHADES[state]
        yield f"  classDef {state} fill:{fill},stroke:{stroke},color:#1a1a1a"
        yield f"  class {','.join(members)} {state}"
