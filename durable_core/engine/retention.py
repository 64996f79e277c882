"""Purging: ended runs are archived, then replaced by tombstones, then their journals are deleted, a little at a time.

Invariants: a run is purged only once its line is in the archive on disk, and only if it is still as that line says.
After a crash the worst case is an extra line in the archive, and a journal that the next purge deletes. No run waits
for a background purge; whatever fails in it is logged and tried again at the next look.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Awaitable, Generator, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Final, TypeVar

import attrs

from durable_core.errors import StoreError
from durable_core.model.archive import line_of
from durable_core.model.duration import NS
from durable_core.model.entry import Entry
from durable_core.model.run import RunQuery, RunRecord, check_limit
from durable_core.model.tombstone import EndedRun
from durable_core.ports import Clock, Store, check_cancelled

log = logging.getLogger("durable_core")

T = TypeVar("T")

HEAD = b'{"archive":'
"""What every archive begins with, as far as the first line got."""
CLOSED = -1
"""No file has this number."""


class ArchiveFile:
    """The archive at ``path``: one line of JSON for each purged run. A new file is readable by its owner only.

    Lines are on disk once ``sync`` has returned. A line that a crash has cut short is ended before the next one.

    Raises:
        StoreError: it cannot be written, or another process writes to it. Nothing was purged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # The thread of a cancelled purge goes on, and the number of a closed file may soon belong to another file.
        self._lock = threading.Lock()
        with self._explained():
            made = not Path(path).exists()
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            self._prepare(made=made)
        except BaseException:
            os.close(self._fd)
            raise

    def _prepare(self, *, made: bool) -> None:
        with self._explained():
            if not S_ISREG(os.fstat(self._fd).st_mode):
                raise OSError("it is not a regular file")
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if made:
                _sync_directory(self.path)
            self._size = os.fstat(self._fd).st_size
            head = os.pread(self._fd, len(HEAD), 0)
            if not HEAD.startswith(head):  # a wrong path must not damage another file, such as the database
                raise OSError("its content is not an archive")
            if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
                self._write(b"\n")

    def write(self, record: RunRecord, entries: Sequence[Entry]) -> None:
        """Write the line of a run; durable after ``sync``. Leaves no part of it if it raises ``StoreError``."""
        line = line_of(record, entries)
        with self._lock, self._explained():
            try:
                self._write(line)
            except OSError:
                with contextlib.suppress(OSError):  # the next process that opens the file ends the line
                    os.ftruncate(self._fd, self._size)
                raise
            self._size = os.fstat(self._fd).st_size

    def sync(self) -> None:
        """Return once all lines are on disk, under the file's name."""
        with self._lock, self._explained():
            os.fsync(self._fd)
            if not os.fstat(self._fd).st_nlink:
                raise OSError("it was removed meanwhile")

    def close(self) -> None:
        """Close the file once no thread writes to it any more. Later writes fail."""
        with self._lock:
            os.close(self._fd)
            self._fd = CLOSED

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        while left:
            left = left[os.write(self._fd, left) :]

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except BlockingIOError as error:
            raise StoreError(
                f"another process writes to the archive {self.path}; nothing was purged",
                "Wait for it, or name another file",
            ) from error
        except (OSError, UnicodeEncodeError) as error:
            raise StoreError(
                f"the archive {self.path} cannot be written ({error}), so what is not in it was not purged",
                "Name a file on a disk with free space, in a directory that this user may write to",
            ) from error


def _sync_directory(path: str) -> None:
    directory = os.open(Path(path).absolute().parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


PAGE = 100
"""Runs found and archived at a time."""
ENTRIES = 2_000
"""The most entries removed by one transaction; the store stops earlier if it takes long."""
SHARE = 0.25
"""The share of its time for which a purge may keep the store busy."""


@attrs.frozen(kw_only=True)
class Purging:
    """What to purge."""

    before_ns: int
    """Runs that ended before this time."""
    name: str | None = None
    """Only runs of this function."""
    limit: int | None = attrs.field(default=None, validator=check_limit)
    """At most so many runs; None: all."""
    id_retention_ns: int | None
    """How long their ids stay refused; None: forever."""
    yielding: bool = False
    """Whether to stop if another process purges the same runs."""


@attrs.frozen(kw_only=True)
class PurgeReport:
    """What a purge did, or would do."""

    runs: int = 0
    """Runs purged."""
    entries: int = 0
    """Journal entries removed, including leftovers of an earlier purge."""
    archived: int = 0
    """Lines written to the archive."""
    ids_freed: int = 0
    """Expired tombstones removed."""
    dry_run: bool = False
    """Whether nothing was done; ``runs`` is then the number of runs found."""


async def preview(store: Store, plan: Purging) -> PurgeReport:
    """What ``purge`` would do now. Changes nothing."""
    count = await store.runs.count(RunQuery(ended_before_ns=plan.before_ns, name=plan.name))
    return PurgeReport(runs=count if plan.limit is None else min(count, plan.limit), dry_run=True)


async def purge(store: Store, clock: Clock, plan: Purging, archive: ArchiveFile | None = None) -> PurgeReport:
    """Purge what ``plan`` describes, the longest ended first; durable on return.

    Raises:
        StoreError: the store or the archive failed. Runs that were purged before stay purged.
    """
    runs = archived = 0
    entries = await _delete_journals(store)  # leftovers of an earlier purge
    after: EndedRun | None = None
    while plan.limit is None or runs < plan.limit:
        size = PAGE if plan.limit is None else min(PAGE, plan.limit - runs)
        page = await store.retention.ended(before_ns=plan.before_ns, name=plan.name, after=after, limit=size)
        if not page:
            break
        after = page[-1]
        if archive is not None:
            page = await _archive(store, archive, page)
            archived += len(page)
        purged = await _replace(store, clock, plan, page)
        entries += await _delete_journals(store)
        runs += purged
        if plan.yielding and not purged:
            break
    freed = await _drop_expired(store, clock)
    return PurgeReport(runs=runs, entries=entries, archived=archived, ids_freed=freed)


async def _archive(store: Store, archive: ArchiveFile, page: list[EndedRun]) -> list[EndedRun]:
    """Write a line for each run of ``page`` that is unchanged since it was found; return those."""
    written: list[EndedRun] = []
    for found in page:
        record = await store.runs.find_num(found.num)
        entries = (await store.journal.load([found.num]))[found.num]
        if record is not None and _unchanged(found, record, entries):
            # One at a time, as a journal may be large; on a thread, as serializing it takes a while.
            await asyncio.to_thread(archive.write, record, entries)
            written.append(found)
    await asyncio.to_thread(archive.sync)
    return written


def _unchanged(found: EndedRun, record: RunRecord, entries: list[Entry]) -> bool:
    return record.ended_at_ns == found.ended_at_ns and (entries[-1].seq if entries else 0) == found.last_seq


async def _replace(store: Store, clock: Clock, plan: Purging, page: list[EndedRun]) -> int:
    """Replace runs by tombstones; how many."""
    purged = 0
    while page:
        now_ns = clock.now_ns()
        until_ns = None if plan.id_retention_ns is None else now_ns + plan.id_retention_ns
        nums = await _paced(store.retention.purge(page, now_ns=now_ns, until_ns=until_ns))
        if not nums:
            break  # the rest has changed, or another process purges it
        purged += len(nums)
        page = page[[run.num for run in page].index(nums[-1]) + 1 :]
    return purged


async def _delete_journals(store: Store) -> int:
    removed, left = 0, True
    while left:
        piece = await _paced(store.retention.sweep(limit=ENTRIES))
        removed, left = removed + piece.entries, piece.left
    return removed


async def _drop_expired(store: Store, clock: Clock) -> int:
    freed = 0
    while dropped := await _paced(store.retention.forget(now_ns=clock.now_ns(), limit=ENTRIES)):
        freed += dropped
    return freed


async def _paced(work: Awaitable[T]) -> T:
    """Do ``work``, and then leave the store to other writers for a while."""
    now_s = asyncio.get_running_loop().time
    began_s = now_s()
    result = await work
    await asyncio.sleep((now_s() - began_s) * (1 / SHARE - 1))
    return result


LATEST: Final = 2**63 - 1
SHORTEST_NS: Final = 1 * NS
LONGEST_NS: Final = 3600 * NS
PART: Final = 20
"""Looks are a twentieth of the retention apart, but at least a second and at most an hour."""


class Housekeeper:
    """Purges runs that ended ``retention_ns`` ago in the background, and finishes a purge that a crash has cut short.

    If several workers purge, each run is purged by one of them; a worker that meets another one stops.

    Args:
        store: an open store.
        clock: decides when a run's retention is over.
        retention_ns: how long runs are kept after their end; None: forever.
        id_retention_ns: how long the ids of purged runs stay refused; None: forever.
    """

    def __init__(self, store: Store, clock: Clock, *, retention_ns: int | None, id_retention_ns: int | None) -> None:
        self._store = store
        self._clock = clock
        self._retention_ns = retention_ns
        self._id_retention_ns = id_retention_ns
        self.working = True
        """Whether it looks or purges just now, or is about to."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look and purge from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Purge no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Until cancelled; without a retention, once."""
        while True:
            check_cancelled()
            self.working = True
            report = await self._look()
            if report.runs:
                log.info("purged %d that ended longer ago than the retention", report.runs)
            if self._retention_ns is None:
                self.working = False
                return
            await self._wait_until(await self._next_ns(self._retention_ns))

    async def _look(self) -> PurgeReport:
        # A run that ended exactly the retention ago is purged; without a retention, none is.
        before_ns = 0 if self._retention_ns is None else self._clock.now_ns() - self._retention_ns + 1
        plan = Purging(before_ns=before_ns, id_retention_ns=self._id_retention_ns, yielding=True)
        try:
            return await purge(self._store, self._clock, plan)
        except StoreError as error:
            log.warning("what ended long ago could not be purged; trying again later: %s", error)
        except Exception:
            log.exception("internal error while purging; trying again later")
        return PurgeReport()

    async def _next_ns(self, retention_ns: int) -> int:
        """When to look again: once the oldest run is due, but not too soon."""
        now_ns = self._clock.now_ns()
        soonest_ns = now_ns + min(max(retention_ns // PART, SHORTEST_NS), LONGEST_NS)
        try:
            oldest = await self._store.retention.ended(before_ns=LATEST, limit=1)
        except StoreError:
            return soonest_ns  # the next look logs the error
        # Runs that end from now on are due later than this.
        due_ns = (oldest[0].ended_at_ns if oldest else now_ns) + retention_ns
        return max(due_ns, soonest_ns)

    async def _wait_until(self, at_ns: int) -> None:
        rung: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ring() -> None:
            self.working = True
            if not rung.done():
                rung.set_result(None)

        timer = self._clock.call_at(at_ns, ring)
        self.working = False
        try:
            await rung
        finally:
            timer.cancel()
