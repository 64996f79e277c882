"""Draws the pictures of the README: its own saga's run, and the trace of an order whose worker was killed.

``docs/pictures/trace.json`` has the trace's spans as Jaeger gave them on 2026-12-01: scene 5 of ``make demo``, with
``OTEL_EXPORTER_OTLP_ENDPOINT`` set. A span whose parent died with the worker before it was sent stands at the end.
``python -m tools.readme_pictures`` writes the pictures; a test draws them again.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import attrs
import msgspec

from sagas import SagaStatus
from sagas.cli.modules import load, sagas_of
from sagas.diagram.formats import drawn as saga_drawn
from sagas.diagram.formats import picture_of
from sagas.diagram.picture import Picture
from sagas.diagram.runs import run_picture
from tools.pictures import run, step_state, undone

FOLDER = Path(__file__).parents[1] / "docs/pictures"
ROW, TOP, NAMES, BARS, RIGHT = 22, 62, 320, 560, 84
"""Sizes in pixels: a row, the head, the column of names, the column of bars, the room for a duration beside one."""
THINNEST = 2.5
SHORTEST_US = 500
"""A shorter span is a mark of a moment, without a duration."""
NAMESPACE = "http://www.w3.org/2000/svg"
TITLE = "No courier, so the order is undone; kill -9 in the middle of that; another worker goes on: one trace"
COLOURS = {"shop": "#3b6fd4", "inventory": "#2a9d6f", "payments": "#b7791f", "shipping": "#8a5cd1"}
STYLE = """\
text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,Arial,'DejaVu Sans',sans-serif;fill:#1a202c}
.dim{fill:#5b6576}.title{font-size:15px;font-weight:600}.page{fill:#fff;stroke:#e2e8f0}.line{stroke:#edf1f6}
.failed{fill:#c53030}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.dim{fill:#9aa6b5}.page{fill:#0d1117;stroke:#30363d}
.line{stroke:#21262d}.failed{fill:#ff7b72}}"""


@attrs.frozen
class Row:
    """One span."""

    depth: int
    service: str
    name: str
    start_us: int
    lasted_us: int
    failed: bool


def recorded() -> Sequence[Row]:
    """The spans, each beneath its parent."""
    return msgspec.json.decode((FOLDER / "trace.json").read_bytes(), type=list[Row])


def drawn(rows: Sequence[Row]) -> str:
    """The picture as an SVG document."""
    width, height = NAMES + BARS + RIGHT, TOP + ROW * len(rows) + 14
    end_us = max(row.start_us + row.lasted_us for row in rows)
    return "\n".join(
        [
            f'<svg xmlns="{NAMESPACE}" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
            f"<title>{TITLE}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="page" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>',
            f'<text class="title" x="16" y="26">{TITLE}</text>',
            *_legend(rows),
            *(line for place, row in enumerate(rows) for line in _row(row, TOP + ROW * place, end_us)),
            "</svg>",
            "",
        ]
    )


def _legend(rows: Sequence[Row]) -> Iterator[str]:
    x = 16
    for service in dict.fromkeys(row.service for row in rows):
        yield f'<rect x="{x}" y="38" width="10" height="10" rx="2" fill="{COLOURS[service]}"/>'
        yield f'<text class="dim" x="{x + 15}" y="47">{escape(service)}</text>'
        x += 34 + 7 * len(service)
    yield f'<text class="dim" x="{x}" y="47"><tspan class="failed">!</tspan> error</text>'


def _row(row: Row, y: float, end_us: int) -> Iterator[str]:
    text_y = y + ROW / 2 + 4
    x = NAMES + BARS * row.start_us / end_us
    long = max(THINNEST, BARS * row.lasted_us / end_us)
    sign = '<tspan class="failed">! </tspan>' if row.failed else ""
    yield f'<line class="line" x1="12" x2="{NAMES + BARS + RIGHT - 12}" y1="{y}" y2="{y}"/>'
    yield f'<text x="{16 + 14 * row.depth}" y="{text_y:g}">{sign}{escape(row.name)}</text>'
    yield (
        f'<rect x="{x:.1f}" y="{y + 6}" width="{long:.1f}" height="{ROW - 12}" rx="2" fill="{COLOURS[row.service]}"/>'
    )
    if row.lasted_us >= SHORTEST_US:
        yield f'<text class="dim" x="{x + long + 6:.1f}" y="{text_y:g}">{row.lasted_us / 1000:.0f} ms</text>'


def order() -> str:
    """The README's saga as its first example leaves it: declined, and undone."""
    ended = run(
        "order-17",
        SagaStatus.COMPENSATED,
        undone(step_state("reserve", "step", 0, 0.002), 0.006, 0.008),
        step_state("charge", "pivot", 0.003, 0.005, status="rejected"),
    )
    return saga_drawn(run_picture(ended, _of_readme()), "svg")


def _of_readme() -> Picture:
    """The saga of the README's first example, imported without the last part, which would run it."""
    page = (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("async def main")[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "readme_example.py")
        path.write_text(code, encoding="utf-8")
        (found,) = sagas_of([load(str(path))])
        return picture_of(found)


def pictures() -> Mapping[str, str]:
    """The text of each picture by its name."""
    return {"trace.svg": drawn(recorded()), "order.svg": order()}


def main() -> None:
    """Write the pictures."""
    for name, text in pictures().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
