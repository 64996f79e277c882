"""Pictures as BPMN 2.0, with a layout: for modellers such as bpmn-js, Camunda and Signavio.

An undo is what BPMN made its compensation for: a boundary event on the task, joined to a task ``isForCompensation``.
"""

from collections.abc import Iterator, Mapping, Sequence

import attrs

from sagas.diagram.gateways import with_gateways
from sagas.diagram.labels import cut, xml
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
EVENT, GATEWAY, WIDTH, HEIGHT = 36.0, 50.0, 120.0, 80.0
UNDO_GAP = 44.0
BESIDE = 26.0
"""From the side of a task to the middle of an event on its edge."""
GAPS = Gaps(layers=64, nodes=36, bends=20)
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

    @classmethod
    def of(cls, picture: Picture) -> "_Document":
        undos = picture.undo_of()
        nodes = {mark.key: mark for mark in picture.nodes}
        tasks = {mark.key for mark in picture.nodes if _is_task(mark)}
        caught = frozenset(edge.source for edge in picture.edges if edge.kind == "except" and edge.source in tasks)

        def cell(key: str) -> Cell:
            width, height = _size(nodes[key])
            below = UNDO_GAP + HEIGHT if key in undos else EVENT if key in caught or not _is_task(nodes[key]) else 0.0
            return Cell(along=width, out=width, before=height / 2, after=height / 2 + below)

        ids = {mark.key: f"node_{place}" for place, mark in enumerate((*picture.nodes, *picture.undos))}
        layout = laid_out(picture, cell, GAPS, centred=True, rails_first=True)
        return cls(picture, ids, undos, caught, layout)

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
            said = "" if self._is_caught(edge) and edge.count is None else _said(edge)
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
                    f'    <bpmn:boundaryEvent id="caught_{place}" name="{xml(cut(edge.label))}" attachedToRef="{node}">'
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
                event_x, below = x + width - BESIDE, y + height + UNDO_GAP
                yield _event(f"undo_{self.ids[mark.key]}", event_x, y + height)
                yield _shape(self.ids[undo.key], undo, (x, below, width, HEIGHT))
                yield _line(f"undo_of_{self.ids[mark.key]}", [(event_x, y + height + EVENT / 2), (event_x, below)])
        boxes = {mark.key: self._box(mark) for mark in self.picture.nodes}
        places = {id(edge): place for place, edge in enumerate(self.picture.edges)}
        for track in self.layout.tracks:
            place = places[id(track.edge)]
            if self._is_caught(track.edge):
                x, y, _, height = boxes[track.edge.source]
                yield _event(f"caught_{place}", x + BESIDE, y + height, label=True)
                yield _line(f"flow_{place}", _around(x + BESIDE, y + height + EVENT / 2, boxes[track.edge.target]))
            else:
                yield _line(f"flow_{place}", _cornered(track))

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


def _name(mark: Mark) -> str:
    """What is written into a shape."""
    if mark.kind in ("fork", "join", "merge", "start", "end"):
        return ""
    sign = {"unreadable": "not readable:", "pivot": "◆"}.get(mark.kind, "")
    head = " ".join(filter(None, (SIGNS[mark.state], sign, cut(mark.label))))
    return "&#10;".join(xml(line) for line in (head, described(mark)) if line)


def _spoken(mark: Mark) -> str:
    return " · ".join(filter(None, (mark.kind, mark.key.rstrip("/"), described(mark))))


def _said(edge: Edge) -> str:
    return " · ".join(filter(None, (cut(edge.label), "" if edge.count is None else f"{edge.count}{TIMES}")))


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
        bounds = f'x="{x + width / 2 - 60:g}" y="{y + height + 4:g}" width="120" height="28"'
        label = f"<bpmndi:BPMNLabel><dc:Bounds {bounds}/></bpmndi:BPMNLabel>"
    return (
        f'    <bpmndi:BPMNShape id="{element}_shape" bpmnElement="{element}"{marker}{colours}>'
        f'<dc:Bounds x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>{label}</bpmndi:BPMNShape>'
    )


def _event(element: str, x: float, y: float, *, label: bool = False) -> str:
    """An event on the edge of a task, by its middle."""
    bounds = f'x="{x - EVENT / 2:g}" y="{y - EVENT / 2:g}" width="{EVENT:g}" height="{EVENT:g}"'
    place = f'x="{x - 76:g}" y="{y + EVENT / 2 + 10:g}" width="72" height="28"'
    said = f"<bpmndi:BPMNLabel><dc:Bounds {place}/></bpmndi:BPMNLabel>" if label else ""
    shape = f'<bpmndi:BPMNShape id="{element}_shape" bpmnElement="{element}">'
    return f"    {shape}<dc:Bounds {bounds}/>{said}</bpmndi:BPMNShape>"


def _line(element: str, points: Sequence[tuple[float, float]]) -> str:
    ways = "".join(f'<di:waypoint x="{round(x, 1):g}" y="{round(y, 1):g}"/>' for x, y in points)
    return f'    <bpmndi:BPMNEdge id="{element}_edge" bpmnElement="{element}">{ways}</bpmndi:BPMNEdge>'


def _cornered(track: Track) -> list[tuple[float, float]]:
    """The way of an edge in right angles."""
    points = [(along + LEFT, across + TOP) for along, across in track.points]
    found = [points[0]]
    for x, y in points[1:]:
        before, level = found[-1]
        if x != before and y != level:
            middle = (before + x) / 2
            found += [(middle, level), (middle, y)]
        found.append((x, y))
    return found


def _around(x: float, y: float, target: Box) -> list[tuple[float, float]]:
    """From an event beneath a task to the left side of another node."""
    left, top, _, height = target
    return [(x, y), (x, y + 8), (left - 22, y + 8), (left - 22, top + height / 2), (left, top + height / 2)]
