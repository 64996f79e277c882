"""One statement that writes a whole batch: a part for each kind of row, all of them or none.

Invariant: where the batch is a worker's, every other part waits for the part that locks and counts on the worker's row,
and does nothing where that row is not as expected.
"""

import functools
from collections.abc import Mapping

from durable_core.stores.postgres import columns

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound

PARTS = ("worker", "starts", "entries", "updates", "consumed", "notify")
"""In the order of their parameters."""


class _Builder:
    """A statement in the making. Parameters are numbered in the order in which parts are added."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.tables: list[str] = []
        self.alive = ""
        """Holds where the worker's row is as expected."""
        self.taken = ""
        """Holds for entries of runs that are not refused."""
        self.results = {"alive": "1", "begun": "NULL", "whole": "1", "told": "NULL"}
        self._last = 0

    def _take(self, count: int) -> int:
        self._last += count
        return self._last - count + 1

    def _rows(self, row: Mapping[str, str]) -> tuple[int, str]:
        """The first parameter, and a table of one array parameter for each column."""
        at = self._take(len(row))
        return at, ", ".join(f"${at + place}::{type_}[]" for place, type_ in enumerate(row.values()))

    def worker(self) -> None:
        """Lock the worker's row, and count this batch in it."""
        at = self._take(2)
        self.tables.append(
            f"mine AS (UPDATE {self.schema}.workers SET batch = ${at + 1} "
            f"WHERE id = ${at} AND batch = ${at + 1} - 1 RETURNING 1)"
        )
        self.alive = " AND EXISTS (SELECT 1 FROM mine)"
        self.results["alive"] = "(SELECT count(*) FROM mine)"

    def starts(self) -> None:
        """Begin runs; those whose id is taken, by a run or a tombstone, are left out, with their entries."""
        at, rows = self._rows(columns.START)
        names = ", ".join(columns.START)
        self.tables.append(
            f"begun AS (INSERT INTO {self.schema}.runs ({names}) "
            f"SELECT {names} FROM unnest({rows}) WITH ORDINALITY AS b ({names}, place) "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self.schema}.tombstones AS t WHERE t.id = b.id){self.alive} "
            "ORDER BY place ON CONFLICT DO NOTHING RETURNING num)"  # of two with one id the first wins
        )
        self.taken = f" AND (run <> ALL(${at}::int8[]) OR run IN (SELECT num FROM begun))"
        self.results["begun"] = "ARRAY(SELECT num FROM begun)"

    def entries(self) -> None:
        """Append to journals."""
        _, rows = self._rows(columns.ENTRY)
        names = ", ".join(columns.ENTRY)
        self.tables.append(
            f"written AS (INSERT INTO {self.schema}.journal ({names}) SELECT * FROM unnest({rows}) AS e ({names}) "
            f"WHERE true{self.alive}{self.taken})"
        )

    def updates(self) -> None:
        """Change runs. Where one is not there, the statement undoes itself: by a division by zero."""
        at, rows = self._rows(columns.UPDATE)
        names = ", ".join(columns.UPDATE)
        sets = ", ".join(f"{name} = u.{name}" for name in columns.UPDATE if name != "num")
        self.tables.append(
            f"changed AS (UPDATE {self.schema}.runs AS r SET {sets} FROM unnest({rows}) AS u ({names}) "
            f"WHERE r.num = u.num{self.alive} RETURNING 1)"
        )
        whole = f"(SELECT count(*) FROM changed) = cardinality(${at}::text[])"
        lost = "NOT EXISTS (SELECT 1 FROM mine) OR " if self.alive else ""
        self.results["whole"] = f"1 / (CASE WHEN {lost}{whole} THEN 1 ELSE 0 END)"

    def consumed(self) -> None:
        """Remove signals."""
        at = self._take(1)
        self.tables.append(f"used AS (DELETE FROM {self.schema}.signals WHERE num = ANY(${at}::int8[]){self.alive})")

    def notify(self) -> None:
        """Tell other stores, once this is committed."""
        at = self._take(2)
        self.results["told"] = f"pg_notify(${at}, ${at + 1})"


@functools.cache
def statement(schema: str, parts: frozenset[str]) -> str:
    """The statement for these of ``PARTS``; it gives one row: whether the worker is known, and the runs begun."""
    builder = _Builder(schema)
    for part in PARTS:
        if part in parts:
            getattr(builder, part)()
    return f"WITH {', '.join(builder.tables)} SELECT {', '.join(builder.results.values())}"
