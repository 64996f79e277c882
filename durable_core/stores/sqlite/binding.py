"""Rows as sqlite3 binds them without asking Python how.

For each None and each ``bytes`` sqlite3 looks for an adapter, which there is not; that costs more than binding the
value: a tenth of all the work of a saga. So ``bytes`` are bound as ``bytearray``, which it takes as it is, and None as
a number, of which the statements in ``sql.py`` make NULL.

Invariant: None in a column that must not be NULL stays None, so that SQLite refuses it.
"""

import sqlite3
from collections.abc import Iterable

from durable_core.model.entry import Entry
from durable_core.model.run import NewRun, RunUpdate

ABSENT = 0.5
"""Stands for None. Columns hold whole numbers, text and bytes, so no value is this one."""


def runs(starts: Iterable[NewRun]) -> list[object]:
    """The values of several starts for ``sql.INSERT_RUNS``; the first update is the start."""
    values: list[object] = []
    for start in starts:
        num, id, uid, name, version, status, owner, wake_at_ns, deadline_at_ns, input, trace, at_ns, tags, again = start
        values += (
            num,
            id,
            bytearray(uid),
            name,
            version,
            status,
            ABSENT if owner is None else owner,
            ABSENT if wake_at_ns is None else wake_at_ns,
            ABSENT if deadline_at_ns is None else deadline_at_ns,
            bytearray(input),
            ABSENT if trace is None else trace,
            at_ns,
            ABSENT if tags is None else tags,
            ABSENT if again is None else again,
            at_ns,
        )
    return values


def entries(some: Iterable[Entry]) -> list[object]:
    """The values of several entries for ``sql.INSERT_ENTRIES``."""
    values: list[object] = []
    try:
        for run, seq, kind, key, attempt, label, payload, error, started_at_ns, at_ns, due_at_ns, worker in some:
            values += (
                run,
                seq,
                kind,
                key,
                attempt,
                label,
                ABSENT if payload is None else bytearray(payload),
                ABSENT if error is None else bytearray(error),
                ABSENT if started_at_ns is None else started_at_ns,
                at_ns,
                ABSENT if due_at_ns is None else due_at_ns,
                worker,
            )
    except (TypeError, ValueError) as odd:  # raised as sqlite3 does for a value that it cannot bind
        raise sqlite3.ProgrammingError(f"no journal entry: {odd}") from odd
    return values


def update(row: RunUpdate) -> tuple[object, ...]:
    """The values of an update for ``sql.UPDATE_RUN``."""
    (
        status,
        phase,
        owner,
        wake_at_ns,
        paused,
        output,
        error,
        reason,
        detail,
        updated_at_ns,
        ended_at_ns,
        retagged,
        awaits,
        num,
    ) = row
    return (
        status,
        phase,
        ABSENT if owner is None else owner,
        ABSENT if wake_at_ns is None else wake_at_ns,
        paused,
        ABSENT if output is None else bytearray(output),
        ABSENT if error is None else bytearray(error),
        ABSENT if reason is None else reason,
        ABSENT if detail is None else bytearray(detail),
        updated_at_ns,
        ABSENT if ended_at_ns is None else ended_at_ns,
        ABSENT if retagged is None else retagged,
        ABSENT if awaits is None else awaits,
        num,
    )
