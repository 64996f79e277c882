"""How pictures look as SVG: sizes, colours for light and dark, and the small signs, drawn so that no font is needed.

Invariant: what a colour says is also said by a sign, a line or a word.
"""

from collections.abc import Mapping

from sagas.diagram.picture import Kind, State

FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif"
LABEL = 13
SMALL = 11
LABEL_COLUMN = 8.5
"""Width of a column of a label, in pixels; a little more than fonts need."""
SMALL_COLUMN = 6.5
MARGIN = 24
HEADER = 58
FOOTER = 34
ICON = 44
"""Room for the icon, at the left of a card."""
BADGE = 30
"""Room for the sign of a state, at the right of one."""
NARROWEST, WIDEST = 132, 272
UNDO_GAP = 9
UNDO_INDENT = 44
SPINE = 24
"""Where edges meet a card in a picture that runs down, from its left side."""
GATE_WIDTH = 64

KINDS: Mapping[Kind, str] = {
    "step": "step",
    "pivot": "pivot",
    "retriable": "retriable",
    "lookup": "lookup",
    "child": "child saga",
    "sleep": "sleep",
    "callback": "callback",
    "unreadable": "not readable",
}
"""The word on a card for each kind of node."""

ICONS: Mapping[str, str] = {
    "step": "M3 4.5h10v7H3z",
    "pivot": "M8 1.5 14.5 8 8 14.5 1.5 8z",
    "retriable": "M13.2 6.3A5.5 5.5 0 1 0 13.5 8.6M13.6 2.6v3.9H9.7",
    "lookup": "M7 2.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 0 1 0-9zM10.3 10.3 14 14",
    "child": "M2.5 5.5h8v8h-8zM5.5 5.5v-3h8v8h-3",
    "sleep": "M8 2a6 6 0 1 1 0 12A6 6 0 0 1 8 2zM8 4.8V8l2.3 1.8",
    "callback": "M2 4h12v8.5H2zM2.4 4.4 8 8.8l5.6-4.4",
    "unreadable": "M5.2 5.6a2.9 2.9 0 1 1 4.3 2.6C8.4 8.8 8 9.3 8 10.4M8 12.9v.4",
    "raise": "M8 2a6 6 0 1 1 0 12A6 6 0 0 1 8 2zM5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4",
    "choice": "M8 2 14 8 8 14 2 8z",
    "compensation": "M5.6 3 2.6 6l3 3M3 6h6.4a3.6 3.6 0 0 1 0 7.2H6",
}
"""In a square of 16, as lines."""
BADGES: Mapping[State, str] = {
    "pending": "",
    "running": "M6.2 5v6l5-3z",
    "succeeded": "M4.6 8.3 7 10.7l4.4-5",
    "rejected": "M4.5 8h7",
    "failed": "M5.3 5.3l5.4 5.4M10.7 5.3l-5.4 5.4",
    "unknown": "M6 6.3a2 2 0 1 1 2.8 1.9c-.6.3-.8.6-.8 1.2M8 11.4v.2",
    "skipped": "M4.6 5.5 7.1 8l-2.5 2.5M8.4 5.5l2.5 2.5-2.5 2.5",
    "compensated": "M6.5 4.6 4.4 6.7l2.1 2.1M4.7 6.7h4.4a2.2 2.2 0 0 1 0 4.4H7",
    "compensation_failed": "M8 4.4v4.4M8 11.2v.3",
}
"""The sign within the disc of each state."""

LIGHT = """\
.paper{fill:#fff;stroke:#e2e8f0}
text{fill:#1e293b}
.muted,.label{fill:#5b6778}
.label,.halo{stroke:#fff}
.card{fill:#f8fafc;stroke:#b6c2d0}
.edge{stroke:#8b99ab}
.tip,.dot{fill:#8b99ab}
.icon{stroke:#5b6778}
.gate{fill:#eef2f7;stroke:#8b99ab}
.pivot .card{fill:#f5f0ff;stroke:#6d3fc7}
.pivot .icon{stroke:#6d3fc7}
.pivot .muted{fill:#6d3fc7}
.undo .card{fill:#fff8e6;stroke:#b98a1d}
.undo .icon{stroke:#96690a}
.undo text{fill:#6f4e07}
.link{stroke:#b98a1d}
.frame{fill:#64748b0d;stroke:#8b99ab}
.raise .card{fill:#fdf2f2;stroke:#c0564f}
.raise .icon{stroke:#c0564f}
.sign{stroke:#fff}
.good .card{stroke:#1a7f37}.good .disc{fill:#1a7f37}
.bad .card{stroke:#c4232d}.bad .disc{fill:#c4232d}
.live .card{stroke:#0b62c4}.live .disc{fill:#0b62c4}
.back .card{stroke:#96690a}.back .disc{fill:#96690a}
.doubt .card{stroke:#7c45c9}.doubt .disc{fill:#7c45c9}
.idle .card{stroke:#7b8794}.idle .disc{fill:#7b8794}"""
DARK = """\
.paper{fill:#0d1117;stroke:#2b323b}
text{fill:#e6edf3}
.muted,.label{fill:#9aa5b1}
.label,.halo{stroke:#0d1117}
.card{fill:#171c24;stroke:#475160}
.edge{stroke:#728094}
.tip,.dot{fill:#728094}
.icon{stroke:#9aa5b1}
.gate{fill:#1b222c;stroke:#728094}
.pivot .card{fill:#221a38;stroke:#a585f2}
.pivot .icon{stroke:#b79cf7}
.pivot .muted{fill:#b79cf7}
.undo .card{fill:#241d0d;stroke:#9c7626}
.undo .icon{stroke:#dcb040}
.undo text{fill:#ecd08a}
.link{stroke:#9c7626}
.frame{fill:#94a3b80f;stroke:#566273}
.raise .card{fill:#2a1618;stroke:#d9726b}
.raise .icon{stroke:#e58f89}
.sign{stroke:#0d1117}
.good .card{stroke:#3fb950}.good .disc{fill:#3fb950}
.bad .card{stroke:#f4716a}.bad .disc{fill:#f4716a}
.live .card{stroke:#58a6ff}.live .disc{fill:#58a6ff}
.back .card{stroke:#dcb040}.back .disc{fill:#dcb040}
.doubt .card{stroke:#b184f5}.doubt .disc{fill:#b184f5}
.idle .card{stroke:#8b97a5}.idle .disc{fill:#8b97a5}"""
LINES = """\
text{font-family:%s;font-size:%dpx}
.title{font-size:16px;font-weight:600}
.name{font-weight:600}
.muted,.label{font-size:%dpx;font-weight:400}
.label{paint-order:stroke;stroke-width:4px;stroke-linejoin:round}
.card{stroke-width:1.25}
.edge{fill:none;stroke-width:1.5;stroke-linecap:round}
.dashed{stroke-dasharray:5 4}
.icon{fill:none;stroke-width:1.5;stroke-linecap:round;stroke-linejoin:round}
.sign{fill:none;stroke-width:1.7;stroke-linecap:round;stroke-linejoin:round}
.pivot .card{stroke-width:2.75}
.choice .name{font-weight:500;font-size:12px}
.undo .card{stroke-dasharray:4 3}
.undo .name{font-size:12px;font-weight:500}
.link{fill:none;stroke-width:1.25;stroke-dasharray:2 3}
.frame{stroke-dasharray:2 4;stroke-linecap:round}
.unreadable .card{stroke-dasharray:2 4;stroke-linecap:round}
.bad .card{stroke-width:2.25}
.faint{opacity:.4}
.unreached{opacity:.55}
.unreached .card{stroke-dasharray:2 4;stroke-linecap:round}""" % (FONT, LABEL, SMALL)  # noqa: UP031 - braces are CSS
STYLE = f"{LINES}\n{LIGHT}\n@media (prefers-color-scheme:dark){{\n{DARK}\n}}"

TONES: Mapping[State, str] = {
    "pending": "idle",
    "running": "live",
    "succeeded": "good",
    "rejected": "bad",
    "failed": "bad",
    "unknown": "doubt",
    "skipped": "idle",
    "compensated": "back",
    "compensation_failed": "bad",
    "unreached": "unreached",
}
"""The class of each state."""
