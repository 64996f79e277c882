"""Runs that left memory while attempts of theirs have not returned.

Invariant: until the last of them has returned, no other attempt and no undo of the run begins: this worker keeps owning
it, and if the run is loaded again in this process, it takes over the calls, or waits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

from durable_core.model.entry import Entry, EntryKind
from durable_core.replay.cursor import LateResult
from durable_core.replay.steps import PendingStep

if TYPE_CHECKING:
    from durable_core.replay.run import Run

LOST: Mapping[str, str] = {
    EntryKind.SUCCEEDED: "succeeded",
    EntryKind.FAILED: "",
    EntryKind.WITHHELD: "withheld",
    EntryKind.GAVE_UP: "withheld",
}
"""Entries that tell how an attempt ended, also where they were not written: as what (see ``LATE``), or by their label.

A promised attempt that was given up was never called.
"""


@attrs.define(eq=False)
class Lingering:
    """What is left of one run in memory."""

    num: int
    run: "Run | None"
    """As it was driven last: its place in its journal. None where it had left memory, and is to be loaded again."""
    owner: str
    """The worker's name while it owned the run."""
    steps: dict[str, PendingStep]
    """Those whose attempts have not returned."""
    late: list[LateResult] = attrs.field(factory=list[LateResult])
    """How attempts ended, if that is not in the journal: the run takes it up once it is loaded again."""
    reloading: bool = False
    """The run is about to be loaded again, so nothing may be written to its journal."""
    wanted: bool = False
    """A verb waits for the last attempt to return, to go on with the run."""

    def note(self, seq: int) -> None:
        """Keep the late results in the journal, after its entry ``seq``: the run is not driven for now."""
        if self.run is not None:
            self.run.cursor.seq = seq
            for late in self.late:
                self.run.note_late(late)
            self.late.clear()


class LingeringRuns:
    """All of one worker's."""

    __slots__ = ("_by_num", "owner", "release", "reload")

    def __init__(self, owner: str, *, reload: Callable[[int], None], release: "Callable[[Run], None]") -> None:
        self._by_num: dict[int, Lingering] = {}
        self.owner = owner
        """The worker's name."""
        self.reload = reload
        """Has a run loaded again."""
        self.release = release
        """Gives a run back to the store."""

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_num)

    def get(self, num: int) -> Lingering | None:
        """What is left of this run."""
        return self._by_num.get(num)

    def set(self, lingering: Lingering) -> None:
        """Something is left of its run."""
        self._by_num[lingering.num] = lingering

    def steps(self) -> list[PendingStep]:
        """Those whose attempts have not returned."""
        return [step for one in self._by_num.values() for step in one.steps.values()]

    def unwritten(self) -> dict[int, Lingering]:
        """Runs of this worker with results that are in no journal yet."""
        return {num: one for num, one in self._by_num.items() if one.late and one.owner == self.owner}

    def keep(self, run: "Run") -> None:
        """``run`` leaves memory: hold on to its attempts that have not returned."""
        called = {key: step for key, step in run.steps.items() if isinstance(step, PendingStep) and step.called}
        before = self._by_num.get(run.num)
        if before is not None:
            before.run, before.owner, before.steps = run, self.owner, {**before.steps, **called}
        elif called:
            self._by_num[run.num] = Lingering(run.num, run, self.owner, called)

    def holds(self, run: "Run") -> bool:
        """Whether attempts of ``run``, which is about to leave memory, have not returned."""
        called = any(isinstance(step, PendingStep) and step.called for step in run.steps.values())
        lingering = self._by_num.get(run.num)
        return called or (lingering is not None and bool(lingering.steps))

    def is_awaited(self, num: int) -> bool:
        """Whether the run is to go on once its attempts, which are in flight here, have returned."""
        lingering = self._by_num.get(num)
        return lingering is not None and lingering.wanted and bool(lingering.steps)

    def take_over(self, step: PendingStep) -> bool:
        """Let ``step`` have the end of the call that the run in memory before has begun."""
        lingering = self._by_num.get(step.run.num)
        before = None if lingering is None else lingering.steps.pop(step.key, None)
        if before is None:
            return False
        before.successor = step
        step.task, step.called, step.overrun, step.announced = before.task, True, before.overrun, True
        step.run.in_flight += 1
        return True

    def replaced(self, lingering: Lingering, run: "Run") -> None:
        """The run is in memory again."""
        if self._by_num.get(run.num) is lingering:
            lingering.run = run  # from here on it is this one's place in its journal
            if not lingering.steps:
                del self._by_num[run.num]

    def drop(self, num: int, late: Iterable[LateResult], run: "Run | None") -> None:
        """The run was dropped from memory, and is to be loaded again with these results."""
        lingering = self._by_num.setdefault(num, Lingering(num, run, self.owner, {}))
        lingering.reloading = True
        lingering.late += late
        self.reload(num)

    def lose(self, num: int, lost: Iterable[Entry], run: "Run | None") -> None:
        """The store has not written these entries: what attempts returned among them counts first once it is loaded."""
        lingering = self._by_num.setdefault(num, Lingering(num, run, self.owner, {}))
        lingering.reloading = True
        lingering.late[:0] = [
            LateResult.of(entry._replace(label=LOST[entry.kind] or entry.label)) for entry in lost if entry.kind in LOST
        ]
        self.reload(num)

    def signalled(self, num: int, verb: str) -> None:
        """A signal waits for a run that is not in memory; while attempts of it have not returned it is still ours."""
        lingering = self._by_num.get(num)
        if lingering is None or lingering.reloading or lingering.owner != self.owner:
            return
        if not lingering.wanted or verb == "kill":
            lingering.reloading = True
            self.reload(num)

    def found(self, num: int, *, ours: bool) -> None:
        """The run has been looked up, to be loaded again: it is ours, or not any more."""
        lingering = self._by_num.get(num)
        if lingering is not None:
            lingering.reloading = False
            if ours:
                lingering.wanted = False
            elif not lingering.steps:
                del self._by_num[num]

    # -- attempts return -------------------------------------------------------------------------------------------

    def returned(self, step: PendingStep, result: LateResult | None, *, leaving: bool) -> None:
        """An attempt has returned, or was cut (no result), whose run is not driven any more in this form."""
        lingering = self._by_num.get(step.run.num)
        if lingering is None or lingering.steps.get(step.key) is not step:
            return
        if result is not None and lingering.owner == self.owner:
            if lingering.reloading or lingering.run is None:
                lingering.late.append(result)
            else:
                lingering.run.note_late(result)
        del lingering.steps[step.key]
        if lingering.steps or leaving:
            return
        if lingering.wanted:  # the last one: now the verb can be taken up
            lingering.reloading = True
            self.reload(lingering.num)
        elif not lingering.reloading:
            self.let_go(lingering)

    def let_go(self, lingering: Lingering) -> None:
        """Nothing of the run is in flight any more, or this worker leaves: others may drive it."""
        self._by_num.pop(lingering.num, None)
        if lingering.owner == self.owner and not lingering.reloading and lingering.run is not None:
            self.release(lingering.run)

    def let_all_go(self) -> None:
        """This worker leaves."""
        for lingering in list(self._by_num.values()):
            self.let_go(lingering)

    def disown(self, owner: str) -> None:
        """Others own all the runs now, and this worker is called ``owner``."""
        for lingering in self._by_num.values():
            lingering.late.clear()
            lingering.reloading = False
        self.owner = owner
