"""A run as one process follows it: which of its spans this process has to export.

Invariant: no span leaves before its parent, and what it links to in its trace, have left by the same hand. Where a run
is taken up in its midst, because another worker began it, traced or not, or it was not followed for long, the spans
that later ones stand on are sent again, the same.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from durable_core.model.entry import Entry
from durable_core.tracing.fold import RunTrace
from durable_core.tracing.span import SpanRecord

NOTHING: deque[Entry] = deque()
"""Never added to: most runs are followed from their start, and an empty deque takes 700 bytes."""


class Following(Protocol):
    """Whatever takes up a run entry by entry."""

    seq: int
    """The last entry taken up."""


class Followed:
    """One run. Without a trace it is not exported: that was decided at its start."""

    __slots__ = ("_journal", "_repeat", "_rooted", "_trace", "_unsent", "seq")

    def __init__(
        self, trace: RunTrace | None, journal: Sequence[Entry] = (), *, repeat: bool = False, seq: int = 0
    ) -> None:
        self._trace = trace
        self._journal = deque(journal) if journal else NOTHING
        """Entries of which some are other workers' business: they are taken up on the way, and not exported."""
        self._repeat = repeat
        """Whether they are exported nevertheless."""
        self._unsent: dict[int, SpanRecord] | None = None
        """Spans that this process has not sent, and that others may be under or link to."""
        self._rooted = False
        self.seq = seq
        """The last entry taken up."""

    @property
    def sampled(self) -> bool:
        """Whether its spans are exported."""
        return self._trace is not None

    def feed(self, entry: Entry) -> list[SpanRecord]:
        """Take up an entry; the spans to send, each after its parent."""
        self.seq = entry.seq
        trace = self._trace
        if trace is None or entry.seq <= trace.seq:
            return []
        before: list[SpanRecord] = []
        if self._journal or not self._rooted:
            before = self._up_to(trace, entry)
        spans = trace.feed(entry)
        if self._unsent:
            spans = [found for span in spans for found in (*self._before(span), span)]
        return before + spans if before else spans

    def _up_to(self, trace: RunTrace, entry: Entry) -> list[SpanRecord]:
        """Take up what was before ``entry``; the spans of it that are to be sent."""
        spans: list[SpanRecord] = []
        if not self._rooted:
            self._rooted = True
            spans.append(trace.root())
        own = entry.seq == 1 or self._repeat
        journal = self._journal
        while journal and journal[0].seq <= entry.seq:
            other = journal.popleft()
            if other.seq < entry.seq and other.seq > trace.seq:
                spans += trace.feed(other)
        if own:
            return spans
        self._unsent = (self._unsent or {}) | {span.span_id: span for span in spans}
        return []

    def _before(self, span: SpanRecord) -> list[SpanRecord]:
        """The unsent spans that ``span`` stands on, each after those that it stands on itself."""
        found: list[SpanRecord] = []
        for span_id in (span.parent_id, *(link.span_id for link in span.links)):
            other = None if span_id is None or not self._unsent else self._unsent.pop(span_id, None)
            if other is not None:
                found += (*self._before(other), other)
        return found


def lost_track(entries: Sequence[Entry], runs: Mapping[int, Following]) -> dict[int, bool]:
    """The runs that are not followed up to here, and whether they are amid their journal rather than at its start."""
    last: dict[int, int] = {}
    found: dict[int, bool] = {}
    for entry in entries:
        run, seq = entry.run, entry.seq
        before = last.get(run)
        if before is None:
            followed = runs.get(run)
            if followed is None:
                found[run] = seq > 1
            elif seq != followed.seq + 1:
                found[run] = True
        elif seq != before + 1:
            found[run] = True  # another worker has written in between
        last[run] = seq
    return found
