"""Exports spans from the journal, after the commit and off the path of every run.

The journal is the queue: nothing is kept for later but a position. An exporter that is down or slow holds up nothing
but the spans; a process that dies leaves word of what it owes, and another one sends that.

Invariant: a position is noted only once everything up to it has been taken by the sink: spans are sent at least once.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial

from durable_core.errors import StoreError
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.run import RunRecord
from durable_core.model.trace import origin_of
from durable_core.ports import MeasureSink, SpanCursors, Store
from durable_core.tracing.answers import SpanSink
from durable_core.tracing.delivery import Delivery, Tally
from durable_core.tracing.export_thread import ExportThread, breathing
from durable_core.tracing.fold import RunTrace
from durable_core.tracing.following import Followed, lost_track
from durable_core.tracing.journal_tail import JournalTail
from durable_core.tracing.measuring import Measuring
from durable_core.tracing.span import SpanRecord
from durable_core.tracing.vocabulary import Vocabulary

log = logging.getLogger("durable_core.tracing")

PAGE = 2_000
"""Entries read at a time."""
NOTE_S = 0.5
"""How often to note what has been exported: after a crash, so much is sent again."""
DEBTS_S = 2.0
"""How often to look for what dead workers owe."""
MOST_FOLLOWED = 10_000
"""Runs whose traces are kept in memory; others are read again when they go on."""
TROUBLE = frozenset({EntryKind.PARKED.value, EntryKind.FAULTED.value})


class Exporter:
    """Follows the journal for one worker."""

    def __init__(
        self,
        store: Store,
        worker: str,
        sink: SpanSink | None,
        vocabulary: Vocabulary,
        *,
        progress: Callable[[], int],
        now_ns: Callable[[], int],
        failures: bool = False,
        meters: MeasureSink | None = None,
    ) -> None:
        self._store = store
        self._cursors: SpanCursors = store.spans
        self._worker = worker
        self._sink = sink
        self._vocabulary = vocabulary
        self._progress = progress
        self._failures = failures
        self._runs: dict[int, Followed] = {}
        self._pos: int = 0
        self._noted: int = 0
        self._note_at = 0.0
        self._pursuit: JournalTail | None = None
        self._delivery: Delivery | None = None
        self.tally = Tally()
        self._measuring: Measuring | None = None
        if meters is not None:
            self._measuring = Measuring(
                store, worker, meters, vocabulary, progress=progress, now_ns=now_ns, tally=self.tally
            )

    async def start(self) -> None:
        """Note that this worker's spans are owed from here on, and begin to follow; durable on return.

        Without a sink nothing is owed, by this worker or to it: it only measures.
        """
        self._pos = self._noted = await self._cursors.start(self._worker)
        if self._measuring is not None:
            self._measuring.start(self._pos)
        if self._sink is None:
            await self._cursors.advance(self._worker, None)
            return
        self._hand = ExportThread("spans")
        self._delivery = Delivery(self._sink, self._hand, self.tally)
        self._pursuit = JournalTail(
            what="spans", progress=self._progress, catch_up=self._catch_up, besides=self._pay_for_the_dead
        )

    async def close(self, *, within_s: float) -> None:
        """Export what is left, for ``within_s``; what then remains is owed, and sent by another process.

        A sink that takes nothing, or does not answer, is given up before that; see ``Delivery.hopeless_at_s``.
        """
        if self._pursuit is not None:
            await self._leave(self._pursuit, within_s)
            self._pursuit = None
        if self._measuring is not None:
            await self._measuring.close(within_s=within_s)

    async def _leave(self, pursuit: JournalTail, within_s: float) -> None:
        hopeless_at_s = None
        if self._delivery is not None:
            self._delivery.leave()
            hopeless_at_s = self._delivery.hopeless_at_s
        if not await pursuit.leave(within_s=within_s, hopeless_at_s=hopeless_at_s):
            self.tally.owing = True
            log.warning("%s is left before all spans were taken: the next worker that exports sends them", self._worker)
        self._hand.stop()
        if self.tally.dropped:
            log.warning("%s has left out %d spans that were refused for good", self._worker, self.tally.dropped)
        with contextlib.suppress(StoreError):  # then a little more is sent again
            await self._cursors.advance(self._worker, self._pos if self.tally.owing else None)

    async def _catch_up(self, to_the_end: bool) -> None:  # noqa: FBT001 - said by the pursuit alone
        """Export all that this worker has written."""
        while rows := await self._cursors.read(self._worker, after=self._pos, limit=PAGE):
            await self._export([entry for _, entry in rows], self._runs)
            self._pos = rows[-1][0]
            if asyncio.get_running_loop().time() >= self._note_at:
                await self._note()
            if len(rows) < PAGE and not to_the_end:
                return  # what comes meanwhile waits for its turn: a batch costs little more than a span

    async def _note(self) -> None:
        if self._pos != self._noted:
            await self._cursors.advance(self._worker, self._pos)
            self._noted = self._pos
            self._note_at = asyncio.get_running_loop().time() + NOTE_S

    async def _pay_for_the_dead(self) -> float:
        """Export what workers have left owing that live no more, and note how far this one is."""
        await self._note()
        owed = await self._cursors.cursors(self._worker)
        owed.pop(self._worker, None)
        for debtor, since in owed.items():
            if not await self._cursors.take_over(debtor, worker=self._worker):
                continue
            runs: dict[int, Followed] = {}  # where these runs are by now is another matter
            pos = since
            while rows := await self._cursors.read(debtor, after=pos, limit=PAGE):
                await self._export([entry for _, entry in rows], runs)
                pos = rows[-1][0]
                await self._cursors.advance(debtor, pos)
            await self._cursors.advance(debtor, None)
        return DEBTS_S

    async def _export(self, entries: Sequence[Entry], runs: dict[int, Followed]) -> None:
        """Send the spans of these entries; returns once they have been taken."""
        lost = lost_track(entries, runs)
        if lost:
            await self._take_up(lost, runs)
        if self._failures:
            unsampled = [entry for entry in entries if not runs[entry.run].sampled]
            failed = {entry.run: True for entry in unsampled if self._tells_failure(entry)}
            if failed:
                await self._take_up(failed, runs, whole=True)
        spans = await self._hand.do(partial(self._spans, entries, runs))
        if spans and self._delivery is not None:
            await self._delivery.bring(spans)
        for entry in entries:
            if entry.kind == EntryKind.ENDED:
                runs.pop(entry.run, None)
        while len(runs) > MOST_FOLLOWED:
            runs.pop(next(iter(runs)))

    async def _take_up(self, lost: dict[int, bool], runs: dict[int, Followed], *, whole: bool = False) -> None:
        """Follow these runs from here on; with ``whole`` all that was before is exported too."""
        records = {record.num: record for record in await self._store.runs.find_nums(list(lost))}
        begun = [num for num, amid in lost.items() if amid and num in records]
        journals = await self._store.journal.load(begun) if begun else {}
        for num in lost:
            record, journal = records.get(num), journals.get(num, [])
            runs[num] = self._followed(record, journal, whole=whole)

    def _followed(self, record: RunRecord | None, journal: Sequence[Entry], *, whole: bool) -> Followed:
        origin = None if record is None else origin_of(record.traceparent)
        if self._sink is None or record is None or (origin is not None and not origin.sampled and not whole):
            return Followed(None)  # not to be exported, or purged meanwhile
        return Followed(RunTrace(record, self._vocabulary), journal, repeat=whole)

    def _tells_failure(self, entry: Entry) -> bool:
        return entry.kind in TROUBLE or (entry.kind == EntryKind.ENDED and self._vocabulary.ending(entry).failed)

    def _spans(self, entries: Sequence[Entry], runs: dict[int, Followed]) -> list[SpanRecord]:
        """On the thread: the spans of these entries. A run that has no spans must not hold up the others."""
        found: list[SpanRecord] = []
        for entry in breathing(entries):
            try:
                found += runs[entry.run].feed(entry)
            except Exception:
                what = self._vocabulary.prefix
                log.exception("%s number %d, entry %d: its spans cannot be made; they are left out", what, *entry[:2])
                self.tally.broken += 1
                runs[entry.run] = Followed(None, seq=entry.seq)
        return found
