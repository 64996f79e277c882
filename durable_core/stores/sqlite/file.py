"""One SQLite file in use by one store: its connections, its locks, and the frame of every transaction.

Synchronous; ``SqliteDatabase`` decides which thread calls what, never two at once.

Invariants: every write and checkpoint of every process goes through the one writing connection of its store, and
under the write lock. When a method returns or raises, the lock is free and no transaction is open, except between
``begin_now`` or ``begin_waiting`` and ``commit`` or ``leave``.
"""

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Self

from durable_core.errors import StoreError, StoreNotFound
from durable_core.stores.sqlite import refusals, schema
from durable_core.stores.sqlite.locks import FileLock, WriteLock, worker_lock
from durable_core.stores.sqlite.workers import others, register, release

LOCK_S = 30.0
"""How long a writer waits for another process's commit or checkpoint to end."""
NUMBERS = 1 << 20
"""How many run numbers are reserved at a time."""


class SqliteFile:
    """An opened database: ``connection`` for transactions, ``reader`` and ``bulk_reader`` for questions."""

    def __init__(self, path: str, *, worker: str | None, lock: WriteLock, connection: sqlite3.Connection) -> None:
        self.path = path
        self.worker = worker
        self.connection = connection
        self.reader, self.bulk_reader = schema.connect_readers(path)
        self.secret = b""
        self.numbers = range(0)
        self._lock = lock
        self._alive: FileLock | None = None
        self._dead: list[FileLock] = []
        self._inode = Path(path).stat().st_ino
        self._busy_ms = int(schema.BUSY_S * 1000)

    @classmethod
    def open(cls, path: str, *, worker: str | None, synchronous: str) -> Self:
        """Open ``path``, or make it, and register ``worker``. Raises ``StoreError``; a foreign file stays untouched."""
        schema.check_sqlite()
        path = os.path.realpath(path)  # a lock is found by its name: links to one file, and cd, must not change it
        schema.check_place(path)
        if not schema.is_new(path):
            schema.check_ours(path)  # before anything is made beside another program's file
        lock = WriteLock(path)
        try:
            return cls._open_locked(path, worker=worker, synchronous=synchronous, lock=lock)
        except OSError as error:
            raise StoreNotFound(f"{path} cannot be opened: {error}", "Check its directory's permissions") from error
        except refusals.CAUGHT as error:
            raise refusals.explain(error, path=path, doing="open the store", outcome="") from error
        finally:
            lock.release()

    @classmethod
    def _open_locked(cls, path: str, *, worker: str | None, synchronous: str, lock: WriteLock) -> Self:
        if not lock.acquire(LOCK_S):
            raise _lock_timeout(path)
        connection: sqlite3.Connection | None = None
        try:
            if schema.is_new(path):
                schema.create(path)
            schema.check_ours(path)
            connection = schema.connect_writer(path, synchronous=synchronous)
            file = cls(path, worker=worker, lock=lock, connection=connection)
            try:
                file._enter()
            except BaseException:
                file.reader.close()
                file.bulk_reader.close()
                raise
        except BaseException:
            if connection is not None:
                connection.close()
            lock.remove()
            raise
        return file

    def _enter(self) -> None:
        """Register the worker and release the dead; also the runs that an earlier process left under the same name."""
        try:
            if self.worker is not None:
                self._alive = self._take(self.worker)
            self.connection.execute("BEGIN IMMEDIATE")
            if self.worker is not None:
                release(self.connection, self.worker)
                register(self.connection, self.worker)
            self.release_dead()
            (secret,) = self.connection.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()
            self.secret = bytes(secret)
            self.numbers = self.reserve_numbers()
            self.commit()
        except BaseException:
            self.leave()
            if self._alive is not None:
                self._alive.close()
            raise

    def _take(self, worker: str) -> FileLock:
        lock = worker_lock(self.path, worker)
        if not lock.try_acquire():
            lock.close()
            raise StoreError(
                f"a worker named {worker!r} already runs on {self.path}", "Give this one another name, or end that one"
            )
        return lock

    def release_dead(self) -> int:
        """Within a transaction: free the runs of workers whose lock is free; return how many runs."""
        freed = 0
        for worker in others(self.connection, self.worker):
            lock = worker_lock(self.path, worker)
            if lock.try_acquire():
                self._dead.append(lock)
                freed += release(self.connection, worker)
            else:
                lock.close()
        return freed

    def reserve_numbers(self) -> range:
        """Within a transaction: the next ``NUMBERS`` run numbers; they are this store's once it is committed."""
        text = "UPDATE meta SET value = value + ? WHERE key = 'next_num' RETURNING value"
        (end,) = self.connection.execute(text, (NUMBERS,)).fetchone()
        return range(int(end) - NUMBERS, int(end))

    def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def begin_now(self) -> bool:
        """Begin a transaction if that needs no waiting. Raises ``StoreError`` where the file is no longer there."""
        if not self._lock.try_acquire():
            return False
        self._check_in_place()
        try:
            self._set_patience(0)
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            self._lock.release()
            return False
        return True

    def begin_waiting(self) -> None:
        """Begin a transaction; waits for other writers, so it is for a thread of its own."""
        if not self._lock.acquire(LOCK_S):
            raise _lock_timeout(self.path)
        self._check_in_place()
        self._set_patience(int(schema.BUSY_S * 1000))
        self.connection.execute("BEGIN IMMEDIATE")

    def _set_patience(self, busy_ms: int) -> None:
        if busy_ms != self._busy_ms:
            self.connection.execute(f"PRAGMA busy_timeout = {busy_ms}")
            self._busy_ms = busy_ms

    def _check_in_place(self) -> None:
        # What is written to a file without a name is acknowledged and then lost.
        try:
            in_place = os.stat(self.path).st_ino == self._inode  # noqa: PTH116 - in every commit, and Path is slower
        except FileNotFoundError:
            in_place = False
        if not in_place:
            raise StoreError(
                f"the database {self.path} was removed or replaced while in use, so nothing more is written",
                "Put it back and start this process again",
            )
        if self._alive is not None and not self._alive.has_name():
            raise StoreError(
                f"the lock file {self._alive.path} was removed, so other processes take the worker "
                f"{self.worker!r} for dead and may drive its work; nothing more is written",
                "Start this process again",
            )

    def commit(self) -> None:
        """Make the transaction durable, remove the locks of the dead workers it removed, and let the next writer in."""
        self.connection.execute("COMMIT")
        for lock in self._dead:
            lock.remove()
        self._dead.clear()
        self._lock.release()

    def leave(self) -> None:
        """End what is still open of a transaction: take back its rows and let the next writer in."""
        if self.connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # SQLite has taken it back by itself after some errors
                self.connection.execute("ROLLBACK")
        for lock in self._dead:
            lock.close()
        self._dead.clear()
        self._lock.release()

    def close(self) -> None:
        """Free the worker's runs and forget it, then close. The last one to leave leaves the database file alone."""
        try:
            if self.worker is not None:
                self.begin_waiting()
                release(self.connection, self.worker)
                self._dead += [] if self._alive is None else [self._alive]
                self.commit()
            self._lock.acquire(LOCK_S)
        finally:
            self.crash()

    def crash(self) -> None:
        """Let go of everything as a crash would: nothing is released, and the worker is found dead."""
        with contextlib.suppress(sqlite3.Error):
            self.leave()
        self.reader.close()
        self.bulk_reader.close()
        self._lock.acquire(LOCK_S)  # for the last connection of all to close copies the log, which is a checkpoint
        self.connection.close()
        if self._alive is not None:
            self._alive.close()
        if Path(f"{self.path}-wal").exists():
            self._lock.close()  # others still use the file
        else:
            self._lock.remove()


def _lock_timeout(path: str) -> StoreError:
    return StoreError(
        f"another process has held the write lock {path}-lock for {LOCK_S:.0f} s; nothing of this was written",
        "Look whether it is stopped or hangs, and end it",
        transient=True,
    )
