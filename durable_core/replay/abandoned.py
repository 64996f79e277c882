"""What is left of a body whose part is over: an operator asked for the rollback of a run that cannot go on.

Invariant: nothing here runs a step again; the journal alone says what was done, and so what there is to undo.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from durable_core.model.entry import Entry, EntryKind, effective, evidence
from durable_core.model.failure import rebuild
from durable_core.model.record import StepRecord, abandoned_at, fold
from durable_core.model.spec import StepSpec
from durable_core.replay.fibers import Fiber

if TYPE_CHECKING:
    from durable_core.replay.run import Run


class Restored(StepRecord):
    """A step of an abandoned body: what the journal says of it, and nothing that could run it again."""

    __slots__ = ("fiber", "run", "spec")

    def __init__(self, run: "Run", record: StepRecord) -> None:
        super().__init__(record.key, record.kind, record.arguments, record.started_at_ns)
        for name in StepRecord.__slots__:
            setattr(self, name, getattr(record, name))
        self.abandon()
        self.run = run
        self.spec: StepSpec | None = None
        self.fiber: Fiber | None = None

    def stored_error(self) -> BaseException | None:
        """What ended it, rebuilt; None where it did not fail."""
        return None if self.error is None else rebuild(self.error)

    def disarm(self) -> None:
        """Nothing to cancel."""


def restore(run: "Run", entries: Sequence[Entry]) -> Sequence[Entry]:
    """Where the journal abandons its body, take up what that has done; returns the entries that are still to be fed."""
    place = abandoned_at(entries)
    if place is None:
        return entries
    run.abandoned = True
    records = fold(effective(entries[:place]))
    for key, note in evidence(entries[:place]).items():
        if key in records:
            records[key].returned_late(note)
    run.steps = {key: Restored(run, record) for key, record in records.items()}
    run.marks = tuple(before.key for before in entries[:place] if before.kind == EntryKind.MARKED)
    run.last_at_ns = entries[place].at_ns
    return entries[place + 1 :] or [entries[place]._replace(kind=EntryKind.NOTED)]
