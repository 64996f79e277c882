"""What a process does with the runs of its store: a worker drives them, an observer only starts and reads them.

Invariant: once a worker's lease is known to be lost, nothing is written or begun under the lost name.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from durable_core.engine.clock import follow_store, go_on_from
from durable_core.engine.loader import Loader
from durable_core.engine.registry import VersionAnnouncer
from durable_core.engine.retention import Housekeeper
from durable_core.engine.watch import UnservedWatch
from durable_core.engine.worker import Worker
from durable_core.engine.writer import FIRST_PAUSE_S, LONGEST_PAUSE_S, Writer
from durable_core.errors import LeaseLost, StoreError
from durable_core.model.entry import Entry
from durable_core.model.run import RunRecord
from durable_core.ports import Clock, Store, check_cancelled
from durable_core.replay.run import Run

if TYPE_CHECKING:
    from durable_core.tracing.exporter import Exporter

log = logging.getLogger("durable_core")

TAKEN_UP_S = 5.0
"""How long a call that has left a signal waits for this process to take it up; the signal is durable before."""
FIRST_LOOK_S = 0.05
"""When such a call looks for the first time whether another worker has taken it up."""
DYING_S = 10.0
"""How long the next worker waits for calls of a dead one that do not end."""
SPANS_S = 5.0
"""How long leaving waits for spans to be exported; the next process exports the rest."""


class ObserverProcess:
    """Drives no runs: it only starts them and reads them. Also what an engine is before it is entered."""

    owner: str | None = None
    """The name of this process's worker."""
    starter: Worker | None = None
    """The worker that drives a new run at once; None: whichever worker claims it."""
    exporter: "Exporter | None" = None
    """Follows the journal and exports spans."""
    busy = False
    """Whether it drives, claims, looks for unserved runs or purges just now."""
    runs: Mapping[int, Run] = MappingProxyType({})
    """The runs in memory, by number."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        """Set when something may have become due."""

    async def enter(self) -> None:
        """Begin the chores of a worker: it has none."""

    def stop(self) -> None:
        """Start nothing new from here on: it never does."""

    async def close(self, *, grace_s: float) -> None:
        """Let attempts under way end for ``grace_s``, and give every run back."""

    async def close_exporter(self) -> None:
        """Export what can be exported in a short time."""

    def under_way(self) -> int:
        """Attempts that have been called and have not ended."""
        return 0

    def on_threads(self) -> int:
        """Those of them that are on a thread, or wait for one."""
        return 0

    def driving(self, num: int) -> Run | None:  # noqa: ARG002 - it drives none
        """The run of this number, if this process drives it and is not about to leave."""
        return None

    def serves(self, record: RunRecord) -> bool:  # noqa: ARG002
        """Whether this process drives runs of that function and version."""
        return False

    async def announce(self) -> None:
        """Announce functions that were registered since the last time; durable on return."""

    def expect_unserved(self) -> None:
        """A run was written here that perhaps no worker serves: the store reports only changes of other processes."""

    async def take_up(self, record: RunRecord, name: str) -> None:
        """Take up a signal that was left in the store; returns once it is taken up, or after ``TAKEN_UP_S``."""

    async def release_dead(self) -> None:
        """Release the runs of workers that have died."""

    def looking(self) -> None:
        """A look at the store begins, for whatever ``woken`` was set."""
        self.woken.clear()

    async def look(self, *, changed: bool) -> None:
        """Announce new functions, claim runs that are due, look for unserved ones. ``changed``: the store has."""

    async def lease_lost(self, lost: LeaseLost) -> None:
        """It has no lease."""

    def die(self) -> None:
        """For tests: end its worker as the death of the process would; it has none."""

    def reborn(self) -> bool:
        """Whether the next worker was opened since the last call: what ended before it was not announced here."""
        return False


class WorkerProcess:
    """Drives runs, and does the chores of a worker: announcements, spans, purging, the search for unserved runs."""

    def __init__(
        self,
        worker: Worker,
        writer: Writer,
        announcer: VersionAnnouncer,
        *,
        unserved: UnservedWatch,
        housekeeper: Housekeeper,
        new_name: Callable[[], str],
        new_exporter: Callable[[], Awaitable["Exporter | None"]],
    ) -> None:
        self.worker = worker
        self.woken = worker.poked
        self.exporter: Exporter | None = None
        self._store: Store = worker.store
        self._clock: Clock = worker.clock
        self._writer = writer
        self._loader = Loader(worker)
        self._announcer = announcer
        self._unserved = unserved
        self._housekeeper = housekeeper
        self._new_name = new_name
        self._new_exporter = new_exporter
        self._rejoining = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        """Opens the next worker, after this one has died for a test."""
        self._reborn = False
        writer.owner = self

    async def enter(self) -> None:
        """Begin to export spans and to purge; runs are claimed by ``look``."""
        self._housekeeper.start()
        self.exporter = await self._new_exporter()

    def stop(self) -> None:
        """Start nothing new from here on."""
        self.worker.stop()

    async def close(self, *, grace_s: float) -> None:
        """Let attempts under way end for ``grace_s``, and give every run back."""
        await self._housekeeper.close()
        self._unserved.close()
        if self._next is not None:
            await asyncio.wait([self._next])
        await self.worker.close(grace_s=grace_s)

    async def close_exporter(self) -> None:
        """Export what can be exported in a short time."""
        if self.exporter is not None:
            await self.exporter.close(within_s=SPANS_S)

    # -- what an engine asks (as of an observer) -------------------------------------------------------------------

    @property
    def owner(self) -> str | None:
        """The name of this process's worker."""
        return self.worker.worker

    @property
    def starter(self) -> Worker | None:
        """The worker that drives a new run at once; None while it leaves."""
        return None if self.worker.leaving else self.worker

    @property
    def busy(self) -> bool:
        """Whether it drives, claims, looks for unserved runs or purges just now."""
        return self.worker.working or self._unserved.busy or self._housekeeper.working or self._next is not None

    @property
    def runs(self) -> Mapping[int, Run]:
        """The runs in memory, by number."""
        return self.worker.runs

    def under_way(self) -> int:
        """Attempts that have been called and have not ended."""
        return self.worker.in_flight()

    def on_threads(self) -> int:
        """Those of them that are on a thread, or wait for one."""
        return len(self.worker.executor.waiting)

    def driving(self, num: int) -> Run | None:
        """The run of this number, if this process drives it and is not about to leave."""
        run = self.worker.runs.get(num)
        return None if run is None or run.dead or self.worker.leaving else run

    def serves(self, record: RunRecord) -> bool:
        """Whether this process drives runs of that function and version."""
        return (record.name, record.version) in self.worker.registry.served()

    async def announce(self) -> None:
        """Announce functions that were registered since the last time; durable on return."""
        await self._announcer.announce()

    def expect_unserved(self) -> None:
        """A run was written here that perhaps no worker serves: the store reports only changes of other processes."""
        self._unserved.notify()

    async def take_up(self, record: RunRecord, name: str) -> None:
        """Take up a signal that was left in the store; returns once it is taken up, or after ``TAKEN_UP_S``."""
        if not self.serves(record) or self.worker.leaving:
            return
        self._loader.signalled(record.num, name)
        loop = asyncio.get_running_loop()
        until = loop.time() + TAKEN_UP_S
        patience_s = FIRST_LOOK_S
        while loop.time() < until and await self._store.signals.waiting([record.num]):
            if self.worker.lingering.is_awaited(record.num):
                return  # it is taken up once the attempts under way have returned, however long that takes
            current = await self._store.runs.find_num(record.num)
            if current is None or current.owner not in (None, self.owner):
                return  # the worker that owns it will take it up
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._loader.taken(record.num)
            patience_s *= 2  # many calls may wait at once, and their questions slow down the worker they wait for

    # -- what the poller asks --------------------------------------------------------------------------------------

    async def release_dead(self) -> None:
        """Release the runs of workers that have died."""
        if await self._store.claims.release_dead():
            self.woken.set()
        await follow_others(self._clock, self._store)

    def looking(self) -> None:
        """A look at the store begins; ``woken`` is cleared by the worker, before it claims."""

    async def look(self, *, changed: bool) -> None:
        """Announce new functions, claim runs that are due, look for unserved ones. ``changed``: the store has."""
        if self._next is not None:
            await asyncio.wait([self._next])  # nothing is claimed between two workers
            return
        if changed or self.woken.is_set():
            self._unserved.notify()
        await self._announcer.announce()
        await self._loader.look(changed=changed)
        await self._unserved.look()

    # -- what the writer reports (RunOwner) ------------------------------------------------------------------------

    def refused(self, num: int, error: StoreError) -> None:
        """The store refuses this run's rows for good."""
        self.worker.refused(num, error)

    def overtaken(self, num: int, lost: Sequence[Entry]) -> None:
        """These entries were not written, because a signal for the run came first."""
        self.worker.overtaken(num, lost)

    async def lease_lost(self, lost: LeaseLost) -> None:
        """Drop all runs and continue under a new name; a loss that was handled already is ignored."""
        async with self._rejoining:
            if lost.worker != self.owner:
                return
            log.error("%s", lost)
            name = self._new_name()
            self.worker.disown(name)
            self._writer.drop(lost)
            self._writer.hold()  # no entry is written under the new name before its spans have an exporter
            try:
                await _until_done(name, lambda: self._store.rejoin(name))
                await _until_done(name, self._renew)
            finally:
                self._writer.go_on()
            log.warning("worker %s continues as %s", lost.worker, name)
            self.woken.set()

    # -- for tests -------------------------------------------------------------------------------------------------

    def die(self) -> None:
        """End this worker as the death of its process would: nothing more is written, and attempts are cut.

        The next one is opened at once, under a new name. What an attempt returns after this is ignored.
        """
        if self._next is not None:
            return
        died = LeaseLost(f"worker {self.owner} has died because a test asked for it", worker=self.owner or "")
        name = self._new_name()
        under_way = self.worker.die(name)
        self._writer.die(died)
        self._next = asyncio.get_running_loop().create_task(self._open_next(name, under_way))

    async def _open_next(self, name: str, under_way: Sequence["asyncio.Future[Any]"]) -> None:
        """Open the next worker, once nothing of the last one runs on: the end of a process stops its threads too."""
        try:
            async with self._rejoining:
                if under_way:
                    await asyncio.wait(under_way, timeout=DYING_S)
                await _until_done(name, lambda: self._store.rejoin(name))
                await _until_done(name, self._renew)
        finally:
            self._next, self._reborn = None, True
            self._writer.go_on()
            self.woken.set()

    def reborn(self) -> bool:
        """Whether the next worker was opened since the last call: what ended before it was not announced here."""
        reborn, self._reborn = self._reborn, False
        return reborn

    async def _renew(self) -> None:
        """Announce everything again under the new name, and export the spans of its entries."""
        self.worker.registry.renew()
        if self.exporter is not None:
            await self.exporter.close(within_s=0)  # a living worker takes over the spans of the lost name
            self.exporter = await self._new_exporter()


async def _until_done(name: str, step: Callable[[], Awaitable[None]]) -> None:
    pause_s = FIRST_PAUSE_S
    while True:
        check_cancelled()
        try:
            await step()
        except StoreError as error:
            if not error.logged:
                log.warning("worker %s could not be announced; trying again: %s", name, error)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        else:
            return


async def follow_others(clock: Clock, store: Store) -> None:
    """Let time continue from the last one in the store: the clock may have been set back meanwhile."""
    follow_store(clock, store)
    go_on_from(clock, await store.runs.last_seen_ns())
