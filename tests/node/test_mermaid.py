"""Mermaid itself reads our flowcharts."""

import json

from sagas.diagram.formats import drawn, picture_of
from tests.node.reading import node
from tests.pure.diagram.scenes import grown, ordinary

READ = """
const {JSDOM} = require("jsdom");
const window = new JSDOM("").window;
global.window = window; global.document = window.document;
(async () => {
  const mermaid = (await import(require("url").pathToFileURL(require.resolve("mermaid")))).default;
  for (const text of JSON.parse(require("fs").readFileSync(0, "utf8"))) {
    await mermaid.parse(text);
    const {db} = await mermaid.mermaidAPI.getDiagramFromText(text);
    console.log(JSON.stringify([db.getVertices().size, db.getEdges().length]));
  }
})().catch(error => { console.error(error); process.exit(1); });
"""


def test_mermaid_reads_every_flowchart():
    """It accepts each, and finds all nodes and edges of the picture in it, and no more: no name is taken for syntax."""
    pictures = [*ordinary().values(), *(picture_of(grown(size)) for size in (3, 12, 60))]
    lines = node(READ, [drawn(each, "mermaid") for each in pictures], "mermaid", "jsdom").splitlines()
    assert [tuple(json.loads(line)) for line in lines] == [
        (len(each.nodes) + len(each.undos), len(each.edges) + len(each.undos)) for each in pictures
    ]
