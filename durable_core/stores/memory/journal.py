"""Runs and their journals in memory: commits, and questions about them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import attrs

from durable_core.errors import StoreError
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.run import NewRun, RunQuery, RunRecord, RunStatus, RunUpdate
from durable_core.model.tags import read_tags
from durable_core.ports import Batch
from durable_core.stores.memory.data import MemoryData, MemorySession


class MemoryJournal:
    """``Journal`` in memory."""

    def __init__(self, session: MemorySession) -> None:
        self._session = session

    def next_num(self) -> int:
        """A run number that no other store on this data uses."""
        data = self._session.data
        data.last_num += 1
        return data.last_num

    async def commit(self, batch: Batch) -> frozenset[int]:
        """Write ``batch``: see ``Journal.commit``. Lets other tasks run once, as a disk would."""
        data = self._session.data
        await asyncio.sleep(0)
        data = self._session.data  # it may have been closed meanwhile
        batch, overtaken = batch.yielding(
            {signal.run for signal in data.signals.values() if signal.num not in batch.consumed}
        )
        refused = _refused(data, batch.starts)
        updates = {num: update for num, update in batch.updates.items() if num not in refused}
        _check(data, batch, refused, updates)  # everything is checked before anything is written
        for start in batch.starts:
            if start.num not in refused:
                data.runs[start.num] = _begun(start)
                data.nums[start.id] = start.num
        for entry in batch.entries:
            if entry.run not in refused:
                data.journals.setdefault(entry.run, {})[entry.seq] = entry
                data.order.append((entry.run, entry.seq))
        for num in batch.consumed:
            data.signals.pop(num, None)
        for num, update in updates.items():
            data.runs[num] = _updated(data.runs[num], update)
        data.wake_signalled(updates)
        self._session.committed()
        return refused | overtaken

    async def load(self, nums: Sequence[int]) -> dict[int, list[Entry]]:
        """See ``Journal.load``."""
        journals = self._session.data.journals
        return {num: [entry for _, entry in sorted(journals.get(num, {}).items())] for num in nums}


def _refused(data: MemoryData, starts: Sequence[NewRun]) -> frozenset[int]:
    """The numbers of the starts whose id is taken, by a run, a tombstone or an earlier start."""
    ids = {start.id for start in starts if start.id in data.nums or start.id in data.tombstones}
    refused: set[int] = set()
    for start in starts:
        if start.id in ids:
            refused.add(start.num)
        ids.add(start.id)
    return frozenset(refused)


def _check(data: MemoryData, batch: Batch, refused: frozenset[int], updates: Mapping[int, RunUpdate]) -> None:
    """Raise ``StoreError`` if the batch contradicts the data."""
    begun: set[int] = set()
    for start in batch.starts:
        if start.num not in refused:
            if start.num in data.runs or start.num in begun:
                raise StoreError(f"number {start.num} is taken; nothing of the batch was written", "Report it as a bug")
            begun.add(start.num)
    unknown = [num for num in updates if num not in data.runs and num not in begun]
    if unknown:
        raise StoreError(
            f"a batch of {len(batch)} rows updates rows that the memory store does not hold (numbers {unknown}); "
            "nothing of it was written",
            "Report it as a bug",
        )
    places: set[tuple[int, int]] = set()
    for run, seq, *_ in batch.entries:
        if run not in refused:
            if (run, seq) in places or seq in data.journals.get(run, {}):
                raise StoreError(
                    f"the journal of number {run} already has an entry {seq}; nothing of the batch was "
                    "written. Two writers drove the same, or one batch was written twice: report it as a bug"
                )
            places.add((run, seq))


def _begun(start: NewRun) -> RunRecord:
    return RunRecord(
        num=start.num,
        id=start.id,
        uid=start.uid,
        name=start.name,
        version=start.version,
        status=RunStatus(start.status),
        phase="",
        owner=start.owner,
        wake_at_ns=start.wake_at_ns,
        deadline_at_ns=start.deadline_at_ns,
        paused=False,
        input=start.input,
        output=None,
        error=None,
        reason=None,
        detail=None,
        traceparent=start.traceparent,
        created_at_ns=start.created_at_ns,
        updated_at_ns=start.created_at_ns,
        ended_at_ns=None,
        tags=start.tags,
        restarts=start.restarts,
    )


def _updated(run: RunRecord, update: RunUpdate) -> RunRecord:
    changes = update._asdict() | {"status": RunStatus(update.status), "paused": bool(update.paused)}
    return attrs.evolve(run, **changes)


class MemoryRuns:
    """``Runs`` in memory."""

    def __init__(self, session: MemorySession) -> None:
        self._session = session

    async def find(self, ids: Sequence[str]) -> list[RunRecord]:
        """See ``Runs.find``."""
        data = self._session.data
        return [data.runs[data.nums[id_]] for id_ in dict.fromkeys(ids) if id_ in data.nums]

    async def find_num(self, num: int) -> RunRecord | None:
        """See ``Runs.find_num``."""
        return self._session.data.runs.get(num)

    async def find_nums(self, nums: Sequence[int]) -> list[RunRecord]:
        """See ``Runs.find_nums``."""
        runs = self._session.data.runs
        return [runs[num] for num in dict.fromkeys(nums) if num in runs]

    async def select(self, query: RunQuery) -> list[RunRecord]:
        """See ``Runs.select``."""
        data = self._session.data
        ordered = sorted(data.runs.values(), key=lambda run: run.place, reverse=not query.oldest_first)
        unserved = data.unserved(-1 if query.at_ns is None else query.at_ns)  # nothing is due before the epoch
        found = [run for run in ordered if _matches(run, query, unserved)]
        return found if query.limit is None else found[: query.limit]

    async def count(self, query: RunQuery) -> int:
        """See ``Runs.count``."""
        return len(await self.select(attrs.evolve(query, limit=None, after=None)))

    async def restarts(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """See ``Runs.restarts``."""
        found: dict[str, list[str]] = {}
        for run in sorted(self._session.data.runs.values(), key=lambda run: run.place):
            if run.restarts is not None and run.restarts in ids:
                found.setdefault(run.restarts, []).append(run.id)
        return found

    async def next_wake_ns(self, *, after_ns: int) -> int | None:
        """See ``Runs.next_wake_ns``."""
        return min(
            (
                run.wake_at_ns
                for run in self._session.data.runs.values()
                if run.ended_at_ns is None
                and run.owner is None
                and run.wake_at_ns is not None
                and run.wake_at_ns > after_ns
                and not run.paused
            ),
            default=None,
        )

    async def unbegun_since_ns(self) -> int | None:
        """See ``Runs.unbegun_since_ns``."""
        data = self._session.data
        return min(
            (
                run.created_at_ns
                for run in data.runs.values()
                if run.status is RunStatus.PENDING
                and run.owner is None
                and not run.paused
                and all(entry.kind == EntryKind.NOTED for entry in data.journals.get(run.num, {}).values())
            ),
            default=None,
        )

    async def last_seen_ns(self) -> int | None:
        """See ``Runs.last_seen_ns``."""
        data = self._session.data
        times = [data.runs[num].updated_at_ns for num in list(data.runs)[-1:]]
        if data.order:
            run, seq = data.order[-1]
            times += [entry.at_ns for entry in [data.journals.get(run, {}).get(seq)] if entry is not None]
        return max(times, default=None)


def _matches(run: RunRecord, query: RunQuery, unserved: Callable[[RunRecord], bool]) -> bool:
    return (
        (query.statuses is None or run.status in query.statuses)
        and (query.phases is None or run.phase in query.phases)
        and (query.name is None or run.name == query.name)
        and (query.version is None or run.version == query.version)
        and (query.since_ns is None or run.created_at_ns >= query.since_ns)
        and (query.ended_before_ns is None or (run.ended_at_ns is not None and run.ended_at_ns < query.ended_before_ns))
        and (query.after is None or (run.place > query.after if query.oldest_first else run.place < query.after))
        and (not query.tags or dict(query.tags).items() <= read_tags(run.current_tags).items())
        and (not query.attention or (run.reason is not None and run.ended_at_ns is None) or unserved(run))
    )
