"""The cards of an SVG picture: a node with its icon, name, facts and state, and beneath it its undo."""

from collections.abc import Mapping, Sequence

import attrs

from sagas.diagram.labels import columns, printable, wrapped, xml
from sagas.diagram.layout import Cell
from sagas.diagram.look import (
    BADGE,
    BADGES,
    GATE_WIDTH,
    ICON,
    ICONS,
    KINDS,
    LABEL_COLUMN,
    NARROWEST,
    SMALL_COLUMN,
    SPINE,
    TONES,
    UNDO_GAP,
    UNDO_INDENT,
    WIDEST,
)
from sagas.diagram.picture import GATES, Mark, Picture, described

LINE = 16
DOT = 9
"""Radius of the start and the end."""
CORNER = 12
"""How far the point of a choice reaches out."""
BAR = 7
"""Thickness of a fork."""


@attrs.frozen(kw_only=True)
class Box:
    """A rectangle on the page."""

    x: float
    y: float
    width: float
    height: float


@attrs.frozen
class Deck:
    """The cards of one picture: all of the same width."""

    picture: Picture
    down: bool
    """The picture runs down, not across."""
    width: float
    nodes: Mapping[str, Mark]
    undos: Mapping[str, Mark]

    @classmethod
    def of(cls, picture: Picture, *, down: bool) -> "Deck":
        """The cards for a picture."""
        marks = [mark for mark in picture.nodes if _is_card(mark)]
        return cls(
            picture,
            down=down,
            width=min(max([NARROWEST, *map(_wanted, marks), *map(_undo_wanted, picture.undos)]), WIDEST),
            nodes={mark.key: mark for mark in picture.nodes},
            undos=picture.undo_of(),
        )

    def cell(self, key: str) -> Cell:
        """The room of a node, with its undo beneath it."""
        mark, undo = self.nodes[key], self.undos.get(key)
        width, height = self.size(mark)
        below = 0.0 if undo is None else UNDO_GAP + self.undo_height(undo)
        if not self.down:
            return Cell(along=width, out=width, before=height / 2, after=height / 2 + below)
        before = SPINE if _is_card(mark) else width / 2
        return Cell(along=height + below, out=height, before=before, after=width - before)

    def box(self, key: str, along: float, across: float) -> Box:
        """Where a node is drawn, from its place in the layout."""
        mark = self.nodes[key]
        width, height = self.size(mark)
        if not self.down:
            return Box(x=along, y=across - height / 2, width=width, height=height)
        return Box(x=across - self.cell(key).before, y=along, width=width, height=height)

    def undo_box(self, undo: Mark, box: Box) -> Box:
        """Where an undo is drawn, beneath its node."""
        indent = UNDO_INDENT if self.down else UNDO_INDENT / 2
        height = self.undo_height(undo)
        return Box(x=box.x + indent, y=box.y + box.height + UNDO_GAP, width=box.width - indent, height=height)

    def size(self, mark: Mark) -> tuple[float, float]:
        """Width and height of a node on the page."""
        if mark.kind in ("start", "end"):
            return 2.0 * DOT, 2.0 * DOT
        if mark.kind in ("fork", "join", "merge"):
            return (GATE_WIDTH, BAR) if self.down else (BAR, GATE_WIDTH)
        return self.width, LINE * (len(self.lines(mark)) + bool(facts(mark))) + 16

    def lines(self, mark: Mark) -> Sequence[str]:
        """The name of a node, on one line or two."""
        room = self.width - ICON - 12 - (BADGE if mark.state in BADGES else 0)
        return wrapped(mark.label, room=room / LABEL_COLUMN, lines=2)

    def undo_height(self, undo: Mark) -> float:
        """Of the undo."""
        return 46.0 if described(undo) else 30.0

    # -- drawing ---------------------------------------------------------------------------------------------------

    def drawn(self, mark: Mark, box: Box) -> str:
        """A node as SVG."""
        if mark.kind in ("start", "end"):
            return _dot(mark, box)
        if mark.kind in ("fork", "join", "merge"):
            faint = " faint" if mark.state == "unreached" else ""
            return f'<rect class="dot{faint}" {_at(box)} rx="{BAR / 2:g}"><title>{xml(mark.label)}</title></rect>'
        parts = [f"<title>{xml(_spoken(mark))}</title>"]
        if mark.repeats:
            parts.append(f'<path class="card" d="{_behind(box)}" fill-opacity="0"/>')
        parts.append(_outline(mark, box))
        if mark.kind == "child":
            inner = Box(x=box.x + 3, y=box.y + 3, width=box.width - 6, height=box.height - 6)
            parts.append(f'<rect class="card" {_at(inner)} rx="5"/>')
        top = box.y + (box.height - LINE * (len(self.lines(mark)) + bool(facts(mark)))) / 2
        parts.append(_icon(ICONS.get(mark.kind, ICONS["unreadable"]), box.x + 16, box.y + box.height / 2 - 8))
        parts += _texts(self.lines(mark), facts(mark), x=box.x + ICON, top=top, room=box.width - ICON - 10)
        parts += _badge(mark, box.x + box.width - 18, box.y + 17)
        return f'<g class="{_classes(mark)}">{"".join(parts)}</g>'

    def undo_drawn(self, undo: Mark, box: Box, above: Box) -> str:
        """An undo as SVG, with its link to the node above it."""
        x = box.x + 18
        room = (box.width - 42 - (BADGE if undo.state in BADGES else 0)) / LABEL_COLUMN * 1.06
        said = described(undo)
        parts = [f"<title>{xml(_spoken(undo))}</title>"]
        parts.append(f'<path class="link" d="M{x:g} {above.y + above.height:g}V{box.y:g}"/>')
        parts.append(f'<rect class="card" {_at(box)} rx="7"/>')
        parts.append(_icon(ICONS["compensation"], box.x + 10, box.y + box.height / 2 - 8))
        top = box.y + (box.height - LINE * (1 + bool(said))) / 2
        name = wrapped(undo.label, room=room, lines=1)
        parts += _texts(name, said, x=box.x + 34, top=top, room=box.width - 40)
        parts += _badge(undo, box.x + box.width - 16, box.y + 15)
        return f'<g class="{_classes(undo)}">{"".join(parts)}</g>'


def facts(mark: Mark) -> str:
    """The line beneath a name: its kind, and what became of it."""
    kind = KINDS.get(mark.kind, "")
    return " · ".join(part for part in ("" if kind == mark.label else kind, described(mark)) if part)


def _is_card(mark: Mark) -> bool:
    return mark.kind not in ("start", "end", "fork", "join", "merge")


def _wanted(mark: Mark) -> float:
    """The width at which a name and its facts fit on one line each."""
    badge = BADGE if mark.state in BADGES else 0
    name = ICON + columns(mark.label) * LABEL_COLUMN + 14 + badge
    return max(name, ICON + columns(facts(mark)) * SMALL_COLUMN + 12)


def _undo_wanted(undo: Mark) -> float:
    badge = BADGE if undo.state in BADGES else 0
    name = columns(undo.label) * LABEL_COLUMN * 0.94 + badge
    return UNDO_INDENT + 44 + max(name, columns(described(undo)) * SMALL_COLUMN)


def _spoken(mark: Mark) -> str:
    """All about a node, for the tooltip and for readers of the screen."""
    word = KINDS.get(mark.kind, mark.kind)
    name = (
        mark.label if mark.kind in GATES or mark.key.endswith(mark.label) else f"{mark.label} ({printable(mark.key)})"
    )
    return ", ".join(part for part in (f"{word} {name}", described(mark)) if part)


def _classes(mark: Mark) -> str:
    kind = "undo" if mark.kind == "compensation" else mark.kind
    return " ".join(part for part in (kind, TONES.get(mark.state, "")) if part)


def _at(box: Box) -> str:
    return f'x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}"'


def _outline(mark: Mark, box: Box) -> str:
    """The edge of a card, whose shape tells the kinds apart as well."""
    if mark.kind == "choice":
        half = box.height / 2
        inner = box.width - 2 * CORNER
        side = f"l{CORNER} {half:g}l{-CORNER} {half:g}h{-inner:g}l{-CORNER} {-half:g}z"
        path = f"M{box.x + CORNER:g} {box.y:g}h{inner:g}{side}"
        return f'<path class="card gate" d="{path}"/>'
    round_ = {"retriable": 16, "sleep": 16, "callback": 16, "raise": 16, "lookup": 3}.get(mark.kind, 8)
    return f'<rect class="card" {_at(box)} rx="{round_}"/>'


def _behind(box: Box) -> str:
    """The sides of a second and a third card behind one that is repeated."""
    right, low = box.x + box.width, box.y + box.height
    return f"M{box.x + 8:g} {low:g}v4H{right + 4:g}V{box.y + 8:g}h-4"


def _dot(mark: Mark, box: Box) -> str:
    x, y = box.x + DOT, box.y + DOT
    ring = f'<circle class="edge" cx="{x:g}" cy="{y:g}" r="{DOT - 1}"/>'
    inner = f'<circle class="dot" cx="{x:g}" cy="{y:g}" r="{DOT - 4}"/>' if mark.kind == "end" else ""
    return f'<g class="{_classes(mark)}"><title>{xml(_spoken(mark))}</title>{ring}{inner}</g>'


def _icon(path: str, x: float, y: float) -> str:
    return f'<path class="icon" transform="translate({x:g} {y:g})" d="{path}"/>'


def _texts(lines: Sequence[str], said: str, *, x: float, top: float, room: float) -> list[str]:
    found = [
        f'<text class="name" x="{x:g}" y="{top + LINE * place + 12:g}">{xml(line)}</text>'
        for place, line in enumerate(lines)
    ]
    if said:
        (text,) = wrapped(said, room=room / SMALL_COLUMN, lines=1)
        found.append(f'<text class="muted" x="{x:g}" y="{top + LINE * len(lines) + 11:g}">{xml(text)}</text>')
    return found


def _badge(mark: Mark, x: float, y: float) -> list[str]:
    """The disc with the sign of a state; hollow where nothing has happened yet."""
    if mark.state not in BADGES:
        return []
    sign = BADGES[mark.state]
    disc = f'<circle class="disc" cx="{x:g}" cy="{y:g}" r="8"/>'
    if not sign:
        return [disc, f'<circle class="paper" cx="{x:g}" cy="{y:g}" r="5"/>']
    return [disc, f'<path class="sign" transform="translate({x - 8:g} {y - 8:g})" d="{sign}"/>']
