"""One statement that writes a whole batch: a part for each kind of row, all of them or none.

Invariant: where the batch is a worker's, every other part waits for the part that locks and counts on the worker's row,
and does nothing if that row is not as expected.
"""

import functools
from collections.abc import Mapping

import attrs

from durable_core.stores.postgres import columns
from durable_core.stores.postgres.rows import Form, Given

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound


@attrs.frozen(kw_only=True)
class Parts:
    """What a statement writes, in the order of its parameters; of rows, the form in which they are given."""

    worker: bool = False
    starts: Form | None = None
    entries: Form | None = None
    updates: Form | None = None
    consumed: bool = False
    notify: bool = False


class _Builder:
    """A statement in the making. Parameters are numbered in the order in which parts are added."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.tables: list[str] = []
        self.alive = ""
        """Holds where the worker's row is as expected."""
        self.taken = ""
        """Holds for entries of runs that are not refused."""
        self.results = {"alive": "1", "begun": "NULL", "whole": "1", "notified": "NULL"}
        self._last = 0

    def _take(self, count: int) -> int:
        self._last += count
        return self._last - count + 1

    def _rows(self, form: Form, row: Mapping[str, str], alias: str) -> Given:
        given = form.given(row, at=self._last + 1, alias=alias)
        self._take(given.parameters)
        return given

    def worker(self) -> None:
        """Lock the worker's row, and count this batch in it."""
        at = self._take(2)
        self.tables.append(
            f"mine AS (UPDATE {self.schema}.workers SET batch = ${at + 1} "
            f"WHERE id = ${at} AND batch = ${at + 1} - 1 RETURNING 1)"
        )
        self.alive = " AND EXISTS (SELECT 1 FROM mine)"
        self.results["alive"] = "(SELECT count(*) FROM mine)"

    def starts(self, form: Form) -> None:
        """Begin runs; those whose id is taken, by a run or a tombstone, are left out, with their entries."""
        rows = self._rows(form, columns.START, "b")
        self.tables.append(
            f"begun AS (INSERT INTO {self.schema}.runs ({', '.join(columns.START)}) "
            f"SELECT {', '.join(rows.values.values())} FROM {rows.table} "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self.schema}.tombstones AS t WHERE t.id = b.id){self.alive} "
            "ORDER BY place ON CONFLICT DO NOTHING RETURNING num)"  # of two with one id the first wins
        )
        self.taken = f" AND (run <> ALL({rows.nums}) OR run IN (SELECT num FROM begun))"
        # As text, because the driver looks up the type of such an array on each new connection, for 10 ms and more.
        self.results["begun"] = "array_to_string(ARRAY(SELECT num FROM begun), ',')"

    def entries(self, form: Form) -> None:
        """Append to journals."""
        rows = self._rows(form, columns.ENTRY, "e")
        self.tables.append(
            f"written AS (INSERT INTO {self.schema}.journal ({', '.join(columns.ENTRY)}) "
            f"SELECT {', '.join(rows.values.values())} FROM {rows.table} WHERE true{self.alive}{self.taken})"
        )

    def updates(self, form: Form) -> None:
        """Change runs. Where one is not there, the statement undoes itself: by a division by zero."""
        rows = self._rows(form, columns.UPDATE, "u")
        sets = ", ".join(f"{name} = {value}" for name, value in rows.values.items() if name != "num")
        self.tables.append(
            f"changed AS (UPDATE {self.schema}.runs AS r SET {sets} FROM {rows.table} "
            f"WHERE r.num = u.num{self.alive} RETURNING 1)"
        )
        whole = f"(SELECT count(*) FROM changed) = cardinality({rows.nums})"
        lost = "NOT EXISTS (SELECT 1 FROM mine) OR " if self.alive else ""
        self.results["whole"] = f"1 / (CASE WHEN {lost}{whole} THEN 1 ELSE 0 END)"

    def consumed(self) -> None:
        """Remove signals."""
        at = self._take(1)
        self.tables.append(f"used AS (DELETE FROM {self.schema}.signals WHERE num = ANY(${at}::int8[]){self.alive})")

    def notify(self) -> None:
        """Notify other stores, once this is committed."""
        at = self._take(2)
        self.results["notified"] = f"pg_notify(${at}, ${at + 1})"


@functools.lru_cache(maxsize=1000)
def statement(schema: str, parts: Parts) -> str:
    """The statement for these parts; it gives one row: whether the worker is known, and which runs are begun."""
    builder = _Builder(schema)
    if parts.worker:
        builder.worker()
    if parts.starts is not None:
        builder.starts(parts.starts)
    if parts.entries is not None:
        builder.entries(parts.entries)
    if parts.updates is not None:
        builder.updates(parts.updates)
    if parts.consumed:
        builder.consumed()
    if parts.notify:
        builder.notify()
    tables = f"WITH {', '.join(builder.tables)} " if builder.tables else ""
    return f"{tables}SELECT {', '.join(builder.results.values())}"
