"""Signals left in PostgreSQL: one by one while few come, else many in one transaction.

Invariant: a transaction that leaves several waits for no row while it holds others, so that it cannot be part of a
deadlock: a run that somebody else is writing just then gets its signal by itself.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol, TypeVar

import attrs

from durable_core.errors import StoreError
from durable_core.stores.postgres.coalesced import Coalesced
from durable_core.stores.postgres.connection import Connection
from durable_core.stores.postgres.statements import SIGNALLED, Statements

T = TypeVar("T")

MOVES = 8
"""How often a run may change its owner while a signal is left."""
SEVERAL = 3
"""Signals that are worth a transaction together."""
PERHAPS_LEFT = "whether it was left is not known, and repeating it does no harm"

_WOKEN = "wake_at_ns = 0, status = CASE WHEN r.status = 'stuck' THEN 'pending' ELSE r.status END"
# An ended run that the signal opens again. Its owner, where that lives, has an attempt of it under way still.
_REOPENED = """
    status = 'pending', wake_at_ns = CASE WHEN w.id IS NULL THEN 0 END, owner = w.id, paused = 0, output = NULL,
    error = NULL, reason = NULL, updated_at_ns = {at}, ended_at_ns = NULL"""

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound
# The owner's row is locked first, and flagged: a batch of that worker which begins or ends something either comes
# before this, or is refused until the worker has looked at its signals. Then the run's row, whose lock makes an owner
# that lets the run go wait, or is waited for; so one of the two sees the other. Only what is read under the lock tells
# how the run stands: where its owner is another one by then, nothing is left, and the caller tries again.
ONE = f"""
WITH seen AS (
    SELECT owner FROM {{s}}.runs WHERE num = $1
), flagged AS (
    UPDATE {{s}}.workers AS w SET batch = w.batch | {SIGNALLED} FROM seen WHERE w.id = seen.owner RETURNING w.id
), told AS (
    SELECT num, owner, ended_at_ns FROM {{s}}.runs
    WHERE num = $1 AND (SELECT count(*) FROM flagged) >= 0 FOR NO KEY UPDATE
), agreed AS (
    SELECT t.* FROM told AS t
    WHERE t.owner IS NULL OR t.owner IN (SELECT id FROM flagged)
        OR t.owner = (SELECT owner FROM seen) AND NOT EXISTS (SELECT 1 FROM flagged)
), left_here AS (
    INSERT INTO {{s}}.signals (run, name, payload, at_ns)
    SELECT $1, $2, $3, $4 FROM agreed WHERE ended_at_ns IS NULL OR $5::bool RETURNING 1
), woken AS (
    UPDATE {{s}}.runs AS r SET {_WOKEN} FROM agreed AS t
    WHERE r.num = $1 AND r.num = t.num AND t.owner IS NULL AND t.ended_at_ns IS NULL
        AND EXISTS (SELECT 1 FROM left_here)
), reopened AS (
    UPDATE {{s}}.runs AS r SET {_REOPENED.format(at="$4")}
    FROM agreed AS t LEFT JOIN {{s}}.workers AS w ON w.id = t.owner
    WHERE r.num = $1 AND r.num = t.num AND t.ended_at_ns IS NOT NULL AND EXISTS (SELECT 1 FROM left_here)
)
SELECT (SELECT count(*) FROM told), (SELECT count(*) FROM left_here), (SELECT count(*) FROM agreed),
    pg_notify($6, $7)"""
# The workers' rows in the order of their names, so that two such transactions do not wait for each other.
MANY = f"""
WITH asked AS (
    SELECT * FROM unnest($1::int8[], $2::text[], $3::bytea[], $4::int8[], $5::bool[])
    WITH ORDINALITY AS a (run, name, payload, at_ns, ended, place)
), seen AS (
    SELECT num, owner FROM {{s}}.runs WHERE num = ANY($1::int8[])
), owners AS (
    SELECT w.id FROM {{s}}.workers AS w WHERE w.id IN (SELECT owner FROM seen)
    ORDER BY w.id FOR NO KEY UPDATE
), flagged AS (
    UPDATE {{s}}.workers AS w SET batch = w.batch | {SIGNALLED} FROM owners AS o WHERE w.id = o.id RETURNING w.id
), told AS (
    SELECT num, owner, ended_at_ns FROM {{s}}.runs
    WHERE num = ANY($1::int8[]) AND (SELECT count(*) FROM flagged) >= 0 FOR NO KEY UPDATE SKIP LOCKED
), agreed AS (
    SELECT t.* FROM told AS t JOIN seen AS s ON s.num = t.num
    WHERE t.ended_at_ns IS NULL AND (
        t.owner IS NULL OR t.owner IN (SELECT id FROM flagged)
        OR t.owner = s.owner AND NOT EXISTS (SELECT 1 FROM {{s}}.workers AS w WHERE w.id = t.owner)
    )
), left_here AS (
    INSERT INTO {{s}}.signals (run, name, payload, at_ns)
    SELECT run, name, payload, at_ns FROM asked JOIN agreed ON num = run ORDER BY place RETURNING run
), woken AS (
    UPDATE {{s}}.runs AS r SET {_WOKEN} FROM agreed AS t
    WHERE r.num = ANY($1::int8[]) AND r.num = t.num AND t.owner IS NULL AND r.num IN (SELECT run FROM left_here)
)
SELECT place - 1, t.ended_at_ns IS NULL, pg_notify($6, $7) FROM asked JOIN told AS t ON t.num = run
WHERE run IN (SELECT num FROM agreed) OR (t.ended_at_ns IS NOT NULL AND NOT asked.ended)"""


@attrs.frozen(eq=False)
class Letter:
    """A signal to be left."""

    run: int
    name: str
    payload: bytes = attrs.field(repr=False)
    at_ns: int
    ended: bool
    """Whether it is meant for an ended run too."""


@attrs.frozen
class Post:
    """Leaves signals, in one schema; those who listen are told."""

    texts: Statements
    channel: str
    token: str

    async def leave(self, connection: Connection, letter: Letter) -> bool | None:
        """Leave one; False where the run has ended, None where there is no such run."""
        to = (self.channel, self.token)
        for _ in range(MOVES):
            row = await connection.fetchrow(self.texts.of(ONE), *attrs.astuple(letter), *to)
            if row is None or not row[0]:
                return None
            if row[2]:
                return bool(row[1])
        raise StoreError(
            f"run number {letter.run} went from one worker to another again and again, and the signal {letter.name!r} "
            "was not left; ask again",
            transient=True,
        )

    async def leave_many(self, connection: Connection, letters: Collection[Letter]) -> dict[Letter, bool]:
        """Leave several; the answer lacks those of runs that must be looked at one by one.

        They are not there, somebody is writing them, they have changed their owner, or are to be opened again.
        """
        given = list(letters)
        columns = [list(column) for column in zip(*map(attrs.astuple, given), strict=True)]
        rows = await connection.fetch(self.texts.of(MANY), *columns, self.channel, self.token)
        return {given[row[0]]: bool(row[1]) for row in rows}


class Ask(Protocol):
    """Asks on a connection of the store's; see ``PostgresSession``."""

    def __call__(
        self, doing: str, question: Callable[[Connection], Awaitable[T]], *, outcome: str, repeat: bool
    ) -> Awaitable[T]:
        """The answer."""
        ...


class Letterbox:
    """Where a store's callers put their signals."""

    def __init__(self, ask: Ask, post: Callable[[], Post]) -> None:
        self._ask = ask
        self._post = post
        self._letters = Coalesced[Letter, dict[Letter, bool]](self._leave_many)

    async def leave(self, letter: Letter) -> bool | None:
        """Leave it, durably on return; False where the run has ended, None where there is no such run.

        Raises:
            StoreError: it was not left, or nobody knows whether it was.
        """
        left = (await self._letters.about([letter])).get(letter)
        if left is not None:
            return left
        doing, post = f"leave the signal {letter.name!r}", self._post()
        return await self._ask(doing, lambda c: post.leave(c, letter), outcome=PERHAPS_LEFT, repeat=False)

    async def _leave_many(self, letters: Collection[Letter]) -> dict[Letter, bool]:
        """Leave several, as far as that needs no waiting; who is missing in the answer is to be left by itself."""
        if len(letters) < SEVERAL:
            return {}
        doing, post = f"leave {len(letters)} signals", self._post()
        try:
            return await self._ask(doing, lambda c: post.leave_many(c, letters), outcome=PERHAPS_LEFT, repeat=False)
        except StoreError as error:
            if error.transient:
                raise
            return {}  # nothing was left, because of one of them: which one is seen when each goes by itself
