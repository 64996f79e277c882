"""Measures what one worker writes, from the journal and after the commit, by itself.

Invariant: no measurement waits for a collector of spans. Whoever watches for stuck runs must see them also while that
one is down; so this reads the journal for itself, and has a thread of its own.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import attrs

from durable_core.model.duration import NS
from durable_core.model.entry import Entry, EntryKind
from durable_core.ports import MeasureSink, SpanCursors, Store
from durable_core.tracing.counting import Counting
from durable_core.tracing.delivery import Tally
from durable_core.tracing.export_thread import ExportThread, breathing
from durable_core.tracing.following import lost_track
from durable_core.tracing.journal_tail import JournalTail
from durable_core.tracing.metrics import Measure
from durable_core.tracing.vocabulary import Vocabulary

log = logging.getLogger("durable_core.tracing")

PAGE = 2_000
"""Entries read at a time."""
GAUGE_S = 10.0
"""How often to look how all runs of the store stand: it takes 80 ms where a hundred thousand wait."""
MOST_FOLLOWED = 10_000
"""Runs that are kept in memory; others are read again when they go on."""


class Measuring:
    """Follows the journal for one worker, and counts."""

    def __init__(
        self,
        store: Store,
        worker: str,
        meters: MeasureSink,
        vocabulary: Vocabulary,
        *,
        progress: Callable[[], int],
        now_ns: Callable[[], int],
        tally: Tally,
    ) -> None:
        self._store = store
        self._cursors: SpanCursors = store.spans
        self._worker = worker
        self._meters = meters
        self._vocabulary = vocabulary
        self._progress = progress
        self._now_ns = now_ns
        self._tally = tally
        self._told = Tally()
        """How it stood when it was last measured."""
        self._runs: dict[int, Counting] = {}
        self._pos = 0
        self._pursuit: JournalTail | None = None

    def start(self, pos: int) -> None:
        """Begin to follow, behind this position."""
        self._pos = pos
        self._hand = ExportThread("measurements")
        self._pursuit = JournalTail(
            what="measurements", progress=self._progress, catch_up=self._catch_up, besides=self._gauge
        )

    async def close(self, *, within_s: float) -> None:
        """Count what is left, for ``within_s``; what then remains is not counted."""
        if self._pursuit is None:
            return
        await self._pursuit.leave(within_s=within_s)
        self._pursuit = None
        self._hand.stop()
        self._tell_tally()

    async def _catch_up(self, to_the_end: bool) -> None:  # noqa: FBT001 - said by the pursuit alone
        """Count all that this worker has written; what a dead one wrote, that may have counted itself."""
        while rows := await self._cursors.read(self._worker, after=self._pos, limit=PAGE):
            entries = [entry for _, entry in rows]
            await self._take_up(lost_track(entries, self._runs))
            self._pos = rows[-1][0]  # once, also if it fails
            await self._hand.do(partial(self._count, entries))
            for entry in entries:
                if entry.kind == EntryKind.ENDED:
                    self._runs.pop(entry.run, None)
            while len(self._runs) > MOST_FOLLOWED:
                self._runs.pop(next(iter(self._runs)))
            if len(rows) < PAGE and not to_the_end:
                return

    async def _take_up(self, lost: dict[int, bool]) -> None:
        """Follow these runs from here on; those that are amid their journal need what was before."""
        if not lost:
            return
        records = {record.num: record for record in await self._store.runs.find_nums(list(lost))}
        begun = [num for num, amid in lost.items() if amid and num in records]
        journals = await self._store.journal.load(begun) if begun else {}
        for num, record in records.items():  # others were purged meanwhile
            self._runs[num] = Counting(record, self._vocabulary, journals.get(num, []))

    def _count(self, entries: Sequence[Entry]) -> None:
        """On the thread."""
        for entry in breathing(entries):
            counting = self._runs.get(entry.run)
            for measure in counting.feed(entry) if counting is not None else ():
                self._meters.record(measure)

    async def _gauge(self) -> float:
        """Tell of the whole store how many runs stand how that have not ended, and how long one waits for a worker."""
        self._tell_tally()
        for status, query in self._vocabulary.standings().items():
            self._meters.record(Measure("active", await self._store.runs.count(query), {"status": status}))
        now_ns = self._now_ns()
        waiting = [await self._store.runs.next_wake_ns(after_ns=0), await self._store.runs.unbegun_since_ns()]
        age_ns = max((now_ns - since_ns for since_ns in waiting if since_ns is not None), default=0)
        self._meters.record(Measure("oldest_runnable.age", max(0, age_ns) / NS, {}))
        return GAUGE_S

    def _tell_tally(self) -> None:
        """Count what has become of spans since the last report."""
        known, self._told = self._told, attrs.evolve(self._tally)
        self._meters.record(Measure("spans.sent", self._told.sent - known.sent, {}))
        self._meters.record(Measure("spans.dropped", self._told.dropped - known.dropped, {}))
