"""The one place that writes to stdout: lines for people, or one JSON document for programs.

Invariant: a document's keys stay the same whatever the saga's state; times are ISO 8601 in UTC.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import typer

from sagas.cli.exits import UNREAD
from sagas.cli.layout import Line

WIDEST = 120


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
    _write(caught.get())


def document(content: Any, *, indent: int | None = 2) -> None:
    """Write one JSON document, in ASCII; without ``indent`` on one line, for who reads on meanwhile."""
    _write(json.dumps(msgspec.to_builtins(content, str_keys=True), indent=indent) + "\n")


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "ascii"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would be written again at exit, and fail again: https://docs.python.org/3/library/signal.html
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(UNREAD) from None
