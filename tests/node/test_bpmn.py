"""bpmn-moddle reads our BPMN, and bpmn-js draws it in a browser: complete, with its undo lane, and readable."""

import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from sagas.diagram.formats import drawn, picture_of
from sagas.diagram.gateways import with_gateways
from sagas.diagram.picture import Picture
from tests.node.reading import PACKAGES, browser, node, require
from tests.pure.diagram.scenes import grown, ordinary
from tools.pictures import graph, place_order

READ = """
(async () => {
  const {BpmnModdle} = await import(require("url").pathToFileURL(require.resolve("bpmn-moddle")));
  for (const text of JSON.parse(require("fs").readFileSync(0, "utf8"))) {
    const {warnings} = await new BpmnModdle().fromXML(text);
    if (warnings.length) throw new Error(warnings.map(each => each.message).join());
  }
  console.log("read");
})().catch(error => { console.error(error); process.exit(1); });
"""
VIEWER = "bpmn-js/dist/bpmn-viewer.production.min.js"
PAGE = """<!doctype html><meta charset="utf-8">
<style>body { margin: 0 } #canvas { width: 1800px; height: 900px }</style>
<div id="canvas"></div><pre id="report"></pre>
<script src="VIEWER"></script>
<script>
const within = (element, canvas) => {
  const text = canvas.getGraphics(element).querySelector("text");
  if (!text || !text.textContent.trim()) return null;
  const {x, y, width, height} = text.getBoundingClientRect();
  return [x, y, width, height];
};
const shown = async text => {
  const viewer = new BpmnJS({container: "#canvas"});
  const {warnings} = await viewer.importXML(text);
  const canvas = viewer.get("canvas"), elements = viewer.get("elementRegistry").getAll();
  canvas.viewbox({x: 0, y: 0, width: 1800, height: 900});  // one to one: a place on the page is one in the document
  const found = elements.filter(each => each.type !== "bpmn:Process").map(each => ({
    id: each.id, type: each.type, box: [each.x, each.y, each.width, each.height], line: !!each.waypoints,
    event: (each.businessObject.eventDefinitions || []).map(each => each.$type)[0] || "",
    host: each.host ? each.host.id : "", text: within(each, canvas), label: !!each.labelTarget,
    source: each.source ? each.source.id : "", target: each.target ? each.target.id : "",
    undoes: !!each.businessObject.isForCompensation,
  }));
  viewer.destroy();
  return {warnings: warnings.map(each => each.message), elements: found};
};
(async () => {
  const report = [];
  try { for (const text of TEXTS) report.push(await shown(text)); }
  catch (error) { report.push(String(error)); }
  document.getElementById("report").textContent = JSON.stringify(report);
})();
</script>
"""
Box = tuple[float, float, float, float]
TOUCHING = 2.0
"""By how much two things may overlap in a font that is a little broader than ours."""


def pictures() -> Mapping[str, Picture]:
    """Small ones and large ones, of each sort."""
    sizes = {f"{size} nodes": picture_of(grown(size)) for size in (3, 12, 60)}
    return ordinary() | sizes | {"a graph": picture_of(graph()), "code": picture_of(place_order)}


def test_bpmn_moddle_reads_every_document():
    """bpmn-moddle, the reader of bpmn-js and Camunda, reads every document without a warning."""
    assert "read" in node(READ, [drawn(picture, "bpmn") for picture in pictures().values()], "bpmn-moddle")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Picture, str, Any]]:
    """Each picture, its text, and what bpmn-js has drawn of it."""
    require("bpmn-js")
    texts = {name: (picture, drawn(picture, "bpmn")) for name, picture in pictures().items()}
    listed = json.dumps([text for _, text in texts.values()]).replace("<", "\\u003c")
    page = PAGE.replace("VIEWER", (PACKAGES / VIEWER).as_uri()).replace("TEXTS", listed)
    report = browser(page, tmp_path_factory.mktemp("bpmn"))
    return {name: (*given, found) for (name, given), found in zip(texts.items(), report, strict=True)}


def test_bpmn_js_draws_everything(seen: Mapping[str, tuple[Picture, str, Any]]):
    """It opens each document without a warning, and draws every element of the process."""
    for name, (_, text, found) in seen.items():
        assert found["warnings"] == [], name
        process = ET.fromstring(text).find("{http://www.omg.org/spec/BPMN/20100524/MODEL}process")
        assert process is not None
        assert {each["id"] for each in found["elements"] if not each["label"]} == {each.get("id") for each in process}


def test_bpmn_js_shows_the_undo_lane(seen: Mapping[str, tuple[Picture, str, Any]]):
    """Each undo is a compensation event on the edge of its task, and leads to the task that compensates."""
    for name, (picture, _, found) in seen.items():
        ids = {mark.key: f"node_{place}" for place, mark in enumerate(_all(picture))}
        by_id = {each["id"]: each for each in found["elements"] if not each["label"]}
        events = [e for e in by_id.values() if e["event"] == "bpmn:CompensateEventDefinition" and e["host"]]
        led = {each["source"]: each["target"] for each in by_id.values() if each["type"] == "bpmn:Association"}
        shown = {(event["host"], led[event["id"]]) for event in events}
        assert shown == {(ids[undo.serves], ids[undo.key]) for undo in picture.undos}, name
        assert all(by_id[led[event["id"]]]["undoes"] for event in events), name


def test_every_text_can_be_read(seen: Mapping[str, tuple[Picture, str, Any]]):
    """A text is within its task, or stands free: on no other shape, and on no other text."""
    for name, (_, _, found) in seen.items():
        elements = found["elements"]
        shapes = [each for each in elements if not each["label"] and not each["line"]]
        texts = [(each, each["text"]) for each in elements if each["text"] is not None]
        inner = [(each, box) for each, box in texts if not each["label"]]
        outer = [(each, box) for each, box in texts if each["label"]]
        assert [each["id"] for each, box in inner if not _holds(each["box"], box)] == [], name
        assert list(_on(outer, shapes)) == [], name
        assert [(one["id"], two["id"]) for (one, a), (two, b) in combinations(outer, 2) if _overlap(a, b)] == [], name


def _all(picture: Picture) -> tuple[Any, ...]:
    """The nodes of a document, in the order of their ids."""
    whole = with_gateways(picture)
    return (*whole.nodes, *whole.undos)


def _on(texts: list[tuple[Any, Box]], shapes: list[Any]) -> Iterator[tuple[str, str]]:
    for each, box in texts:
        yield from ((each["id"], shape["id"]) for shape in shapes if _overlap(box, shape["box"]))


def _overlap(one: Box, other: Box) -> bool:
    return all(
        one[at] + one[at + 2] > other[at] + TOUCHING and other[at] + other[at + 2] > one[at] + TOUCHING for at in (0, 1)
    )


def _holds(shape: Box, text: Box) -> bool:
    return all(
        shape[at] <= text[at] + TOUCHING and text[at] + text[at + 2] <= shape[at] + shape[at + 2] + TOUCHING
        for at in (0, 1)
    )
