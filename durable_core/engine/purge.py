"""Purging: ended runs are archived, then buried, then their journals are swept, a little at a time.

Invariant: a run is buried only once its line is on disk, and only as it stands in that line. Whatever is cut, the
worst that is left is a line too many, and a journal that the next purge sweeps.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import attrs

from durable_core.engine.archive_file import ArchiveFile
from durable_core.model.entry import Entry
from durable_core.model.run import RunQuery, RunRecord, check_limit
from durable_core.model.tombstone import EndedRun
from durable_core.ports import Clock, Store

T = TypeVar("T")

PAGE = 100
"""Runs looked for, and archived, at a time."""
ENTRIES = 2_000
"""The most entries removed by one transaction; the store stops earlier where it takes long."""
SHARE = 0.25
"""How much of its time a purge may keep the store busy."""


@attrs.frozen(kw_only=True)
class Purging:
    """What to purge."""

    before_ns: int
    """Runs that ended before this time."""
    name: str | None = None
    """Only runs of this function."""
    limit: int | None = attrs.field(default=None, validator=check_limit)
    """At most so many runs; None is all."""
    id_retention_ns: int | None
    """How long their ids stay refused; None is for ever."""
    yielding: bool = False
    """Whether to stop where somebody else purges the same runs."""


@attrs.frozen(kw_only=True)
class PurgeReport:
    """What a purge did, or would do."""

    runs: int = 0
    """Runs purged."""
    entries: int = 0
    """Journal entries removed, also those that an earlier purge had left."""
    archived: int = 0
    """Lines written to the archive."""
    ids_freed: int = 0
    """Tombstones whose time had come."""
    dry_run: bool = False
    """Whether nothing was done: ``runs`` is how many there are."""


async def preview(store: Store, plan: Purging) -> PurgeReport:
    """What ``purge`` would do now. Changes nothing."""
    count = await store.runs.count(RunQuery(ended_before_ns=plan.before_ns, name=plan.name))
    return PurgeReport(runs=count if plan.limit is None else min(count, plan.limit), dry_run=True)


async def purge(store: Store, clock: Clock, plan: Purging, archive: ArchiveFile | None = None) -> PurgeReport:
    """Purge what ``plan`` describes, the longest ended first; what it reports is durable on return.

    Raises:
        StoreError: the store or the archive failed. What was purged before stays purged.
    """
    runs = archived = 0
    entries = await _sweep(store)  # what an earlier one has left
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
        buried = await _bury(store, clock, plan, page)
        entries += await _sweep(store)
        runs += buried
        if plan.yielding and not buried:
            break
    freed = await _forget(store, clock)
    return PurgeReport(runs=runs, entries=entries, archived=archived, ids_freed=freed)


async def _archive(store: Store, archive: ArchiveFile, page: list[EndedRun]) -> list[EndedRun]:
    """Write a line for each run of ``page`` that still stands as it was found; return those."""
    written: list[EndedRun] = []
    for found in page:
        record = await store.runs.find_num(found.num)
        entries = (await store.journal.load([found.num]))[found.num]
        if record is not None and _stands(found, record, entries):
            # One at a time, since a journal may be large; on a thread, since making its line takes a while.
            await asyncio.to_thread(archive.write, record, entries)
            written.append(found)
    await asyncio.to_thread(archive.sync)
    return written


def _stands(found: EndedRun, record: RunRecord, entries: list[Entry]) -> bool:
    return record.ended_at_ns == found.ended_at_ns and (entries[-1].seq if entries else 0) == found.last_seq


async def _bury(store: Store, clock: Clock, plan: Purging, page: list[EndedRun]) -> int:
    buried = 0
    while page:
        now_ns = clock.now_ns()
        until_ns = None if plan.id_retention_ns is None else now_ns + plan.id_retention_ns
        nums = await _paced(store.retention.purge(page, now_ns=now_ns, until_ns=until_ns))
        if not nums:
            break  # all the rest have changed, or are another's
        buried += len(nums)
        page = page[[run.num for run in page].index(nums[-1]) + 1 :]
    return buried


async def _sweep(store: Store) -> int:
    removed, left = 0, True
    while left:
        piece = await _paced(store.retention.sweep(limit=ENTRIES))
        removed, left = removed + piece.entries, piece.left
    return removed


async def _forget(store: Store, clock: Clock) -> int:
    freed = 0
    while dropped := await _paced(store.retention.forget(now_ns=clock.now_ns(), limit=ENTRIES)):
        freed += dropped
    return freed


async def _paced(work: Awaitable[T]) -> T:
    """Do ``work``, and then leave the store to others for a while."""
    now_s = asyncio.get_running_loop().time
    began_s = now_s()
    result = await work
    await asyncio.sleep((now_s() - began_s) * (1 / SHARE - 1))
    return result
