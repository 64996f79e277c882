"""What a command gives back: lines in columns for people, one JSON document for programs, an exit code.

Only this module writes to stdout and stderr. Invariants: no text from a store can move the cursor or colour the screen,
since it is cleaned first; a document's keys are the same whatever the saga's state, and times are ISO 8601 in UTC.
"""

import json
import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import typer

from durable_core.layer import without_code

DONE = 0
FAILED = 1
"""The saga that was shown or waited for has failed: compensated, resolved, stuck or killed."""
FAULTY = 1
"""``check`` has found a fault, or ``doctor`` a failure."""
REFUSED = 2
"""Bad usage, or an error; stderr says which."""
INTERRUPTED = 130
"""Ctrl-C, as shells count it: 128 and the signal's number."""
UNREAD = 141
"""The reader of our output has gone, as ``head`` does; 128 and the number of SIGPIPE."""
FAILURES = frozenset({"compensated", "resolved", "stuck", "killed"})
"""Statuses of a saga that did not do what it was started for."""

GAP = "  "
NARROWEST = 40
NARROW = 80
WIDEST = 120
COMMAND = re.compile(r"`[^`]+`")
JOINT = "\0"
"""Stands for a blank at which no line may end; no clean text contains it."""


class CommandError(Exception):
    """The command cannot be done; the message says why, and what to do instead."""


def code_of(status: str) -> int:
    """The exit code for a saga of this status. One that has not ended yet has not failed."""
    return FAILED if status in FAILURES else DONE


class Piece(NamedTuple):
    """Some text in one style."""

    text: str
    style: str = ""


Line = tuple[Piece, ...]


def clean(text: str) -> str:
    """``text`` on one line, with all control characters escaped."""
    joined = " ".join(text.split("\n")).replace("\t", " ").replace("\r", " ")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in joined)


def cells(text: str) -> int:
    """The width of ``text`` on a terminal."""
    return sum(_cells_of(char) for char in text)


def _cells_of(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def padded(text: str, width: int, *, right: bool = False) -> str:
    """``text`` filled with blanks up to ``width`` cells, on its left if ``right``."""
    blanks = " " * (width - cells(text))
    return blanks + text if right else text + blanks


def wrapped(text: str, *, width: int, indent: str, first: str | None = None, style: str = "") -> list[Line]:
    """``text`` as a paragraph: ``first`` before its first line, ``indent`` before the others.

    Words stay whole, and so does a command in backticks that fits on one line.
    """
    room = max(width - len(indent), NARROWEST)

    def joined(command: re.Match[str]) -> str:
        return command[0].replace(" ", JOINT) if len(command[0]) <= room else command[0]

    head = indent if first is None else first
    lines = textwrap.wrap(COMMAND.sub(joined, clean(text)), room, break_long_words=False, break_on_hyphens=False) or [
        ""
    ]
    return [
        (Piece(head if place == 0 else indent), Piece(line.replace(JOINT, " "), style))
        for place, line in enumerate(lines)
    ]


def plain(lines: Sequence[Line]) -> str:
    """The lines without their styles."""
    return "\n".join("".join(piece.text for piece in line).rstrip() for line in lines)


class Column(NamedTuple):
    """A column of a table."""

    title: str
    right: bool = False
    optional: bool = False
    """Left out of a narrow table, unless there is room."""
    yields: bool = False
    """Left out of a table of any width, where that keeps the rows whole."""


class Table:
    """Rows in columns. One column takes the room that the others leave; a longer text pushes the rest to a new line.

    Args:
        columns: at least one.
        width: of the whole table, in cells.
        indent: what every line begins with.
        flexible: the column that takes the remaining room, from 0.
    """

    def __init__(self, columns: Sequence[Column], *, width: int, indent: str = "", flexible: int = 0) -> None:
        self._columns = columns
        self._width = width
        self._indent = indent
        self._flexible = flexible
        self._rows: list[tuple[Sequence[Piece], list[Line]]] = []

    def row(self, pieces: Sequence[Piece], below: Sequence[Line] = ()) -> None:
        """Add a row, and the lines beneath it."""
        self._rows.append((pieces, list(below)))

    def lines(self) -> list[Line]:
        """The title line, and the rows."""
        title = [Piece(column.title, "dim") for column in self._columns]
        every = [title, *(pieces for pieces, _ in self._rows)]
        widths = {place: max(cells(row[place].text) for row in every) for place in range(len(title))}
        if self._spare(widths) < 0 and self._width < NARROW:
            widths = {place: width for place, width in widths.items() if not self._columns[place].optional}
        fewer = {place: width for place, width in widths.items() if not self._columns[place].yields}
        if self._spare(widths) < 0 <= self._spare(fewer):
            widths = fewer
        spare = self._spare(widths)
        if spare < 0:
            widths[self._flexible] = max(widths[self._flexible] + spare, cells(title[self._flexible].text))
        found = self._row(title, widths)
        for pieces, below in self._rows:
            found += [*self._row(pieces, widths), *below]
        return found

    def _spare(self, widths: Mapping[int, int]) -> int:
        """The room that is left beside columns of these widths."""
        return self._width - cells(self._indent) - sum(widths.values()) - len(GAP) * (len(widths) - 1)

    def _row(self, pieces: Sequence[Piece], widths: Mapping[int, int]) -> list[Line]:
        found: list[Line] = []
        line = [Piece(self._indent)]
        taken = cells(self._indent)
        for place, width in widths.items():
            piece, column = pieces[place], self._columns[place]
            line.append(Piece(padded(piece.text, width, right=column.right), piece.style))
            taken += width
            if cells(piece.text) > width:
                found.append(tuple(line))
                line = [Piece(" " * taken)]
            line.append(Piece(GAP))
            taken += len(GAP)
        return [*found, tuple(line[:-1])]


def width() -> int:
    """How many columns to use: the terminal's, 80 where there is none."""
    return min(shutil.get_terminal_size((80, 24)).columns, WIDEST)


def can_write(text: str) -> bool:
    """Whether stdout's encoding has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def tell(message: str) -> None:
    """Write one message to stderr."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201 - stderr is where it belongs


def show(lines: Sequence[Line]) -> None:
    """Write lines; in colour on a terminal, unless ``NO_COLOR`` says otherwise."""
    from rich.console import Console  # noqa: PLC0415 - slow to import, and JSON and `--help` need none of it
    from rich.text import Text  # noqa: PLC0415 - likewise

    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as caught:
        for line in lines:
            text = Text.assemble(*line)
            text.rstrip()
            console.print(text, soft_wrap=True)
    write(caught.get())


def is_terminal() -> bool:
    """Whether stdout is a terminal that can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


class Screen:
    """The whole terminal, drawn anew with each frame; what stood there before comes back at the end."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - slow to import
        from rich.live import Live  # noqa: PLC0415 - likewise

        self._console = Console(highlight=False, markup=False, emoji=False)
        self._live = Live(console=self._console, screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    @property
    def height(self) -> int:
        """How many lines it has now."""
        return self._console.height

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines, as many as fit."""
        from rich.text import Text  # noqa: PLC0415 - slow to import

        drawn = Text("\n", no_wrap=True, overflow="ellipsis").join(
            Text.assemble(*line) for line in lines[: self.height]
        )
        self._live.update(drawn, refresh=True)


def say(text: str, *, command: str = "") -> None:
    """Write one paragraph, and beneath it a command to type next."""
    lines = wrapped(text, width=width(), indent="")
    show([*lines, (Piece(f"  {clean(command)}", "bold"),)] if command else lines)


def document(content: Any, *, indent: int | None = 2) -> None:
    """Write one JSON document, in ASCII; on one line without ``indent``."""
    write(json.dumps(msgspec.to_builtins(content, str_keys=True), indent=indent) + "\n")


def refusal(error: Exception, message: str) -> None:
    """Write to stderr, as one JSON document on one line, why a command was refused."""
    about = {
        "type": type(error).__name__,
        "message": without_code(message),
        "code": getattr(error, "code", None),
        "page": getattr(error, "page", None),
    }
    tell(json.dumps({"error": about}))


def save(text: str, file: Path) -> None:
    """Write a file that the user named.

    Raises:
        CommandError: it cannot be written.
    """
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror or error}; choose another --output") from error


def write(text: str) -> None:
    """Write to stdout; what its encoding does not have is escaped."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would be written again at exit, and fail again: https://docs.python.org/3/library/signal.html
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(UNREAD) from None
