"""What a saga looks like from outside: its status, steps and history. Pure functions of its row and its journal."""

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import attrs
import msgspec

from durable_core import HistoryEntry as Entry
from durable_core import RunStatus, RunStep
from durable_core.layer import (
    EntryKind,
    JournalEntry,
    RunRecord,
    StepRecord,
    StepStatus,
    at,
    error_text,
    fold,
    held,
    history_of,
    maybe_at,
    not_before,
    read_or_plain,
    rebuild,
    step_of,
    stuck_error,
    waits_of,
)
from sagas.model.plan import undo_key
from sagas.model.stuck import parked, undo_given_up


class SagaStatus(StrEnum):
    """Where a saga stands."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPENSATING = "compensating"
    STUCK = "stuck"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    RESOLVED = "resolved"
    KILLED = "killed"


CAUSES = ("failed", "cancelled", "deadline")
SAGA_ENDS = frozenset({SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.RESOLVED, SagaStatus.KILLED})


@attrs.frozen(kw_only=True)
class StepState(RunStep):
    """One step of a saga.

    ``kind`` is step, pivot, retriable, lookup, compensation, child, sleep or callback; ``status`` is pending, running,
    succeeded, rejected, failed, unknown, skipped, compensated or compensation_failed.
    """

    compensation: "StepState | None" = None


@attrs.frozen(kw_only=True)
class SagaInfo:
    """A saga as it stands, as far as it is durable."""

    id: str
    saga: str
    version: int
    status: SagaStatus
    cause: str | None
    """Why it compensates or compensated: failed, cancelled, deadline."""
    input: dict[str, Any]
    """The body's arguments by parameter name; decoded where the saga is registered here, else plain JSON."""
    result: Any
    error: BaseException | None
    """What left the body, or what the saga is stuck on."""
    status_detail: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    wake_at: datetime | None
    paused: bool
    reason: str | None
    """For a person: why it is stuck, and how to mend it."""
    stuck_on: tuple[str, ...] = ()
    """The steps that a person must mend, where it is stuck."""
    unserved: bool = False
    """It could go on, and no living worker serves its version; ``reason`` says which."""
    steps: list[StepState]


def status_of(status: RunStatus, phase: str) -> SagaStatus:
    """The saga's status, from the run's status and the phase that the driver set."""
    word = phase.partition("/")[0]
    if status is RunStatus.FAILED:
        return SagaStatus(word)  # the driver names every such end; anything else is no end of a saga
    if status in (RunStatus.RUNNING, RunStatus.WAITING, RunStatus.PENDING) and word == "compensating":
        return SagaStatus.COMPENSATING
    return SagaStatus(status.value)


def is_saga(record: RunRecord) -> bool:
    """Whether a run may be a saga: no saga ends with a failure that its driver did not name, as the core's runs do."""
    return record.status is not RunStatus.FAILED or record.phase != ""


def query_of(status: SagaStatus) -> tuple[frozenset[RunStatus], frozenset[str] | None]:
    """Which runs are sagas of this status: run statuses, and phases where these matter."""
    going = frozenset({RunStatus.RUNNING, RunStatus.WAITING, RunStatus.PENDING})
    match status:
        case SagaStatus.COMPENSATING:
            return going, _phases("compensating")
        case SagaStatus.COMPENSATED | SagaStatus.RESOLVED:
            return frozenset({RunStatus.FAILED}), _phases(status.value)
        case SagaStatus.RUNNING | SagaStatus.WAITING | SagaStatus.PENDING:
            return frozenset({RunStatus(status.value)}), frozenset({"", "past-pivot"})
        case _:
            return frozenset({RunStatus(status.value)}), None


def _phases(word: str) -> frozenset[str]:
    return frozenset(f"{word}/{cause}" for cause in CAUSES)


def cause_of(phase: str) -> str | None:
    """Why the saga compensates or compensated; None where it does not."""
    return phase.partition("/")[2] or None


def info_of(
    record: RunRecord,
    entries: Sequence[JournalEntry],
    *,
    read_input: Callable[[bytes], dict[str, Any]],
    read_result: Callable[[bytes], Any],
) -> SagaInfo:
    """A saga's row and journal as its users see them."""
    status = status_of(record.status, record.phase)
    return SagaInfo(
        id=record.id,
        saga=record.name,
        version=record.version,
        status=status,
        cause=cause_of(record.phase),
        input=read_or_plain(read_input, record.input, {}),
        result=read_or_plain(read_result, record.output, None)
        if status is SagaStatus.COMPLETED and record.output
        else None,
        error=None if (stored := stuck_error(record, entries)) is None else rebuild(stored),
        status_detail=None if record.detail is None else msgspec.json.decode(record.detail),
        created_at=at(record.created_at_ns),
        updated_at=at(record.updated_at_ns),
        ended_at=maybe_at(record.ended_at_ns),
        wake_at=not_before(record.wake_at_ns),
        paused=record.paused,
        reason=reason_of(record, entries),
        stuck_on=tuple(dict.fromkeys(step for steps in parked(entries).values() for step in steps)),
        steps=steps_of(entries),
    )


def reason_of(record: RunRecord, entries: Sequence[JournalEntry]) -> str | None:
    """Why somebody should look; also what they would else not see: that a cancel waits for the code to fit again."""
    if record.reason is None or record.status is not RunStatus.STUCK:
        return record.reason
    waiting = next((entry.key for entry in held(entries) if entry.key in ("cancel", "deadline")), None)
    if waiting is None:
        return record.reason
    what = "A cancel was asked for" if waiting == "cancel" else "Its deadline has passed"
    return (
        f"{record.reason} {what}: it is undone as soon as the code fits again and it is retried, or without its code "
        f"by `sagas rollback {record.id}`"
    )


def steps_of(entries: Sequence[JournalEntry]) -> list[StepState]:
    """The saga's steps in the order of their first start, each with its compensation."""
    records = fold(list(entries))
    skipped = {
        entry.key.partition(":")[2]
        for entry in entries
        if entry.kind == EntryKind.MARKED and entry.key.startswith("skipped:")
    }
    given_up = undo_given_up(parked(entries))
    found: list[tuple[int, StepState]] = []
    for record in records.values():
        if record.kind in ("compensation", "probe"):
            continue
        undo = records.get(undo_key(record.key))
        compensation = None if undo is None else _state(undo, undo.status.value, None)
        status = _status(record, undo, skipped=record.key in skipped, given_up=record.key in given_up)
        state = _state(record, status, compensation)
        found.append((record.started_seq, state))
    found += [(seq, _shown(wait)) for seq, wait in waits_of(entries)]
    return [state for _, state in sorted(found, key=lambda item: item[0])]


def _status(step: StepRecord, undo: StepRecord | None, *, skipped: bool, given_up: bool) -> str:
    if skipped:
        return "skipped"
    if given_up:
        return "compensation_failed"
    if undo is not None and undo.status is StepStatus.SUCCEEDED:
        return "compensated"
    if undo is not None and undo.status is not StepStatus.RUNNING:
        return "compensation_failed"
    return step.status.value


def _state(record: StepRecord, status: str, compensation: StepState | None) -> StepState:
    return attrs.evolve(_shown(step_of(record)), status=status, compensation=compensation)


def _shown(step: RunStep) -> StepState:
    return StepState(**attrs.asdict(step, recurse=False))


__all__ = [
    "CAUSES",
    "SAGA_ENDS",
    "Entry",
    "SagaInfo",
    "SagaStatus",
    "StepState",
    "at",
    "cause_of",
    "error_text",
    "history_of",
    "info_of",
    "is_saga",
    "query_of",
    "status_of",
    "steps_of",
]
