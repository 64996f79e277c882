"""Steps that were in flight at several deaths of their process are attempted one at a time: so the guilty one is found.

A death counts against every step in flight, for nobody knows which one it was. Those that it has hit before wait here,
and nothing is journalled for them meanwhile: if the process dies again, only the one whose turn it was is counted.

Invariant: at most one of them has begun within the last ``TURN_NS`` and not ended; each gets its turn.
"""

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from durable_core.ports import Clock, Timer

if TYPE_CHECKING:
    from durable_core.replay.effects import Effects
    from durable_core.replay.run import Run
    from durable_core.replay.steps import PendingStep

TURN_NS = 60_000_000_000
"""How long a step stays the only one: what takes its process down does so sooner, and what hangs holds up nobody."""


class Isolation:
    """The suspects of one worker."""

    __slots__ = ("_clock", "_effects", "_timer", "_turn", "_waiting")

    def __init__(self, effects: "Effects[Run, PendingStep]", clock: Clock) -> None:
        self._effects = effects
        self._clock = clock
        self._waiting: deque[PendingStep] = deque()
        self._turn: PendingStep | None = None
        self._timer: Timer | None = None

    def enter(self, step: "PendingStep") -> None:
        """Have ``step`` attempted when its turn comes; its run stays in memory until then."""
        step.run.in_flight += 1
        step.isolated = True
        self._waiting.append(step)
        if self._turn is None:
            self._next()

    def _next(self) -> None:
        """The next turn."""
        effects = self._effects
        while self._turn is None and self._waiting and not effects.leaving:
            step = self._waiting.popleft()
            step.isolated = False
            run = step.run
            if run.dead:
                continue
            run.in_flight -= 1
            step.again()
            if not step.announced:  # its run is held: it may leave memory, and recovers once it is resumed
                if not run.dead:
                    effects.drive_soon(run)
                continue
            self._turn = step
            self._timer = self._clock.call_at(effects.now_ns() + TURN_NS, partial(self._over, step))
            effects.after(partial(self._watch, step))

    def _watch(self, step: "PendingStep") -> None:
        """``step`` was to be called just now: wait for its end."""
        if step.task is None:
            self._over(step)
        else:
            step.task.add_done_callback(lambda _: self._over(step))

    def _over(self, step: "PendingStep") -> None:
        """The turn of ``step`` has passed, or it has ended."""
        if self._turn is not step:
            return
        self._turn = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Not at once: its end is to be on disk first, or it would be counted with the next one.
        self._effects.after(self._next)
