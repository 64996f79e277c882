"""How runs come to workers in memory: claims, signals, and the versions that workers serve."""

from collections import Counter
from collections.abc import Collection

import attrs

from durable_core.errors import StoreError
from durable_core.model.run import RunRecord, RunRef, RunStatus
from durable_core.model.version import Announced, Offer, Tally, news, replaced
from durable_core.ports import Signal
from durable_core.stores.memory.data import MemorySession, may_be_claimed


class MemoryClaims:
    """``Claims`` in memory."""

    def __init__(self, session: MemorySession) -> None:
        self._session = session

    async def claim(
        self, worker: str, served: Collection[tuple[str, int]], *, now_ns: int, limit: int
    ) -> list[RunRecord]:
        """See ``Claims.claim``."""
        data = self._session.data
        signalled = data.signalled()
        due = sorted(
            (run.wake_at_ns, num)
            for num, run in data.runs.items()
            if (run.name, run.version) in served and may_be_claimed(run, signalled, now_ns)
        )
        taken = [data.runs[num].claimed_by(worker) for _, num in due[: max(limit, 0)]]
        data.runs.update({run.num: run for run in taken})
        if taken:
            self._session.committed()
        return taken

    async def release_dead(self) -> int:
        """Free the runs of workers whose store was abandoned; see ``Claims.release_dead``."""
        data, freed = self._session.data, 0
        for worker in data.workers.keys() - data.alive():
            freed += data.release(worker)
            data.remove_worker(worker)
            self._session.committed()
        return freed


class MemorySignals:
    """``Signals`` in memory."""

    def __init__(self, session: MemorySession) -> None:
        self._session = session

    async def send(self, run: int, name: str, payload: bytes, *, now_ns: int, ended: bool = False) -> bool:
        """See ``Signals.send``."""
        data = self._session.data
        record = data.runs.get(run)
        if record is None and any(stone.num == run for stone in data.tombstones.values()):
            return False
        if record is None:
            raise StoreError(
                f"there is nothing of number {run} in the memory store, so the signal {name!r} was not stored",
                "Look its id up first",
            )
        if record.ended_at_ns is not None:
            if not ended:
                return False
            data.runs[run] = _reopened(record, record.owner if record.owner in data.workers else None, now_ns)
        data.last_signal += 1
        data.signals[data.last_signal] = Signal(data.last_signal, run, name, payload, now_ns)
        data.wake_signalled([run])
        self._session.committed()
        return True

    async def waiting(self, runs: Collection[int]) -> list[Signal]:
        """See ``Signals.waiting``."""
        asked = frozenset(runs)
        return [signal for signal in self._session.data.signals.values() if signal.run in asked]


def _reopened(run: RunRecord, owner: str | None, now_ns: int) -> RunRecord:
    """An ended run opened again: with its owner if that worker is alive, else for any worker to claim."""
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


class MemoryVersions:
    """``Versions`` in memory."""

    def __init__(self, session: MemorySession) -> None:
        self._session = session

    async def announce(self, offers: Collection[Offer], *, now_ns: int) -> list[Offer]:
        """See ``Versions.announce``."""
        data, worker = self._session.data, self._session.worker
        if worker is None:
            raise StoreError("the memory store was opened without a worker, so nothing is served", "Open it with one")
        known = await self.announced()
        new = news(known, worker, offers)
        for name, version, fingerprint in new:
            data.serving.setdefault(worker, set()).add((name, version))
            if fingerprint not in {"", data.served.get((name, version), ("",))[0]}:
                data.served[name, version] = fingerprint, now_ns
            data.served.setdefault((name, version), ("", now_ns))
        if new:
            self._session.committed()
        return replaced(known, new)

    async def announced(self) -> list[Announced]:
        """See ``Versions.announced``."""
        data = self._session.data
        return [
            Announced(*pair, *what, tuple(sorted(worker for worker, pairs in data.serving.items() if pair in pairs)))
            for pair, what in sorted(data.served.items())
        ]

    async def unserved(self, *, now_ns: int) -> list[RunRef]:
        """See ``Versions.unserved``."""
        data = self._session.data
        found = filter(data.unserved(now_ns), data.runs.values())
        longest_first = sorted(found, key=lambda run: (run.wake_at_ns, run.num))
        return [RunRef(run.num, run.id, run.name, run.version) for run in longest_first]

    async def tally(self, name: str | None = None) -> list[Tally]:
        """See ``Versions.tally``."""
        runs = [run for run in self._session.data.runs.values() if name in {None, run.name}]
        counted = Counter((run.name, run.version, run.status, run.phase) for run in runs)
        return [Tally(*group, runs=count) for group, count in sorted(counted.items())]
