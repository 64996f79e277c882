"""One SQLite file in use by one store: which thread asks and writes what, and one transaction at a time.

Rows are bound on the caller's thread, which measured cheaper than handing them to another one. The commit, which
waits for the disk, is made there too while commits are small and quick, else on a thread, so that the loop stays free.

Invariant: one writing connection, used by one task at a time; what a method has returned, every later read sees.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from durable_core.errors import StoreError
from durable_core.stores.questions import Question, Reads
from durable_core.stores.sqlite import refusals
from durable_core.stores.sqlite.dialect import rows_of
from durable_core.stores.sqlite.file import SqliteFile

log = logging.getLogger("durable_core")

T = TypeVar("T")

FEW_ROWS = 16
"""Rows of a batch that may be committed on the loop's thread."""
QUICK_S = 0.002
"""How long commits may take there, as a moving average."""
FEW_KEYS = 4
"""Runs whose journals or rows are read on the loop's thread."""


class SqliteDatabase:
    """The SQLite file at ``path``, which ``open`` makes if there is none; its writer is set to ``synchronous``."""

    def __init__(self, path: str, *, synchronous: str) -> None:
        self.path = path
        self.synchronous = synchronous
        self._opened: SqliteFile | None = None
        self._turn = asyncio.Lock()
        self._commit_s = 0.0
        self._version = 0

    @property
    def file(self) -> SqliteFile:
        """The file; raises ``StoreError`` unless it is open."""
        if self._opened is None:
            raise StoreError(f"the store {self.path} is not open", "Await open() first, and use it before close()")
        return self._opened

    async def open(self, *, worker: str | None) -> None:
        """Open the file or make it, register ``worker`` and release the runs of the dead."""
        if self._opened is not None:
            raise StoreError(f"the store {self.path} is open already", "Close it first, or make another one")
        self._writes = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        how = partial(SqliteFile.open, self.path, worker=worker, synchronous=self.synchronous)
        async with self._turn:
            opening = asyncio.get_running_loop().run_in_executor(self._writes, how)
            try:
                file = await _uncut(opening)
            except asyncio.CancelledError:
                if opening.exception() is None:
                    opening.result().close()
                raise
            self._opened = file
            self._version = file.data_version()

    async def close(self) -> None:
        """Free this worker's runs, remove it and close the file. Safe to call twice."""
        async with self._turn:
            file, self._opened = self._opened, None
            if file is None:
                return
            try:
                await self._threaded(self._reads, lambda: None)  # what is being read ends first
                await self._threaded(self._writes, file.close)
            except (StoreError, *refusals.CAUGHT) as error:
                # Nothing is lost, and the caller can do nothing: a worker that did not sign off is found dead.
                log.warning("%s: this worker could not sign off, so others release its work: %s", self.path, error)
            finally:
                self._writes.shutdown(wait=False)
                self._reads.shutdown(wait=False)

    async def rejoin(self, worker: str) -> None:
        """Register ``worker`` in the place of this store's, whose runs are free then; calls meanwhile find it open."""
        how = partial(SqliteFile.open, self.path, worker=worker, synchronous=self.synchronous)
        async with self._turn:
            before = self.file
            opening = asyncio.get_running_loop().run_in_executor(self._writes, how)
            self._opened = await _uncut(opening)
            self._version = self._opened.data_version()
            try:
                await self._threaded(self._reads, lambda: None)  # what is being read ends first
                await self._threaded(self._writes, before.close)
            except (StoreError, *refusals.CAUGHT) as error:
                log.warning("%s: the former worker could not sign off: %s", self.path, error)

    def crash(self) -> None:
        """For tests: let go of the file as the end of the process would, so that the worker is found dead."""
        file, self._opened = self._opened, None
        if file is not None:
            self._writes.shutdown()
            self._reads.shutdown()
            file.crash()

    async def changed(self) -> bool:
        """Whether another store, in this process or another, has committed since the last call."""
        async with self._turn:
            try:
                version = self.file.data_version()
            except refusals.CAUGHT as error:
                raise refusals.explain(error, path=self.path, doing="look for changes", outcome="") from error
            changed, self._version = version != self._version, version
            return changed

    async def ask(self, question: Question[T]) -> T:
        """The answer to ``question``; read on the caller's thread if it is about few rows."""
        if question.writes:
            return await self.transact(question.doing, lambda file: question.read(rows_of(file.connection, question)))
        if question.reads is Reads.FEW and len(question.keys or ()) <= FEW_KEYS:
            return self.read(lambda connection: question.read(rows_of(connection, question)))
        reader = self.file.bulk_reader
        try:
            return await self._threaded(self._reads, lambda: question.read(rows_of(reader, question)))
        except refusals.CAUGHT as error:
            raise self._unread(error) from error

    def read(self, reading: Callable[[sqlite3.Connection], T]) -> T:
        """Read something on the caller's thread: a few rows, by an index."""
        try:
            return reading(self.file.reader)
        except refusals.CAUGHT as error:
            raise self._unread(error) from error

    def _unread(self, error: BaseException) -> StoreError:
        return refusals.explain(error, path=self.path, doing="read", outcome="")

    async def transact(self, doing: str, work: Callable[[SqliteFile], T], rows: int = 1, *, apart: bool = False) -> T:
        """Do ``work`` in one transaction; it is durable on return, or nothing of it was written.

        ``apart`` has all of it done on the thread that waits for the disk, because the work itself takes milliseconds.
        """
        async with self._turn:
            file = self.file
            try:
                if not file.begin_now():
                    await self._threaded(self._writes, file.begin_waiting)
                    file = self.file
                if apart:
                    return await self._done(partial(_committed, file, work))
                result = work(file)
                if rows <= FEW_ROWS and self._commit_s < QUICK_S:
                    self._commit(file)
                else:
                    await self._done(partial(self._commit, file))
            except refusals.CAUGHT as error:
                raise refusals.explain(error, path=self.path, doing=doing) from error
            finally:
                if self._opened is not None:
                    file.leave()
            return result

    def _commit(self, file: SqliteFile) -> None:
        began = time.perf_counter()
        file.commit()
        self._commit_s += (time.perf_counter() - began - self._commit_s) / 8

    async def _done(self, commit: Callable[[], T]) -> T:
        """Commit on the thread. A caller that is cancelled meanwhile gets its result: it can no longer be undone."""
        return await _uncut(asyncio.get_running_loop().run_in_executor(self._writes, commit), absorbing=True)

    async def _threaded(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await _uncut(asyncio.get_running_loop().run_in_executor(threads, call))


def _committed(file: SqliteFile, work: Callable[[SqliteFile], T]) -> T:
    result = work(file)
    file.commit()
    return result


async def _uncut(future: "asyncio.Future[T]", *, absorbing: bool = False) -> T:
    """Await ``future``. If the caller is cancelled, wait for its end nevertheless: the thread cannot be stopped.

    So nobody uses a connection that a thread still works with. ``absorbing`` swallows the cancellation.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and not absorbing:
        raise cancelled
    return future.result()
