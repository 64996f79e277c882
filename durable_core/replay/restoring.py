"""Brings a run back into memory: feeds its journal, and then everything that came while it was not there.

Invariant: everything that came meanwhile is journalled and taken up before the body can ask for anything new. Of a body
that was abandoned nothing runs again: the journal alone says what was done, and so what there is to undo.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from durable_core.errors import Closed, DurableError, Fault, sentences
from durable_core.model.entry import ROLES, Entry, EntryKind, Role, effective, evidence
from durable_core.model.record import ABANDON, StepRecord, StepStatus, abandoned_at, fold
from durable_core.model.spec import StepSpec
from durable_core.ports import Signal
from durable_core.replay import faults
from durable_core.replay.cursor import End, LateResult, Message, Row
from durable_core.replay.host_context import HostContext
from durable_core.replay.parts import AbandonedBody, Step
from durable_core.replay.run import DEADLINE, Run
from durable_core.replay.scheduler import Fiber


def begin(run: Run, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Give the run its body; it begins once the run is driven."""
    run.scheduler.begin(run.definition.fn(HostContext(run), *args, **kwargs))


def restore(
    run: Run,
    input: bytes,
    entries: list[Entry],
    *,
    signals: Sequence[Signal] = (),
    late: Sequence[LateResult] = (),
) -> None:
    """Feed a run its journal, and then what came meanwhile: attempts that returned, signals, its deadline.

    Args:
        run: as its row has it, with nothing fed so far.
        input: its stored arguments.
        entries: its journal.
        signals: those that wait for it, in their order.
        late: how attempts ended that its predecessor in memory had begun, where the journal does not hold that.
    """
    run.cursor.inbox = (*late, *(Message(signal.verb, signal.payload) for signal in signals))
    try:
        args, kwargs = run.definition.shape.decode(input, what=f"{run.title}: the arguments")
    except DurableError as unreadable:
        advice = f"Bring back the signature that it was started with, then retry the {run.noun}"
        run.stop(Fault(unreadable.text, sentences(unreadable.advice, advice)))
        return
    try:
        _feed(run, (args, kwargs), entries, signals, late)
    except Exception as damage:  # noqa: BLE001 - whatever the rows hold: this run is stuck, and the others go on
        run.stop(faults.unreadable(run.identity, damage))
    if not run.dead:
        run.effects.arm(run)


def _feed(
    run: Run,
    call: tuple[tuple[Any, ...], dict[str, Any]],
    entries: list[Entry],
    signals: Sequence[Signal],
    late: Sequence[LateResult],
) -> None:
    """Journal the signals that change what is replayed, and replay; what else came goes into the inbox."""
    returned = [] if abandoned_at(entries) is not None else [*map(LateResult.of, evidence(entries).values()), *late]
    if killed_by(entries) is not None:
        run.row.paused = False  # the kill has ended the pause
    if abandons(signals):  # the body gets nothing any more: the journal alone says what there is to undo
        entries = [*entries, *map(run.note, late)]
    early = [signal for signal in signals if signal.label]
    # Those change what is replayed, so they are journalled first.
    entries = [
        *entries,
        *(run.input(EntryKind.SIGNALLED, one.verb, one.since, one.label, one.payload) for one in early),
    ]
    messages = [Message(one.verb, one.payload, 0, one.at_ns) for one in signals if not one.label]
    if _is_overdue(run, entries):
        due_at_ns = run.row.deadline_at_ns or 0
        place = next((place for place, one in enumerate(messages) if one.at_ns > due_at_ns), len(messages))
        messages.insert(place, Message(DEADLINE, b"{}", 0, due_at_ns))
    run.cursor.inbox = (*returned, *messages)
    to_feed = _abandon(run, entries, *call)
    begin(run, *call)
    run.replay(to_feed)


def _is_overdue(run: Run, entries: Sequence[Entry]) -> bool:
    """Whether the run's deadline has passed, still counts, and the journal does not hold that."""
    due_at_ns = run.due_at_ns
    if due_at_ns is None or due_at_ns > run.effects.now_ns():
        return False
    return not any(entry.kind == EntryKind.SIGNALLED and entry.key == DEADLINE for entry in entries)


def abandons(signals: Sequence[Signal]) -> bool:
    """Whether one of ``signals`` has the run rolled back for good."""
    return any(signal.label == ABANDON for signal in signals)


def killed_by(entries: Sequence[Entry]) -> Entry | None:
    """The kill that a journal without an end holds: the end was not written, because a signal came before it."""
    for entry in reversed(entries):
        if entry.kind == EntryKind.ENDED or (entry.kind == EntryKind.SIGNALLED and entry.label == ABANDON):
            return None
        if entry.kind == EntryKind.SIGNALLED and entry.key == "kill":
            return entry
    return None


def may_go_on(entries: Sequence[Entry], signals: Sequence[Signal], in_flight: Iterable[StepRecord]) -> bool:
    """Whether the run can be driven beside attempts that have not returned: its journal expects each of them."""
    steps = list(in_flight)
    if not steps:
        return True
    if abandoned_at(entries) is not None or abandons(signals):
        return False  # it is to be undone, and what has not returned cannot be
    records = fold(effective(entries))
    return all(_expects(records.get(step.key), step.attempt) for step in steps)


def _expects(record: StepRecord | None, attempt: int) -> bool:
    return (
        record is not None
        and record.status is StepStatus.RUNNING
        and record.begun
        and record.due_at_ns is None
        and record.attempt == attempt
    )


# -- abandoned bodies --------------------------------------------------------------------------------------------------


def _abandon(run: Run, entries: Sequence[Entry], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Entry]:
    """If the journal abandons its body, take up what that has done; returns the entries that are still to be fed."""
    place = abandoned_at(entries)
    if place is None:
        return entries
    before, signal = entries[:place], entries[place]
    records = fold(effective(before))
    for key, note in evidence(before).items():
        if key in records:
            records[key].returned_late(note)
    run.abandoned = AbandonedBody(
        marks=tuple(entry.key for entry in before if entry.kind == EntryKind.MARKED),
        bindings=_bindings(run, before, args, kwargs),
    )
    run.steps = {key: Step.of(record) for key, record in records.items()}
    run.cursor.last_at_ns = signal.at_ns
    return entries[place + 1 :] or [signal._replace(kind=EntryKind.NOTED)]


def _bindings(run: Run, entries: Sequence[Entry], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, StepSpec]:
    """What the code loaded here ran each step key with."""
    shadow = Shadow(run.effects, run.definition, run.identity, Row(), created_at_ns=run.cursor.last_at_ns)
    begin(shadow, args, kwargs)
    shadow.along(entries)
    found = {key: step.spec for key, step in shadow.steps.items() if step.spec is not None}
    shadow.evict()
    return found


class Shadow(Run):
    """Drives an abandoned body along its journal once more, only to learn which step the code means by which key.

    Nothing is written and nothing is called; where code and journal part, the binding ends early.
    """

    __slots__ = ()

    def input(self, *_entry: Any, **_columns: Any) -> Entry:
        """The journal is at its end: the body may go no further."""
        raise Closed

    def save(self, *, owner: str | None, wake_at_ns: int | None, end: End | None = None) -> None:
        """Nothing is written."""

    def arm(self, timed: Any) -> None:
        """No timer is set."""

    def stop(self, fault: Fault) -> None:  # noqa: ARG002 - a shadow
        """The code no longer fits: what was bound so far counts."""
        self.dead = True

    def finish(self, end: End) -> None:  # noqa: ARG002 - a shadow
        """The body has come to its end."""
        self.dead = True

    def driven(self, broken: Exception | None) -> None:
        """Nobody is notified."""
        if broken is not None or self.fault is not None:
            self.dead = True

    def release(self) -> None:
        """The worker knows nothing of a shadow."""
        self.dead = True

    def issue(self, fiber: Fiber, command: Any) -> None:
        """Carry it out as far as the journal goes."""
        try:
            super().issue(fiber, command)
        except Closed:
            self.dead = True
            self.scheduler.ready.clear()

    def along(self, entries: Sequence[Entry]) -> None:
        """Feed what a replay would feed."""
        backlog = self.cursor.backlog = deque(effective(entries))
        self.pump()
        while backlog and not self.dead and ROLES[EntryKind(backlog[0].kind)] is not Role.OUTPUT:
            self.take(backlog.popleft())
            self.pump()
