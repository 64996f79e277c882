"""A step's spans: one for each attempt that was made; where there were several, a group around them.

Invariant: an attempt's span has the id that its own code saw while it ran, however it ended.
"""

from durable_core.model.entry import Entry, EntryKind
from durable_core.model.keys import idempotency_key, name_of, served
from durable_core.model.record import edition_in
from durable_core.model.said import NOTHING_SAID, Said
from durable_core.model.trace import ATTEMPT
from durable_core.tracing.builder import SpanBuilder, written_by
from durable_core.tracing.span import Holder, SpanEvent, SpanRecord, Value
from durable_core.tracing.vocabulary import PLAIN, StepWords, Vocabulary

CUT = "cut"
"""The outcome of an attempt whose process died, or whose run was ended meanwhile: nobody knows what came of it."""
MS = 1_000_000


class _Subject:
    """The step, as each of its spans describes it."""

    __slots__ = ("_pen", "edition", "key", "kind", "name", "step", "words")

    def __init__(self, pen: SpanBuilder, vocabulary: Vocabulary, started: Entry, edition: int) -> None:
        self._pen = pen
        self.edition = edition
        self.key, self.kind = started.key, started.label
        self.words: StepWords = vocabulary.kinds.get(started.label, PLAIN)
        self.step = name_of(started.key)
        """The step's name."""
        self.name = self.step if self.words is PLAIN else self.words.name.format(step=self.step)
        """The name of its spans."""

    def attributes(self, attempt: int | None, outcome: str | None, worker: str) -> dict[str, Value]:
        """The attributes of a span: of one attempt, or of the whole step if ``attempt`` is None."""
        pen = self._pen
        names = pen.names
        found: dict[str, Value] = {
            **pen.shared,
            names.step_name: self.step,
            names.step_key: self.key,
            names.step_kind: self.kind,
            **written_by(pen.prefix, worker),
        }
        if outcome is not None:
            found[names.outcome] = outcome
        if attempt is not None:
            found[names.attempt] = attempt
            found[names.idempotency_key] = idempotency_key(pen.uid, self.key, self.edition)
        if self.words.serves is not None:
            found[f"{pen.prefix}.{self.words.serves}"] = served(self.key)
        return found


class _Attempt:
    """The last attempt that was announced."""

    __slots__ = ("number", "open", "opened_ns", "said", "timeout", "worker")

    def __init__(self, entry: Entry, opened_ns: int) -> None:
        self.number, self.worker = entry.attempt, entry.worker
        self.opened_ns = opened_ns
        self.open = True
        """Whether it is under way, as far as the journal knows."""
        self.timeout: tuple[SpanEvent, ...] = ()
        self.said = NOTHING_SAID


class StepTrace:
    """One step, from its intent on."""

    __slots__ = (
        "_attempt",
        "_began_ns",
        "_group",
        "_intent",
        "_links",
        "_parent",
        "_pen",
        "_subject",
        "failure",
        "latest",
        "over",
    )

    def __init__(
        self,
        pen: SpanBuilder,
        words: Vocabulary,
        started: Entry,
        parent: Holder,
        *,
        serves: "StepTrace | None" = None,
    ) -> None:
        self._pen = pen
        self._subject = _Subject(pen, words, started, 0 if serves is None else serves.edition)
        self._intent = started.seq
        self._parent = parent
        self._links = () if serves is None else pen.link(serves.latest)
        self._began_ns = pen.now_ns
        self._group: Holder | None = None
        self._attempt = _Attempt(started, pen.now_ns)
        self.latest: int | None = None
        """The span of the last attempt that has ended."""
        self.failure: bytes | None = None
        """What the last attempt raised, if one has failed since the last success."""
        self.over = False
        """Whether no attempt is under way or promised."""

    @property
    def edition(self) -> int:
        """How often it was begun anew."""
        return self._subject.edition

    @property
    def open(self) -> bool:
        """Whether an attempt is under way, as far as the journal knows."""
        return self._attempt.open

    @property
    def group(self) -> int | None:
        """The span around its attempts, where it has one."""
        return None if self._group is None else self._group.span_id

    def again(self, entry: Entry) -> list[SpanRecord]:
        """A further attempt begins; one that has no end was cut."""
        found = self.cut()
        if self.latest is not None and self._group is None:
            found += self._grouped()
        if entry.kind == EntryKind.REOPENED and entry.label:
            self._subject.edition = edition_in(entry.label)
        self._attempt, self.over = _Attempt(entry, self._pen.now_ns), False
        return found

    def withheld(self) -> None:
        """The announced attempt was not made."""
        self._attempt.open = False

    def overdue(self, entry: Entry) -> None:
        """The attempt has passed its timeout, and goes on for now."""
        self._attempt.timeout = (SpanEvent("timeout", self._pen.now_ns, {self._pen.names.worker: entry.worker}),)

    def said(self, said: Said) -> None:
        """What the code of the attempt under way has set on its span; its end comes next."""
        self._attempt.said = said

    def ended(self, entry: Entry) -> list[SpanRecord]:
        """An attempt has ended."""
        outcome = "succeeded" if entry.kind == EntryKind.SUCCEEDED else str(entry.label)
        self.over = final = entry.due_at_ns is None
        # One that was taken for cut has returned after all: its span has left already.
        found = self._close(entry, outcome, final=final) if self._attempt.open else self.late(entry, outcome)
        if final and self._group is not None:
            found.append(self._whole(entry, outcome))
        return found

    def given_up(self, entry: Entry) -> list[SpanRecord]:
        """The attempt that was due, or announced, will not be made: it was never called."""
        self.over = True
        self._attempt.open = False
        if self.latest is None and self._group is None:
            return []
        found = self._grouped()
        found.append(self._whole(entry, str(entry.label)))
        return found

    def settled(self, entry: Entry) -> list[SpanRecord]:
        """Whether it happened is known now."""
        span_id = self._pen.id("settled", self._subject.key, 0, entry.seq)
        attributes = self._subject.attributes(None, str(entry.label), entry.worker)
        links = self._pen.link(self.latest)
        return [self._pen.span(f"settle {self._subject.step}", span_id, self._parent, attributes, links=links)]

    def cut(self) -> list[SpanRecord]:
        """Close an attempt that has no end: it is over by now, and nobody saw how it went."""
        if not self._attempt.open:
            return []
        self.over = True
        return self._close(None, CUT, final=False)

    def running(self, now_ns: int) -> list[SpanRecord]:
        """The attempt under way, as far as the journal knows, up to now."""
        if not self._attempt.open:
            return []
        name, parent = self._named()
        return [
            self._pen.span(
                f"{name} (running)",
                self._pen.id(ATTEMPT, self._subject.key, self._attempt.number, self._intent),
                parent,
                self._subject.attributes(self._attempt.number, "running", self._attempt.worker),
                start_ns=self._attempt.opened_ns,
                end_ns=now_ns,
                links=self._links,
                events=self._attempt.timeout,
            )
        ]

    def late(self, entry: Entry, outcome: str) -> list[SpanRecord]:
        """How an attempt went that returned when its run was driven no more."""
        span_id = self._pen.id("late", self._subject.key, entry.attempt, entry.seq)
        attributes = self._subject.attributes(entry.attempt, outcome, entry.worker)
        name = f"{self._subject.name} ended late"
        events = self._pen.exception(entry.error)
        return [
            self._pen.span(name, span_id, self._parent, attributes, links=self._pen.link(self.latest), events=events)
        ]

    def _named(self) -> tuple[str, Holder]:
        """The attempt's name and parent: its step's own where no other attempt follows, as far as is known."""
        if self._group is None:
            return self._subject.name, self._parent
        return f"{self._subject.name} #{self._attempt.number}", self._group

    def _close(self, entry: Entry | None, outcome: str, *, final: bool) -> list[SpanRecord]:
        """The attempt's span."""
        pen = self._pen
        self._attempt.open = False
        found = [] if final else self._grouped()
        self.latest = span_id = pen.id(ATTEMPT, self._subject.key, self._attempt.number, self._intent)
        start_ns, events = self._attempt.opened_ns, self._attempt.timeout
        attributes = self._subject.attributes(
            self._attempt.number, outcome, self._attempt.worker if entry is None else entry.worker
        )
        name, parent = self._named()
        failed = outcome != "succeeded"
        if entry is None:
            name = f"{name} {CUT}"
            attributes["error.type"] = outcome
        else:
            called_ns = entry.started_at_ns
            if called_ns is not None and called_ns > start_ns:
                start_ns = min(called_ns, pen.now_ns)
            if failed:
                events += self._failed(entry, attributes, outcome)
            else:
                self.failure = None
            if self._attempt.said is not NOTHING_SAID:
                attributes, events = self._with_said(attributes, events, start_ns)
        found.append(
            pen.span(
                name,
                span_id,
                parent,
                attributes,
                start_ns=start_ns,
                end_ns=pen.now_ns,
                links=self._links,
                events=events,
                failed=failed,
            )
        )
        return found

    def _failed(self, entry: Entry, attributes: dict[str, Value], outcome: str) -> tuple[SpanEvent, ...]:
        """Add to ``attributes`` what a failed attempt says; the event of its exception."""
        self.failure = entry.error
        events = self._pen.exception(entry.error)
        attributes["error.type"] = events[0].attributes["exception.type"] if events else outcome
        if entry.due_at_ns is not None:
            attributes[self._pen.names.retry_in_ms] = max(0, entry.due_at_ns - entry.at_ns) // MS
        return events

    def _with_said(
        self, attributes: dict[str, Value], events: tuple[SpanEvent, ...], start_ns: int
    ) -> tuple[dict[str, Value], tuple[SpanEvent, ...]]:
        """What the step's own code has set, and what we say of the attempt, which counts where both say it."""
        pen, said = self._pen, self._attempt.said
        mine = f"{pen.prefix}."
        own: dict[str, Value] = {name: v for name, v in said.attributes.items() if not name.startswith(mine)}
        theirs = tuple(
            SpanEvent(name, min(max(at_ns, start_ns), pen.now_ns), about) for name, at_ns, about in said.events
        )
        if said.left_out:
            attributes[pen.names.left_out] = said.left_out
        return own | attributes, (*theirs, *events)

    def _grouped(self) -> list[SpanRecord]:
        """The short span around several attempts, where it is not there yet."""
        if self._group is not None:
            return []
        span_id = self._pen.id("group", self._subject.key, 0, self._intent)
        self._group = self._parent.holding(span_id)
        attributes = self._subject.attributes(None, None, self._attempt.worker)
        return [
            self._pen.span(
                self._subject.name,
                span_id,
                self._parent,
                attributes,
                start_ns=self._began_ns,
                links=self._links,
                holds=True,
            )
        ]

    def _whole(self, entry: Entry, outcome: str) -> SpanRecord:
        """The span over all attempts."""
        group = self._group or self._parent
        attributes = self._subject.attributes(None, outcome, entry.worker)
        failed = outcome != "succeeded"
        word = "gave up" if failed and self._subject.words.must_succeed else "done"
        if failed:
            attributes["error.type"] = self._pen.type_of(self.failure) or outcome
        return self._pen.span(
            f"{self._subject.name} {word}",
            self._pen.id("done", self._subject.key, entry.attempt, entry.seq),
            group,
            attributes,
            start_ns=self._began_ns,
            end_ns=self._pen.now_ns,
            failed=failed,
            tells=(group.span_id,),
        )
