"""Group commit: one writer per store; what queues up while a commit is under way is the next batch.

Invariant: entries reach the store in the order in which they were appended, and a call given to ``after`` is made only
once everything appended before it is on disk. There is no timer and no linger: the flush starts in the same turn of
the event loop as the first need, so that whatever else is ready in that turn joins it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from durable_core.engine.one_by_one import FIRST_PAUSE_S, LONGEST_PAUSE_S, OneByOne
from durable_core.errors import LeaseLost, StoreError, StoreFull, sentences
from durable_core.model.entry import Entry
from durable_core.model.run import NewRun, RunUpdate
from durable_core.ports import Batch, Store

log = logging.getLogger("durable_core")

AGAIN_S = 0.05
"""How long a writer that was cancelled from outside gives its program to end."""
BOUND = 20_000
"""Rows that may queue up before starters must wait."""


Settled = Callable[[bool, StoreError | None], None]
"""Told how a start ended: durable (True), its id taken (False, None), or given up (False, the error)."""


class _Work(NamedTuple):
    """One commit: its rows, and who is told once they are on disk."""

    batch: Batch
    calls: list[Callable[[], None]]
    starts: dict[int, Settled]
    flushes: "list[asyncio.Future[None]]"


class Writer:
    """The one writer of a store. All methods are called on the event loop."""

    def __init__(
        self,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        *,
        on_guilty: Callable[[int, StoreError], None],
        on_overtaken: Callable[[int, Sequence[Entry]], None],
        owner: Callable[[], str | None] = lambda: None,
        on_lost: Callable[[LeaseLost], Awaitable[None]],
        patience_s: float,
    ) -> None:
        self._store = store
        self.loop = loop
        self._on_guilty = on_guilty
        self._on_overtaken = on_overtaken
        self._owner = owner
        self._guilty: dict[int, StoreError] = {}  # the runs whose rows were refused in the batch under way
        self._late: dict[int, float] = {}
        """While the store is in trouble: since when each start that is queued has been seen to wait."""
        self._on_lost = on_lost
        self._patience_s = patience_s
        self._batch = Batch()
        self._calls: list[Callable[[], None]] = []
        self._flushes: list[asyncio.Future[None]] = []
        self._starts: dict[int, Settled] = {}
        self._scheduled = False
        self._flushing: asyncio.Task[None] | None = None
        self._in_flight = 0
        self.timed: Callable[[float], None] | None = None
        """Told how many seconds each commit has taken, where somebody measures."""
        self._writing: Batch | None = None
        """What is being written, as long as it may still be."""
        self._dropped: LeaseLost
        """Why nothing of it may be repeated, once it may not."""
        self._held: asyncio.Future[None] | None = None
        self._unfinished: _Work | None = None
        """What was taken and is not known to be written."""
        self._closed = False
        self.written = 0
        """Rows written so far."""
        self._room: list[asyncio.Future[None]] = []
        self.trouble: StoreError | None = None
        """The error of the last commit, while commits fail."""

    @property
    def backlog(self) -> int:
        """Rows not yet durable."""
        return len(self._batch) + self._in_flight

    @property
    def busy(self) -> bool:
        """Whether anything is queued or being written."""
        return self._scheduled or self._flushing is not None

    def append(self, entry: Entry) -> None:
        """Queue a journal entry."""
        self._batch.entries.append(entry)
        if not self._scheduled:
            self._schedule()

    def update(self, update: RunUpdate) -> None:
        """Queue the new state of a run's row; a later one in the same batch replaces it."""
        self._batch.updates[update.num] = update
        if not self._scheduled:
            self._schedule()

    def start(self, row: NewRun, settled: Settled) -> None:
        """Queue a new run. ``settled`` is called before any call given to ``after`` from here on."""
        self._batch.starts.append(row)
        self._starts[row.num] = settled
        if not self._scheduled:
            self._schedule()

    def consume(self, signal: int, run: int = 0, seq: int = 0) -> None:
        """Queue the removal of a signal that the entry ``seq`` of ``run`` takes up; without a run, that nobody will."""
        self._batch.consumed.append(signal)
        if run:
            self._batch.taken[signal] = (run, seq)

    def consuming(self) -> frozenset[int]:
        """The signals whose removal is queued or being written: the store still shows them to whoever asks."""
        written = self._writing.consumed if self._writing is not None and self._in_flight else ()
        return frozenset((*self._batch.consumed, *written))

    def after(self, call: Callable[[], None]) -> None:
        """Make ``call`` once all that is queued so far is on disk."""
        self._calls.append(call)
        if not self._scheduled:
            self._schedule()

    async def flushed(self) -> None:
        """Return once all that is queued so far is on disk.

        Raises:
            LeaseLost: it was not written, because others drive these runs now.
            StoreError: the store refused rows of a run, or has been in trouble for as long as a call waits.
        """
        done: asyncio.Future[None] = self.loop.create_future()
        self._flushes.append(done)
        self.after(lambda: None if done.done() else done.set_result(None))
        await self._patiently(done, "what was asked for is queued, and will be written once the store answers")

    async def room(self) -> None:
        """Return once the queue is below its bound: the back-pressure on starters. Raises as ``flushed`` does."""
        while self.backlog >= BOUND:
            turn: asyncio.Future[None] = self.loop.create_future()
            self._room.append(turn)
            await self._patiently(turn, f"{self.backlog} rows wait to be written already, so nothing was started")

    async def _patiently(self, done: "asyncio.Future[None]", what: str) -> None:
        """Wait for ``done``; while the store is in trouble, no longer than a call waits."""
        while not done.done():
            await asyncio.wait([done], timeout=self._patience_s)
            if not done.done() and self.trouble is not None:
                text = f"{what}. {self.trouble.text}"
                raise StoreError(text, self.trouble.advice, transient=True) from self.trouble
        await done

    async def close(self, *, within_s: float) -> None:
        """Write what is queued, waiting at most ``within_s`` for a store that fails."""
        try:
            await asyncio.wait_for(self.flushed(), within_s)
        except TimeoutError:
            log.warning("%d rows could not be written before closing: %s", self.backlog, self.trouble)
        except StoreError as lost:
            log.warning("what was queued at the end was not written: %s", lost)
        self._closed = True
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)

    def hold(self) -> None:
        """Write nothing more until ``go_on``: the worker is between two names."""
        if self._held is None:
            self._held = self.loop.create_future()

    def go_on(self) -> None:
        """Write again."""
        held, self._held = self._held, None
        if held is not None:
            held.set_result(None)

    def drop(self, lost: LeaseLost) -> None:
        """Forget all that is queued, and do not repeat what is being written: others drive these runs now."""
        self._writing, self._dropped = None, lost
        starts, self._starts = self._starts, {}
        flushes, self._flushes = self._flushes, []
        self._batch, self._calls = Batch(), []
        _fail(starts, flushes, lost, known=True)

    def _schedule(self) -> None:
        self._scheduled = True
        if self._flushing is None:
            self.loop.call_soon(self._begin)

    def _begin(self) -> None:
        if self._flushing is None:
            self._flushing = self.loop.create_task(self._flush())

    async def _flush(self) -> None:
        try:
            while self._scheduled or self._unfinished is not None:
                if self._held is not None:
                    await self._held
                if self._unfinished is None:
                    self._unfinished = self._taken()
                await self._write_out(*self._unfinished)
        finally:
            self._flushing = None
            if self._unfinished is not None and not self._closed:
                # Cancelled from outside, with all the tasks of its program: what was taken is written by the next one,
                # unless the program's loop has ended by then.
                self._scheduled = True
                self.loop.call_later(AGAIN_S, self._begin)
            elif self._scheduled:
                self._schedule()

    def _taken(self) -> "_Work":
        """All that is queued so far: the next commit."""
        self._scheduled = False
        work = _Work(self._batch, self._calls, self._starts, self._flushes)
        self._batch, self._calls, self._starts, self._flushes = Batch(), [], {}, []
        self._in_flight = len(work.batch)
        self._writing = work.batch
        return work

    async def _write_out(
        self,
        batch: Batch,
        calls: "list[Callable[[], None]]",
        starts: "dict[int, Settled]",
        flushes: "list[asyncio.Future[None]]",
    ) -> None:
        """Commit what was taken, and tell those who wait for it."""
        try:
            left_out = await self._commit(batch, starts) if self._in_flight else frozenset[int]()
        except LeaseLost as lost:
            self._in_flight = 0
            self._unfinished = None
            _fail(starts, flushes, lost, known=self._writing is batch)
            await self._on_lost(lost)
            self._let_in()
            return
        self._unfinished = None
        self.written += self._in_flight
        self._in_flight = 0
        for num in left_out.difference(starts) if left_out else ():
            self._drop_decided(batch, num)
        for num, settled in starts.items():
            settled(num not in left_out, None)
        self._convict(flushes)
        for call in calls:
            try:
                call()
            except Exception:  # a bug, ours or a user's: those who come after it are told all the same
                log.exception("internal error after a commit; please report it")
        if self._room:
            self._let_in()

    def _drop_decided(self, batch: Batch, num: int) -> None:
        """A signal has overtaken this run: what it decided without it was not written, and what follows must not be."""
        kept, _ = batch.yielding([num])
        wrote = {entry.seq for entry in kept.entries if entry.run == num}
        lost = [entry for entry in batch.entries if entry.run == num and entry.seq not in wrote]
        self._on_overtaken(num, lost + self._take_back(num))

    def _take_back(self, num: int) -> list[Entry]:
        """Take out of the queue what is in it of this run; its entries."""
        queued = self._batch
        late = [signal for signal, (run, _) in queued.taken.items() if run == num]
        self._batch = Batch(
            starts=queued.starts,
            entries=[entry for entry in queued.entries if entry.run != num],
            updates={run: update for run, update in queued.updates.items() if run != num},
            consumed=[signal for signal in queued.consumed if signal not in late],
            taken={signal: place for signal, place in queued.taken.items() if signal not in late},
        )
        return [entry for entry in queued.entries if entry.run == num]

    def _let_in(self) -> None:
        if self.backlog < BOUND:
            waiting, self._room = self._room, []
            for turn in waiting:
                if not turn.done():
                    turn.set_result(None)

    async def _commit(self, batch: Batch, starts: dict[int, Settled]) -> frozenset[int]:
        """Write ``batch``, again and again while the store is in trouble; give up on what the store refuses for good.

        Runs that have begun stay queued for as long as it takes: their effects have happened. New runs are refused once
        their starters have waited long enough, or at once where waiting cannot help.
        """
        delay_s, waited_s = FIRST_PAUSE_S, 0.0
        first_s = self.loop.time()
        while True:
            began_s = self.loop.time()
            try:
                refused = await self._write(batch, batch)
            except LeaseLost:
                raise
            except StoreError as error:
                self.trouble = error
                if not error.transient or isinstance(error, StoreFull) or waited_s >= self._patience_s:
                    self._refuse(batch, starts, error)
                if not error.transient:
                    put = partial(self._write, batch=batch)
                    overtaken = await OneByOne(self._store, self._owner(), put, self._pause, self._disown).write(batch)
                    self._calmed()
                    return overtaken
                if not batch:
                    return frozenset()
                log.warning("the store refused a commit of %d rows; next try in %.2f s: %s", len(batch), delay_s, error)
                await self._pause(delay_s, error)
                waited_s = self.loop.time() - first_s
                delay_s = min(delay_s * 2, LONGEST_PAUSE_S)
            else:
                self._calmed()
                if self.timed is not None:
                    self.timed(self.loop.time() - began_s)
                return refused

    async def _write(self, part: Batch, batch: Batch) -> frozenset[int]:
        """Write ``part`` of ``batch``, unless the worker's loss was met elsewhere: then it has another name now."""
        if self._writing is not batch:
            raise self._dropped
        return await self._store.journal.commit(part)

    def _refuse(self, batch: Batch, starts: dict[int, Settled], error: StoreError) -> None:
        """Tell the starters that nothing of their runs has been written or will be."""
        nums = set(starts)
        for part in (batch, self._batch):
            part.starts[:] = [row for row in part.starts if row.num not in nums]
            part.entries[:] = [entry for entry in part.entries if entry.run not in nums]
            for num in nums:
                part.updates.pop(num, None)
        for settled in starts.values():
            settled(False, error)  # noqa: FBT003
        starts.clear()

    async def _pause(self, pause_s: float, error: StoreError) -> None:
        """Wait before the next try; who waits behind it to start something, waits no longer than a call does."""
        self.trouble = error
        now_s = self.loop.time()
        self._late = {num: self._late.get(num, now_s) for num in self._starts}
        late = [num for num, since_s in self._late.items() if now_s - since_s >= self._patience_s]
        if late:
            told = StoreError(
                f"nothing was sent to the store, which has not taken an earlier commit for {self._patience_s:g} s. See "
                "whether it answers, and start it again",
                transient=True,
            )
            told.__cause__ = error
            self._refuse(self._batch, {num: self._starts.pop(num) for num in late}, told)
        ends_s = [since_s + self._patience_s for num, since_s in self._late.items() if num not in late]
        await asyncio.sleep(min([pause_s, *(end_s - now_s for end_s in ends_s)]))

    def _calmed(self) -> None:
        self.trouble = None
        self._late = {}

    def _disown(self, num: int, error: StoreError) -> None:
        """What is queued of a run is void with what was refused of it."""
        self._guilty[num] = error
        self._take_back(num)
        self._on_guilty(num, error)

    def _convict(self, flushes: Iterable["asyncio.Future[None]"]) -> None:
        """Tell whoever waits for this batch to be written, or for the next one, of the rows that were refused."""
        guilty, self._guilty = self._guilty, {}
        for error in guilty.values():
            advice = sentences(error.advice, "Look at the run, and repeat the call")
            told = StoreError(f"not all of it was kept: {error.text}", advice)
            told.__cause__ = error
            _fail_flushes((*flushes, *self._flushes), told)


def _fail_flushes(flushes: Iterable["asyncio.Future[None]"], error: StoreError) -> None:
    for done in flushes:
        if not done.done():
            done.set_exception(error)
            done.exception()  # whoever has stopped waiting need not hear of it


def _fail(
    starts: Mapping[int, Settled], flushes: Iterable["asyncio.Future[None]"], lost: LeaseLost, *, known: bool
) -> None:
    """Tell those who wait for what was dropped; ``known``: that none of it was written."""
    told = StoreError(
        f"worker {lost.worker} was taken for dead before this was written; nothing was started. Start it again"
        if known
        else f"worker {lost.worker} was taken for dead while this was being written, and whether it was started is not "
        "known. Start it again under the same id: that gives the run that is there, or a new one",
        transient=True,
    )
    for settled in starts.values():
        settled(False, told)  # noqa: FBT003
    _fail_flushes(flushes, lost)
