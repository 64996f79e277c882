"""A run's spans as a pure function of its journal: ``spans_of``.

Invariant: a longer journal has the spans of the shorter one first, each the same; and every span comes after its
parent. So whoever exports them, and however often, exports the same; and no moment shows a broken tree.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import msgspec

from durable_core.model.entry import Entry, EntryKind
from durable_core.model.keys import name_of, served
from durable_core.model.record import ABANDON
from durable_core.model.run import RunRecord
from durable_core.tracing.parts import Parts
from durable_core.tracing.pen import Pen
from durable_core.tracing.span import SpanLink, SpanRecord
from durable_core.tracing.steps import StepTrace
from durable_core.tracing.vocabulary import CORE, Closes, Meaning, Notes, Opens, Vocabulary


def spans_of(
    record: RunRecord, entries: Iterable[Entry], since: int = 0, *, vocabulary: Vocabulary = CORE
) -> list[SpanRecord]:
    """The spans that the entries after ``since`` make; with ``since`` 0 the root too.

    Args:
        record: the run's row; only what never changes of it is read.
        entries: its journal from the first entry on.
        since: the ``seq`` of the last entry whose spans are known already.
        vocabulary: the words of the layer above.
    """
    trace = RunTrace(record, vocabulary)
    found = [] if since else [trace.root()]
    for entry in entries:
        spans = trace.feed(entry)
        if entry.seq > since:
            found += spans
    return found


class RunTrace:
    """The spans of one run, entry by entry."""

    __slots__ = ("_name", "_parts", "_pen", "_root", "_steps", "_version", "_vocabulary", "_waits", "seq")

    def __init__(self, record: RunRecord, vocabulary: Vocabulary = CORE) -> None:
        self._pen = Pen(record, vocabulary)
        self._name, self._version = record.name, record.version
        self._vocabulary = vocabulary
        self._root = self._pen.id("run")
        self._parts = Parts(self._pen, self._root)
        self._steps: dict[str, StepTrace] = {}
        self._waits: dict[str, tuple[Entry, int, int]] = {}
        """Each wait under way: its ``armed`` entry, when it began, and its parent."""
        self.seq = 0
        """The last entry fed."""

    def root(self) -> SpanRecord:
        """The span that all others are under: short, so that it can be exported at the start."""
        pen, origin = self._pen, self._pen.origin
        joins = origin is not None and origin.mode == "join"
        parent_id = origin.span_id if origin is not None and joins else None
        linked = origin is not None and origin.mode == "link"
        links = (SpanLink(origin.trace_id, origin.span_id),) if origin is not None and linked else ()
        attributes = pen.attributes(name=self._name, version=self._version)
        start_ns = pen.began_ns
        name = f"{pen.prefix} {self._name}"
        found = pen.span(name, self._root, parent_id, attributes, start_ns=start_ns, links=links)
        return found._replace(remote_parent=True) if joins else found

    def feed(self, entry: Entry) -> list[SpanRecord]:
        """Take up the journal's next entry; the spans that it completes."""
        self.seq = entry.seq
        self._pen.advance(entry.at_ns)
        handle = self._HANDLERS.get(entry.kind)
        return [] if handle is None else handle(self, entry)

    # -- steps -----------------------------------------------------------------------------------------------------

    def _started(self, entry: Entry) -> list[SpanRecord]:
        before = self._steps.get(entry.key)
        found = [] if before is None else before.cut()
        parent, scopes = self._parts.of(entry.key, entry.label)
        found += scopes
        serves = self._steps.get(served(entry.key)) if "~" in entry.key else None
        links = () if serves is None else self._pen.link(serves.latest)
        self._steps[entry.key] = StepTrace(self._pen, self._vocabulary, entry, parent, links)
        return found

    def _step(self, entry: Entry) -> list[SpanRecord]:
        step = self._steps.get(entry.key)
        if step is None:
            return []
        match entry.kind:
            case EntryKind.RETRIED | EntryKind.REOPENED:
                return step.again(entry)
            case EntryKind.WITHHELD:
                step.withheld()
            case EntryKind.TIMED_OUT:
                step.overdue(entry)
            case EntryKind.GAVE_UP:
                return step.given_up(entry)
            case EntryKind.SETTLED:
                return step.settled(entry)
            case _:
                return step.ended(entry)
        return []

    def _cut_all(self) -> list[SpanRecord]:
        return [span for step in self._steps.values() for span in step.cut()]

    # -- waits -----------------------------------------------------------------------------------------------------

    def _armed(self, entry: Entry) -> list[SpanRecord]:
        parent, found = self._parts.of(entry.key, entry.label)
        self._waits[entry.key] = (entry, self._pen.now_ns, parent)
        span_id = self._pen.id("armed", entry.key, 0, entry.seq)
        attributes = self._wait_attributes(entry, None, entry.worker)
        found.append(self._pen.span(f"wait {name_of(entry.key)} armed", span_id, parent, attributes))
        return found

    def _over(self, entry: Entry) -> list[SpanRecord]:
        known = self._waits.pop(entry.key, None)
        if known is None:
            return []  # what was given up waited for a person
        armed, start_ns, parent = known
        outcome = str(entry.kind)  # an entry of this process's own may hold a member of an enumeration
        if entry.kind == EntryKind.ANSWERED:
            outcome = str(entry.label)
        elif entry.kind == EntryKind.FIRED and armed.label == "callback":
            outcome = "timed_out"
        attributes = self._wait_attributes(armed, outcome, entry.worker)
        span_id = self._pen.id("wait", entry.key, 0, armed.seq)
        name = f"wait {name_of(entry.key)}"
        return [self._pen.span(name, span_id, parent, attributes, start_ns=start_ns, end_ns=self._pen.now_ns)]

    def _wait_attributes(self, armed: Entry, outcome: str | None, worker: str) -> dict[str, Any]:
        return self._pen.attributes(
            step__name=name_of(armed.key),
            step__key=armed.key,
            step__kind=armed.label,
            step__outcome=outcome,
            worker__id=worker,
        )

    # -- the run itself --------------------------------------------------------------------------------------------

    def _marked(self, entry: Entry) -> list[SpanRecord]:
        found: list[SpanRecord] = []
        for meaning in self._vocabulary.mark(entry):
            found += self._meant(entry, meaning)
        return found

    def _meant(self, entry: Entry, meaning: Meaning) -> list[SpanRecord]:
        match meaning:
            case Opens():
                return self._parts.open(entry, meaning)
            case Closes():
                return self._parts.close(entry, meaning)
            case Notes():
                return [self._moment(entry, meaning.name, **meaning.attributes)]

    def _signalled(self, entry: Entry) -> list[SpanRecord]:
        found = [self._moment(entry, entry.key, **self._vocabulary.signal(entry))]
        if entry.label == ABANDON:
            found += self._cut_all()
        return found

    def _moment(self, entry: Entry, name: str, /, **own: Any) -> SpanRecord:
        span_id = self._pen.id(entry.kind, entry.key, 0, entry.seq)
        return self._pen.span(name, span_id, self._root, self._pen.attributes(worker__id=entry.worker, **own))

    def _parked(self, entry: Entry) -> list[SpanRecord]:
        """It is stuck. The reason is a text of exceptions, so only what it is stuck on is told."""
        on: tuple[str, ...] = (entry.key,) if entry.key else ()
        if entry.kind == EntryKind.PARKED:
            on = tuple(msgspec.json.decode(entry.payload or b"{}").get("steps", ()))
        found = self._moment(entry, "stuck", stuck_on=on or None)
        events = self._pen.exception(entry.error)
        if events:
            found = found._replace(
                attributes={**found.attributes, "error.type": events[0].attributes["exception.type"]}
            )
        return [found._replace(failed=True, events=events)]

    def _ended(self, entry: Entry) -> list[SpanRecord]:
        pen = self._pen
        found = self._cut_all()
        found += self._parts.close_all(entry)
        ending = self._vocabulary.ending(entry)
        attributes = pen.attributes(
            name=self._name, version=self._version, status=ending.status, worker__id=entry.worker, **ending.attributes
        )
        found.append(
            pen.span(
                f"outcome {ending.status}",
                pen.id("outcome", "", 0, entry.seq),
                self._root,
                attributes,
                start_ns=pen.began_ns,
                end_ns=pen.now_ns,
                events=pen.exception(entry.error),
                failed=ending.failed,
            )
        )
        return found

    def _noted(self, entry: Entry) -> list[SpanRecord]:
        step = self._steps.get(entry.key)
        return [] if step is None or not entry.attempt else step.late(entry)

    _HANDLERS: ClassVar[Mapping[str, Callable[[Any, Entry], list[SpanRecord]]]] = {
        EntryKind.STARTED: _started,
        EntryKind.ARMED: _armed,
        EntryKind.MARKED: _marked,
        EntryKind.SIGNALLED: _signalled,
        EntryKind.PARKED: _parked,
        EntryKind.FAULTED: _parked,
        EntryKind.ENDED: _ended,
        EntryKind.NOTED: _noted,
        **dict.fromkeys((EntryKind.FIRED, EntryKind.ANSWERED, EntryKind.CLOSED), _over),
        **dict.fromkeys(
            (
                EntryKind.RETRIED,
                EntryKind.REOPENED,
                EntryKind.WITHHELD,
                EntryKind.TIMED_OUT,
                EntryKind.GAVE_UP,
                EntryKind.SETTLED,
                EntryKind.SUCCEEDED,
                EntryKind.FAILED,
            ),
            _step,
        ),
    }
