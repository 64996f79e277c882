"""Pictures as BPMN 2.0, with a layout: for modellers such as bpmn-js, Camunda and Signavio.

An undo is what BPMN made its compensation for: a boundary event on the task, joined to a task ``isForCompensation``.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import attrs

from sagas.diagram.gateways import with_gateways
from sagas.diagram.labels import columns, cut, fitted, printable, wrapped, xml
from sagas.diagram.layout import Cell, Gaps, Layout, Track, laid_out
from sagas.diagram.picture import SHADES, SIGNS, TIMES, Edge, Kind, Mark, Picture, described

ELEMENTS: Mapping[Kind, str] = {
    "start": "startEvent",
    "end": "endEvent",
    "raise": "endEvent",
    "step": "serviceTask",
    "pivot": "serviceTask",
    "retriable": "serviceTask",
    "lookup": "serviceTask",
    "child": "callActivity",
    "sleep": "intermediateCatchEvent",
    "callback": "receiveTask",
    "choice": "exclusiveGateway",
    "merge": "exclusiveGateway",
    "fork": "parallelGateway",
    "join": "parallelGateway",
    "unreadable": "task",
    "compensation": "serviceTask",
}
EVENT, GATEWAY, WIDTH, HEIGHT = 36.0, 50.0, 150.0, 80.0
UNDO_GAP = 44.0
BESIDE = 26.0
"""From the side of a task to the middle of an event on its edge."""
UNDER = 8.0
"""How far below an event its edge turns."""
TURN = 36.0
"""How far behind its layer an edge turns, so that all labels stand behind that."""
GAPS = Gaps(layers=80, nodes=36, bends=20)
TASK_ROOM, LABEL, LINE = 19.0, 100.0, 14.0
"""Columns of a line within a task; the width of a label outside a shape, and the height of its lines."""
COLUMN = 6.5
"""The width of a label's average character in a broad font: a modeller takes whichever it has."""
MOST_LINES = 4
Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, width and height."""
LEFT, TOP = 80.0, 80.0
HEAD = """\
<?xml version="1.0" encoding="UTF-8"?>
<bpmn:definitions xmlns:bpmn="http://www.omg.org/spec/BPMN/20100524/MODEL"
  xmlns:bpmndi="http://www.omg.org/spec/BPMN/20100524/DI" xmlns:dc="http://www.omg.org/spec/DD/20100524/DC"
  xmlns:di="http://www.omg.org/spec/DD/20100524/DI" xmlns:bioc="http://bpmn.io/schema/bpmn/biocolor/1.0"
  xmlns:color="http://www.omg.org/spec/BPMN/non-normative/color/1.0" id="definitions"
  targetNamespace="https://durable-sagas.readthedocs.io/">"""


def drawn(picture: Picture) -> str:
    """The picture as a BPMN document."""
    return "\n".join([*_Document.of(with_gateways(picture)).lines(), ""])


@attrs.frozen
class _Document:
    """A process and its places."""

    picture: Picture
    ids: Mapping[str, str]
    undos: Mapping[str, Mark]
    caught: frozenset[str]
    """Nodes with an edge for an exception, which leaves from an event on their edge."""
    layout: Layout
    gap: float
    """Between two layers."""

    @classmethod
    def of(cls, picture: Picture) -> "_Document":
        undos = picture.undo_of()
        nodes = {mark.key: mark for mark in picture.nodes}
        tasks = {mark.key for mark in picture.nodes if _is_task(mark)}
        caught = frozenset(edge.source for edge in picture.edges if edge.kind == "except" and edge.source in tasks)

        def cell(key: str) -> Cell:
            width, height = _size(nodes[key])
            if not _is_task(nodes[key]):
                below = EVENT if not _name(nodes[key]) else 4 + LINE * len(_lines_of(_texts(nodes[key]))) + 8
            else:
                below = _undo_gap(key, caught) + HEIGHT if key in undos else _room_below(key, caught)
            return Cell(along=width, out=width, before=height / 2, after=height / 2 + below)

        ids = {mark.key: f"node_{place}" for place, mark in enumerate((*picture.nodes, *picture.undos))}
        widest = max((_width(_said(edge)) for edge in picture.edges if edge.kind in ("flow", "when")), default=0.0)
        gaps = attrs.evolve(GAPS, layers=max(GAPS.layers, TURN + widest + 20))
        layout = laid_out(picture, cell, gaps, centred=True, rails_first=True)
        return cls(picture, ids, undos, caught, layout, gaps.layers)

    def lines(self) -> Iterator[str]:
        """The document."""
        title = self.picture.title if not self.picture.subtitle else f"{self.picture.title} · {self.picture.subtitle}"
        yield HEAD
        yield f'  <bpmn:process id="process" name="{xml(cut(title, 120))}" isExecutable="false">'
        yield from self._process()
        yield "  </bpmn:process>"
        yield '  <bpmndi:BPMNDiagram id="diagram"><bpmndi:BPMNPlane id="plane" bpmnElement="process">'
        yield from self._plane()
        yield "  </bpmndi:BPMNPlane></bpmndi:BPMNDiagram>"
        yield "</bpmn:definitions>"

    # -- what happens ----------------------------------------------------------------------------------------------

    def _process(self) -> Iterator[str]:
        into: dict[str, list[str]] = {mark.key: [] for mark in self.picture.nodes}
        out: dict[str, list[str]] = {mark.key: [] for mark in self.picture.nodes}
        for place, edge in enumerate(self.picture.edges):
            into[edge.target].append(f"flow_{place}")
            if not self._is_caught(edge):
                out[edge.source].append(f"flow_{place}")
        for mark in self.picture.nodes:
            yield self._element(mark, into[mark.key], out[mark.key])
            yield from self._events(mark)
        for place, edge in enumerate(self.picture.edges):
            said = "" if self._is_caught(edge) else _said(edge)
            name = f' name="{xml(said)}"' if said else ""
            source = f"caught_{place}" if self._is_caught(edge) else self.ids[edge.source]
            yield f'    <bpmn:sequenceFlow id="flow_{place}"{name} sourceRef="{source}"'
            yield f'      targetRef="{self.ids[edge.target]}"/>'
        for undo in self.picture.undos:
            node = self.ids[undo.serves]
            yield f'    <bpmn:association id="undo_of_{node}" associationDirection="One" sourceRef="undo_{node}"'
            yield f'      targetRef="{self.ids[undo.key]}"/>'

    def _element(self, mark: Mark, into: Sequence[str], out: Sequence[str]) -> str:
        kind, inner = ELEMENTS[mark.kind], [f"<bpmn:documentation>{xml(_spoken(mark))}</bpmn:documentation>"]
        inner += [f"<bpmn:incoming>{flow}</bpmn:incoming>" for flow in into]
        inner += [f"<bpmn:outgoing>{flow}</bpmn:outgoing>" for flow in out]
        if mark.repeats and _is_task(mark):
            inner.append("<bpmn:multiInstanceLoopCharacteristics/>")
        if mark.kind == "sleep":
            inner.append(f'<bpmn:timerEventDefinition id="timer_{self.ids[mark.key]}"/>')
        if mark.kind == "raise":
            inner.append(f'<bpmn:compensateEventDefinition id="raised_{self.ids[mark.key]}"/>')
        return f'    <bpmn:{kind} id="{self.ids[mark.key]}" name="{_name(mark)}">{"".join(inner)}</bpmn:{kind}>'

    def _events(self, mark: Mark) -> Iterator[str]:
        """The events on the edge of a task: an exception that is caught, and the undo with its task."""
        node, undo = self.ids[mark.key], self.undos.get(mark.key)
        for place, edge in enumerate(self.picture.edges) if mark.key in self.caught else ():
            if edge.source == mark.key and self._is_caught(edge):
                yield (
                    f'    <bpmn:boundaryEvent id="caught_{place}" name="{xml(_said(edge))}" attachedToRef="{node}">'
                    f'<bpmn:outgoing>flow_{place}</bpmn:outgoing><bpmn:errorEventDefinition id="error_{place}"/>'
                    "</bpmn:boundaryEvent>"
                )
        if undo is not None:
            yield (
                f'    <bpmn:boundaryEvent id="undo_{node}" attachedToRef="{node}">'
                f'<bpmn:compensateEventDefinition id="undoing_{node}"/></bpmn:boundaryEvent>'
            )
            yield (
                f'    <bpmn:serviceTask id="{self.ids[undo.key]}" name="{_name(undo)}" isForCompensation="true">'
                f"<bpmn:documentation>{xml(_spoken(undo))}</bpmn:documentation></bpmn:serviceTask>"
            )

    def _is_caught(self, edge: Edge) -> bool:
        return edge.kind == "except" and edge.source in self.caught

    # -- where it is drawn -----------------------------------------------------------------------------------------

    def _plane(self) -> Iterator[str]:
        for mark in self.picture.nodes:
            x, y, width, height = self._box(mark)
            yield _shape(self.ids[mark.key], mark, (x, y, width, height))
            undo = self.undos.get(mark.key)
            if undo is not None:
                event_x, below = x + width - BESIDE, y + height + _undo_gap(mark.key, self.caught)
                yield _event(f"undo_{self.ids[mark.key]}", event_x, y + height)
                yield _shape(self.ids[undo.key], undo, (x, below, width, HEIGHT))
                yield _line(f"undo_of_{self.ids[mark.key]}", [(event_x, y + height + EVENT / 2), (event_x, below)])
        boxes = {mark.key: self._box(mark) for mark in self.picture.nodes}
        places = {id(edge): place for place, edge in enumerate(self.picture.edges)}
        for track in self.layout.tracks:
            place, edge = places[id(track.edge)], track.edge
            points = [(along + LEFT, across + TOP) for along, across in track.points]
            if self._is_caught(edge):
                x, y, width, height = boxes[edge.source]
                yield _event(f"caught_{place}", x + BESIDE, y + height, said=_said(edge))
                leaving = (x + BESIDE, y + height + EVENT / 2)
                yield _line(f"flow_{place}", self._caught_way(leaving, points))
            else:
                yield _line(f"flow_{place}", self._cornered(points), self._edge_label(track, points))

    def _gap_at(self, points: Sequence[Point]) -> int:
        """Which of these points is the last one before an edge comes to the next layer."""
        pairs = enumerate(pairwise(points))
        return next((place for place, (one, other) in pairs if other[0] - one[0] > self.gap - 1), 0)

    def _cornered(self, points: Sequence[Point]) -> list[Point]:
        """The way of an edge in right angles."""
        found = [points[0]]
        for x, y in points[1:]:
            before, level = found[-1]
            if x != before and y != level:
                turn = before + min(TURN, (x - before) / 2)
                found += [(turn, level), (turn, y)]
            found.append((x, y))
        return found

    def _caught_way(self, leaving: Point, points: Sequence[Point]) -> list[Point]:
        """From an event beneath a task, behind the task's layer to the level of what comes next, and on from there.

        What catches an exception stands ahead: a `continue` there is an edge to the next round like any other.
        """
        x, y = leaving
        place = self._gap_at(points)
        turn, rest = points[place][0] + TURN / 2, list(points[place + 1 :])
        return [(x, y), (x, y + UNDER), (turn, y + UNDER), *self._cornered([(turn, rest[0][1]), *rest])]

    def _edge_label(self, track: Track, points: Sequence[Point]) -> Box | None:
        """Where an edge's label stands: above it, behind the place where the edges of its source part."""
        said = _said(track.edge)
        if not said:
            return None
        if track.back:
            rail = min(level for _, level in points)
            along = [x for x, level in points if level == rail]
            width = columns(said) * COLUMN + 8
            return (min(along) + max(along)) / 2 - width / 2, rail - LINE - 2, width, LINE
        place = self._gap_at(points)
        level = points[min(place + 1, len(points) - 1)][1]
        height = LINE * len(_lines_of([said]))
        return points[place][0] + TURN + 4, level - height - 3, _width(said) + 6, height

    def _box(self, mark: Mark) -> Box:
        along, across = self.layout.places[mark.key]
        width, height = _size(mark)
        return along + LEFT, across - height / 2 + TOP, width, height


def _is_task(mark: Mark) -> bool:
    return ELEMENTS[mark.kind].endswith(("ask", "Activity"))


def _size(mark: Mark) -> tuple[float, float]:
    if _is_task(mark):
        return WIDTH, HEIGHT
    side = GATEWAY if ELEMENTS[mark.kind].endswith("Gateway") else EVENT
    return side, side


def _undo_gap(key: str, caught: Collection[str]) -> float:
    """Between a task and its undo: with room for the label of an event for an exception."""
    return max(UNDO_GAP, _room_below(key, caught))


def _room_below(key: str, caught: Collection[str]) -> float:
    return EVENT / 2 + UNDER + 2 * LINE + 14 if key in caught else 0.0


def _texts(mark: Mark) -> list[str]:
    """The lines that are written into a shape or beneath it: its name, and the facts about it."""
    if mark.kind in ("fork", "join", "merge", "start", "end"):
        return []
    sign = {"unreadable": "not readable:", "pivot": "◆"}.get(mark.kind, "")
    head, facts = " ".join(filter(None, (SIGNS[mark.state], sign, mark.label))), described(mark)
    if _is_task(mark):
        return [fitted(head, TASK_ROOM * (2 if facts else 3)), fitted(facts, TASK_ROOM * 2)]
    return [fitted(head, LABEL / COLUMN * 3), fitted(facts, LABEL / COLUMN * 2)]


def _name(mark: Mark) -> str:
    """What is written into a shape, or beneath it."""
    return "&#10;".join(xml(line) for line in _texts(mark) if line)


def _lines_of(texts: Iterable[str]) -> list[str]:
    """The lines of a label outside its shape."""
    return [line for text in texts if text for line in wrapped(text, room=LABEL / COLUMN, lines=MOST_LINES)]


def _width(text: str) -> float:
    """The width of a label outside a shape."""
    return min(LABEL, columns(text) * COLUMN)


def _spoken(mark: Mark) -> str:
    """All that is known of a mark, for those who ask for more than its name."""
    key = printable(mark.key.rstrip("/"))
    return " · ".join(filter(None, (mark.kind, key, "" if mark.label == key else mark.label, described(mark))))


def _said(edge: Edge) -> str:
    """The label of an edge, as much of it as there is room for."""
    facts = (fitted(edge.label, LABEL / COLUMN * 2), "" if edge.count is None else f"{edge.count}{TIMES}")
    return " · ".join(filter(None, facts))


def _shape(element: str, mark: Mark, box: Box) -> str:
    x, y, width, height = box
    colours = ""
    if mark.state in SHADES:
        fill, line = SHADES[mark.state]
        colours = (
            f' bioc:stroke="{line}" bioc:fill="{fill}" color:border-color="{line}" color:background-color="{fill}"'
        )
    marker = ' isMarkerVisible="true"' if ELEMENTS[mark.kind] == "exclusiveGateway" else ""
    label = ""
    if not _is_task(mark) and _name(mark):
        lines = LINE * len(_lines_of(_texts(mark)))
        label = _label((x + width / 2 - LABEL / 2, y + height + 4, LABEL, lines))
    return (
        f'    <bpmndi:BPMNShape id="{element}_shape" bpmnElement="{element}"{marker}{colours}>'
        f"{_bounds(box)}{label}</bpmndi:BPMNShape>"
    )


def _event(element: str, x: float, y: float, *, said: str = "") -> str:
    """An event on the edge of a task, by its middle; its label stands beneath the edge that leaves it."""
    lines = LINE * len(_lines_of([said]))
    label = _label((x - LABEL / 2, y + EVENT / 2 + UNDER + 4, LABEL, lines)) if said else ""
    shape = f'<bpmndi:BPMNShape id="{element}_shape" bpmnElement="{element}">'
    return f"    {shape}{_bounds((x - EVENT / 2, y - EVENT / 2, EVENT, EVENT))}{label}</bpmndi:BPMNShape>"


def _line(element: str, points: Sequence[Point], label: Box | None = None) -> str:
    ways = "".join(f'<di:waypoint x="{round(x, 1):g}" y="{round(y, 1):g}"/>' for x, y in points)
    said = "" if label is None else _label(label)
    return f'    <bpmndi:BPMNEdge id="{element}_edge" bpmnElement="{element}">{ways}{said}</bpmndi:BPMNEdge>'


def _label(box: Box) -> str:
    return f"<bpmndi:BPMNLabel>{_bounds(box)}</bpmndi:BPMNLabel>"


def _bounds(box: Box) -> str:
    x, y, width, height = (round(each, 1) for each in box)
    return f'<dc:Bounds x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>'
