"""What is asked of PostgreSQL without changing it: each question is one query, on a connection that is given."""

from collections.abc import Collection, Sequence
from typing import Any

import attrs

from durable_core.model.entry import Entry
from durable_core.model.run import OPEN, RunQuery, RunRecord, RunStatus
from durable_core.ports import Signal
from durable_core.stores.postgres.connection import Connection
from durable_core.stores.postgres.nul import escaped, plain
from durable_core.stores.postgres.statements import RUN, Statements
from durable_core.stores.postgres.versions import IN_VAIN

# ruff: noqa: S608 - every statement here is put together from our own column names and marks; values are bound

_FIELDS = [field.name for field in attrs.fields(RunRecord)]
_ID, _STATUS, _PAUSED, _REASON = map(_FIELDS.index, ("id", "status", "paused", "reason"))


def to_run(row: Sequence[Any]) -> RunRecord:
    """The record of a row that begins with the columns of a run."""
    values: list[Any] = list(row)[: len(_FIELDS)]
    values[_ID] = plain(values[_ID])
    values[_STATUS] = RunStatus(values[_STATUS])
    values[_PAUSED] = bool(values[_PAUSED])
    if values[_REASON] is not None:
        values[_REASON] = plain(values[_REASON])
    return RunRecord(*values)


def where(query: RunQuery, schema: str) -> tuple[str, list[object]]:
    """What ``query`` asks, as a condition on the runs ``r`` of ``schema``, and the values that it binds."""
    parts: list[str] = ["true"]
    values: list[object] = []
    if query.statuses is not None and query.statuses <= OPEN:
        parts.append("ended_at_ns IS NULL")  # nothing new, but it lets the index of open runs serve
    if query.attention:
        asked = f"SELECT num FROM {schema}.runs WHERE reason IS NOT NULL AND ended_at_ns IS NULL"
        if query.at_ns is not None:
            values.append(query.at_ns)
            vain = IN_VAIN.replace("{s}", schema).replace("{at}", f"${len(values)}")
            asked += f" UNION ALL SELECT num FROM {schema}.runs AS r WHERE {vain}"
        parts.append(f"num IN ({asked})")
    statuses = None if query.statuses is None else sorted(map(str, query.statuses))
    for text, value in (
        ("status = ANY(${}::text[])", statuses),
        ("phase = ANY(${}::text[])", None if query.phases is None else sorted(query.phases)),
        ("name = ${}", query.name),
        ("version = ${}", query.version),
        ("created_at_ns >= ${}", query.since_ns),
        ("ended_at_ns < ${}", query.ended_before_ns),
        ("num < ${}", query.before_num),
        ("parent = ${}", query.parent),
    ):
        if value is not None:
            values.append(value)
            parts.append(text.format(len(values)))
    return " AND ".join(parts), values


class Reader:
    """The questions, in one schema."""

    def __init__(self, texts: Statements) -> None:
        self._texts = texts

    async def load(self, connection: Connection, nums: Collection[int]) -> dict[int, list[Entry]]:
        """The journals of ``nums``, each by ``seq``."""
        journals: dict[int, list[Entry]] = {num: [] for num in nums}
        for row in await connection.fetch(self._texts["load"], list(journals)):
            journals[row[0]].append(Entry._make(row))
        return journals

    async def find(self, connection: Connection, ids: Collection[str]) -> list[RunRecord]:
        """The runs of ``ids`` that exist."""
        asked = [escaped(id_) for id_ in dict.fromkeys(ids)]
        return list(map(to_run, await connection.fetch(self._texts["find"], asked)))

    async def select(self, connection: Connection, query: RunQuery) -> list[RunRecord]:
        """The runs that ``query`` describes, the largest number first."""
        condition, values = where(query, self._texts.schema)
        values.append(query.limit)
        text = f"SELECT {RUN} FROM {self._texts.schema}.runs WHERE {condition} ORDER BY num DESC LIMIT ${len(values)}"
        return list(map(to_run, await connection.fetch(text, *values)))

    async def count(self, connection: Connection, query: RunQuery) -> int:
        """How many runs ``query`` describes."""
        condition, values = where(query, self._texts.schema)
        return int(
            await connection.fetchval(f"SELECT count(*) FROM {self._texts.schema}.runs WHERE {condition}", *values)
        )

    async def signals(self, connection: Connection, runs: Collection[int]) -> list[Signal]:
        """The signals that wait for ``runs``, the oldest first."""
        return [Signal(*row) for row in await connection.fetch(self._texts["signals"], list(runs))]
