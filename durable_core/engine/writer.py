"""Group commit: one writer per store; the rows that queue up during a commit are the next batch.

Invariants: entries reach the store in the order in which they were appended, and a call given to ``after`` is made only
once everything appended before it is on disk. There is no timer and no linger: the flush starts in the same turn of
the event loop as the first need, so that whatever else is ready in that turn joins it. If the store refuses a batch for
good, only those runs suffer whose rows are refused; a store that takes nothing is in trouble, and is asked again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import attrs

from durable_core.errors import LeaseLost, StoreError, StoreFull, sentences
from durable_core.model.entry import Entry
from durable_core.model.outage import Outage
from durable_core.model.run import NewRun, RunStatus, RunUpdate, unchanged
from durable_core.ports import Batch, Store, check_cancelled

log = logging.getLogger("durable_core")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
"""Between attempts to write while the store is in trouble."""
AGAIN_S = 0.05
"""How long a writer that was cancelled from outside gives its program to end."""
BOUND = 20_000
"""Rows that may queue up before new starts must wait."""


Settled = Callable[[bool, StoreError | None], None]
"""Called once a start is over: durable (True), its id taken (False, None), or given up (False, the error)."""


class RunOwner(Protocol):
    """Owns the runs whose rows are written, and hears what was not."""

    @property
    def owner(self) -> str | None:
        """The worker's name; None if there is none."""
        ...

    def refused(self, num: int, error: StoreError, /) -> None:
        """The store refuses this run's rows for good."""
        ...

    def overtaken(self, num: int, lost: Sequence[Entry], /) -> None:
        """These entries were not written, because a signal for the run came first."""
        ...

    async def lease_lost(self, lost: LeaseLost, /) -> None:
        """Another worker drives these runs now."""
        ...


class NoOwner:
    """The owner of no runs: an observer's rows are starts and signals."""

    owner: str | None = None

    def refused(self, num: int, error: StoreError, /) -> None:
        """Nothing to drop."""

    def overtaken(self, num: int, lost: Sequence[Entry], /) -> None:
        """Nothing to load again."""

    async def lease_lost(self, lost: LeaseLost, /) -> None:
        """It has no lease."""


@attrs.define(eq=False)
class _Work:
    """One commit: its rows, and what waits for them to be on disk."""

    batch: Batch = attrs.field(factory=Batch)
    calls: list[Callable[[], None]] = attrs.field(factory=list[Callable[[], None]])
    starts: dict[int, Settled] = attrs.field(factory=dict[int, Settled])
    flushes: "list[asyncio.Future[None]]" = attrs.field(factory=list["asyncio.Future[None]"])
    rows: int = 0
    """Its rows when the commit began."""
    refused: dict[int, StoreError] = attrs.field(factory=dict[int, StoreError])
    """The runs whose rows the store has refused."""
    lost: LeaseLost | None = None
    """Why no more of it may be written: the worker has another name now."""

    def fail(self, lost: LeaseLost, *, known: bool) -> None:
        """Fail all calls that wait for it; ``known``: none of it was written."""
        error = StoreError(
            f"worker {lost.worker} was taken for dead before this was written; nothing was started. Start it again"
            if known
            else f"worker {lost.worker} was taken for dead while this was being written, and whether it was started is "
            "not known. Start it again under the same id: that gives the one that is there, or a new one",
            transient=True,
        )
        for settled in self.starts.values():
            settled(False, error)  # noqa: FBT003
        _fail_flushes(self.flushes, lost)


class Writer:
    """The one writer of a store. All methods are called on the event loop."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop, *, patience_s: float) -> None:
        self._store = store
        self.loop = loop
        self.owner: RunOwner = NoOwner()
        self.timed: Callable[[float], None] | None = None
        """Called with the duration of each commit in seconds, if they are measured."""
        self.written = 0
        """Rows written so far."""
        self.trouble: StoreError | None = None
        """The error of the last commit, while commits fail."""
        self._patience_s = patience_s
        self._waiting_since: dict[int, float] = {}
        """While the store is in trouble: since when each queued start has been waiting."""
        self._queue = _Work()
        self._current: _Work | None = None
        """The commit under way; kept if its task is cancelled, as it is not known to be written."""
        self._scheduled = False
        self._flushing: asyncio.Task[None] | None = None
        self._held: asyncio.Future[None] | None = None
        self._closed = False
        self._room: list[asyncio.Future[None]] = []

    @property
    def backlog(self) -> int:
        """Rows not yet durable."""
        return len(self._queue.batch) + (0 if self._current is None else self._current.rows)

    @property
    def busy(self) -> bool:
        """Whether anything is queued or being written."""
        return self._scheduled or self._flushing is not None

    # -- queueing --------------------------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Queue a journal entry."""
        self._queue.batch.entries.append(entry)
        if not self._scheduled:
            self._schedule()

    def update(self, update: RunUpdate) -> None:
        """Queue the new state of a run's row; a later one in the same batch replaces it."""
        self._queue.batch.updates[update.num] = update
        if not self._scheduled:
            self._schedule()

    def start(self, row: NewRun, settled: Settled) -> None:
        """Queue a new run. ``settled`` is called before any call given to ``after`` from here on."""
        self._queue.batch.starts.append(row)
        self._queue.starts[row.num] = settled
        if not self._scheduled:
            self._schedule()

    def consume(self, signal: int, run: int = 0, seq: int = 0) -> None:
        """Queue the removal of a signal, taken up by entry ``seq`` of ``run``; without a run, it is withdrawn."""
        self._queue.batch.consumed.append(signal)
        if run:
            self._queue.batch.taken[signal] = (run, seq)

    def consuming(self) -> frozenset[int]:
        """The signals whose removal is queued or being written: the store still returns them."""
        current = self._current
        written = current.batch.consumed if current is not None and current.lost is None else ()
        return frozenset((*self._queue.batch.consumed, *written))

    def after(self, call: Callable[[], None]) -> None:
        """Make ``call`` once all that is queued so far is on disk."""
        self._queue.calls.append(call)
        if not self._scheduled:
            self._schedule()

    async def flushed(self) -> None:
        """Return once all that is queued so far is on disk.

        Raises:
            LeaseLost: it was not written, because another worker drives these runs now.
            StoreError: the store refused rows of a run, or has been in trouble for as long as a call waits.
        """
        done: asyncio.Future[None] = self.loop.create_future()
        self._promise(done)
        await self._patiently(done, "what was asked for is queued, and will be written once the store answers")

    def _promise(self, done: "asyncio.Future[None]") -> None:
        """Have ``done`` set once all that is queued so far is on disk."""
        self._queue.flushes.append(done)
        self.after(lambda: None if done.done() else done.set_result(None))

    async def room(self) -> None:
        """Return once the queue is below its bound: back-pressure on starts. Raises as ``flushed`` does."""
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

    # -- control ---------------------------------------------------------------------------------------------------

    async def close(self, *, within_s: float) -> None:
        """Write what is queued, waiting at most ``within_s`` for a store that fails."""
        try:
            async with asyncio.timeout(within_s):
                await self.flushed()
        except TimeoutError:
            log.warning("%d rows could not be written before closing: %s", self.backlog, self.trouble)
        except StoreError as lost:
            log.warning("rows that were queued at the end were not written: %s", lost)
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
        """Forget all that is queued, and do not repeat the commit under way: another worker drives these runs now."""
        if self._current is not None:
            self._current.lost = lost
        dropped, self._queue = self._queue, _Work()
        dropped.fail(lost, known=True)

    def die(self, lost: LeaseLost) -> None:
        """For tests: forget what the worker has queued, as its death would, and write nothing until ``go_on``.

        Calls wait for the next worker: their starts stay queued, for whoever claims them.
        """
        self.hold()
        current, left, self._queue = self._current, self._queue, _Work()
        if current is not None:
            current.lost = lost
            current.calls.clear()
        for row in left.batch.starts:
            self.start(row._replace(status=RunStatus.PENDING, owner=None, wake_at_ns=0), left.starts[row.num])
        for done in (*(current.flushes if current is not None else ()), *left.flushes):
            self._promise(done)

    # -- writing ---------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        self._scheduled = True
        if self._flushing is None:
            self.loop.call_soon(self._begin)

    def _begin(self) -> None:
        if self._flushing is None:
            self._flushing = self.loop.create_task(self._flush())

    async def _flush(self) -> None:
        try:
            while self._scheduled or self._current is not None:
                check_cancelled()
                if self._held is not None:
                    await self._held
                if self._current is None:
                    self._current = self._take_queue()
                await self._write_out(self._current)
        finally:
            self._flushing = None
            if not self.loop.is_closed():  # else the program has ended without leaving: as after a crash
                self._write_the_rest()

    def _write_the_rest(self) -> None:
        """Have what is left written by the next task."""
        if self._current is not None and not self._closed:
            # The last one was cancelled from outside, with all the tasks of its program. If the program's loop is
            # about to end, it ends before the next one begins.
            self._scheduled = True
            self.loop.call_later(AGAIN_S, self._begin)
        elif self._scheduled:
            self._schedule()

    def _take_queue(self) -> _Work:
        """All that is queued so far: the next commit."""
        self._scheduled = False
        work, self._queue = self._queue, _Work()
        work.rows = len(work.batch)
        return work

    async def _write_out(self, work: _Work) -> None:
        """Commit ``work``, and make the calls that wait for it."""
        try:
            left_out = await self._commit(work) if work.rows else frozenset[int]()
        except LeaseLost as lost:
            self._current = None
            work.fail(lost, known=work.lost is None)
            await self.owner.lease_lost(lost)
            self._let_in()
            return
        self._current = None
        self.written += work.rows
        for num in left_out.difference(work.starts) if left_out else ():
            self._drop_decided(work.batch, num)
        for num, settled in work.starts.items():
            settled(num not in left_out, None)
        self._report_refused(work)
        for call in work.calls:
            try:
                call()
            except Exception:  # a bug, ours or a user's: the calls after it are made all the same
                log.exception("internal error after a commit; please report it")
        if self._room:
            self._let_in()

    async def _commit(self, work: _Work) -> frozenset[int]:
        """Write a batch, again and again while the store is in trouble; give up rows that the store refuses for good.

        Runs that have begun stay queued for as long as it takes: their effects have happened. New runs are refused once
        their starts have waited long enough, or at once if waiting cannot help.
        """
        batch, delay_s, waited_s = work.batch, FIRST_PAUSE_S, 0.0
        first_s, outage = self.loop.time(), Outage()
        while True:
            began_s = self.loop.time()
            try:
                left_out = await self._put(batch, work)
            except LeaseLost:
                raise
            except StoreError as error:
                self.trouble = error
                if not error.transient or isinstance(error, StoreFull) or waited_s >= self._patience_s:
                    self._refuse_starts(batch, work.starts, error)
                if not error.transient:
                    return await self._write_run_by_run(work)
                if not batch:
                    return frozenset()
                _tell_trouble(outage, error, self.loop.time())
                await self._pause(delay_s, error)
                waited_s = self.loop.time() - first_s
                delay_s = min(delay_s * 2, LONGEST_PAUSE_S)
            else:
                self._calm()
                _tell_end(outage, self.loop.time())
                if self.timed is not None:
                    self.timed(self.loop.time() - began_s)
                return left_out

    async def _put(self, part: Batch, work: _Work) -> frozenset[int]:
        """Write a part of ``work``, unless the loss of the lease was found elsewhere."""
        if work.lost is not None:
            raise work.lost
        return await self._store.journal.commit(part)

    async def _write_run_by_run(self, work: _Work) -> frozenset[int]:
        put = partial(self._put, work=work)
        overtaken = await RunByRun(
            self._store, self.owner.owner, put, self._pause, partial(self._drop_refused, work)
        ).write(work.batch)
        self._calm()
        return overtaken

    async def _pause(self, pause_s: float, error: StoreError) -> None:
        """Wait before the next try; meanwhile a queued start fails once it has waited for as long as a call does."""
        self.trouble = error
        now_s, queue = self.loop.time(), self._queue
        self._waiting_since = {num: self._waiting_since.get(num, now_s) for num in queue.starts}
        late = [num for num, since_s in self._waiting_since.items() if now_s - since_s >= self._patience_s]
        if late:
            refusal = StoreError(
                f"nothing was sent to the store, which has not taken an earlier commit for {self._patience_s:g} s. See "
                "whether it answers, and start it again",
                transient=True,
            )
            refusal.__cause__ = error
            self._refuse_starts(queue.batch, {num: queue.starts.pop(num) for num in late}, refusal)
        ends_s = [since_s + self._patience_s for num, since_s in self._waiting_since.items() if num not in late]
        await asyncio.sleep(min([pause_s, *(end_s - now_s for end_s in ends_s)]))

    def _calm(self) -> None:
        self.trouble = None
        self._waiting_since = {}

    def _let_in(self) -> None:
        if self.backlog < BOUND:
            waiting, self._room = self._room, []
            for turn in waiting:
                if not turn.done():
                    turn.set_result(None)

    # -- rows that are not written ---------------------------------------------------------------------------------

    def _refuse_starts(self, batch: Batch, starts: dict[int, Settled], error: StoreError) -> None:
        """Fail these starts: none of their rows has been written or will be."""
        nums = set(starts)
        for part in (batch, self._queue.batch):
            part.starts[:] = [row for row in part.starts if row.num not in nums]
            part.entries[:] = [entry for entry in part.entries if entry.run not in nums]
            for num in nums:
                part.updates.pop(num, None)
        for settled in starts.values():
            settled(False, error)  # noqa: FBT003
        starts.clear()

    def _drop_decided(self, batch: Batch, num: int) -> None:
        """A signal came first: the run's decisions without it were not written, and what follows must not be."""
        kept, _ = batch.yielding([num])
        wrote = {entry.seq for entry in kept.entries if entry.run == num}
        lost = [entry for entry in batch.entries if entry.run == num and entry.seq not in wrote]
        self.owner.overtaken(num, lost + self._take_back(num))

    def _drop_refused(self, work: _Work, num: int, error: StoreError) -> None:
        """The rows of a run were refused: those that are queued are void too."""
        work.refused[num] = error
        self._take_back(num)
        self.owner.refused(num, error)

    def _take_back(self, num: int) -> list[Entry]:
        """Remove the rows of this run from the queue; its entries."""
        queued = self._queue.batch
        late = [signal for signal, (run, _) in queued.taken.items() if run == num]
        self._queue.batch = Batch(
            starts=queued.starts,
            entries=[entry for entry in queued.entries if entry.run != num],
            updates={run: update for run, update in queued.updates.items() if run != num},
            consumed=[signal for signal in queued.consumed if signal not in late],
            taken={signal: place for signal, place in queued.taken.items() if signal not in late},
        )
        return [entry for entry in queued.entries if entry.run == num]

    def _report_refused(self, work: _Work) -> None:
        """Fail the calls that wait for this batch or the next one, if rows were refused."""
        for error in work.refused.values():
            advice = sentences(error.advice, "Check its state, then repeat the call")
            failure = StoreError(f"not all of it was kept: {error.text}", advice)
            failure.__cause__ = error
            _fail_flushes((*work.flushes, *self._queue.flushes), failure)


@attrs.frozen(eq=False)
class RunByRun:
    """Writes a batch that the store refuses for good run by run, so that only the runs with refused rows suffer.

    A run's rows count as refused only if the store takes its row as it stands, and so refuses what was new.
    """

    store: Store
    owner: str | None
    """The worker whose runs these are; None if there is none."""
    put: Callable[[Batch], Awaitable[frozenset[int]]]
    """Commits a part."""
    pause: Callable[[float, StoreError], Awaitable[None]]
    """Waits before the next try."""
    refused: Callable[[int, StoreError], None]
    """Called with a run whose rows are refused."""

    async def write(self, batch: Batch) -> frozenset[int]:
        """Write what can be written of ``batch``, for as long as it takes; the runs that a signal has overtaken.

        Raises:
            LeaseLost: another worker drives these runs now.
        """
        whose = {signal: run for signal, (run, _) in batch.taken.items()}
        overtaken: set[int] = set()
        for num in sorted({entry.run for entry in batch.entries} | set(batch.updates)):
            part = Batch(
                entries=[entry for entry in batch.entries if entry.run == num],
                consumed=[signal for signal in batch.consumed if whose.get(signal) == num],
                taken={signal: place for signal, place in batch.taken.items() if place[0] == num},
            )
            if num in batch.updates:
                part.updates[num] = batch.updates[num]
            overtaken |= await self._write(num, part)
        rest = Batch(consumed=[signal for signal in batch.consumed if signal not in whose])
        if rest:
            await self._write(0, rest)
        return frozenset(overtaken)

    async def _write(self, num: int, part: Batch) -> frozenset[int]:
        """Write one run's part, or have it refused; its number if a signal has overtaken it."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self.put(part)
            except LeaseLost:
                raise
            except StoreError as error:
                if not error.transient and await self._takes_others(num):
                    self.refused(num, error)
                    return frozenset()
                if not error.logged:
                    log.warning("the rows of number %d are not taken; trying again: %s", num, error)
                await self.pause(pause_s, error)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _takes_others(self, num: int) -> bool:
        """Whether the store takes the run's row as it stands. Only this worker's are tried: no other writes them."""
        try:
            record = await self.store.runs.find_num(num)
            if record is not None and record.owner == self.owner is not None and record.ended_at_ns is None:
                await self.put(Batch(updates={num: unchanged(record)}))
        except LeaseLost:
            raise
        except StoreError as also:
            log.warning("the row of number %d is not taken as it stands either: %s", num, also)
            return False
        return True


def _tell_trouble(outage: Outage, error: StoreError, at_s: float) -> None:
    if not error.logged and outage.met(at_s):
        log.warning("the store does not take what is written; trying again until it does: %s", error)


def _tell_end(outage: Outage, at_s: float) -> None:
    if (away_s := outage.over(at_s)) is not None:
        log.warning("the store takes what is written again, after %.1f s", away_s)


def _fail_flushes(flushes: Iterable["asyncio.Future[None]"], error: StoreError) -> None:
    for done in flushes:
        if not done.done():
            done.set_exception(error)
            done.exception()  # its caller may have stopped waiting
