"""Deadlines of a part of the body: times that the journal holds, at which the layer above is told, once.

Invariant: the journal decides what came first. A step begins only once every deadline that has passed by then is
journalled and taken up, also where no worker lived when it passed.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from durable_core.errors import Fault
from durable_core.model.entry import Entry, EntryKind
from durable_core.replay import faults
from durable_core.replay.fibers import Fiber
from durable_core.replay.waits import PendingWait

if TYPE_CHECKING:
    from durable_core.replay.run import Run


class Deadline(PendingWait):
    """A time at which ``call`` is made, at its place in the journal; no fiber waits for it."""

    __slots__ = ("_call",)

    def __init__(self, run: "Run", key: str, fiber: Fiber, due_at_ns: int, call: Callable[[], None]) -> None:
        super().__init__(run, key, fiber, due_at_ns)
        self._call = call

    def take(self, run: "Run", entry: Entry) -> None:
        """It has passed."""
        call = self._call
        self.void()
        try:
            call()
        except Fault as fault:
            run.fault = fault
        except Exception as bug:  # noqa: BLE001 - the layer above could not take it: this run is parked, not the worker
            run.fault = faults.bad_signal(run, entry, bug)

    def void(self) -> None:
        """What it limits is over, or can no longer be stopped: it never comes."""
        self.disarm()
        self._call = _nothing
        if self.run.waits.get(self.key) is self:
            del self.run.waits[self.key]


def before_steps(run: "Run") -> None:
    """The journal is fed: what has passed meanwhile comes before any attempt that is still to be made."""
    if not run.dead:
        take_up(run)
        run.pump()


def take_up(run: "Run") -> None:
    """Take up the deadlines that have passed: on replay those that the journal holds here, else those due by now."""
    if run.backlog:
        while run.backlog and run.backlog[0].kind == EntryKind.FIRED and _of(run, run.backlog[0].key):
            run.take(run.backlog.popleft())
        return
    waiting = [wait for wait in run.waits.values() if isinstance(wait, Deadline)]
    if not waiting:
        return
    now_ns = run.shell.now_ns()
    for deadline in sorted(waiting, key=lambda each: each.due_at_ns):
        if deadline.due_at_ns <= now_ns and run.waits.get(deadline.key) is deadline:
            run.take(run.input(EntryKind.FIRED, deadline.key))


def _nothing() -> None:
    """In the place of what is called no more, so that no circle is left."""


def _of(run: "Run", key: str) -> bool:
    return isinstance(run.waits.get(key), Deadline)
