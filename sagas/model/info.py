"""What a saga looks like from outside: its status, its steps, what it is stuck on. Pure functions of row and journal.

Invariant: a saga is stuck on a step from its ``parked`` (or ``faulted``) entry until a verb about that step, or about
all. Verbs, messages and driver agree on it, because they all read it here.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import attrs
import msgspec

from durable_core import RunStatus, RunStep
from durable_core.layer import (
    ABANDON,
    EntryKind,
    JournalEntry,
    RunRecord,
    StepRecord,
    StepStatus,
    at,
    fold,
    held,
    maybe_at,
    not_before,
    read_or_plain,
    read_tags,
    rebuild,
    served,
    step_of,
    stuck_error,
    told_reason,
    waits_for_person,
    waits_of,
)
from sagas.model.phases import (
    SagaStatus,
    cause_of,
    marks_in,
    payload_of,
    skipped_in,
    status_of,
)
from sagas.model.plan import undo_key

ANSWERING = frozenset({"retry", "skip", "resolve"})
"""The verbs that continue what is stuck."""


@attrs.frozen(kw_only=True)
class StepState(RunStep):
    """One step of a saga.

    ``kind`` is step, pivot, retriable, lookup, compensation, child, sleep or callback; ``status`` is pending, running,
    succeeded, rejected, failed, unknown, skipped, compensated or compensation_failed.
    """

    compensation: "StepState | None" = None
    """The step's compensation, once it has begun."""


@attrs.frozen(kw_only=True)
class SagaSummary:
    """A saga in a list: all of ``SagaInfo`` but its input, its result and its steps. It is read from one row."""

    id: str
    """Its id."""
    saga: str
    """Its name."""
    version: int
    """The version that it began with."""
    status: SagaStatus
    """Where it stands."""
    cause: str | None
    """Why it compensates or compensated: failed, cancelled, deadline."""
    error: BaseException | None
    """The exception that left the body, or that the saga is stuck on."""
    status_detail: dict[str, Any] | None
    """What the body published last by ``s.set_status``."""
    created_at: datetime
    """When it was started."""
    updated_at: datetime
    """When its row last changed."""
    ended_at: datetime | None
    """When it ended; None while it is open or stuck."""
    wake_at: datetime | None
    """When its next wait or retry delay ends, if it waits for a time."""
    paused: bool
    """Whether an operator has paused it."""
    reason: str | None
    """For a person: what it waits for; or why it is stuck, and what to do."""
    stuck_on: tuple[str, ...] = ()
    """The steps that need a person, if it is stuck."""
    tags: dict[str, str] = attrs.field(factory=dict[str, str])
    """What it can be searched by: given at its start, and by ``s.tag``."""
    restarted_from: str | None = None
    """The id of the ended saga that it begins again; see ``Orchestrator.restart``."""
    restarted_as: tuple[str, ...] = ()
    """The ids of the sagas that begin it again."""
    unserved: bool = False
    """It could continue, but no living worker serves its version; ``reason`` says which."""


@attrs.frozen(kw_only=True)
class SagaInfo(SagaSummary):
    """A saga's durable state."""

    input: dict[str, Any]
    """The body's arguments by parameter name; decoded if the saga is registered here, else plain JSON."""
    result: Any
    """What the body returned; None unless it has completed."""
    steps: list[StepState]
    """In the order in which they began; compensations are only inside their step."""


def summary_of(record: RunRecord) -> SagaSummary:
    """A saga's row as its users see it."""
    return SagaSummary(
        **_told(record, record.error), reason=told_reason(record), stuck_on=waits_for_person(record.awaits)
    )


def info_of(
    record: RunRecord,
    entries: Sequence[JournalEntry],
    *,
    read_input: Callable[[bytes], dict[str, Any]],
    read_result: Callable[[bytes], Any],
) -> SagaInfo:
    """A saga's row and journal as its users see them."""
    completed = record.status is RunStatus.COMPLETED
    return SagaInfo(
        **_told(record, stuck_error(record, entries)),
        reason=reason_of(record, entries),
        stuck_on=tuple(dict.fromkeys(step for steps in parked(entries).values() for step in steps)),
        input=read_or_plain(read_input, record.input, {}),
        result=read_or_plain(read_result, record.output, None) if completed and record.output else None,
        steps=steps_of(entries),
    )


def _told(record: RunRecord, error: bytes | None) -> dict[str, Any]:
    """What a summary and a whole saga have in common."""
    return {
        "id": record.id,
        "saga": record.name,
        "version": record.version,
        "status": status_of(record.status, record.phase),
        "cause": cause_of(record.phase),
        "error": None if error is None else rebuild(error),
        "status_detail": None if record.detail is None else msgspec.json.decode(record.detail),
        "created_at": at(record.created_at_ns),
        "updated_at": at(record.updated_at_ns),
        "ended_at": maybe_at(record.ended_at_ns),
        "wake_at": not_before(record.wake_at_ns),
        "paused": record.paused,
        "tags": read_tags(record.current_tags),
        "restarted_from": record.restarts,
    }


def reason_of(record: RunRecord, entries: Sequence[JournalEntry]) -> str | None:
    """Why the saga needs attention, or what it waits for; also that a cancel waits until the code fits again."""
    if record.reason is None or record.status is not RunStatus.STUCK:
        return told_reason(record)
    waiting = next((entry.key for entry in held(entries) if entry.key in ("cancel", "deadline")), None)
    if waiting is None:
        return record.reason
    what = "A cancel was asked for" if waiting == "cancel" else "Its deadline has passed"
    return (
        f"{record.reason} {what}. The saga is undone once the code fits again and the saga is retried, or without its "
        f"code by `sagas rollback {record.id}`"
    )


def steps_of(entries: Sequence[JournalEntry]) -> list[StepState]:
    """The saga's steps in the order of their first start, each with its compensation."""
    records = fold(list(entries))
    skipped = skipped_in(mark for mark, _ in marks_in(entries))
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
    if undo is not None and undo.edition != step.edition:
        undo = None  # it undid what was before the step was begun anew
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


# -- What it is stuck on -----------------------------------------------------------------------------------------------


def parked(entries: Sequence[JournalEntry]) -> dict[str, tuple[str, ...]]:
    """What needs a person: the steps concerned, by the key that is parked. A fault's key is empty."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        if entry.kind == EntryKind.PARKED:
            found[entry.key] = tuple(payload_of(entry).get("steps", ()))
        elif entry.kind == EntryKind.FAULTED:
            found[""] = (entry.key,) if entry.key else tuple(payload_of(entry).get("steps", ()))
        elif entry.kind == EntryKind.CLOSED:
            found.pop(entry.key, None)
        elif entry.kind == EntryKind.SIGNALLED:
            found = _after(found, entry)
        elif entry.kind == EntryKind.ENDED:
            found = {}
    return found


def _after(found: dict[str, tuple[str, ...]], entry: JournalEntry) -> dict[str, tuple[str, ...]]:
    if entry.label == ABANDON:
        return {}
    if entry.key not in ANSWERING:
        return found
    step = payload_of(entry).get("step")
    return {key: steps for key, steps in found.items() if key and step is not None and step not in steps}


def undo_given_up(found: dict[str, tuple[str, ...]]) -> set[str]:
    """The steps whose compensation was given up, of those that are parked."""
    return {step for key, steps in found.items() if key != served(key) for step in steps}
