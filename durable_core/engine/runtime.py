"""The composition root: a store, a writer and a worker on the running event loop, from entry to exit.

Invariant: on exit nothing is under way any more, and whoever still waits for a run is told so.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from durable_core.engine.announcing import Rewritten, VersionAnnouncer, warn
from durable_core.engine.attention import Attention
from durable_core.engine.changes import ChangeListener
from durable_core.engine.clock import SystemClock, SystemIds, follow_store, go_on_from
from durable_core.engine.health import Pulse, Pulsometer
from durable_core.engine.home import Home
from durable_core.engine.loader import Loader
from durable_core.engine.registry import Registry
from durable_core.engine.rejoin import Rejoin
from durable_core.engine.retention import Housekeeper
from durable_core.engine.settings import Settings
from durable_core.engine.unserved import UnservedWatch
from durable_core.engine.waiters import RunOutcome, Waiters
from durable_core.engine.worker import Worker
from durable_core.engine.writer import Writer
from durable_core.errors import LeaseLost, RunNotFound, StoreError
from durable_core.model.codec import Codec
from durable_core.model.entry import Entry
from durable_core.model.run import ENDS, RunStatus
from durable_core.model.spec import DurableFunction
from durable_core.model.texts import is_text
from durable_core.model.worker import worker_name
from durable_core.ports import Clock, Ids, Store
from durable_core.replay.cursor import End
from durable_core.replay.run import Run
from durable_core.stores import open_store

if TYPE_CHECKING:
    from durable_core.tracing.exporter import Exporter
    from durable_core.tracing.wiring import Tracing

log = logging.getLogger("durable_core")

POLL_S = 0.05
"""How often to ask the store whether another process has written."""
SPANS_S = 5.0
"""How long leaving waits for spans to be taken; what is left then is owed, and sent by the next process."""
BURIAL_S = 1.0
"""How often to look for workers that have died."""
FLUSH_S = 1.0
"""How long leaving waits at least for what is queued to be written, however short its grace."""


class Runtime:
    """Durable functions on one store.

    Args:
        url: ``sqlite:///file.db``, ``postgresql://user@host/database``, ``memory://`` or ``memory://name``.
        functions: the durable functions that this process serves.
        settings: see ``Settings``.
        clock: drives waits, retry delays and step timeouts.
        ids: where identities and jitter come from.
        store: instead of ``url``, an opened or unopened store.
        tracing: where the spans of runs go; None: nowhere.

    Use it as an asynchronous context manager. On entry it recovers what an earlier process left.
    """

    def __init__(
        self,
        url: str,
        functions: Sequence[DurableFunction] = (),
        *,
        settings: Settings | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        store: Store | None = None,
        on_attention: Callable[[str], Awaitable[None]] | None = None,
        on_rewritten: Rewritten = warn,
        tracing: "Tracing | None" = None,
    ) -> None:
        self.settings = settings or Settings()
        self._attention = Attention(on_attention)
        self._watching = on_attention is not None
        self._on_rewritten = on_rewritten
        self.clock: Clock = clock or SystemClock()
        self.ids: Ids = ids or SystemIds()
        self.home, self.codec = Home(), Codec()
        self.registry = Registry()
        for function in functions:
            self.registry.add(function)
        self.store: Store = store or open_store(
            url, lease_s=self.settings.lease_s, patience_s=self.settings.store_timeout_s
        )
        self._writer: Writer | None = None
        self._worker: Worker | None = None
        self._loader: Loader
        self._keeper: Rejoin | None = None
        self.tracing = tracing
        self.context = None if tracing is None else tracing.context
        self.exporter: Exporter | None = None
        """Follows the journal and exports spans, in a worker that is traced; what it did is told after it is left."""
        self._scout: asyncio.Task[None] | None = None
        self._left = False
        self._announcer: VersionAnnouncer | None = None
        self._vigil: UnservedWatch | None = None
        self._housekeeper: Housekeeper | None = None
        self._housekeeping: asyncio.Task[None] | None = None
        self._waiters = Waiters()
        self.name = self._new_name()

    def _new_name(self) -> str:
        """The name of this worker from now on; it never had one of that name before."""
        self.name = worker_name(self.ids.name(), host=socket.gethostname(), pid=os.getpid())
        return self.name

    # -- life ------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.home.check("entering it")
        await self.store.open(worker=self.name if self.settings.worker else None)
        async with contextlib.AsyncExitStack() as leaving:
            leaving.push_async_exit(self.__aexit__)
            await self._begin()
            leaving.pop_all()
        return self

    async def _begin(self) -> None:
        """Begin to work, on a store that is open."""
        await self._follow_others()
        if self.settings.worker:
            self._announcer = VersionAnnouncer(self.store, self.registry, self.clock, self._on_rewritten)
            await self._announcer.enter(self._new_name)
        loop = asyncio.get_running_loop()
        self._writer = Writer(
            self.store,
            loop,
            on_guilty=self._guilty,
            on_overtaken=self._overtaken,
            owner=lambda: None if self._worker is None else self._worker.worker,
            on_lost=self._lost,
            patience_s=self.settings.store_timeout_s,
        )
        if self.tracing is not None:
            self._writer.timed = self.tracing.commit_timer()
        if self.settings.worker:
            self._begin_work(self._writer)
            self.exporter = await self._exporting()
        self._seen = Pulsometer(loop.time())
        self._poked = asyncio.Event() if self._worker is None else self._worker.poked
        self.news = ChangeListener(loop, self._poked.set)
        self.store.on_change(self.news.heard)
        self._left = False
        self._send_scout()
        attach = getattr(self.clock, "attach", None)
        if attach is not None:  # a clock under a test's control waits for this engine to be idle
            attach(self)
        self.home.enter()

    def _send_scout(self, *, again: bool = False) -> None:
        """Begin to look for work."""
        self._scout = asyncio.get_running_loop().create_task(self._look_around(sent_again=again))
        self._scout.add_done_callback(self._scout_ended)

    def _scout_ended(self, scout: "asyncio.Task[None]") -> None:
        """Where the program has cancelled all its tasks, its sagas are untouched: look again, unless its loop ends."""
        if self._left or not (scout.cancelled() or scout.exception() is not None):
            return
        if not scout.cancelled():
            log.error("internal error while looking for work; looking again", exc_info=scout.exception())
        loop = scout.get_loop()
        loop.call_later(POLL_S, lambda: None if self._left else self._send_scout(again=True))

    def _begin_work(self, writer: Writer) -> None:
        """Make the worker, and who looks after it."""
        self._worker = self._hired(writer)
        self._loader = Loader(self._worker)
        self._keeper = Rejoin(
            store=self.store,
            writer=writer,
            worker=self._worker,
            new_name=self._new_name,
            on_rejoined=self._rejoined,
        )
        if self._watching:
            tell, poke = self._attention.ask_for_each, self._worker.poked.set
            self._vigil = UnservedWatch(self.store, self.clock, tell=tell, poke=poke)
        self._housekeeper = Housekeeper(
            self.store,
            self.clock,
            retention_ns=self.settings.retention_ns,
            id_retention_ns=self.settings.id_retention_ns,
        )
        self._housekeeping = asyncio.get_running_loop().create_task(self._housekeeper.run())

    def _hired(self, writer: Writer) -> Worker:
        """The worker of this process."""
        return Worker(
            name=self.name,
            store=self.store,
            writer=writer,
            registry=self.registry,
            secret=self.secret,
            clock=self.clock,
            ids=self.ids,
            concurrency=self.settings.concurrency,
            threads_at_once=self.settings.threads,
            max_crashes=self.settings.max_crashes,
            codec=self.codec,
            on_outcome=self._told,
            on_attention=self._attention.ask_for,
            tracing=self.context,
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.home.check("leaving it")
        self._left = True
        if self._worker is not None:
            self._worker.stop()
        for task in filter(None, (self._housekeeping, self._scout)):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._scout is not None:
            self.news.close()
            detach = getattr(self.clock, "detach", None)
            if detach is not None:
                detach(self)
        if self._vigil is not None:
            self._vigil.close()
        try:
            if self._worker is not None:
                await self._worker.close(grace_s=self.settings.grace_s)
            if self._writer is not None:
                await self._writer.close(within_s=max(self.settings.grace_s, FLUSH_S))
        finally:
            self._writer = self._worker = self._scout = self._keeper = self._announcer = self._vigil = None
            self._housekeeper = self._housekeeping = None
            self.home.leave()
            if self.exporter is not None:
                await self.exporter.close(within_s=SPANS_S)
            left = StoreError("the engine was left while this waited; the run goes on, ask another engine on its store")
            self._waiters.fail(left)
            await self._attention.told()
            await self.store.close()

    async def _rejoined(self) -> None:
        """The worker goes on under another name: it serves anew, and its spans are owed by that name."""
        self.registry.renew()
        if self.exporter is not None:
            await self.exporter.close(within_s=0)  # what the lost name owes is adopted by whoever lives
            self.exporter = await self._exporting()

    async def _exporting(self) -> "Exporter | None":
        """Begin to export spans, where they are wanted."""
        tracing = self.tracing
        if tracing is None:
            return None
        from durable_core.tracing.exporter import Exporter  # noqa: PLC0415 - only for those who want spans

        exporter = Exporter(
            self.store,
            self.name,
            tracing.sink,
            tracing.vocabulary,
            progress=self.progress,
            now_ns=self.clock.now_ns,
            failures=tracing.failures,
            meters=tracing.meters,
        )
        await exporter.start()
        return exporter

    @property
    def secret(self) -> bytes:
        """What the tokens of callbacks derive from: that of the settings, else the store's own. Known once entered."""
        return self.settings.secret or self.store.secret

    @property
    def writer(self) -> Writer:
        """The store's writer.

        Raises:
            StoreError: the engine has not been entered, or was left.
            WrongLoop: it is asked for from another event loop.
        """
        self.home.check("a call that writes")
        if self._writer is None:
            raise StoreError("this engine is not open; use it within its `async with` block")
        return self._writer

    def pulse(self) -> Pulse:
        """Whether it works, as whoever watches over it may ask.

        Raises:
            StoreError: the engine has not been entered, or was left.
        """
        writer, now_s = self.writer, asyncio.get_running_loop().time()
        return Pulse(
            silent_s=self._seen.silent_s(now_s),
            wrote_s=self._seen.wrote_s(now_s),
            runs=0 if self._worker is None else len(self._worker.runs),
            under_way=self.under_way(),
            backlog=writer.backlog,
            trouble=None if writer.trouble is None else str(writer.trouble),
        )

    def working(self) -> bool:
        """Whether it writes, drives, claims or purges just now; see ``durable_core.testing.ManualClock``."""
        writing = self._writer is not None and self._writer.busy
        watching = self._vigil is not None and self._vigil.busy
        purging = self._housekeeper is not None and self._housekeeper.working
        return writing or watching or purging or (self._worker is not None and self._worker.working)

    def under_way(self) -> int:
        """Attempts that have been called and have not ended."""
        return 0 if self._worker is None else self._worker.in_flight()

    def progress(self) -> int:
        """A number that rises with every row that is written."""
        return 0 if self._writer is None else self._writer.written

    async def _look_around(self, *, sent_again: bool) -> None:
        """Notice what other processes did, and claim what falls due."""
        loop = asyncio.get_running_loop()
        burial_at = loop.time() + BURIAL_S
        while not self._left:
            began_s = await self._until_poked()
            try:
                if self._worker is not None and loop.time() >= burial_at:
                    burial_at = loop.time() + BURIAL_S
                    if await self.store.claims.release_dead():
                        self._poked.set()
                    await self._follow_others()
                changed = await self.store.changed()
                follow_store(self.clock, self.store)
                self._note_pulse(loop.time())
                if self._worker is not None:
                    await self._look(self._worker, changed=changed)
                if changed and self._waiters.watched:
                    await self._ask_for_watched()
                self.news.looked(began_s)
            except LeaseLost as lost:
                await self._lost(lost)
            except StoreError as error:
                if sent_again and not error.transient:
                    return  # it was closed meanwhile: this process counts as dead
                log.warning("the store could not be asked for work; trying again: %s", error)
                self._poked.set()
                await asyncio.sleep(POLL_S)
            except Exception:
                log.exception("internal error while looking for work; trying again")
                await asyncio.sleep(BURIAL_S)

    def _note_pulse(self, now_s: float) -> None:
        """The store has answered: whoever watches over this process may hear of it."""
        if self._writer is not None:
            self._seen.answered(now_s, written=self._writer.written, troubled=self._writer.trouble is not None)

    async def _until_poked(self) -> float:
        """Return once there may be something to do, and every now and then; the time by the loop's clock."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._poked.wait()
        if self._worker is None:
            self._poked.clear()  # else the worker does, before it claims
        return asyncio.get_running_loop().time()

    async def _look(self, worker: Worker, *, changed: bool) -> None:
        """Announce what is new, claim what is due, and watch over what nobody claims."""
        if self._vigil is not None and (changed or worker.poked.is_set()):
            self._vigil.stir()
        if self._announcer is not None:
            await self._announcer.announce()
        await self._loader.look(changed=changed)
        if self._vigil is not None:
            await self._vigil.look()

    def register(self, function: DurableFunction) -> None:
        """Serve ``function`` too, also while running: it is announced, and its runs are claimed, soon after.

        Raises:
            DefinitionError: another one has this name and version.
        """
        self.registry.add(function)
        if self._worker is not None:
            self._worker.poked.set()

    def _told(self, run: Run, end: End | None) -> None:
        """A run of this process has ended or was parked, durably."""
        if end is None:
            self._attention.ask_for(run.id)
        if self._waiters.waits_for(run.num):
            output, error = (end.output, end.error) if end is not None else (None, None)
            self._waiters.tell(run.num, RunOutcome(run.row.status, run.row.phase, output, error, run.row.reason))

    async def _ask_for_watched(self) -> None:
        mine = self._worker.runs if self._worker is not None else {}
        watched = {num: run_id for num, run_id in self._waiters.watched.items() if num not in mine}
        found = {record.num: record for record in await self.store.runs.find(list(watched.values()))}
        for record in found.values():
            if record.status in ENDS or record.status is RunStatus.STUCK:
                self._waiters.tell(record.num, RunOutcome.of(record))
        for num, run_id in watched.items():
            if num not in found:  # it has ended, and was purged before anybody here looked
                self._waiters.miss(num, await self.missing([run_id]))

    async def missing(self, ids: Sequence[str]) -> RunNotFound:
        """Why there is no run of the first of these ids: the error to raise. One of them may have been purged."""
        for stone in await self.store.retention.tombstones([id for id in ids if is_text(id)]):
            why = f"{stone.told}; nothing is left of it but its id. Look into the archive, if one was written"
            return RunNotFound(why, run_id=stone.id, purged_at_ns=stone.purged_at_ns)
        return RunNotFound(f"no run has the id {ids[0]!r} in this store; check the id and the store", run_id=ids[0])

    async def _follow_others(self) -> None:
        """Tell no time before the last one that the store knows: the clock may have been set back meanwhile."""
        follow_store(self.clock, self.store)
        go_on_from(self.clock, await self.store.runs.last_seen_ns())

    async def _lost(self, lost: LeaseLost) -> None:
        if self._keeper is not None:
            await self._keeper.recover(lost)

    def _guilty(self, num: int, error: StoreError) -> None:
        if self._worker is not None:
            self._worker.refused(num, error)

    def _overtaken(self, num: int, lost: Sequence[Entry]) -> None:
        if self._worker is not None:
            self._worker.overtaken(num, lost)
