"""Pictures as SVG, drawn here without any tool: one file that needs no font, no script and nothing from elsewhere.

It is readable on light and on dark pages: its colours follow the reader's ``prefers-color-scheme``.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

import attrs

from sagas.diagram.cards import Box, Deck
from sagas.diagram.labels import columns, cut, wrapped, xml
from sagas.diagram.layout import Gaps, Layout, Point, Track, laid_out
from sagas.diagram.look import FOOTER, HEADER, ICONS, MARGIN, SMALL_COLUMN, STYLE
from sagas.diagram.picture import TIMES, Edge, Picture

WIDE = 1000
"""A picture that is no wider runs across; a longer one runs down, so that a page need not shrink it."""
ACROSS = Gaps(layers=46, nodes=26, bends=16)
DOWN = Gaps(layers=34, nodes=34, bends=18)
NARROWEST = 240
PAD = 12
"""Between a savepoint's frame and the cards in it."""
THICKEST = 4.5


def drawn(picture: Picture) -> str:
    """The picture as an SVG document."""
    page = min((_Page.of(picture, down=False), _Page.of(picture, down=True)), key=_Page.cost)
    return "\n".join([*page.lines(), ""])


@attrs.frozen
class _Page:
    """A picture with all its places."""

    picture: Picture
    deck: Deck
    layout: Layout
    boxes: dict[str, Box]
    left: float
    top: float

    @classmethod
    def of(cls, picture: Picture, *, down: bool) -> "_Page":
        deck = Deck.of(picture, down=down)
        gaps = DOWN if down else ACROSS
        layout = laid_out(picture, deck.cell, gaps, centred=not down, rails_first=not down)
        framed = PAD * 2 if picture.frames else 0
        left, top = MARGIN + framed, HEADER + framed
        boxes = {key: _moved(deck.box(key, along, across), left, top) for key, (along, across) in layout.places.items()}
        return cls(picture, deck, layout, boxes, left, top)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the page."""
        layout = self.layout
        width, height = (layout.breadth, layout.length) if self.deck.down else (layout.length, layout.breadth)
        headline = columns(cut(self.picture.title)) * 9.4, columns(cut(self.picture.subtitle, 120)) * SMALL_COLUMN
        foot = FOOTER if self._legend() else MARGIN - 8
        return max(
            width + self.left * 2, *(each + MARGIN * 2 for each in headline), 240
        ), height + self.top + foot + PAD

    def cost(self) -> float:
        """How much a page would have to shrink it; a small one is better across."""
        width, height = self.size
        return 0.0 if width <= WIDE and not self.deck.down else width if width > WIDE else 1 + height / 1e6

    # -- drawing ---------------------------------------------------------------------------------------------------

    def lines(self) -> Iterator[str]:
        """The document."""
        width, height = self.size
        title, subtitle = xml(cut(self.picture.title)), xml(cut(self.picture.subtitle, 120))
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" aria-labelledby="title">'
        )
        yield f'<title id="title">{title}{": " if subtitle else ""}{subtitle}</title>'
        yield f"<style>\n{STYLE}\n</style>"
        yield '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        yield ' markerUnits="userSpaceOnUse" orient="auto"><path class="tip" d="M0 .6 7.4 4 0 7.4z"/></marker></defs>'
        yield f'<rect class="paper" x=".5" y=".5" width="{width - 1:g}" height="{height - 1:g}" rx="10"/>'
        yield f'<text class="title" x="{MARGIN}" y="30">{title}</text>'
        yield f'<text class="muted" x="{MARGIN}" y="47">{subtitle}</text>'
        yield from self._frames()
        most = max((edge.count or 0 for edge in self.picture.edges), default=0)
        yield from (self._edge(track, most) for track in self.layout.tracks)
        for mark in self.picture.nodes:
            yield self.deck.drawn(mark, self.boxes[mark.key])
        for undo in self.picture.undos:
            above = self.boxes[undo.serves]
            yield self.deck.undo_drawn(undo, self.deck.undo_box(undo, above), above)
        yield from self._labels()
        yield from self._foot(height)
        yield "</svg>"

    def _frames(self) -> Iterator[str]:
        """A frame around each savepoint, where nothing else stands in it."""
        for frame in self.picture.frames:
            inside = _around([self._whole(key) for key in sorted(frame.members)])
            others = (self._whole(mark.key) for mark in self.picture.nodes if mark.key not in frame.members)
            if any(_overlap(inside, other) for other in others):
                continue
            yield (
                f'<rect class="frame" x="{inside.x:g}" y="{inside.y:g}" width="{inside.width:g}" '
                f'height="{inside.height:g}" rx="10"/>'
            )
            (text,) = wrapped(frame.label, room=inside.width / SMALL_COLUMN, lines=1)
            right, y = inside.x + inside.width - 8, inside.y + 4
            yield f'<text class="label" x="{right:g}" y="{y:g}" text-anchor="end">{xml(text)}</text>'

    def _whole(self, key: str) -> Box:
        """A node and its undo."""
        box, undo = self.boxes[key], self.deck.undos.get(key)
        low = box if undo is None else self.deck.undo_box(undo, box)
        return Box(x=box.x, y=box.y, width=box.width, height=low.y + low.height - box.y)

    def _on_page(self, points: Sequence[Point]) -> list[Point]:
        if self.deck.down:
            return [(across + self.left, along + self.top) for along, across in points]
        return [(along + self.left, across + self.top) for along, across in points]

    def _edge(self, track: Track, most: int) -> str:
        edge, points = track.edge, self._on_page(track.points)
        path = _cornered(points) if track.back else _smooth(points, down=self.deck.down)
        dashed = " dashed" if edge.kind != "flow" else ""
        faint = " faint" if edge.count == 0 or edge.faded else ""
        thick = f' style="stroke-width:{1 + (THICKEST - 1) * edge.count / most:.2f}px"' if most and edge.count else ""
        return f'<path class="edge{dashed}{faint}"{thick} marker-end="url(#tip)" d="{path}"/>'

    def _labels(self) -> Iterator[str]:
        """What the edges say."""
        into = Counter(edge.target for edge in self.picture.edges)
        shared = {target for target, count in into.items() if count > 1}
        for track in self.layout.tracks:
            yield from self._label(track, shared)

    def _label(self, track: Track, shared: Collection[str]) -> list[str]:
        """What an edge says, where it has left the others of its source, and not yet met others to its target."""
        text = " · ".join(filter(None, (cut(track.edge.label, 28), _times(track.edge))))
        if not text:
            return []
        points = self._on_page(track.points)
        if track.back:
            rail = max(pairwise(points), key=lambda pair: abs(pair[0][self.deck.down] - pair[1][self.deck.down]))
            (x, y), (other_x, other_y) = rail
            x, y = (x + 5, (y + other_y) / 2 + 4) if self.deck.down else ((x + other_x) / 2 - 14, y - 5)
            return [f'<text class="label" x="{x:g}" y="{y:g}">{xml(text)}</text>']
        bent = [place for place, (one, other) in enumerate(pairwise(points), start=1) if _bends(one, other)]
        place = bent[0] if bent else len(points) - 1
        x, y = points[place]
        if bent and place >= len(points) - 2 and track.edge.target in shared:
            x, y = (x + points[place - 1][0]) / 2, (y + points[place - 1][1]) / 2
        if self.deck.down:
            return [f'<text class="label" x="{x + 7:g}" y="{y - 7:g}">{xml(text)}</text>']
        return [f'<text class="label" x="{x - 10:g}" y="{y - 6:g}" text-anchor="end">{xml(text)}</text>']

    def _legend(self) -> list[str]:
        return ["undo: runs in reverse order"] if self.picture.undos else []

    def _foot(self, height: float) -> Iterator[str]:
        for text in self._legend():
            y = height - 18
            icon, place = ICONS["compensation"], f"translate({MARGIN} {y - 12:g})"
            yield f'<g class="undo"><path class="icon" transform="{place}" d="{icon}"/>'
            yield f'<text class="muted" x="{MARGIN + 22}" y="{y:g}">{text}</text></g>'


def _times(edge: Edge) -> str:
    return "" if edge.count is None else f"{edge.count}{TIMES}"


def _bends(one: Point, other: Point) -> bool:
    return one[0] != other[0] and one[1] != other[1]


def _moved(box: Box, x: float, y: float) -> Box:
    return attrs.evolve(box, x=round(box.x + x, 1), y=round(box.y + y, 1))


def _around(boxes: Sequence[Box]) -> Box:
    left, top = min(box.x for box in boxes) - PAD, min(box.y for box in boxes) - PAD
    right, low = max(box.x + box.width for box in boxes) + PAD, max(box.y + box.height for box in boxes) + PAD
    return Box(x=left, y=top, width=right - left, height=low - top)


def _overlap(one: Box, other: Box) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


def _smooth(points: Sequence[Point], *, down: bool) -> str:
    """Straight where two points are in line with the flow, an S between them where they are not."""
    found = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x, y), (to_x, to_y) in pairwise(points):
        if not _bends((x, y), (to_x, to_y)):
            found.append(f"L{to_x:.1f} {to_y:.1f}")
        elif down:
            middle = (y + to_y) / 2
            found.append(f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}")
        else:
            middle = (x + to_x) / 2
            found.append(f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}")
    return "".join(found)


def _cornered(points: Sequence[Point]) -> str:
    """Straight lines with round corners."""
    found = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for before, at, after in zip(points, points[1:], points[2:], strict=False):
        one, other = _towards(at, before), _towards(at, after)
        found.append(f"L{one[0]:.1f} {one[1]:.1f}Q{at[0]:.1f} {at[1]:.1f} {other[0]:.1f} {other[1]:.1f}")
    return "".join([*found, f"L{points[-1][0]:.1f} {points[-1][1]:.1f}"])


def _towards(at: Point, other: Point, radius: float = 8.0) -> Point:
    length = abs(other[0] - at[0]) + abs(other[1] - at[1])
    share = min(radius, length / 2) / length if length else 0.0
    return at[0] + (other[0] - at[0]) * share, at[1] + (other[1] - at[1]) * share
