"""The memory store: the same rules in dicts, for tests and for trying things out. Nothing outlasts the process.

Stores of the same name in one process share their data, so that an engine can be "restarted" on it.
"""

import asyncio
import secrets  # noqa: TID251 - new data draw their secret once, as a new file does
from collections.abc import Callable, Collection, Mapping, Sequence

import attrs

from durable_core.errors import StoreError
from durable_core.model.entry import Entry
from durable_core.model.run import NewRun, RunQuery, RunRecord, RunRef, RunStatus, RunUpdate
from durable_core.model.tombstone import Tombstone
from durable_core.model.version import Announced, Offer, Tally, news, replaced
from durable_core.ports import Batch, Signal
from durable_core.stores import memory_versions
from durable_core.stores.local import Local
from durable_core.stores.memory_checkup import Examined
from durable_core.stores.memory_purge import Purging
from durable_core.stores.memory_spans import Owing


@attrs.define
class MemoryData:
    """What stores of one name share."""

    runs: dict[int, RunRecord] = attrs.field(factory=dict[int, RunRecord])
    nums: dict[str, int] = attrs.field(factory=dict[str, int])
    journals: dict[int, dict[int, Entry]] = attrs.field(factory=dict[int, dict[int, Entry]])
    """Entries by ``seq``, by run."""
    served: dict[tuple[str, int], tuple[str, int]] = attrs.field(factory=dict[tuple[str, int], tuple[str, int]])
    """Fingerprint, and when it was announced first, by name and version."""
    serving: dict[str, set[tuple[str, int]]] = attrs.field(factory=dict[str, set[tuple[str, int]]])
    """What each announced worker serves."""
    tombstones: dict[str, Tombstone] = attrs.field(factory=dict[str, Tombstone])
    unswept: set[int] = attrs.field(factory=set[int])
    """Numbers of purged runs whose journals are left to remove."""
    order: list[tuple[int, int]] = attrs.field(factory=list[tuple[int, int]])
    """Run and ``seq`` of every entry, in the order of the commits: its position is its place here, from 1."""
    traced: dict[str, int] = attrs.field(factory=dict[str, int])
    payers: dict[str, str] = attrs.field(factory=dict[str, str])
    signals: dict[int, Signal] = attrs.field(factory=dict[int, Signal])
    workers: dict[str, "MemoryStore"] = attrs.field(factory=dict[str, "MemoryStore"])
    """Every announced worker with its store, which says whether it still lives."""
    secret: bytes = attrs.field(factory=lambda: secrets.token_bytes(32), repr=False)
    last_num: int = 0
    last_signal: int = 0
    commits: int = 0


_shared: dict[str, MemoryData] = {}


def shared(name: str) -> MemoryData:
    """The data of the stores called ``name`` in this process, made at the first call."""
    return _shared.setdefault(name, MemoryData())


class MemoryStore(Local, Purging, Owing, Examined):
    """A ``Store`` in memory, on ``data``; private where none is given."""

    def __init__(self, data: MemoryData | None = None) -> None:
        self.data = MemoryData() if data is None else data
        self._worker: str | None = None
        self._open = False
        self._seen = 0
        self._own = 0

    @property
    def secret(self) -> bytes:
        """32 random bytes, made with the data."""
        return self.data.secret

    @property
    def alive(self) -> bool:
        """Whether this store is open, and so its worker alive."""
        return self._open

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError("the memory store is not open; await open() first, and use it before close()")

    async def open(self, *, worker: str | None) -> None:
        """Announce ``worker`` and release the runs of the dead. See ``Store.open``."""
        if self._open:
            raise StoreError("the memory store is open already; close it first, or make another one")
        if worker is not None:
            other = self.data.workers.get(worker)
            if other is not None and other.alive:
                raise StoreError(
                    f"a worker named {worker!r} already runs on this memory store; give this one another name"
                )
            self._release(worker)
            self.data.serving.pop(worker, None)
            self.data.workers[worker] = self
        self._open = True
        self._worker = worker
        await self.release_dead()
        self._seen = self.data.commits - self._own

    async def close(self) -> None:
        """Free this worker's runs and forget it. Safe to call twice."""
        if self._open and self._worker is not None:
            self._release(self._worker)
            self._forget(self._worker)
            self._committed()
        self._open = False

    def crash(self) -> None:
        """For tests: end as a crash would. Nothing is released, and the worker is found dead."""
        self._open = False

    def next_num(self) -> int:
        """A run number that no other store on this data hands out."""
        self._check_open()
        self.data.last_num += 1
        return self.data.last_num

    async def commit(self, batch: Batch) -> frozenset[int]:
        """Write ``batch``: see ``Store.commit``. Lets other tasks run once, as a disk would."""
        self._check_open()
        await asyncio.sleep(0)
        self._check_open()
        batch, overtaken = batch.yielding(
            {signal.run for signal in self.data.signals.values() if signal.num not in batch.consumed}
        )
        refused = self._refused(batch.starts)
        updates = {num: update for num, update in batch.updates.items() if num not in refused}
        self._check(batch, refused, updates)  # everything is checked before anything is written
        for start in batch.starts:
            if start.num not in refused:
                self.data.runs[start.num] = _begun(start)
                self.data.nums[start.id] = start.num
        for entry in batch.entries:
            if entry.run not in refused:
                self.data.journals.setdefault(entry.run, {})[entry.seq] = entry
                self.data.order.append((entry.run, entry.seq))
        for num in batch.consumed:
            self.data.signals.pop(num, None)
        for num, update in updates.items():
            self.data.runs[num] = _updated(self.data.runs[num], update)
        self._wake_signalled(updates)
        self._committed()
        return refused | overtaken

    def _refused(self, starts: Sequence[NewRun]) -> frozenset[int]:
        ids = {start.id for start in starts if start.id in self.data.nums or start.id in self.data.tombstones}
        refused: set[int] = set()
        for start in starts:
            if start.id in ids:
                refused.add(start.num)
            ids.add(start.id)
        return frozenset(refused)

    def _check(self, batch: Batch, refused: frozenset[int], updates: Mapping[int, RunUpdate]) -> None:
        begun: set[int] = set()
        for start in batch.starts:
            if start.num not in refused:
                if start.num in self.data.runs or start.num in begun:
                    raise StoreError(
                        f"the run number {start.num} is taken; nothing of the batch was written. Report it as a bug"
                    )
                begun.add(start.num)
        unknown = [num for num in updates if num not in self.data.runs and num not in begun]
        if unknown:
            raise StoreError(
                f"a batch of {len(batch)} rows updates runs that the memory store does not hold (numbers {unknown}); "
                "nothing of it was written. Report it as a bug"
            )
        places: set[tuple[int, int]] = set()
        for run, seq, *_ in batch.entries:
            if run not in refused:
                if (run, seq) in places or seq in self.data.journals.get(run, {}):
                    raise StoreError(
                        f"the journal of run number {run} already has an entry {seq}; nothing of the batch was "
                        "written. Two writers drove one run, or one batch was written twice: report it as a bug"
                    )
                places.add((run, seq))

    def _wake_signalled(self, nums: Collection[int]) -> None:
        """Make due those of ``nums`` for which a signal waits while nobody owns them."""
        if self.data.signals:
            for num in {signal.run for signal in self.data.signals.values()}.intersection(nums):
                run = self.data.runs[num]
                if run.owner is None and run.ended_at_ns is None:
                    status = RunStatus.PENDING if run.status is RunStatus.STUCK else run.status
                    self.data.runs[num] = attrs.evolve(run, wake_at_ns=0, status=status)

    def _committed(self) -> None:
        self.data.commits += 1
        self._own += 1

    async def claim(
        self, worker: str, served: Collection[tuple[str, int]], *, now_ns: int, limit: int
    ) -> list[RunRecord]:
        """Take due runs; see ``Store.claim``."""
        self._check_open()
        signalled = {signal.run for signal in self.data.signals.values()}
        due = [
            (run.wake_at_ns, num)
            for num, run in self.data.runs.items()
            if (run.name, run.version) in served and memory_versions.due(run, signalled, now_ns)
        ]
        taken: list[RunRecord] = []
        for _, num in sorted(due)[: max(limit, 0)]:
            run = self.data.runs[num].claimed_by(worker)
            self.data.runs[num] = run
            taken.append(run)
        if taken:
            self._committed()
        return taken

    async def release_dead(self) -> int:
        """Free the runs of workers whose store was abandoned; see ``Store.release_dead``."""
        self._check_open()
        freed = 0
        for worker in [name for name, store in self.data.workers.items() if not store.alive]:
            freed += self._release(worker)
            self._forget(worker)
            self._committed()
        return freed

    def _forget(self, worker: str) -> None:
        del self.data.workers[worker]
        self.data.serving.pop(worker, None)

    def _release(self, worker: str) -> int:
        owned = [run for run in self.data.runs.values() if run.owner == worker and run.ended_at_ns is None]
        for run in owned:
            wake_at_ns = run.wake_at_ns if run.status is RunStatus.STUCK else 0
            self.data.runs[run.num] = attrs.evolve(run, owner=None, wake_at_ns=wake_at_ns)
        self._wake_signalled([run.num for run in owned])
        return len(owned)

    async def next_wake_ns(self, *, after_ns: int) -> int | None:
        """When the next unowned open run that is not paused falls due; see ``Store.next_wake_ns``."""
        self._check_open()
        return min(
            (
                run.wake_at_ns
                for run in self.data.runs.values()
                if run.ended_at_ns is None
                and run.owner is None
                and run.wake_at_ns is not None
                and run.wake_at_ns > after_ns
                and not run.paused
            ),
            default=None,
        )

    async def load(self, nums: Sequence[int]) -> dict[int, list[Entry]]:
        """The journals of these runs; see ``Store.load``."""
        self._check_open()
        return {num: [entry for _, entry in sorted(self.data.journals.get(num, {}).items())] for num in nums}

    async def announce(self, offers: Collection[Offer], *, now_ns: int) -> list[Offer]:
        """Note what this worker serves; see ``Store.announce``."""
        self._check_open()
        if self._worker is None:
            raise StoreError("the memory store was opened without a worker, so nothing is served; open it with one")
        known = await self.announced()
        new = news(known, self._worker, offers)
        for name, version, fingerprint in new:
            self.data.serving.setdefault(self._worker, set()).add((name, version))
            if fingerprint not in {"", self.data.served.get((name, version), ("",))[0]}:
                self.data.served[name, version] = fingerprint, now_ns
            self.data.served.setdefault((name, version), ("", now_ns))
        if new:
            self._committed()
        return replaced(known, new)

    async def announced(self) -> list[Announced]:
        """What any worker has announced; see ``Store.announced``."""
        self._check_open()
        return memory_versions.announced(self.data.served, self.data.serving)

    async def unserved(self, *, now_ns: int) -> list[RunRef]:
        """The runs that wait in vain; see ``Store.unserved``."""
        self._check_open()
        found = sorted(
            filter(self._in_vain(now_ns), self.data.runs.values()), key=lambda run: (run.wake_at_ns, run.num)
        )
        return [RunRef(run.num, run.id, run.name, run.version) for run in found]

    def _in_vain(self, now_ns: int) -> Callable[[RunRecord], bool]:
        served = set[tuple[str, int]]().union(*self.data.serving.values())
        signalled = {signal.run for signal in self.data.signals.values()}
        return lambda run: (run.name, run.version) not in served and memory_versions.due(run, signalled, now_ns)

    async def tally(self, name: str | None = None) -> list[Tally]:
        """How many runs stand how, by version; see ``Store.tally``."""
        self._check_open()
        return memory_versions.tally(run for run in self.data.runs.values() if name in {None, run.name})

    async def find(self, ids: Sequence[str]) -> list[RunRecord]:
        """The runs of these ids; see ``Store.find``."""
        self._check_open()
        return [self.data.runs[self.data.nums[id_]] for id_ in dict.fromkeys(ids) if id_ in self.data.nums]

    async def find_num(self, num: int) -> RunRecord | None:
        """The run of this number; see ``Store.find_num``."""
        self._check_open()
        return self.data.runs.get(num)

    async def select(self, query: RunQuery) -> list[RunRecord]:
        """The runs that ``query`` describes; see ``Store.select``."""
        self._check_open()
        newest_first = sorted(self.data.runs.values(), key=lambda run: run.num, reverse=True)
        in_vain = self._in_vain(-1 if query.at_ns is None else query.at_ns)  # nothing is due before the epoch
        found = [run for run in newest_first if _described(run, query, in_vain)]
        return found if query.limit is None else found[: query.limit]

    async def count(self, query: RunQuery) -> int:
        """How many runs ``query`` describes; see ``Store.count``."""
        return len(await self.select(attrs.evolve(query, limit=None)))

    async def signal(
        self,
        run: int,
        name: str,
        payload: bytes,
        *,
        now_ns: int,
        ended: bool = False,
    ) -> bool:
        """Leave a signal for ``run``; see ``Store.signal``."""
        self._check_open()
        if run not in self.data.runs and self._is_buried(run):
            return False
        if run not in self.data.runs:
            raise StoreError(
                f"there is no run of number {run} in the memory store, so the signal {name!r} was not stored; "
                "look the run up by its id first"
            )
        if self.data.runs[run].ended_at_ns is not None and not ended:
            return False
        if self.data.runs[run].ended_at_ns is not None:
            self.data.runs[run] = self._reopened(self.data.runs[run], now_ns)
        self.data.last_signal += 1
        self.data.signals[self.data.last_signal] = Signal(self.data.last_signal, run, name, payload, now_ns)
        self._wake_signalled([run])
        self._committed()
        return True

    def _reopened(self, run: RunRecord, now_ns: int) -> RunRecord:
        """An ended run opened again: with its owner where that lives, else for whoever claims it."""
        owner = run.owner if run.owner in self.data.workers else None
        return attrs.evolve(
            run,
            status=RunStatus.PENDING,
            owner=owner,
            wake_at_ns=0 if owner is None else None,
            paused=False,
            output=None,
            error=None,
            reason=None,
            updated_at_ns=now_ns,
            ended_at_ns=None,
        )

    async def signals(self, runs: Collection[int]) -> list[Signal]:
        """The signals that wait for these runs; see ``Store.signals``."""
        self._check_open()
        asked = frozenset(runs)
        return [signal for signal in self.data.signals.values() if signal.run in asked]

    async def changed(self) -> bool:
        """Whether another store on this data has committed since the last call."""
        self._check_open()
        foreign = self.data.commits - self._own
        changed, self._seen = foreign != self._seen, foreign
        return changed


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
        parent=start.parent,
        traceparent=start.traceparent,
        created_at_ns=start.created_at_ns,
        updated_at_ns=start.created_at_ns,
        ended_at_ns=None,
    )


def _updated(run: RunRecord, update: RunUpdate) -> RunRecord:
    changes = update._asdict() | {"status": RunStatus(update.status), "paused": bool(update.paused)}
    return attrs.evolve(run, **changes)


def _described(run: RunRecord, query: RunQuery, in_vain: Callable[[RunRecord], bool]) -> bool:
    return (
        (query.statuses is None or run.status in query.statuses)
        and (query.phases is None or run.phase in query.phases)
        and (query.name is None or run.name == query.name)
        and (query.version is None or run.version == query.version)
        and (query.since_ns is None or run.created_at_ns >= query.since_ns)
        and (query.ended_before_ns is None or (run.ended_at_ns is not None and run.ended_at_ns < query.ended_before_ns))
        and (query.before_num is None or run.num < query.before_num)
        and (not query.attention or (run.reason is not None and run.ended_at_ns is None) or in_vain(run))
        and (query.parent is None or run.parent == query.parent)
    )
