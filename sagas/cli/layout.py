"""Text in columns: lines of styled pieces, wrapped and padded for a width in terminal cells.

Invariant: nothing here writes, and no text from a store can move the cursor or colour the screen: it is cleaned first.
"""

import textwrap
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

GAP = "  "
NARROWEST = 40


class Piece(NamedTuple):
    """Some text in one style."""

    text: str
    style: str = ""


Line = tuple[Piece, ...]


def clean(text: str) -> str:
    """``text`` on one line, with everything that a terminal would act upon spelled out."""
    joined = " ".join(text.split("\n")).replace("\t", " ").replace("\r", " ")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in joined)


def cells(text: str) -> int:
    """How many cells of a terminal ``text`` takes."""
    return sum(_cells_of(char) for char in text)


def _cells_of(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def padded(text: str, width: int, *, right: bool = False) -> str:
    """``text`` filled up with blanks to ``width`` cells, at its left side if ``right``."""
    blanks = " " * (width - cells(text))
    return blanks + text if right else text + blanks


def wrapped(text: str, *, width: int, indent: str, first: str | None = None, style: str = "") -> list[Line]:
    """``text`` as a paragraph: ``first`` before its first line, ``indent`` before the others. Words stay whole."""
    head = indent if first is None else first
    lines = textwrap.wrap(
        clean(text), max(width - len(indent), NARROWEST), break_long_words=False, break_on_hyphens=False
    ) or [""]
    return [(Piece(head if place == 0 else indent), Piece(line, style)) for place, line in enumerate(lines)]


def plain(lines: Sequence[Line]) -> str:
    """The lines without their styles."""
    return "\n".join("".join(piece.text for piece in line).rstrip() for line in lines)


class Column(NamedTuple):
    """A column of a table."""

    title: str
    right: bool = False


class Table:
    """Rows in columns. One takes what the others leave; a text too long for it pushes what follows to a new line.

    Args:
        columns: at least one.
        width: of the whole, in cells.
        indent: what every line begins with.
        flexible: which column may be cut short, from 0.
    """

    def __init__(self, columns: Sequence[Column], *, width: int, indent: str = "", flexible: int = 0) -> None:
        self._columns = columns
        self._width = width
        self._indent = indent
        self._flexible = flexible
        self._rows: list[tuple[Sequence[Piece], list[Line]]] = []

    def row(self, pieces: Sequence[Piece], below: Sequence[Line] = ()) -> None:
        """Add a row, and lines that follow it."""
        self._rows.append((pieces, list(below)))

    def lines(self) -> list[Line]:
        """The title line, and the rows."""
        title = [Piece(column.title, "dim") for column in self._columns]
        every = [title, *(pieces for pieces, _ in self._rows)]
        widths = [max(cells(row[place].text) for row in every) for place in range(len(self._columns))]
        spare = self._width - cells(self._indent) - sum(widths) - len(GAP) * (len(widths) - 1)
        if spare < 0:
            widths[self._flexible] = max(widths[self._flexible] + spare, cells(title[self._flexible].text))
        found = self._row(title, widths)
        for pieces, below in self._rows:
            found += [*self._row(pieces, widths), *below]
        return found

    def _row(self, pieces: Sequence[Piece], widths: Sequence[int]) -> list[Line]:
        found: list[Line] = []
        line = [Piece(self._indent)]
        taken = cells(self._indent)
        for piece, column, width in zip(pieces, self._columns, widths, strict=True):
            line.append(Piece(padded(piece.text, width, right=column.right), piece.style))
            taken += width
            if cells(piece.text) > width:
                found.append(tuple(line))
                line = [Piece(" " * taken)]
            line.append(Piece(GAP))
            taken += len(GAP)
        return [*found, tuple(line[:-1])]
