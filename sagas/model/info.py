"""What a saga looks like from outside: its status, steps and history. Pure functions of its row and its journal."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import attrs
import msgspec

from durable_core import (
    DurableError,
    EntryKind,
    JournalEntry,
    Outcome,
    RunRecord,
    RunStatus,
    StepRecord,
    StepStatus,
    describe,
    fold,
    name_of,
    rebuild,
)
from sagas.model.plan import undo_key
from sagas.model.stuck import parked, undo_given_up

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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


WAIT_ENDS = {
    EntryKind.FIRED.value: "succeeded",
    EntryKind.ANSWERED.value: "succeeded",
    EntryKind.CLOSED.value: "skipped",
}
"""How a wait stands after each kind of end."""
CAUSES = ("failed", "cancelled", "deadline")
SAGA_ENDS = frozenset({SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.RESOLVED, SagaStatus.KILLED})


@attrs.frozen(kw_only=True)
class StepState:
    """One step of a saga."""

    key: str
    name: str
    kind: str
    """step, pivot, retriable, lookup, compensation, child, sleep, callback."""
    status: str
    """pending, running, succeeded, rejected, failed, unknown, skipped, compensated, compensation_failed."""
    attempts: int
    result: Any = None
    """Plain JSON."""
    error: str | None = None
    """``TypeName: message`` of the last failed attempt."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    compensation: "StepState | None" = None


@attrs.frozen(kw_only=True)
class Entry:
    """One line of a saga's history."""

    seq: int
    at: datetime
    kind: str
    key: str
    attempt: int
    worker: str
    actor: str | None = None
    note: str | None = None
    error: str | None = None
    detail: str = ""
    """The kind's own detail: a step's kind, an outcome, a status."""


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
    steps: list[StepState]


def status_of(status: RunStatus, phase: str) -> SagaStatus:
    """The saga's status, from the run's status and the phase that the driver set."""
    word = phase.partition("/")[0]
    if status is RunStatus.FAILED:
        return SagaStatus(word)  # the driver names every such end; anything else is no end of a saga
    if status in (RunStatus.RUNNING, RunStatus.WAITING, RunStatus.PENDING) and word == "compensating":
        return SagaStatus.COMPENSATING
    return SagaStatus(status.value)


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
        input=_read(read_input, record.input, {}),
        result=_read(read_result, record.output, None) if status is SagaStatus.COMPLETED and record.output else None,
        error=None if (stored := _error(record, entries)) is None else rebuild(stored),
        status_detail=None if record.detail is None else msgspec.json.decode(record.detail),
        created_at=at(record.created_at_ns),
        updated_at=at(record.updated_at_ns),
        ended_at=_at(record.ended_at_ns),
        wake_at=_at(record.wake_at_ns),
        paused=record.paused,
        reason=record.reason,
        stuck_on=tuple(dict.fromkeys(step for steps in parked(entries).values() for step in steps)),
        steps=steps_of(entries),
    )


def _read(read: Callable[[bytes], Any], stored: bytes, otherwise: Any) -> Any:
    """A value by its annotation; as plain JSON where the code has changed since."""
    try:
        return read(stored)
    except DurableError:
        return msgspec.json.decode(stored) if otherwise is None else otherwise


def _error(record: RunRecord, entries: Sequence[JournalEntry]) -> bytes | None:
    if record.error is not None:
        return record.error
    if record.status is RunStatus.STUCK:
        return next((entry.error for entry in reversed(entries) if entry.error is not None), None)
    return None


def at(at_ns: int) -> datetime:
    """Nanoseconds since the epoch as an aware datetime (microseconds, UTC)."""
    return EPOCH + timedelta(microseconds=at_ns // 1000)


def _at(at_ns: int | None) -> datetime | None:
    return None if not at_ns else at(at_ns)


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
    found += _waits(entries)
    return [state for _, state in sorted(found, key=lambda item: item[0])]


def _waits(entries: Sequence[JournalEntry]) -> list[tuple[int, StepState]]:
    """The sleeps and callbacks, each with the entry at which it began."""
    found: dict[str, tuple[int, StepState]] = {}
    for entry in entries:
        if entry.kind == EntryKind.ARMED:
            state = StepState(
                key=entry.key,
                name=name_of(entry.key),
                kind=entry.label,
                status="running",
                attempts=1,
                started_at=at(entry.at_ns),
            )
            found[entry.key] = (entry.seq, state)
        elif entry.kind in WAIT_ENDS and entry.key in found:
            seq, state = found[entry.key]
            found[entry.key] = (seq, attrs.evolve(state, status=WAIT_ENDS[entry.kind], ended_at=at(entry.at_ns)))
    return list(found.values())


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
    return StepState(
        key=record.key,
        name=record.name,
        kind=record.kind,
        status=status,
        attempts=record.attempt,
        result=None if record.result is None else msgspec.json.decode(record.result),
        error=error_text(record.error) if record.status is not StepStatus.SUCCEEDED else None,
        started_at=at(record.started_at_ns),
        ended_at=_at(record.ended_at_ns),
        compensation=compensation,
    )


def error_text(stored: bytes | None) -> str | None:
    """``TypeName: message`` of a stored failure."""
    if stored is None:
        return None
    told = describe(stored)
    short = told.type_name.rpartition(":")[2].rpartition(".")[2]
    return f"{short}: {told.message}" if told.message else short


def history_of(entries: Sequence[JournalEntry]) -> list[Entry]:
    """The saga's journal as its users see it."""
    return [_entry(entry) for entry in entries]


def _entry(entry: JournalEntry) -> Entry:
    data: dict[str, Any] = {}
    if entry.kind in (EntryKind.SIGNALLED, EntryKind.HELD, EntryKind.NOTED) and entry.payload:
        data = msgspec.json.decode(entry.payload)
    return Entry(
        seq=entry.seq,
        at=at(entry.at_ns),
        kind=entry.kind,
        key=entry.key,
        attempt=entry.attempt,
        worker=entry.worker,
        actor=data.get("actor") or None,
        note=data.get("note") or data.get("reason") or None,
        error=error_text(entry.error),
        detail=entry.label,
    )


__all__ = ["Entry", "Outcome", "SagaInfo", "SagaStatus", "StepState", "history_of", "info_of", "name_of", "status_of"]
