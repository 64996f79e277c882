"""What an audit reads: the participants' database files, and nothing that a saga says."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def rows(file: Path, question: str) -> list[tuple[Any, ...]]:
    """The answer to ``question`` from the database ``file``, which is opened read-only."""
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(question).fetchall()
