"""What stores in memory share, and one store's session on it."""

import secrets  # noqa: TID251 - new data draw their secret once, as a new file does
from collections.abc import Callable, Collection

import attrs

from durable_core.errors import StoreError
from durable_core.model.entry import Entry
from durable_core.model.run import RunRecord, RunStatus
from durable_core.model.tombstone import Tombstone
from durable_core.ports import Signal

Version = tuple[str, int]
"""A function's name and version."""


@attrs.define
class Cursor:
    """How far a worker's entries have been exported."""

    pos: int
    exporter: str | None = None
    """The worker that has taken over the cursor of a dead one."""


@attrs.define
class MemoryData:
    """What stores of one name share."""

    runs: dict[int, RunRecord] = attrs.field(factory=dict[int, RunRecord])
    nums: dict[str, int] = attrs.field(factory=dict[str, int])
    journals: dict[int, dict[int, Entry]] = attrs.field(factory=dict[int, dict[int, Entry]])
    """Entries by ``seq``, by run."""
    served: dict[Version, tuple[str, int]] = attrs.field(factory=dict[Version, tuple[str, int]])
    """Fingerprint, and when it was announced first, by name and version."""
    serving: dict[str, set[Version]] = attrs.field(factory=dict[str, set[Version]])
    """What each registered worker serves."""
    tombstones: dict[str, Tombstone] = attrs.field(factory=dict[str, Tombstone])
    unswept: set[int] = attrs.field(factory=set[int])
    """Numbers of purged runs whose journals are left to remove."""
    order: list[tuple[int, int]] = attrs.field(factory=list[tuple[int, int]])
    """Run and ``seq`` of every entry, in the order of the commits: its position is its place here, from 1."""
    cursors: dict[str, Cursor] = attrs.field(factory=dict[str, Cursor])
    """By worker."""
    signals: dict[int, Signal] = attrs.field(factory=dict[int, Signal])
    workers: dict[str, "MemorySession"] = attrs.field(factory=dict[str, "MemorySession"])
    """Every registered worker with its session, which says whether it is still alive."""
    secret: bytes = attrs.field(factory=lambda: secrets.token_bytes(32), repr=False)
    last_num: int = 0
    last_signal: int = 0
    commits: int = 0

    def last_seq(self, num: int) -> int:
        """The last entry of a run's journal; 0 if there is none."""
        return max(self.journals.get(num, ()), default=0)

    def signalled(self) -> set[int]:
        """The runs for which a signal waits."""
        return {signal.run for signal in self.signals.values()}

    def alive(self) -> set[str]:
        """The workers that are alive."""
        return {name for name, session in self.workers.items() if session.alive}

    def wake_signalled(self, nums: Collection[int]) -> None:
        """Make due those of ``nums`` for which a signal waits while nobody owns them."""
        for num in self.signalled().intersection(nums) if self.signals else ():
            run = self.runs[num]
            if run.owner is None and run.ended_at_ns is None:
                status = RunStatus.PENDING if run.status is RunStatus.STUCK else run.status
                self.runs[num] = attrs.evolve(run, wake_at_ns=0, status=status)

    def release(self, worker: str) -> int:
        """Free the open runs of ``worker``; return how many."""
        owned = [run for run in self.runs.values() if run.owner == worker and run.ended_at_ns is None]
        for run in owned:
            wake_at_ns = run.wake_at_ns if run.status is RunStatus.STUCK else 0
            self.runs[run.num] = attrs.evolve(run, owner=None, wake_at_ns=wake_at_ns)
        self.wake_signalled([run.num for run in owned])
        return len(owned)

    def remove_worker(self, worker: str) -> None:
        """Forget ``worker`` and what it served."""
        del self.workers[worker]
        self.serving.pop(worker, None)

    def unserved(self, now_ns: int) -> Callable[[RunRecord], bool]:
        """Tells whether a run is due and no worker serves it."""
        served, signalled = set[Version]().union(*self.serving.values()), self.signalled()
        return lambda run: (run.name, run.version) not in served and may_be_claimed(run, signalled, now_ns)


_shared: dict[str, MemoryData] = {}


def shared(name: str) -> MemoryData:
    """The data of the stores called ``name`` in this process, made at the first call."""
    return _shared.setdefault(name, MemoryData())


class MemorySession:
    """One store's use of the data, from ``open`` to ``close``."""

    def __init__(self, shared_data: MemoryData) -> None:
        self.shared_data = shared_data
        self.alive = False
        """Whether the store is open, and so its worker alive."""
        self.worker: str | None = None
        self.own_commits = 0

    @property
    def data(self) -> MemoryData:
        """The data; raises ``StoreError`` unless the store is open."""
        if not self.alive:
            raise StoreError("the memory store is not open", "Await open() first, and use it before close()")
        return self.shared_data

    def committed(self) -> None:
        """Count a commit, so that other stores notice it."""
        self.shared_data.commits += 1
        self.own_commits += 1

    def foreign_commits(self) -> int:
        """How many commits other stores have made."""
        return self.data.commits - self.own_commits


def may_be_claimed(run: RunRecord, signalled: Collection[int], now_ns: int) -> bool:
    """Whether a worker that serves its version may claim ``run``."""
    return (
        run.ended_at_ns is None
        and run.owner is None
        and (not run.paused or run.num in signalled)
        and run.wake_at_ns is not None
        and run.wake_at_ns <= now_ns
    )
