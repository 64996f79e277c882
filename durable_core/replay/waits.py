"""Waits: a durable pause, a wait for a person, and the deadline of a part of the body."""

from collections.abc import Callable
from typing import Any

import msgspec

from durable_core.model.callback import Answer
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.run import RunStatus
from durable_core.replay.effects import TimedKind
from durable_core.replay.run import Run
from durable_core.replay.scheduler import Command, Fiber


class Sleep(Command[None]):
    """Wait until a time."""

    __slots__ = ("key", "until_ns")

    def __init__(self, until_ns: int, key: str | None = None) -> None:
        self.until_ns = until_ns
        self.key = key
        """Claimed before, or None for the next ``sleep`` of the fiber's scope."""

    def issue(self, run: Run, fiber: Fiber) -> None:
        """Arm the timer; on replay it keeps the time that the first run computed."""
        key = fiber.scope.key("sleep") if self.key is None else self.key
        entry, new = run.output(EntryKind.ARMED, key, 0, "sleep", None, self.until_ns)
        wait = PendingWait(run, key, fiber, entry.due_at_ns or 0)
        run.waits[key] = wait
        fiber.wait = wait
        if new:
            run.arm(wait)


class PendingWait:
    """A pause under way: ``effects.Timed``."""

    __slots__ = ("due_at_ns", "fiber", "key", "run")

    timed: TimedKind = "sleep"
    over = False

    def __init__(self, run: Run, key: str, fiber: Fiber, due_at_ns: int) -> None:
        self.run = run
        self.key = key
        self.fiber = fiber
        self.due_at_ns = due_at_ns

    def ring(self) -> None:
        """The time has come: journal it, and let the body go on."""
        run = self.run
        run.settle()
        if not run.dead and not run.effects.leaving and run.waits.get(self.key) is self:
            run.feed(run.input(EntryKind.FIRED, self.key))

    def take(self, entry: Entry) -> None:  # noqa: ARG002 - whichever it is
        """The wait is over."""
        run = self.run
        run.effects.disarm(self)
        run.waits.pop(self.key, None)
        run.scheduler.resume(self.fiber, None)

    def answer(self, answer: Answer, seq: int) -> bool:  # noqa: ARG002 - no answer is taken
        """Nobody can answer it."""
        return False

    def interrupt(self) -> bool:
        """Its fiber is being closed: the wait ends at once."""
        run = self.run
        run.effects.disarm(self)
        run.output(EntryKind.CLOSED, self.key)
        run.waits.pop(self.key, None)
        return True


class Deadline(PendingWait):
    """A time at which ``call`` is made, at its place in the journal; no fiber waits for it."""

    __slots__ = ("_call",)

    timed: TimedKind = "deadline"

    def __init__(self, run: Run, key: str, fiber: Fiber, due_at_ns: int, call: Callable[[], None]) -> None:
        super().__init__(run, key, fiber, due_at_ns)
        self._call = call

    def take(self, entry: Entry) -> None:
        """It has passed."""
        call = self._call
        self.void()
        self.run.guarded(entry, call)

    def void(self) -> None:
        """What it limits is over, or can no longer be stopped: it never comes."""
        run = self.run
        run.effects.disarm(self)
        self._call = _nothing
        if run.waits.get(self.key) is self:
            del run.waits[self.key]


def _nothing() -> None:
    """Takes the place of the call once it is void, so that no cycle is left."""


class WaitForPerson(Command[Any]):
    """The run is stuck until a signal lets the layer above go on (``HostContext.unpark``)."""

    __slots__ = ("key", "reason", "steps")

    def __init__(self, key: str, reason: str, steps: tuple[str, ...]) -> None:
        self.key = key
        self.reason = reason
        self.steps = steps

    def issue(self, run: Run, fiber: Fiber) -> None:
        """Journal why, and show the run as stuck."""
        payload = msgspec.json.encode({"reason": self.reason, "steps": self.steps})
        _, new = run.output(EntryKind.PARKED, self.key, 0, "", payload)
        run.stuck[self.key] = fiber.wait = StuckWait(run, fiber, self)
        run.row.move(RunStatus.STUCK)
        run.row.reason = self.reason
        if new:
            run.save(owner=run.effects.worker, wake_at_ns=None)
            run.effects.got_stuck(run)


class StuckWait:
    """A fiber that waits for a person."""

    __slots__ = ("fiber", "key", "reason", "run", "steps")

    def __init__(self, run: Run, fiber: Fiber, command: WaitForPerson) -> None:
        self.run = run
        self.fiber = fiber
        self.key = command.key
        self.reason = command.reason
        self.steps = command.steps

    def go_on(self, value: object) -> None:
        """Let the fiber go on with ``value``; called from a signal, so a replay does the same."""
        self._leave()
        self.run.scheduler.resume(self.fiber, value)

    def interrupt(self) -> bool:
        """Its fiber is being closed: nobody need decide any more."""
        self.run.output(EntryKind.CLOSED, self.key)
        self._leave()
        return True

    def _leave(self) -> None:
        """It waits no more; the run is stuck only while another fiber waits for a person."""
        run = self.run
        run.stuck.pop(self.key, None)
        left = next(iter(run.stuck.values()), None)
        run.row.move(RunStatus.STUCK if left else RunStatus.RUNNING)
        run.row.reason = left.reason if left else None
