"""Signals in a SQLite file, sent in group commits: what arrives while a commit is under way shares the next one.

Invariant: a sender gets its answer after the commit that made it true; one refused signal refuses no other.
"""

import asyncio
import sqlite3
from collections.abc import Collection
from typing import NamedTuple

from durable_core.errors import StoreError
from durable_core.ports import Signal
from durable_core.stores import sql
from durable_core.stores.sqlite.database import SqliteDatabase
from durable_core.stores.sqlite.dialect import chunks, marks
from durable_core.stores.sqlite.file import SqliteFile

ANY_SIGNAL = "SELECT 1 FROM signals LIMIT 1"
# A stuck run that somebody has signalled is no longer stuck: it waits for a worker to take the signal up.
SIGNALLED = """
UPDATE runs SET wake_at_ns = 0, status = CASE WHEN status = 'stuck' THEN 'pending' ELSE status END WHERE num = ?
"""
# An owner that lives may still have an attempt of it under way; else the worker that claims it drives it.
_REOPEN = """
UPDATE runs SET status = 'pending', wake_at_ns = CASE WHEN owner IN (SELECT id FROM workers) THEN NULL ELSE 0 END,
    owner = CASE WHEN owner IN (SELECT id FROM workers) THEN owner END, paused = 0, output = NULL, error = NULL,
    reason = NULL, updated_at_ns = ?, ended_at_ns = NULL
WHERE num = ?
"""
_FIRST = "SELECT num, run FROM signals LIMIT ?"
_WAITING_FOR = "SELECT num FROM signals WHERE run IN ({marks})"
SIGNALS = "SELECT num, run, name, payload, at_ns FROM signals WHERE num IN ({marks})"


class _Sending(NamedTuple):
    """A signal to be stored, and the sender's answer."""

    run: int
    name: str
    payload: bytes
    now_ns: int
    ended: bool
    answer: "asyncio.Future[bool]"


class SqliteSignals:
    """``Signals`` of a SQLite file."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self._queued: list[_Sending] = []
        self._sending: asyncio.Task[None] | None = None

    async def send(self, run: int, name: str, payload: bytes, *, now_ns: int, ended: bool = False) -> bool:
        """See ``Signals.send``."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()
        self._queued.append(_Sending(run, name, payload, now_ns, ended, answer))
        if self._sending is None:
            self._sending = loop.create_task(self._send_all())
        return await answer

    async def _send_all(self) -> None:
        taken: list[_Sending] = []

        def write(file: SqliteFile) -> list[tuple[_Sending, bool | Exception]]:
            # Only now: what arrived while this waited for its turn goes along.
            taken.extend(self._queued)
            self._queued.clear()
            return [(sending, _write(file, sending)) for sending in taken]

        while self._queued:
            doing = f"leave the signal {self._queued[0].name!r}"
            try:
                answered = await self._database.transact(doing, write, len(self._queued))
            except asyncio.CancelledError:  # from outside, with all tasks: nothing was written, another task continues
                self._queued[:0] = taken
                self._sending = asyncio.get_running_loop().create_task(self._send_all())
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the senders get it
                if not taken:  # no transaction could begin
                    taken.extend(self._queued)
                    self._queued.clear()
                answered = [(sending, error) for sending in taken]
            taken.clear()
            for sending, answer in answered:
                _answer(sending.answer, answer)
        self._sending = None

    async def waiting(self, runs: Collection[int]) -> list[Signal]:
        """See ``Signals.waiting``."""
        return self._database.read(lambda connection: _waiting(connection, frozenset(runs)))


def _answer(future: "asyncio.Future[bool]", answer: bool | Exception) -> None:  # noqa: FBT001 - it is the answer
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _write(file: SqliteFile, sending: _Sending) -> bool | StoreError:
    """Store a signal, and make the run due if nobody owns it; False if it has ended."""
    ask, (run, name, payload, now_ns, ended, _) = file.connection.execute, sending
    row = ask("SELECT owner, ended_at_ns FROM runs WHERE num = ?", (run,)).fetchone()
    if row is None and ask("SELECT 1 FROM tombstones WHERE num = ?", (run,)).fetchone():
        return False
    if row is None:
        return StoreError(
            f"there is nothing of number {run} in {file.path}, so the signal {name!r} was not stored",
            "Look its id up first",
        )
    if row[1] is not None and not ended:
        return False
    ask(sql.INSERT_SIGNAL, (run, name, payload, now_ns))
    if row[1] is not None:
        ask(_REOPEN, (now_ns, run))
    elif row[0] is None:
        ask(SIGNALLED, (run,))
    return True


def _waiting(connection: sqlite3.Connection, runs: frozenset[int]) -> list[Signal]:
    # A worker asks for all its runs, which may be thousands, while few signals wait; or the other way round.
    first = connection.execute(_FIRST, (len(runs) + 1,)).fetchall()
    if len(first) <= len(runs):
        nums = [int(num) for num, run in first if run in runs]
    else:
        nums = [
            int(num)
            for some in chunks(tuple(runs))
            for (num,) in connection.execute(_WAITING_FOR.format(marks=marks(len(some))), some)
        ]
    found: list[Signal] = []
    for some in chunks(nums):
        found += (Signal(*row) for row in connection.execute(SIGNALS.format(marks=marks(len(some))), some))
    found.sort(key=lambda signal: signal.num)
    return found
