"""What a run looks like from outside: its row, its steps and its history. Pure functions of its row and its journal."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import attrs
import msgspec

from durable_core.errors import DurableError
from durable_core.model.awaited import waits_for
from durable_core.model.callback import answered_by
from durable_core.model.children import COMPLETED, OPENED
from durable_core.model.duration import at, maybe_at, not_before
from durable_core.model.entry import ANSWERED_BY, Entry, EntryKind, is_evidence
from durable_core.model.failure import describe, rebuild
from durable_core.model.keys import name_of
from durable_core.model.record import StepRecord, StepStatus, fold
from durable_core.model.run import ENDS, RunRecord, RunStatus
from durable_core.model.tags import read_tags

WAIT_ENDS = {
    EntryKind.FIRED.value: "succeeded",
    EntryKind.ANSWERED.value: "succeeded",
    EntryKind.CLOSED.value: "skipped",
}
"""How a wait stands after each kind of end."""


@attrs.frozen(kw_only=True)
class RunStep:
    """One step, wait or child of a run."""

    key: str
    """Its name and its occurrence in its scope: ``charge``, ``charge#2``, ``book-trip/charge``."""
    name: str
    """Its name."""
    kind: str
    """step, sleep, callback, child, or the word of the layer above."""
    status: str
    """running, succeeded, rejected, failed, unknown, skipped, or the word of the layer above."""
    attempts: int
    """How often it was attempted; attempts that a crash cut count too."""
    result: Any = None
    """Plain JSON."""
    error: str | None = None
    """``TypeName: message`` of the last failed attempt."""
    started_at: datetime | None = None
    """When its first attempt began."""
    ended_at: datetime | None = None
    """When it ended."""


@attrs.frozen(kw_only=True)
class HistoryEntry:
    """One line of a run's history."""

    seq: int
    """Its number in the journal, from 1."""
    at: datetime
    """When it was recorded; never earlier than the entry before it."""
    kind: str
    """What was recorded; the glossary lists the kinds."""
    key: str
    """The step, wait, signal or mark that it is about."""
    attempt: int
    """Which attempt, from 1; 0 where there is none."""
    worker: str
    """The name of the worker that recorded it."""
    actor: str | None = None
    """The person who asked or answered."""
    note: str | None = None
    """The person's reason."""
    error: str | None = None
    """``TypeName: message`` of a failure."""
    detail: str = ""
    """The kind's own detail: a step's kind, an outcome, a status."""


@attrs.frozen(kw_only=True)
class RunSummary:
    """A run as its row tells it: all of ``RunInfo`` but its input, result and steps."""

    id: str
    name: str
    version: int
    status: RunStatus
    error: BaseException | None
    """What left the body, or what the run is stuck on."""
    reason: str | None
    """For a person: what it waits for, or why somebody should look and what to do."""
    paused: bool
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    wake_at: datetime | None
    tags: dict[str, str] = attrs.field(factory=dict[str, str])
    """What it can be searched by."""


@attrs.frozen(kw_only=True)
class RunInfo(RunSummary):
    """A run as it stands, as far as it is durable."""

    input: dict[str, Any]
    """The body's arguments by parameter name; decoded where the function is registered here, else plain JSON."""
    result: Any
    steps: list[RunStep]
    """Steps, waits and children, in the order in which they began; what a child did has keys under its own."""


def error_text(stored: bytes | None) -> str | None:
    """``TypeName: message`` of a stored failure."""
    if stored is None:
        return None
    failure = describe(stored)
    short = failure.type_name.rpartition(":")[2].rpartition(".")[2]
    return f"{short}: {failure.message}" if failure.message else short


def run_summary(record: RunRecord) -> RunSummary:
    """A run's row as its users see it."""
    return RunSummary(**_told(record, record.error))


def run_info(
    record: RunRecord,
    entries: Sequence[Entry],
    *,
    read_input: Callable[[bytes], dict[str, Any]],
    read_result: Callable[[bytes], Any],
) -> RunInfo:
    """A run's row and journal as its users see them."""
    return RunInfo(
        **_told(record, stuck_error(record, entries)),
        input=read_or_plain(read_input, record.input, {}),
        result=None if record.output is None else read_or_plain(read_result, record.output, None),
        steps=steps_of(entries),
    )


def _told(record: RunRecord, error: bytes | None) -> dict[str, Any]:
    """What a summary and a whole run have in common."""
    return {
        "id": record.id,
        "name": record.name,
        "version": record.version,
        "status": record.status,
        "error": None if error is None else rebuild(error),
        "reason": told_reason(record),
        "paused": record.paused,
        "created_at": at(record.created_at_ns),
        "updated_at": at(record.updated_at_ns),
        "ended_at": maybe_at(record.ended_at_ns),
        "wake_at": None if record.status in ENDS else not_before(record.wake_at_ns),
        "tags": read_tags(record.current_tags),
    }


def told_reason(record: RunRecord) -> str | None:
    """Why somebody should look at a run; else what it waits for."""
    if record.reason is None and record.status is RunStatus.WAITING:
        return waits_for(record.awaits)
    return record.reason


def read_or_plain(read: Callable[[bytes], Any], stored: bytes, otherwise: Any) -> Any:
    """A value by its annotation; where the code has changed since, ``otherwise``, or as plain JSON without that."""
    try:
        return read(stored)
    except DurableError:
        return msgspec.json.decode(stored) if otherwise is None else otherwise


def stuck_error(record: RunRecord, entries: Sequence[Entry]) -> bytes | None:
    """The stored failure that ended the run, or that it is stuck on."""
    if record.error is not None:
        return record.error
    if record.status is RunStatus.STUCK:
        return next((entry.error for entry in reversed(entries) if entry.error is not None), None)
    return None


def plain_input(stored: bytes) -> dict[str, Any]:
    """Arguments whose signature is not known here: by place, or by keyword."""
    call: dict[str, Any] | list[Any] = msgspec.json.decode(stored)
    args: list[Any] = call.get("args", []) if isinstance(call, dict) else call
    named: dict[str, Any] = {str(index): value for index, value in enumerate(args)}
    return {**named, **call.get("kwargs", {})} if isinstance(call, dict) else named


def steps_of(entries: Sequence[Entry]) -> list[RunStep]:
    """Steps, waits and children, in the order in which they began."""
    found = [(record.started_seq, step_of(record)) for record in fold(list(entries)).values()]
    found += waits_of(entries) + _children(entries)
    return [step for _, step in sorted(found, key=lambda item: item[0])]


def step_of(record: StepRecord) -> RunStep:
    """A step as it stands."""
    return RunStep(
        key=record.key,
        name=record.name,
        kind=record.kind,
        status=record.status.value,
        attempts=record.attempt,
        result=None if record.result is None else msgspec.json.decode(record.result),
        error=error_text(record.error) if record.status is not StepStatus.SUCCEEDED else None,
        started_at=at(record.started_at_ns),
        ended_at=maybe_at(record.ended_at_ns),
    )


def waits_of(entries: Sequence[Entry]) -> list[tuple[int, RunStep]]:
    """The sleeps and callbacks, each with the entry at which it began."""
    found: dict[str, tuple[int, RunStep]] = {}
    for entry in entries:
        if entry.kind == EntryKind.ARMED:
            found[entry.key] = (entry.seq, _begun(entry, entry.key, entry.label))
        elif entry.kind in WAIT_ENDS and entry.key in found:
            seq, state = found[entry.key]
            found[entry.key] = (seq, attrs.evolve(state, status=WAIT_ENDS[entry.kind], ended_at=at(entry.at_ns)))
    return list(found.values())


def _children(entries: Sequence[Entry]) -> list[tuple[int, RunStep]]:
    found: dict[str, tuple[int, RunStep]] = {}
    for entry in entries:
        if entry.kind == EntryKind.MARKED and entry.key.startswith(OPENED):
            key = entry.key.removeprefix(OPENED)
            found[key] = (entry.seq, _begun(entry, key, "child"))
        elif entry.kind == EntryKind.MARKED and (key := entry.key.removeprefix(COMPLETED)) in found:
            seq, state = found[key]
            result = msgspec.json.decode(entry.payload or b"null")
            found[key] = (seq, attrs.evolve(state, status="succeeded", result=result, ended_at=at(entry.at_ns)))
    return list(found.values())


def _begun(entry: Entry, key: str, kind: str) -> RunStep:
    return RunStep(key=key, name=name_of(key), kind=kind, status="running", attempts=1, started_at=at(entry.at_ns))


def history_of(entries: Sequence[Entry]) -> list[HistoryEntry]:
    """A journal as people read it."""
    return [_line(entry, before) for before, entry in zip((None, *entries), entries, strict=False)]


def _line(entry: Entry, before: Entry | None) -> HistoryEntry:
    """One entry; what the one before it says of an answer is told of the answer, and only there."""
    data: dict[str, Any] = {}
    if entry.kind == EntryKind.ANSWERED:
        data = msgspec.structs.asdict(answered_by(before, entry))
    elif (
        entry.kind in (EntryKind.SIGNALLED, EntryKind.HELD, EntryKind.NOTED)
        and entry.payload
        and entry.label != ANSWERED_BY
        and not is_evidence(entry)
    ):
        data = msgspec.json.decode(entry.payload)
    return HistoryEntry(
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
