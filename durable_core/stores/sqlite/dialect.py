"""Questions as SQLite understands them."""

import functools
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from durable_core.stores.questions import Dialect, Question, Questions, Row

T = TypeVar("T")

QUESTIONS = Questions(Dialect(greatest="max"))
CHUNKS = (256, 16, 1)
"""Lengths of an IN list: few, so that few statements are prepared."""


def chunks(values: Sequence[T], lengths: Sequence[int] = CHUNKS) -> Iterator[Sequence[T]]:
    """``values`` in pieces of the given lengths, the longest first."""
    start = 0
    for length in lengths:
        while len(values) - start >= length:
            yield values[start : start + length]
            start += length


def marks(count: int) -> str:
    """``count`` question marks, for an IN list."""
    return ", ".join("?" * count)


@functools.lru_cache(maxsize=1000)
def statement(text: str, keys: int = 0) -> str:
    """The statement for a question of this text about so many keys."""
    among = f"IN ({marks(keys)})"
    return text.replace("{s}", "").replace("{nums}", among).replace("{ids}", among)


def rows_of(connection: sqlite3.Connection, question: Question[Any]) -> list[Row]:
    """The rows that answer ``question``."""
    if question.keys is None:
        return connection.execute(statement(question.text), question.values).fetchall()
    found: list[Row] = []
    for some in chunks(question.keys):
        found += connection.execute(statement(question.text, len(some)), some)
    return found
