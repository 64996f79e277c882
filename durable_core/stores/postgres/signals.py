"""Signals in PostgreSQL: sent one by one while few come, else many in one transaction.

Invariant: a transaction that sends several waits for no row while it holds others, so that it cannot be part of a
deadlock: a run that somebody else is writing just then gets its signal by itself.
"""

from collections.abc import Callable, Collection, Iterable

import attrs

from durable_core.errors import StoreError
from durable_core.ports import Signal
from durable_core.stores.postgres.coalesced import Coalesced
from durable_core.stores.postgres.connection import Connection
from durable_core.stores.postgres.database import PostgresDatabase
from durable_core.stores.postgres.statements import SIGNALLED

MOVES = 8
"""How often a run may change its owner while a signal is sent."""
SEVERAL = 3
"""Signals that are worth a transaction together."""
PERHAPS_LEFT = "whether it was left is not known, and repeating it does no harm"

_WOKEN = "wake_at_ns = 0, status = CASE WHEN r.status = 'stuck' THEN 'pending' ELSE r.status END"
# An ended run that the signal opens again. Its owner, if alive, still has an attempt of it under way.
_REOPENED = """
    status = 'pending', wake_at_ns = CASE WHEN w.id IS NULL THEN 0 END, owner = w.id, paused = 0, output = NULL,
    error = NULL, reason = NULL, updated_at_ns = {at}, ended_at_ns = NULL"""

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound
# The owner's row is locked first, and flagged: a batch of that worker which begins or ends something either comes
# before this, or is refused until the worker has looked at its signals. Then the run's row, whose lock makes an owner
# that lets the run go wait, or is waited for; so one of the two sees the other. Only what is read under the lock says
# how the run stands: if its owner is another one by then, nothing is written, and the caller tries again.
ONE = f"""
WITH seen AS (
    SELECT owner FROM {{s}}runs WHERE num = $1
), flagged AS (
    UPDATE {{s}}workers AS w SET batch = w.batch | {SIGNALLED} FROM seen WHERE w.id = seen.owner RETURNING w.id
), locked AS (
    SELECT num, owner, ended_at_ns FROM {{s}}runs
    WHERE num = $1 AND (SELECT count(*) FROM flagged) >= 0 FOR NO KEY UPDATE
), agreed AS (
    SELECT t.* FROM locked AS t
    WHERE t.owner IS NULL OR t.owner IN (SELECT id FROM flagged)
        OR t.owner = (SELECT owner FROM seen) AND NOT EXISTS (SELECT 1 FROM flagged)
), left_here AS (
    INSERT INTO {{s}}signals (run, name, payload, at_ns)
    SELECT $1, $2, $3, $4 FROM agreed WHERE ended_at_ns IS NULL OR $5::bool RETURNING 1
), woken AS (
    UPDATE {{s}}runs AS r SET {_WOKEN} FROM agreed AS t
    WHERE r.num = $1 AND r.num = t.num AND t.owner IS NULL AND t.ended_at_ns IS NULL
        AND EXISTS (SELECT 1 FROM left_here)
), reopened AS (
    UPDATE {{s}}runs AS r SET {_REOPENED.format(at="$4")}
    FROM agreed AS t LEFT JOIN {{s}}workers AS w ON w.id = t.owner
    WHERE r.num = $1 AND r.num = t.num AND t.ended_at_ns IS NOT NULL AND EXISTS (SELECT 1 FROM left_here)
)
SELECT (SELECT count(*) FROM locked), (SELECT count(*) FROM left_here), (SELECT count(*) FROM agreed),
    pg_notify($6, $7)"""
# The workers' rows in the order of their names, so that two such transactions do not wait for each other.
MANY = f"""
WITH asked AS (
    SELECT * FROM unnest($1::int8[], $2::text[], $3::bytea[], $4::int8[], $5::bool[])
    WITH ORDINALITY AS a (run, name, payload, at_ns, ended, place)
), seen AS (
    SELECT num, owner FROM {{s}}runs WHERE num = ANY($1::int8[])
), owners AS (
    SELECT w.id FROM {{s}}workers AS w WHERE w.id IN (SELECT owner FROM seen)
    ORDER BY w.id FOR NO KEY UPDATE
), flagged AS (
    UPDATE {{s}}workers AS w SET batch = w.batch | {SIGNALLED} FROM owners AS o WHERE w.id = o.id RETURNING w.id
), locked AS (
    SELECT num, owner, ended_at_ns FROM {{s}}runs
    WHERE num = ANY($1::int8[]) AND (SELECT count(*) FROM flagged) >= 0 FOR NO KEY UPDATE SKIP LOCKED
), agreed AS (
    SELECT t.* FROM locked AS t JOIN seen AS s ON s.num = t.num
    WHERE t.ended_at_ns IS NULL AND (
        t.owner IS NULL OR t.owner IN (SELECT id FROM flagged)
        OR t.owner = s.owner AND NOT EXISTS (SELECT 1 FROM {{s}}workers AS w WHERE w.id = t.owner)
    )
), left_here AS (
    INSERT INTO {{s}}signals (run, name, payload, at_ns)
    SELECT run, name, payload, at_ns FROM asked JOIN agreed ON num = run ORDER BY place RETURNING run
), woken AS (
    UPDATE {{s}}runs AS r SET {_WOKEN} FROM agreed AS t
    WHERE r.num = ANY($1::int8[]) AND r.num = t.num AND t.owner IS NULL AND r.num IN (SELECT run FROM left_here)
)
SELECT place - 1, t.ended_at_ns IS NULL, pg_notify($6, $7) FROM asked JOIN locked AS t ON t.num = run
WHERE run IN (SELECT num FROM agreed) OR (t.ended_at_ns IS NOT NULL AND NOT asked.ended)"""
_PURGED = "SELECT EXISTS (SELECT 1 FROM {s}tombstones WHERE num = $1)"
_WAITING = "SELECT num, run, name, payload, at_ns FROM {s}signals WHERE run = ANY($1::int8[]) ORDER BY num"


@attrs.frozen(eq=False)
class Sending:
    """A signal to be sent."""

    run: int
    name: str
    payload: bytes = attrs.field(repr=False)
    at_ns: int
    ended: bool
    """Whether it is meant for an ended run too."""


class PostgresSignals:
    """``Signals`` of a schema of PostgreSQL; ``remember`` is called with the runs for which signals were seen."""

    def __init__(self, database: PostgresDatabase, remember: Callable[[Iterable[int]], None]) -> None:
        self._database = database
        self._remember = remember
        self._sendings = Coalesced[Sending, dict[Sending, bool]](self._send_several)
        self._waiting = Coalesced[int, list[Signal]](self._read)

    async def waiting(self, runs: Collection[int]) -> list[Signal]:
        """See ``Signals.waiting``."""
        self._database.check_open()
        if not runs:
            return []
        asked = frozenset(runs)
        return [signal for signal in await self._waiting.about(asked) if signal.run in asked]

    async def _read(self, runs: Collection[int]) -> list[Signal]:
        text = self._database.statements.of(_WAITING)
        rows = await self._database.run("read signals", lambda c: c.fetch(text, list(runs)))
        found = [Signal(*row) for row in rows]
        self._remember(signal.run for signal in found)
        return found

    async def send(self, run: int, name: str, payload: bytes, *, now_ns: int, ended: bool = False) -> bool:
        """See ``Signals.send``.

        Raises:
            StoreError: it was not sent, or nobody knows whether it was.
        """
        self._database.check_open()
        sending = Sending(run, name, payload, now_ns, ended)
        sent = (await self._sendings.about([sending])).get(sending)
        if sent is None:
            doing = f"leave the signal {name!r}"
            sent = await self._database.run(
                doing, lambda c: self._send_one(c, sending), outcome=PERHAPS_LEFT, repeat=False
            )
        if sent is not None:
            return sent
        purged = self._database.statements.of(_PURGED)
        if await self._database.run("look up a number", lambda c: c.fetchval(purged, run)):
            return False
        raise StoreError(
            f"there is nothing of number {run} in {self._database.place.shown}, so the signal {name!r} was not stored",
            "Look its id up first",
        )

    async def _send_one(self, connection: Connection, sending: Sending) -> bool | None:
        """Send one; False if the run has ended, None if there is no such run."""
        text, listener = self._database.statements.of(ONE), self._database.listener
        for _ in range(MOVES):
            row = await connection.fetchrow(text, *attrs.astuple(sending), listener.channel, listener.token)
            if row is None or not row[0]:
                return None
            if row[2]:
                return bool(row[1])
        raise StoreError(
            f"number {sending.run} went from one worker to another again and again, and the signal "
            f"{sending.name!r} was not left",
            "Ask again",
            transient=True,
        )

    async def _send_several(self, sendings: Collection[Sending]) -> dict[Sending, bool]:
        """Send several, as far as that needs no waiting; a signal that the answer lacks must be sent by itself.

        Its run is not there, somebody is writing it, it has changed its owner, or is to be opened again.
        """
        if len(sendings) < SEVERAL:
            return {}
        given, listener = list(sendings), self._database.listener
        text = self._database.statements.of(MANY)
        values = [list(column) for column in zip(*map(attrs.astuple, given), strict=True)]
        try:
            rows = await self._database.run(
                f"leave {len(sendings)} signals",
                lambda c: c.fetch(text, *values, listener.channel, listener.token),
                outcome=PERHAPS_LEFT,
                repeat=False,
            )
        except StoreError as error:
            if error.transient:
                raise
            return {}  # nothing was sent, because of one of them: which one is seen when each goes by itself
        return {given[row[0]]: bool(row[1]) for row in rows}
