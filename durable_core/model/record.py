"""A step as its entries tell it: one fold, used by the engine to drive it and by readers to show it.

Invariant: the same entries give the same record, whoever folds them.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from durable_core.model.entry import Entry, EntryKind, is_evidence
from durable_core.model.keys import name_of, served
from durable_core.model.outcome import Outcome

ABANDON = "abandon"
"""The label of a signal after which the body's part is over: an operator had its run rolled back."""


def abandoned_at(entries: Sequence[Entry]) -> int | None:
    """The place of the entry that says last that the body's part is over; None where none does."""
    for place in range(len(entries) - 1, -1, -1):
        if entries[place].kind == EntryKind.SIGNALLED and entries[place].label == ABANDON:
            return place
    return None


def anew(edition: int) -> str:
    """The label of the entry by which a step is begun anew."""
    return f"edition {edition}"


def edition_in(label: str) -> int:
    """The edition that such a label tells."""
    return int(label.rpartition(" ")[2])


class StepStatus(StrEnum):
    """Where a step stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    FAILED = "failed"
    UNKNOWN = "unknown"


# Looked up once: on Python 3.11 a member of an enum costs more than the comparison.
SUCCEEDED = EntryKind.SUCCEEDED.value
RUNNING, ENDED_WELL = StepStatus.RUNNING, StepStatus.SUCCEEDED


class StepRecord:
    """The state of one step. Mutable, and changed by ``apply`` only: folding must cost less than storing."""

    __slots__ = (
        "arguments",
        "attempt",
        "begun",
        "crashes",
        "due_at_ns",
        "edition",
        "ended_at_ns",
        "ended_seq",
        "error",
        "failures",
        "key",
        "kind",
        "policy_from_ns",
        "result",
        "started_at_ns",
        "started_seq",
        "status",
        "unknown",
        "withheld",
    )

    def __init__(self, key: str, kind: str, arguments: bytes | None, started_at_ns: int, started_seq: int = 0) -> None:
        self.key = key
        self.kind = kind
        self.arguments = arguments
        self.started_at_ns = self.policy_from_ns = started_at_ns
        """When it first started, and when its retry policy began: that is later where an operator had it retried."""
        self.started_seq = started_seq
        """The entry of its intent: with ``ended_seq`` it tells which steps overlapped."""
        self.status = RUNNING
        self.attempt = 1
        """The number of the last attempt announced."""
        self.begun = True
        """Whether the last announced attempt may have been called."""
        self.withheld = False
        """Whether the last announced attempt was not made, so that the next one has its number."""
        self.failures = 0
        """Attempts that ended without success under the current policy."""
        self.crashes = 0
        """Attempts that were cut by the death of their process."""
        self.unknown = False
        """Whether any attempt left the effect in doubt, and nobody has settled it (sticky)."""
        self.due_at_ns: int | None = None
        """When the next attempt is due, where one was promised."""
        self.result: bytes | None = None
        self.error: bytes | None = None
        self.ended_at_ns: int | None = None
        self.ended_seq = 0
        """The entry that ended it: the order of completion."""
        self.edition = 0
        """How often it was begun anew, under another idempotency key. What serves a step has the edition of that."""

    @property
    def name(self) -> str:
        """The step's name, without scope and occurrence."""
        return name_of(self.key)

    def apply(self, entry: Entry) -> None:
        """Take up the next entry about this step."""
        kind = entry.kind
        if kind == SUCCEEDED:
            self.result = entry.payload
            self.unknown = False
            self._end(ENDED_WELL, entry)
        elif kind == EntryKind.FAILED:
            self._failed(entry)
        elif kind == EntryKind.RETRIED:
            self._again(entry)
        elif kind == EntryKind.WITHHELD:
            self.begun, self.withheld = False, True
        elif kind == EntryKind.GAVE_UP:
            self.withheld = self.due_at_ns is None  # the attempt had been announced, and was never called
            self._end(StepStatus(entry.label), entry)
        elif kind == EntryKind.REOPENED:
            self.reopen(entry.at_ns)
            if entry.label:
                self._anew(entry)
            self.begun, self.withheld = True, False
            self.attempt = entry.attempt
        elif kind == EntryKind.SETTLED:
            self.unknown = False
            if entry.label == "happened":
                self.result = entry.payload
                self._end(StepStatus.SUCCEEDED, entry)
            else:
                self._end(StepStatus.FAILED, entry)

    def reopen(self, at_ns: int) -> None:
        """An operator asked for another attempt, under a fresh policy: the last one's end is void."""
        if self.status is StepStatus.RUNNING and self.begun and self.due_at_ns is None:
            self.unknown = True  # the last attempt was cut by a crash: fresh or not, it may have happened
        self.policy_from_ns = at_ns
        self.failures = self.crashes = 0
        self.begun = False
        self.due_at_ns = self.ended_at_ns = None
        self.status = StepStatus.RUNNING

    def _anew(self, entry: Entry) -> None:
        """It is begun anew: what was before counts no more, and its arguments may be others."""
        self.edition = edition_in(entry.label)
        self.unknown = False
        self.result = self.error = None
        if entry.payload is not None:
            self.arguments = entry.payload

    def returned_late(self, note: Entry) -> None:
        """What a ``noted`` entry keeps of the attempt under way: it returned while nobody drove the run."""
        if self.status is not RUNNING or not self.begun or self.due_at_ns is not None or note.attempt != self.attempt:
            return
        if note.label == EntryKind.WITHHELD:
            self.begun, self.withheld = False, True
        elif note.label == SUCCEEDED:
            self.apply(note._replace(kind=SUCCEEDED))
        else:
            self.apply(note._replace(kind=EntryKind.FAILED, due_at_ns=None))

    def abandon(self) -> None:
        """Its body's part is over. One that was cut may have happened, unless it was never called."""
        if self.status is StepStatus.RUNNING:
            self.status = StepStatus.UNKNOWN if self.begun or self.unknown else StepStatus.FAILED
            self.due_at_ns = None

    def _end(self, status: StepStatus, entry: Entry) -> None:
        self.status = status
        self.due_at_ns = None
        self.ended_at_ns = entry.at_ns
        self.ended_seq = entry.seq

    def _failed(self, entry: Entry) -> None:
        self.failures += 1
        self.error = entry.error
        if entry.label == Outcome.UNKNOWN:
            self.unknown = True
        elif entry.label == Outcome.REJECTED:
            self.unknown = False
        if entry.due_at_ns is None:
            self._end(StepStatus(entry.label), entry)
        else:
            self.due_at_ns = entry.due_at_ns

    def _again(self, entry: Entry) -> None:
        if self.due_at_ns is None and self.begun:  # the attempt before has no end: its process died
            self.crashes += 1
            self.unknown = True
        self.status = StepStatus.RUNNING
        self.attempt = entry.attempt
        self.begun, self.withheld = True, False
        self.due_at_ns = None


def edition_for(key: str, steps: Mapping[str, StepRecord]) -> int:
    """The edition in which a step begins: that of the step which it serves."""
    forward = steps.get(served(key)) if "~" in key else None
    return 0 if forward is None else forward.edition


def fold(entries: list[Entry]) -> dict[str, StepRecord]:
    """All steps of a run by key, in the order in which they first started."""
    steps: dict[str, StepRecord] = {}
    late: dict[str, Entry] = {}
    for entry in entries:
        if is_evidence(entry):
            late[entry.key] = entry
        elif entry.kind == EntryKind.STARTED:
            record = steps[entry.key] = StepRecord(entry.key, entry.label, entry.payload, entry.at_ns, entry.seq)
            record.attempt = entry.attempt
            record.edition = edition_for(entry.key, steps)
        elif entry.kind == EntryKind.SIGNALLED:
            if entry.label == ABANDON:
                for begun in steps.values():
                    if begun.key in late:
                        begun.returned_late(late[begun.key])
                    begun.abandon()
            elif (again := steps.get(entry.label)) is not None:
                again.reopen(entry.at_ns)
        elif (step := steps.get(entry.key)) is not None:
            step.apply(entry)
    return steps
