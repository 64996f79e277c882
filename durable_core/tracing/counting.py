"""What is to be measured of a run, entry by entry: a pure function of its journal, as its spans are.

Invariant: no id is in an attribute, so that a store of measurements does not grow with the number of runs.
"""

from collections import deque
from collections.abc import Iterator, Sequence

from durable_core.model.duration import NS
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.keys import name_of
from durable_core.model.run import RunRecord
from durable_core.tracing.metrics import Attribute, Measure
from durable_core.tracing.vocabulary import PLAIN, Vocabulary


class Counting:
    """One run."""

    __slots__ = ("_created_ns", "_due", "_journal", "_kinds", "_name", "_version", "_vocabulary", "seq")

    def __init__(self, record: RunRecord, vocabulary: Vocabulary, journal: Sequence[Entry] = ()) -> None:
        self._journal = deque(journal)
        """Entries of which some are other workers' to count: they are taken up on the way."""
        self._name, self._version = record.name, record.version
        self._created_ns = record.created_at_ns
        self._vocabulary = vocabulary
        self._kinds: dict[str, str] = {}
        """The kind of each step that has begun and not succeeded: one that was given up may be tried again."""
        self._due: dict[str, int] = {}
        """When what waits falls due."""
        self.seq = 0
        """The last entry taken up."""

    def feed(self, entry: Entry) -> list[Measure]:
        """What an entry adds that this worker has written."""
        while self._journal and self._journal[0].seq <= entry.seq:
            other = self._journal.popleft()
            if self.seq < other.seq < entry.seq:
                self._take(other)
        return self._take(entry)

    def _take(self, entry: Entry) -> list[Measure]:
        self.seq = entry.seq
        return list(self._measures(entry))

    def _measures(self, entry: Entry) -> Iterator[Measure]:
        if entry.seq == 1:
            yield Measure("started", 1, {"name": self._name, "version": self._version})
            yield Measure("start.lag", _seconds(self._created_ns, entry.at_ns), {"name": self._name})
        match entry.kind:
            case EntryKind.STARTED:
                self._kinds[entry.key] = str(entry.label)
            case EntryKind.ARMED:
                self._await(entry)
            case EntryKind.FIRED | EntryKind.RETRIED:
                due_ns = self._due.pop(entry.key, None)
                if due_ns is not None:
                    yield Measure("timer.lag", _seconds(due_ns, entry.at_ns), {"name": self._name})
            case EntryKind.ANSWERED | EntryKind.CLOSED:
                self._due.pop(entry.key, None)
            case EntryKind.GAVE_UP:
                self._due.pop(entry.key, None)
                yield from self._over(entry, str(entry.label))
            case EntryKind.SUCCEEDED | EntryKind.FAILED:
                self._await(entry)
                yield from self._attempt(entry)
            case EntryKind.ENDED:
                yield from self._ended(entry)
            case _:
                pass

    def _await(self, entry: Entry) -> None:
        if entry.due_at_ns is not None:
            self._due[entry.key] = entry.due_at_ns

    def _attempt(self, entry: Entry) -> Iterator[Measure]:
        outcome = "succeeded" if entry.kind == EntryKind.SUCCEEDED else str(entry.label)
        attributes: dict[str, Attribute] = {
            "name": self._name,
            "step.name": name_of(entry.key),
            "step.kind": self._kinds.get(entry.key, "step"),
            "step.outcome": outcome,
        }
        yield Measure("step.attempts", 1, attributes)
        if entry.started_at_ns is not None:
            yield Measure("step.duration", _seconds(entry.started_at_ns, entry.at_ns), attributes)
        if entry.due_at_ns is None:
            yield from self._over(entry, outcome)
        if entry.kind == EntryKind.SUCCEEDED:
            self._kinds.pop(entry.key, None)

    def _over(self, entry: Entry, outcome: str) -> Iterator[Measure]:
        """A step has ended, with all its attempts: some kinds of them are counted by themselves."""
        counts = self._vocabulary.kinds.get(self._kinds.get(entry.key, ""), PLAIN).counts
        if counts is not None:
            yield Measure(counts, 1, {"name": self._name, "step.name": name_of(entry.key), "step.outcome": outcome})

    def _ended(self, entry: Entry) -> Iterator[Measure]:
        status = self._vocabulary.ending(entry).status
        yield Measure("ended", 1, {"name": self._name, "version": self._version, "status": status})
        took = _seconds(self._created_ns, entry.at_ns)
        yield Measure("duration", took, {"name": self._name, "status": status})


def _seconds(start_ns: int, end_ns: int) -> float:
    """Never negative: the clocks of two workers may differ."""
    return max(0, end_ns - start_ns) / NS
