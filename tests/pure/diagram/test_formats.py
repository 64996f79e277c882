"""The formats: valid, escaped, complete and always the same; read by the parsers of others where they are present."""

import os
import re
import shutil
import subprocess
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagas.diagram.formats import FORMATS, drawn
from sagas.diagram.graphs import graph_picture
from sagas.diagram.labels import printable
from sagas.diagram.picture import SIGNS, Picture
from tests.pure.diagram.scenes import HOSTILE, ordinary, renamed, trip

GOLDEN = Path(__file__).with_name("golden")
SUFFIXES = {"mermaid": "mmd", "dot": "dot", "svg": "svg", "bpmn": "bpmn"}
ORDINARY = ordinary()
each = pytest.mark.parametrize("picture", ORDINARY.values(), ids=ORDINARY)
form = pytest.mark.parametrize("form", FORMATS)


@form
def test_a_picture_is_as_it_was(form: str):
    """The picture of a small graph is the one that was looked at; see the folder golden."""
    golden = GOLDEN / f"trip.{SUFFIXES[form]}"
    text = trip().diagram(form)  # type: ignore[arg-type]
    if os.environ.get("SAGAS_WRITE_GOLDEN") == "1":
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@form
@each
def test_the_same_picture_gives_the_same_text(picture: Picture, form: str):
    """Nothing but the picture goes into the text, and it ends with a newline."""
    assert drawn(picture, form) == drawn(picture, form)
    assert drawn(picture, form).endswith("\n")


def test_another_format_is_refused():
    """The message names the formats."""
    with pytest.raises(ValueError, match=r"'png'.*mermaid, dot, svg, bpmn"):
        trip().diagram("png")  # type: ignore[arg-type]
    assert trip().diagram() == trip().diagram("mermaid")


# -- SVG ---------------------------------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


@each
def test_svg_shows_every_node_once(picture: Picture):
    """It is XML with one titled shape for each node and each undo, and one path for each edge."""
    root = ET.fromstring(drawn(picture, "svg"))
    groups = [group for group in root.iter() if group.find(f"{SVG}title") is not None and group is not root]
    assert len(groups) == len(picture.nodes) + len(picture.undos)
    paths = [path for path in root.iter(f"{SVG}path") if path.get("marker-end")]
    assert len(paths) == len(picture.edges)


@each
def test_svg_needs_nothing_from_elsewhere(picture: Picture):
    """No script, no link, no font and no image; and it has colours for light and for dark."""
    text = drawn(picture, "svg")
    root = ET.fromstring(text)
    assert {node.tag.removeprefix(SVG) for node in root.iter()} <= {
        *("svg", "title", "style", "defs", "marker", "path", "rect", "text", "g", "circle")
    }
    assert {name for node in root.iter() for name in node.attrib if "href" in name or name.startswith("on")} == set()
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/2000/svg)", root.findtext(f"{SVG}style") or "")


@each
def test_svg_keeps_within_its_page(picture: Picture):
    """Every card and every word begins within the page."""
    root = ET.fromstring(drawn(picture, "svg"))
    width, height = float(root.get("width") or 0), float(root.get("height") or 0)
    for node in root.iter():
        if node.tag in (f"{SVG}rect", f"{SVG}text"):
            x, y = float(node.get("x") or 0), float(node.get("y") or 0)
            assert 0 <= x <= width
            assert 0 <= y <= height
            assert x + float(node.get("width") or 0) <= width


def test_svg_frames_a_savepoint_where_nothing_else_stands_in_it():
    """A frame around something else would say that it is part of the savepoint."""
    assert drawn(ORDINARY["code"], "svg").count('class="frame"') == 1
    assert [frame.label for frame in ORDINARY["crowded"].frames] == ["savepoint courier"]
    assert 'class="frame"' not in drawn(ORDINARY["crowded"], "svg")


def test_a_map_is_drawn_as_many():
    """In SVG with more cards behind it, in BPMN as a task of several instances at once."""
    assert drawn(ORDINARY["crowded"], "svg").count('class="card" d=') == 1
    assert drawn(ORDINARY["crowded"], "bpmn").count("<bpmn:multiInstanceLoopCharacteristics/>") == 1


def test_states_are_told_without_colours():
    """Each state has a sign of its own, and its word is written."""
    signs = [sign for sign in SIGNS.values() if sign]
    assert len(signs) == len(set(signs)) == len(SIGNS) - 2
    text = "".join(ET.fromstring(drawn(ORDINARY["states"], "svg")).itertext())
    for name in SIGNS:
        assert {"compensated": "undone", "compensation_failed": "undo failed", "unreached": "not reached"}.get(
            name, name
        ) in text or name == "unreached"


# -- BPMN --------------------------------------------------------------------------------------------------------------

BPMN = "{http://www.omg.org/spec/BPMN/20100524/MODEL}"
DI = "{http://www.omg.org/spec/BPMN/20100524/DI}"


@each
def test_bpmn_is_complete(picture: Picture):
    """Each node and undo is an element with a shape, each edge a flow with waypoints, and ids are unique."""
    root = ET.fromstring(drawn(picture, "bpmn"))
    ids = Counter(node.get("id") for node in root.iter() if node.get("id"))
    assert set(ids.values()) == {1}
    process = root.find(f"{BPMN}process")
    assert process is not None
    shown = {node.get("bpmnElement") for node in root.iter(f"{DI}BPMNShape")}
    lines = {node.get("bpmnElement") for node in root.iter(f"{DI}BPMNEdge")}
    flows = {node.get("id") for node in process if node.tag in (f"{BPMN}sequenceFlow", f"{BPMN}association")}
    elements = {node.get("id") for node in process} - flows
    assert (shown, lines) == (elements, flows)
    names = [(node.get("name") or "", node.findtext(f"{BPMN}documentation") or "") for node in process]
    for mark in (*picture.nodes, *picture.undos):
        if mark.kind not in ("start", "end", "fork", "join", "merge"):
            assert any(mark.label[:10] in name and mark.label in whole for name, whole in names)


@each
def test_bpmn_flows_join_elements(picture: Picture):
    """Flows lead from an element to an element, and each element lists the flows that touch it."""
    root = ET.fromstring(drawn(picture, "bpmn"))
    process: Any = root.find(f"{BPMN}process")
    elements = {node.get("id"): node for node in process}
    for flow in process.iter(f"{BPMN}sequenceFlow"):
        source, target = elements[flow.get("sourceRef")], elements[flow.get("targetRef")]
        assert flow.get("id") in [each.text for each in source.iter(f"{BPMN}outgoing")]
        assert flow.get("id") in [each.text for each in target.iter(f"{BPMN}incoming")]


@each
def test_bpmn_compensation_is_real(picture: Picture):
    """Each undo is a task for compensation, joined to a compensation event on the edge of its task."""
    root = ET.fromstring(drawn(picture, "bpmn"))
    handlers = {node.get("id") for node in root.iter() if node.get("isForCompensation") == "true"}
    events = {
        node.get("id"): node.get("attachedToRef")
        for node in root.iter(f"{BPMN}boundaryEvent")
        if node.find(f"{BPMN}compensateEventDefinition") is not None
    }
    joined = {node.get("sourceRef"): node.get("targetRef") for node in root.iter(f"{BPMN}association")}
    assert len(handlers) == len(events) == len(picture.undos)
    assert (joined.keys(), set(joined.values())) == (events.keys(), handlers)


def test_bpmn_gateways_of_a_graph():
    """In a graph a node waits for all before it: a parallel gateway; one with `when` has a way around it."""
    root = ET.fromstring(trip().diagram("bpmn"))
    kinds = Counter(node.tag.removeprefix(BPMN) for node in root.iter() if node.tag.endswith("Gateway"))
    assert kinds == {"parallelGateway": 2, "exclusiveGateway": 2}
    flows = {node.get("name"): node for node in root.iter(f"{BPMN}sequenceFlow")}
    assert {"yes", "no"} <= flows.keys()


# -- hostile names -----------------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
LABEL = re.compile(r'"[^"\n]*"')
ENTITY = re.compile(r"#\d+;")


def check_mermaid(text: str) -> None:
    """Outside its quotes a flowchart has only our own words; inside them no sign that could end a label."""
    for line in text.splitlines()[2:]:
        assert re.fullmatch(r"[\w\s\-.>{}\[\]()/|:,#]*", LABEL.sub("", line)), line
        for label in LABEL.findall(line):
            assert not re.search(r"[#;`\\{}\[\]()|&:%]", ENTITY.sub("", label.replace("<br/>", ""))), line


@given(names=st.lists(texts, min_size=1, max_size=20))
def test_no_name_breaks_out(names: list[str]):
    """Whatever characters names have: XML has them as text, Mermaid and DOT quote them, and none moves the text."""
    picture = renamed(graph_picture(trip()), names)
    svg = ET.fromstring(drawn(picture, "svg"))
    assert picture.nodes[1].label in "".join(title.text or "" for title in svg.iter(f"{SVG}title"))
    bpmn = ET.fromstring(drawn(picture, "bpmn"))
    assert any(picture.nodes[1].label in (each.text or "") for each in bpmn.iter(f"{BPMN}documentation"))
    check_mermaid(drawn(picture, "mermaid"))
    dot = drawn(picture, "dot")
    for text in (drawn(picture, "mermaid"), dot, *svg.itertext(), *bpmn.itertext()):
        assert text.replace("\n", "").isprintable()
    assert re.sub(r'"(?:[^"\\\n]|\\.)*"', "", dot).count('"') == 0


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(name: str):
    """Each of the worst names is in the picture as it is, and the picture is whole."""
    picture = renamed(graph_picture(trip()), [name])
    check_mermaid(drawn(picture, "mermaid"))
    ET.fromstring(drawn(picture, "bpmn"))
    svg = ET.fromstring(drawn(picture, "svg"))
    shown = "".join(text.text or "" for text in svg.iter(f"{SVG}text"))
    assert unicodedata.normalize("NFC", printable(name))[:3] in unicodedata.normalize("NFC", shown)


# -- Graphviz, where it is present -------------------------------------------------------------------------------------


@each
def test_graphviz_parses_ours(picture: Picture):
    """Graphviz draws every graph without a warning."""
    program = shutil.which("dot")
    if program is None:
        pytest.skip("Graphviz is not present")
    done = subprocess.run(
        [program, "-Tcanon"], input=drawn(picture, "dot"), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
