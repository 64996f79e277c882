"""Where a saga stands: its phases and their moves, the status that users see, and the marks that its journal holds.

Invariant: the texts in this file are stored, in the row of a run and in its journal. No other module writes or compares
such a text.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from durable_core import RunStatus
from durable_core.layer import CHILD_COMPLETED, CHILD_OPENED, TAGGED, EntryKind, JournalEntry, RunRecord

# -- Phases -----------------------------------------------------------------------------------------------------------


class Phase(StrEnum):
    """How far a saga has come, as its driver sees it."""

    FORWARD = ""
    """The body runs, and everything can be undone."""
    PAST_PIVOT = "past-pivot"
    """The pivot has succeeded: nothing is undone any more."""
    COMPENSATING = "compensating"
    """The steps that have completed are being undone."""
    COMPENSATED = "compensated"
    """They have all been undone."""
    RESOLVED = "resolved"
    """The same, and an operator skipped or settled something."""


class Cause(StrEnum):
    """Why a saga is rolled back."""

    FAILED = "failed"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


MOVES: Mapping[Phase, frozenset[Phase]] = {
    Phase.FORWARD: frozenset({Phase.PAST_PIVOT, Phase.COMPENSATING}),
    Phase.PAST_PIVOT: frozenset(),
    # A rollback first settles unknown outcomes; a pivot that turns out to have happened stops it.
    Phase.COMPENSATING: frozenset({Phase.PAST_PIVOT, Phase.COMPENSATED, Phase.RESOLVED}),
    Phase.COMPENSATED: frozenset(),
    Phase.RESOLVED: frozenset(),
}
"""The phases that may follow each phase."""

CAUSED = frozenset({Phase.COMPENSATING, Phase.COMPENSATED, Phase.RESOLVED})
"""The phases that have a cause."""
CAUSE_OF_SIGNAL: Mapping[str, Cause] = {
    "cancel": Cause.CANCELLED,
    "deadline": Cause.DEADLINE,
    "rollback": Cause.FAILED,
}
"""The signals that close a body, and the cause of the rollback that follows."""


def stored(phase: Phase, cause: Cause | None = None) -> str:
    """The text of a phase as the row of a run holds it, such as ``compensating/failed``."""
    return str(phase) if cause is None else f"{phase}/{cause}"


def phase_of(text: str) -> Phase:
    """The phase that a row holds.

    Raises:
        ValueError: no saga's driver wrote it.
    """
    return Phase(text.partition("/")[0])


def cause_of(text: str) -> str | None:
    """Why the saga compensates or compensated, from the phase that a row holds; None if it does not."""
    return text.partition("/")[2] or None


def is_compensating(text: str) -> bool:
    """Whether a row that holds this phase is of a saga whose rollback is under way."""
    return text.partition("/")[0] == Phase.COMPENSATING


def rolls_back(text: str) -> bool:
    """Whether the rollback of a saga whose row holds this phase has begun, and perhaps ended."""
    return text.partition("/")[0] in CAUSED


# -- The status that users see ----------------------------------------------------------------------------------------


class SagaStatus(StrEnum):
    """Where a saga stands. A ``str``: ``info.status == "stuck"`` works."""

    PENDING = "pending"
    """It was started, and no worker has taken it up yet."""
    RUNNING = "running"
    """A worker drives it."""
    WAITING = "waiting"
    """It waits for a time, an answer or a retry delay, and costs a row."""
    COMPENSATING = Phase.COMPENSATING.value
    """It is being rolled back."""
    STUCK = "stuck"
    """It cannot continue without a person; ``SagaInfo.reason`` says why."""
    COMPLETED = "completed"
    """End: the body returned."""
    COMPENSATED = Phase.COMPENSATED.value
    """End: everything that it had done was undone."""
    RESOLVED = Phase.RESOLVED.value
    """End: as ``compensated``, and an operator skipped or settled something."""
    KILLED = "killed"
    """End: an operator ended it, and nothing was undone."""


SAGA_ENDS = frozenset({SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.RESOLVED, SagaStatus.KILLED})
_GOING = frozenset({RunStatus.RUNNING, RunStatus.WAITING, RunStatus.PENDING})


def status_of(status: RunStatus, phase: str) -> SagaStatus:
    """The saga's status, from the status and the phase that its row holds."""
    if status is RunStatus.FAILED:
        return SagaStatus(phase_of(phase).value)  # a saga's driver names every such end
    if status in _GOING and is_compensating(phase):
        return SagaStatus.COMPENSATING
    return SagaStatus(status.value)


def query_of(status: SagaStatus) -> tuple[frozenset[RunStatus], frozenset[str] | None]:
    """Which runs are sagas of this status: run statuses, and phases if these matter."""
    match status:
        case SagaStatus.COMPENSATING:
            return _GOING, _with_causes(Phase.COMPENSATING)
        case SagaStatus.COMPENSATED | SagaStatus.RESOLVED:
            return frozenset({RunStatus.FAILED}), _with_causes(Phase(status.value))
        case SagaStatus.RUNNING | SagaStatus.WAITING | SagaStatus.PENDING:
            return frozenset({RunStatus(status.value)}), frozenset({stored(Phase.FORWARD), stored(Phase.PAST_PIVOT)})
        case _:
            return frozenset({RunStatus(status.value)}), None


def _with_causes(phase: Phase) -> frozenset[str]:
    return frozenset(stored(phase, cause) for cause in Cause)


def is_saga(record: RunRecord) -> bool:
    """Whether a run may be a saga: a saga never fails without a phase, as a run of the core does."""
    return record.status is not RunStatus.FAILED or record.phase != ""


# -- Marks in the journal ---------------------------------------------------------------------------------------------


class MarkKind(StrEnum):
    """What a mark says. The kinds without a note on their payload have none."""

    COMPENSATING = "compensating"
    """The rollback of the saga begins. Payload: its ``cause``."""
    PAST_PIVOT = "past-pivot"
    """The pivot has succeeded."""
    TOO_LATE = "too-late"
    """About a cause: it came while the pivot was in flight, and that succeeded. Payload: the ``child``, if of one."""
    SKIPPED = "skipped"
    """About a step: an operator counts its compensation as done."""
    UNDOING = "undoing"
    """About a savepoint or child: its rollback begins. Payload: what left it, as ``error``."""
    CHILD = CHILD_OPENED.removesuffix(":")
    """About a child: it begins. Payload: its ``name``, ``version`` and ``input``."""
    CHILD_COMPLETED = CHILD_COMPLETED.removesuffix(":")
    """About a child: its body has returned. Payload: the result."""
    CHILD_DEADLINE = "child-deadline"
    """About a child: its own deadline passed in time."""
    CHILD_COMPENSATED = "child-compensated"
    """About a child: it failed, and its steps were undone. Payload: its ``cause``."""
    TAGGED = TAGGED.removesuffix(":")
    """About the keys of a child, or nothing: its code has set a tag. Payload: the tag."""


_KINDS = {kind.value: kind for kind in MarkKind}


class Mark(NamedTuple):
    """One mark: its kind, and the key of the step, savepoint or child (or the cause) that it is about."""

    kind: MarkKind
    about: str = ""

    @property
    def text(self) -> str:
        """The mark as the journal holds it, such as ``skipped:pay``."""
        return f"{self.kind}:{self.about}" if self.about else str(self.kind)

    @classmethod
    def read(cls, text: str) -> "Mark | None":
        """The mark that the journal holds; None if it is not a saga's."""
        word, _, about = text.partition(":")
        kind = _KINDS.get(word)
        return None if kind is None else cls(kind, about)

    @property
    def prefix(self) -> str:
        """What the keys begin with of all that lies in the savepoint or child."""
        return f"{self.about}/"


def marks_in(entries: Iterable[JournalEntry]) -> Iterator[tuple[Mark, JournalEntry]]:
    """The marks of a saga's journal, in order."""
    for entry in entries:
        if entry.kind == EntryKind.MARKED and (mark := Mark.read(entry.key)) is not None:
            yield mark, entry


def skipped_in(marks: Iterable[Mark]) -> list[str]:
    """The steps whose compensation an operator counts as done, in order."""
    return [mark.about for mark in marks if mark.kind is MarkKind.SKIPPED]


def payload_of(entry: JournalEntry) -> dict[str, Any]:
    """What the payload of a mark or of an operator's verb says."""
    said: dict[str, Any] = msgspec.json.decode(entry.payload or b"{}")
    return said
