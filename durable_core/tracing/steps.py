"""A step's spans: one for each attempt that was made; where there were several, a group around them.

Invariant: an attempt's span has the id that its own code saw while it ran, whatever came of it.
"""

from durable_core.model.entry import Entry, EntryKind
from durable_core.model.failure import describe
from durable_core.model.keys import idempotency_key, name_of, served
from durable_core.model.trace import attempt_span_id
from durable_core.tracing.pen import Pen
from durable_core.tracing.span import SpanEvent, SpanLink, SpanRecord, Value
from durable_core.tracing.vocabulary import PLAIN, StepWords, Vocabulary

CUT = "cut"
"""The outcome of an attempt whose process died, or whose run was ended meanwhile: nobody knows what came of it."""


class StepTrace:
    """One step, from its intent on."""

    __slots__ = (
        "_attempt",
        "_began_ns",
        "_group",
        "_intent",
        "_key",
        "_kind",
        "_links",
        "_name",
        "_open",
        "_opened_ns",
        "_parent",
        "_pen",
        "_plain",
        "_timeout",
        "_words",
        "_worker",
        "latest",
    )

    def __init__(
        self, pen: Pen, words: Vocabulary, started: Entry, parent: int, links: tuple[SpanLink, ...] = ()
    ) -> None:
        self._pen = pen
        self._key, self._kind, self._intent = started.key, started.label, started.seq
        self._words: StepWords = words.kinds.get(started.label, PLAIN)
        self._plain = name_of(started.key)
        self._name = self._plain if self._words is PLAIN else self._words.name.format(step=self._plain)
        self._parent = parent
        self._links = links
        self._began_ns = pen.now_ns
        self._group: int | None = None
        self.latest: int | None = None
        """The span of the last attempt that has ended."""
        self._begin(started)

    def _begin(self, entry: Entry) -> None:
        self._open = True
        self._attempt = entry.attempt
        self._opened_ns = self._pen.now_ns
        self._worker = entry.worker
        self._timeout: tuple[SpanEvent, ...] = ()

    def again(self, entry: Entry) -> list[SpanRecord]:
        """A further attempt begins; one that has no end was cut."""
        found = self.cut()
        if self.latest is not None and self._group is None:
            found += self._grouped()
        self._begin(entry)
        return found

    def withheld(self) -> None:
        """The announced attempt was not made."""
        self._open = False

    def overdue(self, entry: Entry) -> None:
        """The attempt has passed its timeout, and goes on for now."""
        self._timeout = (SpanEvent("timeout", self._pen.now_ns, {self._pen.names.worker: entry.worker}),)

    def ended(self, entry: Entry) -> list[SpanRecord]:
        """An attempt has ended."""
        outcome = "succeeded" if entry.kind == EntryKind.SUCCEEDED else str(entry.label)
        found = self._close(entry, outcome, final=entry.due_at_ns is None)
        if entry.due_at_ns is None and self._group is not None:
            found.append(self._done(entry, outcome))
        return found

    def given_up(self, entry: Entry) -> list[SpanRecord]:
        """The attempt that was due will not be made."""
        return [*self._grouped(), self._done(entry, str(entry.label))]

    def settled(self, entry: Entry) -> list[SpanRecord]:
        """Whether it happened is known now."""
        span_id = self._pen.id("settled", self._key, 0, entry.seq)
        attributes = self._attributes(None, str(entry.label), entry.worker)
        links = self._pen.link(self.latest)
        return [self._pen.span(f"settle {self._plain}", span_id, self._parent, attributes, links=links)]

    def cut(self) -> list[SpanRecord]:
        """Close an attempt that has no end: it is over by now, and nobody saw how it went."""
        return self._close(None, CUT, final=False) if self._open else []

    def late(self, entry: Entry) -> list[SpanRecord]:
        """Evidence of how an attempt went that was under way when its run was killed."""
        span_id = self._pen.id("late", self._key, entry.attempt, entry.seq)
        attributes = self._attributes(entry.attempt, str(entry.label), entry.worker)
        name = f"{self._name} ended late"
        events = self._pen.exception(entry.error)
        return [
            self._pen.span(name, span_id, self._parent, attributes, links=self._pen.link(self.latest), events=events)
        ]

    def _close(self, entry: Entry | None, outcome: str, *, final: bool) -> list[SpanRecord]:
        """The attempt's span; the first one's has the step's own name where no other follows, as far as is known."""
        pen = self._pen
        self._open = False
        found = [] if final else self._grouped()
        span_id = attempt_span_id(pen.uid, self._key, self._attempt, self._intent)
        called_ns = None if entry is None else entry.started_at_ns
        start_ns = self._opened_ns if called_ns is None else min(max(self._opened_ns, called_ns), pen.now_ns)
        attributes = self._attributes(self._attempt, outcome, self._worker if entry is None else entry.worker)
        failed = outcome != "succeeded"
        error = None if entry is None else entry.error
        if error is not None:
            attributes["error.type"] = describe(error).type_name
        elif failed:
            attributes["error.type"] = outcome
        name, parent = self._name, self._parent
        if self._group is not None:
            name, parent = f"{name} #{self._attempt}", self._group
        self.latest = span_id
        found.append(
            pen.span(
                name,
                span_id,
                parent,
                attributes,
                start_ns=start_ns,
                end_ns=pen.now_ns,
                links=self._links,
                events=self._timeout + pen.exception(error),
                failed=failed,
            )
        )
        return found

    def _grouped(self) -> list[SpanRecord]:
        """The short span around several attempts, where it is not there yet."""
        if self._group is not None:
            return []
        self._group = self._pen.id("group", self._key, 0, self._intent)
        attributes = self._attributes(None, None, self._worker)
        return [
            self._pen.span(
                self._name, self._group, self._parent, attributes, start_ns=self._began_ns, links=self._links
            )
        ]

    def _done(self, entry: Entry, outcome: str) -> SpanRecord:
        """The span over all attempts."""
        span_id = self._pen.id("done", self._key, entry.attempt, entry.seq)
        attributes = self._attributes(None, outcome, entry.worker)
        failed = outcome != "succeeded"
        return self._pen.span(
            f"{self._name} done",
            span_id,
            self._group,
            attributes,
            start_ns=self._began_ns,
            end_ns=self._pen.now_ns,
            failed=failed,
        )

    def _attributes(self, attempt: int | None, outcome: str | None, worker: str) -> dict[str, Value]:
        pen, names = self._pen, self._pen.names
        found: dict[str, Value] = {
            names.id: pen.run_id,
            names.step_name: self._plain,
            names.step_key: self._key,
            names.step_kind: self._kind,
            names.worker: worker,
        }
        if outcome is not None:
            found[names.outcome] = outcome
        if attempt is not None:
            found[names.attempt] = attempt
            found[names.idempotency_key] = idempotency_key(pen.uid, self._key)
        if self._words.serves is not None:
            found[f"{pen.prefix}.{self._words.serves}"] = served(self._key)
        return found
