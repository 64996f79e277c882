"""A run's spans as a pure function of its journal: ``spans_of``.

Invariant: a longer journal has the spans of the shorter one first, each the same; and every span comes after its
parent. So every exporter, however often it runs, exports the same; and no moment shows a broken tree.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import msgspec

from durable_core.model.callback import answered_by
from durable_core.model.entry import ANSWERED_BY, Entry, EntryKind
from durable_core.model.keys import name_of, served
from durable_core.model.record import ABANDON
from durable_core.model.run import RunRecord
from durable_core.model.said import SAID, said_in
from durable_core.model.tags import TAGGED, tag_in
from durable_core.tracing.builder import SpanBuilder
from durable_core.tracing.scopes import SpanScopes
from durable_core.tracing.span import SHORT_NS, Holder, SpanLink, SpanRecord, Value
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

    __slots__ = ("_by", "_parts", "_pen", "_root", "_steps", "_version", "_vocabulary", "_waits", "over", "seq")

    def __init__(self, record: RunRecord, vocabulary: Vocabulary = CORE) -> None:
        self._pen = SpanBuilder(record, vocabulary)
        self._version = record.version
        self._vocabulary = vocabulary
        self._root = Holder(self._pen.id("run"), 2 * SHORT_NS)
        self._parts = SpanScopes(self._pen, self._root)
        self._steps: dict[str, StepTrace] = {}
        self._waits: dict[str, tuple[Entry, int, Holder, int]] = {}
        """Each wait under way: its ``armed`` entry, when it began, its parent, and the span of its beginning."""
        self._by: Entry | None = None
        """The last entry that says who answered a callback."""
        self.over = False
        """The run has ended, and has not been taken up again."""
        self.seq = 0
        """The last entry fed."""

    def root(self) -> SpanRecord:
        """The span that all others are under: short, so that it can be exported at the start."""
        pen, origin = self._pen, self._pen.origin
        joins = origin is not None and origin.mode == "join"
        linked = origin is not None and origin.mode == "link"
        links = (SpanLink(origin.trace_id, origin.span_id),) if origin is not None and linked else ()
        attributes = pen.attributes(version=self._version)
        name = f"{pen.prefix} {pen.shared[pen.names.run_name]}"
        found = pen.span(name, self._root.span_id, None, attributes, start_ns=pen.began_ns, links=links, holds=True)
        if origin is None or not joins:
            return found
        return found._replace(parent_id=origin.span_id, remote_parent=True)

    def feed(self, entry: Entry) -> list[SpanRecord]:
        """Take up the journal's next entry; the spans that it completes."""
        self.seq = entry.seq
        pen, at_ns = self._pen, entry.at_ns
        if at_ns > pen.now_ns:  # noqa: PLR1730 - a call of max() for each entry is felt
            pen.now_ns = at_ns  # by whichever clock: it does not go back
        handle = self._HANDLERS.get(entry.kind)
        return [] if handle is None else handle(self, entry)

    # -- steps -----------------------------------------------------------------------------------------------------

    def _started(self, entry: Entry) -> list[SpanRecord]:
        key = entry.key
        before = self._steps.get(key)
        parent, found = self._parts.of(key, entry.label)
        if before is not None:
            found = before.cut() + found
        serves = self._steps.get(served(key)) if "~" in key else None
        self._steps[key] = StepTrace(self._pen, self._vocabulary, entry, parent, serves=serves)
        return found

    def _attempt(self, entry: Entry) -> list[SpanRecord]:
        step = self._steps.get(entry.key)
        return [] if step is None else step.ended(entry)

    def _step(self, entry: Entry) -> list[SpanRecord]:
        step = self._steps.get(entry.key)
        if step is None:
            return []
        match entry.kind:
            case EntryKind.RETRIED | EntryKind.REOPENED:
                return step.again(entry)
            case EntryKind.GAVE_UP:
                return step.given_up(entry)
            case EntryKind.SETTLED:
                return step.settled(entry)
            case EntryKind.TIMED_OUT:
                step.overdue(entry)
            case _:
                step.withheld()
        return []

    def _cut_all(self) -> list[SpanRecord]:
        return [span for step in self._steps.values() if step.open for span in step.cut()]

    # -- waits -----------------------------------------------------------------------------------------------------

    def _armed(self, entry: Entry) -> list[SpanRecord]:
        parent, found = self._parts.of(entry.key, entry.label)
        span_id = self._pen.id("armed", entry.key, 0, entry.seq)
        self._waits[entry.key] = (entry, self._pen.now_ns, parent, span_id)
        attributes = self._wait_attributes(entry, None, entry.worker)
        found.append(self._pen.span(f"wait {name_of(entry.key)} armed", span_id, parent, attributes))
        return found

    def _over(self, entry: Entry) -> list[SpanRecord]:
        known = self._waits.pop(entry.key, None)
        if known is None:
            return []  # what was given up waited for a person
        armed, start_ns, parent, tells = known
        outcome = str(entry.kind)  # an entry of this process's own may hold a member of an enumeration
        if entry.kind == EntryKind.ANSWERED:
            outcome = str(entry.label)
        elif entry.kind == EntryKind.FIRED and armed.label == "callback":
            outcome = "timed_out"
        attributes = self._wait_attributes(armed, outcome, entry.worker, answered_by(self._by, entry).actor or None)
        span_id = self._pen.id("wait", entry.key, 0, armed.seq)
        name = f"wait {name_of(entry.key)}"
        pen = self._pen
        return [pen.span(name, span_id, parent, attributes, start_ns=start_ns, end_ns=pen.now_ns, tells=(tells,))]

    def _wait_attributes(
        self, armed: Entry, outcome: str | None, worker: str, actor: str | None = None
    ) -> dict[str, Value]:
        return self._pen.attributes(
            worker,
            step__name=name_of(armed.key),
            step__key=armed.key,
            step__kind=armed.label,
            step__outcome=outcome,
            actor=actor,
        )

    # -- the run itself --------------------------------------------------------------------------------------------

    def _marked(self, entry: Entry) -> list[SpanRecord]:
        if entry.key == TAGGED:
            self._pen.tag(*tag_in(entry))
            return []
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
            self.over = False
            found += self._cut_all()
        return found

    def _moment(self, entry: Entry, name: str, /, **own: Any) -> SpanRecord:
        span_id = self._pen.id(entry.kind, entry.key, 0, entry.seq)
        return self._pen.span(name, span_id, self._root, self._pen.attributes(entry.worker, **own))

    def _parked(self, entry: Entry) -> list[SpanRecord]:
        """It is stuck. The reason is a text of exceptions, so it tells on what, and the exceptions behind it."""
        on: tuple[str, ...] = tuple(msgspec.json.decode(entry.payload or b"{}").get("steps", ()))
        if entry.kind == EntryKind.FAULTED and entry.key:
            on = (served(entry.key),)
        pen = self._pen
        step = self._concerned(entry, on)
        found = self._moment(entry, "stuck", stuck_on=on or None)
        events = pen.exception(None if step is None else step.failure) + pen.exception(entry.error)
        if events:
            attributes = {**found.attributes, "error.type": events[0].attributes["exception.type"]}
            found = found._replace(attributes=attributes, events=events)
        links = () if step is None else pen.link(step.latest)
        return [found._replace(failed=True, links=links)]

    def _concerned(self, entry: Entry, on: tuple[str, ...]) -> StepTrace | None:
        """The step whose failure it is: what serves the first one that it is stuck on, where that is what failed."""
        for key in (entry.key, *on):
            serving = [step for other, step in self._steps.items() if "~" in other and served(other) == key]
            for step in (self._steps.get(key), *reversed(serving)):
                if step is not None and step.failure is not None:
                    return step
        return self._steps.get(entry.key)

    def _ended(self, entry: Entry) -> list[SpanRecord]:
        pen = self._pen
        self.over = True
        found = self._cut_all()
        found += self._parts.close_all(entry)
        ending = self._vocabulary.ending(entry)
        attributes = pen.attributes(entry.worker, version=self._version, status=ending.status, **ending.attributes)
        events = pen.exception(entry.error)
        if events:
            attributes["error.type"] = events[0].attributes["exception.type"]
        mark = pen.id("ended", "", 0, entry.seq)
        found.append(pen.span(f"ended {ending.status}", mark, self._root, attributes, failed=ending.failed))
        found.append(
            pen.span(
                f"outcome {ending.status}",
                pen.id("outcome", "", 0, entry.seq),
                self._root,
                attributes,
                start_ns=pen.began_ns,
                end_ns=pen.now_ns,
                events=events,
                failed=ending.failed,
                tells=(self._root.span_id, mark),
            )
        )
        return found

    def _noted(self, entry: Entry) -> list[SpanRecord]:
        if entry.label == ANSWERED_BY:
            self._by = entry
            return []
        step = self._steps.get(entry.key)
        if step is None:
            return []
        if entry.label == SAID:
            step.said(said_in(entry.payload))
            return []
        if entry.label == EntryKind.WITHHELD:
            step.withheld()
            return []
        return step.late(entry, str(entry.label)) if entry.attempt else []

    # -- as it stands ----------------------------------------------------------------------------------------------

    def under_way(self) -> set[int]:
        """The spans of those parts that have not ended, among those whose end is shown."""
        steps = {step.group for step in self._steps.values() if step.group is not None and not step.over}
        root = set[int]() if self.over else {self._root.span_id}
        return steps | self._parts.under_way() | root

    def running(self, now_ns: int) -> list[SpanRecord]:
        """The attempts under way, as far as the journal knows, up to now."""
        return [span for step in self._steps.values() for span in step.running(now_ns)]

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
            ),
            _step,
        ),
        EntryKind.SUCCEEDED: _attempt,
        EntryKind.FAILED: _attempt,
    }
