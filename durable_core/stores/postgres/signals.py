"""Signals left in PostgreSQL: one by one while few come, else many in one transaction.

Invariant: a transaction that leaves several waits for no row while it holds others, so that it cannot be part of a
deadlock: a run that somebody else is writing just then gets its signal by itself.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol, TypeVar

import attrs

from durable_core.errors import StoreError
from durable_core.stores.postgres.gathered import Gathered
from durable_core.stores.postgres.link import Connection
from durable_core.stores.postgres.texts import Texts

T = TypeVar("T")

SEVERAL = 3
"""Signals that are worth a transaction together."""
PERHAPS_LEFT = "whether it was left is not known, and repeating it does no harm"

_WOKEN = "wake_at_ns = 0, status = CASE WHEN r.status = 'stuck' THEN 'pending' ELSE r.status END"

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound
# The row's lock makes an owner that lets the run go wait, or is waited for; so one of the two sees the other. Only what
# is read under the lock tells how the run stands: a condition on the table itself would be judged on the row as it was
# when the statement began, and a run that was let go since would not be woken.
ONE = f"""
WITH told AS (
    SELECT num, owner, ended_at_ns FROM {{s}}.runs WHERE num = $1 FOR NO KEY UPDATE
), left_here AS (
    INSERT INTO {{s}}.signals (run, name, payload, at_ns)
    SELECT $1, $2, $3, $4 FROM told WHERE ended_at_ns IS NULL OR $5::bool RETURNING 1
), woken AS (
    UPDATE {{s}}.runs AS r SET {_WOKEN} FROM told AS t
    WHERE r.num = $1 AND r.num = t.num AND t.owner IS NULL AND t.ended_at_ns IS NULL
        AND EXISTS (SELECT 1 FROM left_here)
)
SELECT (SELECT count(*) FROM told), (SELECT count(*) FROM left_here), pg_notify($6, $7)"""
MANY = f"""
WITH asked AS (
    SELECT * FROM unnest($1::int8[], $2::text[], $3::bytea[], $4::int8[], $5::bool[])
    WITH ORDINALITY AS a (run, name, payload, at_ns, ended, place)
), told AS (
    SELECT num, owner, ended_at_ns FROM {{s}}.runs WHERE num = ANY($1::int8[]) FOR NO KEY UPDATE SKIP LOCKED
), left_here AS (
    INSERT INTO {{s}}.signals (run, name, payload, at_ns)
    SELECT run, name, payload, at_ns FROM asked JOIN told ON num = run WHERE ended_at_ns IS NULL OR ended
    ORDER BY place RETURNING run
), woken AS (
    UPDATE {{s}}.runs AS r SET {_WOKEN} FROM told AS t
    WHERE r.num = ANY($1::int8[]) AND r.num = t.num AND t.owner IS NULL AND t.ended_at_ns IS NULL
        AND r.num IN (SELECT run FROM left_here)
)
SELECT place - 1, ended_at_ns IS NULL OR ended, pg_notify($6, $7) FROM asked JOIN told ON num = run"""


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

    texts: Texts
    channel: str
    token: str

    async def leave(self, connection: Connection, letter: Letter) -> bool | None:
        """Leave one; False where the run has ended, None where there is no such run."""
        to = (self.channel, self.token)
        row = await connection.fetchrow(self.texts.of(ONE), *attrs.astuple(letter), *to)
        return None if row is None or not row[0] else bool(row[1])

    async def leave_many(self, connection: Connection, letters: Collection[Letter]) -> dict[Letter, bool]:
        """Leave several; those of runs that are not there, or that somebody is writing, are missing in the answer."""
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
        self._letters = Gathered[Letter, dict[Letter, bool]](self._leave_many)

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
