"""The memory store: the same rules in dicts, for tests and for trying things out. Nothing outlasts the process.

Stores of the same name in one process share their data, so that an engine can be "restarted" on it.

Invariant: the same rules as the SQL of the other stores; the store contract holds them against each other.
"""

from collections import Counter
from collections.abc import Callable

from durable_core.errors import StoreError
from durable_core.model.checkup import GRACE_NS, SHOWN, Checkup, Facts, Finding, Group, Level, WorkerSeen
from durable_core.model.run import OPEN, RunRecord, RunStatus
from durable_core.stores.memory.claims import MemoryClaims, MemorySignals, MemoryVersions
from durable_core.stores.memory.data import MemoryData, MemorySession
from durable_core.stores.memory.journal import MemoryJournal, MemoryRuns
from durable_core.stores.memory.retention import MemoryRetention, MemorySpans


class MemoryStore:
    """A ``Store`` in memory, on ``data``; private if none is given."""

    def __init__(self, data: MemoryData | None = None) -> None:
        self.data = MemoryData() if data is None else data
        self._session = session = MemorySession(self.data)
        self._seen = 0
        self.journal = MemoryJournal(session)
        self.runs = MemoryRuns(session)
        self.claims = MemoryClaims(session)
        self.signals = MemorySignals(session)
        self.versions = MemoryVersions(session)
        self.retention = MemoryRetention(session)
        self.spans = MemorySpans(session)

    @property
    def secret(self) -> bytes:
        """32 random bytes, made with the data."""
        return self.data.secret

    async def open(self, *, worker: str | None) -> None:
        """Register ``worker`` and release the runs of the dead. See ``Store.open``."""
        if self._session.alive:
            raise StoreError("the memory store is open already", "Close it first, or make another one")
        if worker is not None:
            if worker in self.data.alive():
                raise StoreError(
                    f"a worker named {worker!r} already runs on this memory store", "Give this one another name"
                )
            self.data.release(worker)
            self.data.serving.pop(worker, None)
            self.data.workers[worker] = self._session
        self._session.worker = worker
        self._session.alive = True
        await self.claims.release_dead()
        self._seen = self._session.foreign_commits()

    async def close(self) -> None:
        """Free this worker's runs and forget it. Safe to call twice."""
        if self._session.alive and self._session.worker is not None:
            self.data.release(self._session.worker)
            self.data.remove_worker(self._session.worker)
            self._session.committed()
        self._session.alive = False

    def crash(self) -> None:
        """For tests: end as a crash would. Nothing is released, and the worker is found dead."""
        self._session.alive = False

    async def rejoin(self, worker: str) -> None:
        """See ``Store.rejoin``; without leases only a test asks for it."""
        await self.close()
        await self.open(worker=worker)

    def lease_is_safe(self) -> bool:
        """Always: this store has no leases."""
        return True

    def ahead_ns(self) -> int:
        """Nothing: this store has no clock of its own."""
        return 0

    def on_change(self, call: Callable[[], None]) -> None:
        """Never calls back: polling ``changed`` costs less here."""

    async def changed(self) -> bool:
        """Whether another store on this data has committed since the last call."""
        foreign = self._session.foreign_commits()
        changed, self._seen = foreign != self._seen, foreign
        return changed

    async def check_up(self, *, now_ns: int, deep: bool) -> Checkup:  # noqa: ARG002 - the port's
        """See ``Store.check_up``."""
        findings = (Finding("file", Level.OK, "a store in memory: nothing outlasts the process"),)
        return Checkup(findings, _facts(self.data, now_ns))


def _facts(data: MemoryData, now_ns: int) -> Facts:
    """How the runs stand."""
    runs = [run for _, run in sorted(data.runs.items())]
    open_runs = [run for run in runs if run.ended_at_ns is None]
    served = {version for name in data.alive() for version in data.serving.get(name, ())}
    due = [run for run in open_runs if _is_due(run, now_ns)]
    longest = min(due, key=lambda run: (_due_since_ns(run), run.num), default=None)
    journal = [entry for entries in data.journals.values() for entry in entries.values()]
    times = [run.updated_at_ns for run in runs] + [entry.at_ns for entry in journal]
    late = [run for run in open_runs if run.status is not RunStatus.STUCK and not run.phase]
    rows = (len(runs), len(journal), len(data.signals), len(data.tombstones), len(data.workers), len(data.served))
    return Facts(
        statuses={status.value: 0 for status in sorted(OPEN)} | Counter(run.status.value for run in open_runs),
        rows=dict(zip(("runs", "journal", "signals", "tombstones", "workers", "served"), rows, strict=True)),
        unswept=len(data.unswept),
        oldest_end_ns=min((run.ended_at_ns for run in runs if run.ended_at_ns is not None), default=None),
        newest_at_ns=max(times, default=None),
        workers=tuple(WorkerSeen(name, 0, "", 0, alive=session.alive) for name, session in data.workers.items()),
        stuck=_group([run for run in open_runs if run.status is RunStatus.STUCK]),
        runnable=None if longest is None else (longest.id, _due_since_ns(longest)),
        overdue=_group([run for run in due if _is_due(run, now_ns - GRACE_NS)]),
        past_deadline=_group(
            [run for run in late if run.deadline_at_ns is not None and run.deadline_at_ns <= now_ns - GRACE_NS]
        ),
        paused=_group([run for run in open_runs if run.paused]),
        unserved=Counter((run.name, run.version) for run in open_runs if (run.name, run.version) not in served),
    )


def _is_due(run: RunRecord, now_ns: int) -> bool:
    return (
        run.owner is None
        and not run.paused
        and run.status is not RunStatus.STUCK
        and run.wake_at_ns is not None
        and _due_since_ns(run) <= now_ns
    )


def _due_since_ns(run: RunRecord) -> int:
    """A wake of 0 says "at once", so it is due since it was written."""
    return max(run.wake_at_ns or 0, run.updated_at_ns)


def _group(runs: list[RunRecord]) -> Group:
    return Group(len(runs), tuple(run.id for run in runs[:SHOWN]))
