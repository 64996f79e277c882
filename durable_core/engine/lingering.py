"""Runs that left memory while attempts of theirs have not returned.

Invariant: until the last of them has returned, no other attempt and no undo of the run begins: it stays owned by this
worker, and whoever drives it again in this process has its calls taken over, or waits.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from durable_core.model.entry import Entry, EntryKind, effective
from durable_core.model.record import ABANDON, StepRecord, StepStatus, abandoned_at, fold
from durable_core.ports import Signal

if TYPE_CHECKING:
    from durable_core.replay.run import Run
    from durable_core.replay.steps import Evidence, PendingStep


@attrs.define(eq=False)
class Lingering:
    """What is left of one run in memory."""

    num: int
    run: "Run | None"
    """As it was driven last: its place in its journal. None where it had left memory, and is to be loaded again."""
    owner: str
    """The worker's name while it owned the run."""
    steps: "dict[str, PendingStep]"
    """Those whose attempts have not returned."""
    told: "list[Evidence]" = attrs.field(factory=list["Evidence"])
    """How attempts ended, where that is not in the journal: it is told to the run once that is loaded again."""
    reloading: bool = False
    """The run is about to be loaded again, so nothing may be written to its journal."""
    wanted: bool = False
    """Somebody waits for the last attempt to return, to go on with the run."""

    def note(self, seq: int) -> None:
        """Have what was told so far kept in the journal, after its entry ``seq``: the run is not driven for now."""
        if self.run is not None:
            self.run.seq = seq
            for late in self.told:
                self.run.note_late(late)
            self.told.clear()


def may_go_on(lingering: Lingering, entries: Sequence[Entry], signals: Sequence[Signal]) -> bool:
    """Whether the run can be driven beside the attempts that have not returned: its journal expects each of them."""
    if not lingering.steps:
        return True
    if abandoned_at(entries) is not None or abandons(signals):
        return False  # it is to be undone, and what has not returned cannot be
    records = fold(effective(entries))
    return all(_expects(records, step) for step in lingering.steps.values())


def _expects(records: Mapping[str, StepRecord], step: "PendingStep") -> bool:
    record = records.get(step.key)
    return (
        record is not None
        and record.status is StepStatus.RUNNING
        and record.begun
        and record.due_at_ns is None
        and record.attempt == step.attempt
    )


def abandons(signals: Sequence[Signal]) -> bool:
    """Whether one of ``signals`` has the run rolled back for good."""
    return any(signal.name.split(" ", 2)[2:] == [ABANDON] for signal in signals)


def killed_by(entries: Sequence[Entry]) -> Entry | None:
    """The kill that a journal without an end holds: the end was not written, because a signal came before it."""
    for entry in reversed(entries):
        if entry.kind == EntryKind.ENDED or (entry.kind == EntryKind.SIGNALLED and entry.label == ABANDON):
            return None
        if entry.kind == EntryKind.SIGNALLED and entry.key == "kill":
            return entry
    return None
