"""The SQLite store: no server, one file, several processes.

Rows are bound on the caller's thread, which measured cheaper than handing them to another one. The commit, which
waits for the disk, is made there too while commits are small and quick, else on a thread, so that the loop stays free.

Invariant: one writing connection, used by one task at a time; what a method has returned, every later read sees.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, TypeVar

from durable_core.errors import StoreError
from durable_core.model.checkup import Checkup
from durable_core.model.entry import Entry
from durable_core.model.run import RunQuery, RunRecord, RunRef
from durable_core.model.tombstone import EndedRun, Swept, Tombstone
from durable_core.model.version import Announced, Offer, Tally, news
from durable_core.ports import Batch, Signal
from durable_core.stores.local import Local
from durable_core.stores.numbers import RunNumbers
from durable_core.stores.sqlite import refusals
from durable_core.stores.sqlite.checkup import check_up
from durable_core.stores.sqlite.file import SqliteFile
from durable_core.stores.sqlite.reader import Reader
from durable_core.stores.sqlite.signals import Signals

log = logging.getLogger("durable_core")

T = TypeVar("T")
Durability = Literal["power", "process"]

SYNCHRONOUS: dict[Durability, str] = {"power": "FULL", "process": "NORMAL"}
FEW_ROWS = 16
"""Rows of a batch that may be committed on the loop's thread."""
QUICK_S = 0.002
"""How long commits may take there, as a moving average."""
FEW_READS = 4
"""Runs whose journals or rows are read on the loop's thread."""


class SqliteStore(Local):
    """A ``Store`` on the SQLite file at ``path``, which ``open`` makes where there is none.

    Args:
        path: of the file; its directory must exist and be writable.
        durability: ``power`` keeps every commit through a power loss; ``process`` only through the end of the
            process, and is faster where the disk is slow.
    """

    def __init__(self, path: str, *, durability: Durability = "power") -> None:
        self.path = path
        self._synchronous = SYNCHRONOUS[durability]
        self._opened: SqliteFile | None = None
        self._turn = asyncio.Lock()
        self._commit_s = 0.0
        self._numbers = RunNumbers(path)
        self._version = 0
        self._signals = Signals(self._transact, lambda: self._file.writer)

    @property
    def secret(self) -> bytes:
        """32 random bytes, made with the store: all its processes share them, and nobody else has them."""
        return self._file.secret

    @property
    def _file(self) -> SqliteFile:
        if self._opened is None:
            raise StoreError(f"the store {self.path} is not open; await open() first, and use it before close()")
        return self._opened

    async def open(self, *, worker: str | None) -> None:
        """Open the file or make it, announce ``worker`` and release the runs of the dead. See ``Store.open``."""
        if self._opened is not None:
            raise StoreError(f"the store {self.path} is open already; close it first, or make another one")
        self._writes = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        how = partial(SqliteFile.open, self.path, worker=worker, synchronous=self._synchronous)
        async with self._turn:
            opening = asyncio.get_running_loop().run_in_executor(self._writes, how)
            try:
                file = await _uncut(opening)
            except asyncio.CancelledError:
                if opening.exception() is None:
                    opening.result().close()
                raise
            self._opened = file
            self._numbers.begin(file.numbers)
            self._version = file.versions.data_version()

    async def close(self) -> None:
        """Free this worker's runs, forget it and close the file. Safe to call twice."""
        async with self._turn:
            file, self._opened = self._opened, None
            if file is None:
                return
            try:
                await self._threaded(self._reads, lambda: None)  # what is being read ends first
                await self._threaded(self._writes, file.close)
            except (StoreError, *refusals.CAUGHT) as error:
                # Nothing is lost, and the caller can do nothing: a worker that did not sign off is found dead.
                log.warning("%s: this worker could not sign off, so others release its runs: %s", self.path, error)
            finally:
                self._writes.shutdown(wait=False)
                self._reads.shutdown(wait=False)

    def crash(self) -> None:
        """For tests: let go of the file as the end of the process would, so that the worker is found dead."""
        file, self._opened = self._opened, None
        if file is not None:
            self._writes.shutdown()
            self._reads.shutdown()
            file.crash()

    def next_num(self) -> int:
        """A run number that is this store's alone. Reserved ahead, by blocks; commits reserve the next block."""
        return self._numbers.take()

    async def commit(self, batch: Batch) -> frozenset[int]:
        """Write ``batch``; see ``Store.commit``. With durability ``power`` it outlasts a power loss on return."""
        rows = len(batch)
        if not rows:
            return frozenset()
        low = self._numbers.low
        file = self._file

        def work() -> tuple[frozenset[int], range]:
            return file.writer.write(batch), file.writer.reserve_numbers() if low else range(0)

        refused, numbers = await self._transact(f"write a batch of {rows} rows", work, rows)
        if low:
            self._numbers.add(numbers)
        return refused

    async def claim(
        self, worker: str, served: Collection[tuple[str, int]], *, now_ns: int, limit: int
    ) -> list[RunRecord]:
        """Take due runs; see ``Store.claim``. Writes nothing where none is due."""
        if not served or limit < 1 or not self._ask(lambda reader: reader.due(served, now_ns=now_ns, limit=1)):
            return []
        take = partial(self._file.writer.claim, worker, served, now_ns=now_ns, limit=limit)
        return await self._transact("claim runs", take, limit)

    async def release_dead(self) -> int:
        """Free the runs of workers whose lock is free; see ``Store.release_dead``."""
        file = self._file
        if not self._ask(lambda reader: reader.other_workers(file.worker)):
            return 0
        return await self._transact("release dead workers", file.release_dead, 1)

    async def next_wake_ns(self, *, after_ns: int) -> int | None:
        """When the next unowned open run that is not paused falls due; see ``Store.next_wake_ns``."""
        return self._ask(lambda reader: reader.next_wake_ns(after_ns=after_ns))

    async def load(self, nums: Sequence[int]) -> dict[int, list[Entry]]:
        """The journals of these runs; see ``Store.load``."""
        if len(nums) <= FEW_READS:
            return self._ask(lambda reader: reader.load(nums))
        return await self._ask_at_length(lambda reader: reader.load(nums))

    async def announce(self, offers: Collection[Offer], *, now_ns: int) -> list[Offer]:
        """Note what this worker serves; see ``Store.announce``. Writes nothing where all of it is known."""
        worker = self._file.worker
        if worker is None:
            raise StoreError(
                f"the store {self.path} was opened without a worker, so nothing is served; open it with one"
            )
        new = news(await self.announced(), worker, offers)
        if not new:
            return []
        work = partial(self._file.writer.announce_offers, worker, new, now_ns=now_ns)
        return await self._transact("announce what is served", work, rows=len(new))

    async def announced(self) -> list[Announced]:
        """What any worker has announced; see ``Store.announced``."""
        return self._ask(lambda reader: reader.announced())

    async def unserved(self, *, now_ns: int) -> list[RunRef]:
        """The runs that wait in vain; see ``Store.unserved``."""
        return await self._ask_at_length(lambda reader: reader.unserved(now_ns=now_ns))

    async def tally(self, name: str | None = None) -> list[Tally]:
        """How many runs stand how, by version; see ``Store.tally``."""
        return await self._ask_at_length(lambda reader: reader.tally(name))

    async def find(self, ids: Sequence[str]) -> list[RunRecord]:
        """The runs of these ids; see ``Store.find``."""
        if len(ids) <= FEW_READS:
            return self._ask(lambda reader: reader.find(ids))
        return await self._ask_at_length(lambda reader: reader.find(ids))

    async def last_seen_ns(self) -> int | None:
        """The last time that was written; see ``Store.last_seen_ns``."""
        return self._ask(lambda reader: reader.last_seen_ns())

    async def find_num(self, num: int) -> RunRecord | None:
        """The run of this number; see ``Store.find_num``."""
        return self._ask(lambda reader: reader.find_num(num))

    async def find_nums(self, nums: Sequence[int]) -> list[RunRecord]:
        """The runs of these numbers; see ``SpanLedger.find_nums``."""
        if len(nums) <= FEW_READS:
            return self._ask(lambda reader: reader.find_nums(nums))
        return await self._ask_at_length(lambda reader: reader.find_nums(nums))

    async def owe(self, worker: str) -> int:
        """Let ``worker`` owe the spans of what it writes; see ``SpanLedger.owe``."""
        return await self._transact("note that spans are exported", partial(self._file.writer.owe, worker), rows=1)

    async def owed(self, worker: str) -> dict[str, int]:
        """What is owed by ``worker`` and by the dead; see ``SpanLedger.owed``."""
        return self._ask(lambda reader: reader.owed(worker))

    async def adopt(self, debtor: str, *, worker: str) -> bool:
        """Let ``worker`` alone pay; see ``SpanLedger.adopt``."""
        adopt = partial(self._file.writer.adopt, debtor, worker=worker)
        return await self._transact("adopt what a dead worker owes", adopt, rows=1)

    async def pay(self, worker: str, pos: int | None) -> None:
        """Note what has been exported; see ``SpanLedger.pay``."""
        await self._transact("note what was exported", partial(self._file.writer.pay, worker, pos), rows=1)

    async def unbegun_since_ns(self) -> int | None:
        """Since when a run has waited to be begun; see ``SpanLedger.unbegun_since_ns``."""
        return await self._ask_at_length(lambda reader: reader.unbegun_since_ns())

    async def written(self, worker: str, *, after: int, limit: int) -> list[tuple[int, Entry]]:
        """What ``worker`` has written; see ``SpanLedger.written``. Read on the thread of the long questions."""
        return await self._ask_at_length(lambda reader: reader.written(worker, after=after, limit=limit))

    async def select(self, query: RunQuery) -> list[RunRecord]:
        """The runs that ``query`` describes; see ``Store.select``."""
        return await self._ask_at_length(lambda reader: reader.select(query))

    async def count(self, query: RunQuery) -> int:
        """How many runs ``query`` describes; see ``Store.count``."""
        return await self._ask_at_length(lambda reader: reader.count(query))

    async def signal(self, run: int, name: str, payload: bytes, *, now_ns: int, ended: bool = False) -> bool:
        """Leave a signal for ``run``; durable on return. See ``Store.signal``."""
        return await self._signals.leave(run, name, payload, now_ns=now_ns, ended=ended)

    async def signals(self, runs: Collection[int]) -> list[Signal]:
        """The signals that wait for these runs; see ``Store.signals``."""
        return self._ask(lambda reader: reader.signals(runs))

    async def check_up(self, *, now_ns: int, deep: bool) -> Checkup:
        """Look at it from outside; see ``Store.check_up``."""
        return await asyncio.to_thread(check_up, self.path, now_ns=now_ns, deep=deep)

    async def ended(
        self, *, before_ns: int, name: str | None = None, after: EndedRun | None = None, limit: int = 100
    ) -> list[EndedRun]:
        """Runs that may be purged; see ``Store.ended``."""
        return await self._ask_at_length(
            lambda reader: reader.purger.ended(before_ns=before_ns, name=name, after=after, limit=limit)
        )

    async def bury(self, runs: Sequence[EndedRun], *, now_ns: int, until_ns: int | None) -> list[int]:
        """Put tombstones in the place of runs; see ``Store.bury``."""
        bury = partial(self._file.purger.bury, runs, now_ns=now_ns, until_ns=until_ns)
        return await self._transact("purge runs", bury, rows=len(runs), apart=True) if runs else []

    async def sweep(self, *, limit: int) -> Swept:
        """Remove what is left of purged journals; see ``Store.sweep``. Writes nothing where nothing is."""
        if self._ask(lambda reader: reader.purger.unswept()) is None:
            return Swept(0, left=False)
        sweep = partial(self._file.purger.sweep, limit=limit)
        return await self._transact("remove the journals of purged runs", sweep, rows=limit, apart=True)

    async def tombstones(self, ids: Sequence[str]) -> list[Tombstone]:
        """What is left of purged runs; see ``Store.tombstones``."""
        return self._ask(lambda reader: reader.tombstones(ids))

    async def forget(self, *, now_ns: int, limit: int) -> int:
        """Drop tombstones whose time has come; see ``Store.forget``. Writes nothing where there is none."""
        if not self._ask(lambda reader: reader.purger.expired(now_ns=now_ns, limit=1)):
            return 0
        forget = partial(self._file.purger.forget, now_ns=now_ns, limit=limit)
        return await self._transact("forget purged runs", forget, rows=limit, apart=True)

    async def changed(self) -> bool:
        """Whether another store, in this process or another, has committed since the last call."""
        async with self._turn:
            try:
                version = self._file.versions.data_version()
            except refusals.CAUGHT as error:
                raise refusals.explain(error, path=self.path, doing="look for changes") from error
            changed, self._version = version != self._version, version
            return changed

    async def _transact(self, doing: str, work: Callable[[], T], rows: int, *, apart: bool = False) -> T:
        """Do ``work`` in one transaction; it is durable on return, or nothing of it was written.

        ``apart`` has all of it done on the thread that waits for the disk, because the work itself takes milliseconds.
        """
        async with self._turn:
            file = self._file
            try:
                if not file.begin_now():
                    await self._threaded(self._writes, file.begin_waiting)
                    file = self._file
                if apart:
                    return await self._done(partial(_committed, file, work))
                result = work()
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

    def _ask(self, question: Callable[[Reader], T]) -> T:
        try:
            return question(self._file.reader)
        except refusals.CAUGHT as error:
            raise refusals.explain(error, path=self.path, doing="read", outcome="nothing was changed") from error

    async def _ask_at_length(self, question: Callable[[Reader], T]) -> T:
        reader = self._file.bulk_reader
        try:
            return await self._threaded(self._reads, lambda: question(reader))
        except refusals.CAUGHT as error:
            raise refusals.explain(error, path=self.path, doing="read", outcome="nothing was changed") from error

    async def _done(self, commit: Callable[[], T]) -> T:
        """Commit on the thread. A caller that is cancelled meanwhile hears how it ended: it can no longer be undone."""
        return await _uncut(asyncio.get_running_loop().run_in_executor(self._writes, commit), absorbing=True)

    async def _threaded(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await _uncut(asyncio.get_running_loop().run_in_executor(threads, call))


def _committed(file: SqliteFile, work: Callable[[], T]) -> T:
    result = work()
    file.commit()
    return result


async def _uncut(future: "asyncio.Future[T]", *, absorbing: bool = False) -> T:
    """Await ``future``. Where the caller is cancelled, wait for its end nevertheless: the thread cannot be stopped.

    So nobody uses a connection that a thread still works with. ``absorbing`` lets the caller go on.
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
