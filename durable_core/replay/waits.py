"""Waits: a durable pause, and the parking of a run until a person acts."""

from typing import TYPE_CHECKING, Any

import msgspec

from durable_core.model.entry import Entry, EntryKind
from durable_core.model.run import RunStatus
from durable_core.ports import Timer
from durable_core.replay import structure
from durable_core.replay.commands import Command
from durable_core.replay.fibers import Fiber

if TYPE_CHECKING:
    from durable_core.replay.run import Run


class Sleep(Command[None]):
    """Wait until a time."""

    __slots__ = ("name", "until_ns")

    def __init__(self, until_ns: int, name: str = "sleep") -> None:
        self.until_ns = until_ns
        self.name = name

    def issue(self, run: "Run", fiber: Fiber) -> None:
        """Arm the timer; on replay it keeps the time that the first run computed."""
        key = fiber.scope.key(self.name)
        entry, new = run.output(EntryKind.ARMED, key, 0, "sleep", None, self.until_ns)
        wait = PendingWait(run, key, fiber, entry.due_at_ns or 0)
        run.waits[key] = wait
        fiber.wait = wait
        if new:
            run.unarmed += (wait,)  # a clock may ask for the event loop, which stands aside while a body is driven


class PendingWait:
    """A wait under way."""

    __slots__ = ("due_at_ns", "fiber", "key", "run", "timer")

    def __init__(self, run: "Run", key: str, fiber: Fiber, due_at_ns: int) -> None:
        self.run = run
        self.key = key
        self.fiber = fiber
        self.due_at_ns = due_at_ns
        self.timer: Timer | None = None

    over = False

    def arm(self, run: "Run") -> None:
        """Set the timer."""
        if self.timer is None:
            self.timer = run.shell.clock.call_at(self.due_at_ns, self.ring)

    def disarm(self) -> None:
        """Cancel the timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def ring(self) -> None:
        """The time has come: journal it, and let the body go on."""
        run = self.run
        run.settle()
        if not run.dead and not run.shell.leaving and run.waits.get(self.key) is self:
            run.feed(run.input(EntryKind.FIRED, self.key))

    def take(self, run: "Run", _entry: Entry) -> None:
        """The wait is over."""
        self.disarm()
        run.waits.pop(self.key, None)
        structure.resume(run, self.fiber, None)

    def interrupt(self, run: "Run") -> bool:
        """Its fiber is being closed: the wait ends at once."""
        self.disarm()
        run.output(EntryKind.CLOSED, self.key)
        run.waits.pop(self.key, None)
        return True


class Park(Command[Any]):
    """Wait for a person: the run is stuck until a signal makes the layer above go on (``HostContext.unpark``)."""

    __slots__ = ("key", "reason", "steps")

    def __init__(self, key: str, reason: str, steps: tuple[str, ...]) -> None:
        self.key = key
        self.reason = reason
        self.steps = steps

    def issue(self, run: "Run", fiber: Fiber) -> None:
        """Journal why, and show the run as stuck."""
        payload = msgspec.json.encode({"reason": self.reason, "steps": self.steps})
        _, new = run.output(EntryKind.PARKED, self.key, 0, "", payload)
        fiber.wait = Parked(fiber, self.key, self.reason, self.steps)
        run.parked[self.key] = fiber.wait
        run.status = RunStatus.STUCK
        run.reason = self.reason
        if new:
            run.save(owner=run.shell.worker, wake_at_ns=None)
            run.shell.parked(run)


class Parked:
    """A fiber that waits for a person."""

    __slots__ = ("fiber", "key", "reason", "steps")

    def __init__(self, fiber: Fiber, key: str, reason: str, steps: tuple[str, ...]) -> None:
        self.fiber = fiber
        self.key = key
        self.reason = reason
        self.steps = steps

    def unpark(self, run: "Run", value: object) -> None:
        """Let the fiber go on with ``value``; called from a signal, so a replay does the same."""
        self._leave(run)
        structure.resume(run, self.fiber, value)

    def interrupt(self, run: "Run") -> bool:
        """Its fiber is being closed: nobody need decide any more."""
        run.output(EntryKind.CLOSED, self.key)
        self._leave(run)
        return True

    def _leave(self, run: "Run") -> None:
        """It waits no more; the run is stuck only while somebody else is parked."""
        run.parked.pop(self.key, None)
        left = next(iter(run.parked.values()), None)
        run.status = RunStatus.STUCK if left else RunStatus.RUNNING
        run.reason = left.reason if left else None
