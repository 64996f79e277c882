"""The world outside the store: a supplier's folder, a warehouse, a person's inbox, and a log of what was called."""

import json
import os
from pathlib import Path

LINES = 1000
"""Rows of each file."""


def supply(home: Path, files: int) -> None:
    """The supplier writes its files; they are complete once ``READY`` exists."""
    for folder in ("supplier", "warehouse", "inbox"):
        (home / folder).mkdir()
    for number in range(1, files + 1):
        rows = "".join(f"item-{row},{number * row}\n" for row in range(1, LINES + 1))
        (home / "supplier" / f"part-{number}.csv").write_text(rows, encoding="utf-8")


def complete(home: Path) -> None:
    """The supplier has written its last file."""
    (home / "supplier" / "READY").touch()


def note(home: Path | str, what: str) -> None:
    """Print and record a call and its process."""
    line = f"worker {os.getpid()}: {what}"
    with (Path(home) / "log").open("a", encoding="utf-8") as log:
        log.write(f"{line}\n")
    print(f"  {line}", flush=True)


def noted(home: Path) -> list[str]:
    """The calls so far, without their processes."""
    log = home / "log"
    return [line.partition(": ")[2] for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def put(folder: Path, name: str, content: object) -> None:
    """Write a file all at once; the same name again replaces it, so that a second call does nothing new."""
    draft = folder / f".{name}"
    draft.write_text(json.dumps(content), encoding="utf-8")
    draft.replace(folder / name)
