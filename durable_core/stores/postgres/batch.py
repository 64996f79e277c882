"""Writes a batch to PostgreSQL: a small one as one statement, so one round trip and one transaction; else as several.

Invariants: the worker's row is locked before anything else, and counts its batches. If it is gone, the worker was
taken for dead and nothing of the batch is written; where its count is not the expected one, the batch is an echo of one
whose outcome has been settled meanwhile, and nothing of it is written either.
"""

from collections.abc import Collection, Mapping, Sequence

import attrs

from durable_core.errors import StoreError
from durable_core.model.run import NewRun, RunStatus, RunUpdate
from durable_core.ports import Batch
from durable_core.stores.postgres import columns
from durable_core.stores.postgres.connection import COMMAND_S, Connection, Row, in_transaction
from durable_core.stores.postgres.nul import escaped
from durable_core.stores.postgres.rows import Bound, as_arrays, as_values
from durable_core.stores.postgres.statement import Parts, statement
from durable_core.stores.postgres.statements import Statements

MANY_ENTRIES = 200
"""From so many journal entries on COPY is quicker: measured 1.8 against 2.4 ms for 256, 11 against 20 for 2,000."""
FEW_ENTRIES = 4
"""Up to so many, with one start and one update at most, each value is bound by itself: it is what one run commits, and
the statements for all such numbers of rows stay together among the hundred that the driver keeps prepared."""
MANY_RUNS = 100
"""From so many on, what all of them have alike is bound once."""
OFTEN_ALIKE = frozenset(
    {"name", "version", "status", "owner", "wake_at_ns", "deadline_at_ns", "traceparent"}
    | {"tags", "retagged", "restarts", "phase", "paused", "error", "reason", "detail", "awaits"}
)
"""Columns in which the runs of one batch mostly agree."""
NO_SUCH_RUN = "22012"
"""A division by zero: the only way for one statement to undo itself."""


class Refused(Exception):
    """The worker's row is gone, or counts another batch: nothing was written."""


@attrs.frozen
class Sender:
    """Who writes, and whether others are notified."""

    worker: str | None
    number: int
    """Of the batch, counted by the worker."""
    channel: str
    token: str
    """Marks this store's own notifications."""
    notify: bool

    @property
    def counted(self) -> tuple[str, int] | None:
        """The worker, if there is one, and the number that it counts."""
        return None if self.worker is None else (self.worker, self.number)

    @property
    def notice(self) -> tuple[str, str] | None:
        """The channel and what is sent there, if others are notified."""
        return (self.channel, self.token) if self.notify else None


@attrs.frozen
class _Rows:
    """The rows of a batch, bound; None if there are none of a kind."""

    starts: Bound | None
    entries: Bound | None
    updates: Bound | None


def _rows(batch: Batch) -> _Rows:
    few = len(batch.starts) <= 1 and len(batch.entries) <= FEW_ENTRIES and len(batch.updates) <= 1
    return _Rows(
        _bound(
            [_start(start) for start in batch.starts],
            columns.START,
            few=few,
        ),
        _bound(batch.entries if len(batch.entries) < MANY_ENTRIES else (), columns.ENTRY, few=few),
        _bound(
            [_update(update) for update in batch.updates.values()],
            columns.UPDATE,
            few=few,
        ),
    )


def _start(start: NewRun) -> tuple[object, ...]:
    if start.restarts is not None:
        start = start._replace(restarts=escaped(start.restarts))
    return (start.num, escaped(start.id), *start[2:], start.created_at_ns)


def _update(update: RunUpdate) -> RunUpdate:
    return update if update.reason is None else update._replace(reason=escaped(update.reason))


def _bound(rows: Sequence[Sequence[object]], names: Mapping[str, str], *, few: bool) -> Bound | None:
    if not rows:
        return None
    if few:
        return as_values(rows)
    return as_arrays(rows, names, often_alike=OFTEN_ALIKE & names.keys() if len(rows) >= MANY_RUNS else ())


def lets_go(batch: Batch) -> bool:
    """Whether open runs are left without an owner: signals that wait for them must be looked for."""
    return any(update.owner is None and update.ended_at_ns is None for update in batch.updates.values())


def concerns_others(batch: Batch, own: Collection[range]) -> bool:
    """Whether another process may wait for this: for something to claim, or for the end of what it has started."""
    for start in batch.starts:
        if start.owner is None:
            return True
    for num, update in batch.updates.items():
        if update.owner is None:
            if update.ended_at_ns is None:
                if update.wake_at_ns is not None and update.wake_at_ns <= update.updated_at_ns:
                    return True
                if update.status != RunStatus.STUCK:
                    continue
            for numbers in own:  # a loop, because it is asked of each run
                if num in numbers:
                    break
            else:
                return True
    return False


async def write(connection: Connection, statements: Statements, batch: Batch, sender: Sender) -> frozenset[int]:
    """Write ``batch`` in one transaction; return the numbers of starts whose id is taken.

    Raises:
        Refused: the worker is no longer known, or its count is another.
    """
    # One statement sees runs as they were before it, so it cannot change those that it begins.
    apart = len(batch.entries) >= MANY_ENTRIES or any(start.num in batch.updates for start in batch.starts)
    if not apart and not lets_go(batch):
        return await _write_at_once(connection, statements.schema, batch, sender)
    async with in_transaction(connection):
        if apart:
            refused = await _write_in_turn(connection, statements.schema, batch, sender)
        else:
            refused = await _write_at_once(connection, statements.schema, batch, sender)
        if lets_go(batch):
            await connection.execute(statements["wake"], list(batch.updates))
    return refused


async def _write_at_once(connection: Connection, schema: str, batch: Batch, sender: Sender) -> frozenset[int]:
    """All of it in one statement."""
    row = await _run(
        connection, schema, _rows(batch), counted=sender.counted, consumed=batch.consumed, notice=sender.notice
    )
    return _judged(row, batch, sender)


async def _write_in_turn(connection: Connection, schema: str, batch: Batch, sender: Sender) -> frozenset[int]:
    """First the starts; then the entries, by COPY where they are many; then the rest."""
    refused: frozenset[int] = frozenset()
    rows = _rows(batch)
    if rows.starts or sender.worker is not None:
        row = await _run(connection, schema, _Rows(rows.starts, None, None), counted=sender.counted)
        refused = _judged(row, batch, sender)
        if refused:
            batch = batch.without(refused)
            rows = _rows(batch)
    if len(batch.entries) >= MANY_ENTRIES:
        await connection.copy_records_to_table(
            "journal",
            records=batch.entries,
            columns=list(columns.ENTRY),
            schema_name=schema[1:-1].replace('""', '"'),
            timeout=COMMAND_S,
        )
    if rows.entries or rows.updates or batch.consumed or sender.notify:
        rest = _Rows(None, rows.entries, rows.updates)
        await _run(connection, schema, rest, consumed=batch.consumed, notice=sender.notice)
    return refused


async def _run(
    connection: Connection,
    schema: str,
    rows: _Rows,
    *,
    counted: tuple[str, int] | None = None,
    consumed: Sequence[int] = (),
    notice: tuple[str, str] | None = None,
) -> Row | None:
    bound = (rows.starts, rows.entries, rows.updates)
    starts, entries, updates = (None if each is None else each.form for each in bound)
    parts = Parts(
        worker=counted is not None,
        starts=starts,
        entries=entries,
        updates=updates,
        consumed=bool(consumed),
        notify=notice is not None,
    )
    values = [*(counted or ()), *(value for each in bound if each for value in each.parameters)]
    if consumed:
        values.append(consumed)
    return await connection.fetchrow(statement(schema, parts), *values, *(notice or ()))


def _judged(row: Row | None, batch: Batch, sender: Sender) -> frozenset[int]:
    alive, begun = (row[0], row[1]) if row is not None else (0, None)
    if sender.worker is not None and not alive:
        raise Refused
    if not batch.starts:
        return frozenset()
    nums = [int(num) for num in begun.split(",")] if begun else []
    return frozenset(start.num for start in batch.starts).difference(nums)


def no_such_run(batch: Batch, place: str) -> StoreError:
    """The error of a batch that updates runs which are not there."""
    return StoreError(
        f"a batch of {len(batch)} rows updates rows that {place} does not hold (some of the numbers "
        f"{sorted(batch.updates)[:20]}); nothing of it was written",
        "Report it as a bug",
    )
