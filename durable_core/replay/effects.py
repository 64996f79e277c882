"""What a run needs from its surroundings: the one port through which it acts.

The engine's worker implements it with a store, timers and tasks; a host implements it with another engine's operations.
Invariant: a run learns only from what is fed to it, and acts only through this port.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar

from durable_core.model.entry import Entry
from durable_core.model.run import RunUpdate
from durable_core.replay.cursor import End, LateResult
from durable_core.replay.guard import LoopGuard

Run_contra = TypeVar("Run_contra", contravariant=True)
Step_contra = TypeVar("Step_contra", contravariant=True)


TimedKind = Literal["retry", "sleep", "callback", "deadline"]


class Timed(Protocol):
    """Something that ends by itself at a time: a retry delay, a sleep, a callback's timeout, a deadline."""

    @property
    def timed(self) -> TimedKind:
        """What kind it is."""
        ...

    @property
    def key(self) -> str:
        """Its key; empty for the deadline of a whole run."""
        ...

    @property
    def due_at_ns(self) -> int | None:
        """When; None while it has no end."""
        ...

    def ring(self) -> None:
        """The time has come."""
        ...


class JournalEffects(Protocol):
    """Writing."""

    def append(self, entry: Entry, /) -> None:
        """Queue a journal entry."""
        ...

    def update(self, update: RunUpdate, /) -> None:
        """Queue a run's row as it stands now; the last of a batch wins."""
        ...

    def after(self, call: Callable[[], None], /) -> None:
        """Make ``call`` once everything queued so far is durable."""
        ...


class TimeEffects(Protocol):
    """Time and chance."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        ...

    def draw(self) -> float:
        """A number in [0, 1), for the jitter of a retry."""
        ...

    def arm(self, timed: Timed, /) -> None:
        """Have ``timed.ring`` called at its time, unless it is armed already or has no time."""
        ...

    def disarm(self, timed: Timed, /) -> None:
        """Do not call it."""
        ...


class CallEffects(Protocol[Run_contra, Step_contra]):
    """Calling the functions of steps."""

    def attempt(self, run: Run_contra, step: Step_contra) -> None:
        """Call the step's function; its end comes back through the step's ``returned``."""
        ...

    def recall(self, step: Step_contra) -> bool:
        """Leave out a call that was asked for; False where the function has been called."""
        ...

    def take_over(self, step: Step_contra) -> bool:
        """Let ``step`` have the end of a call that this run's predecessor in memory has begun."""
        ...

    def returned_late(self, step: Step_contra, result: LateResult) -> None:
        """An attempt has returned whose run is not driven any more in this form."""
        ...

    def isolate(self, step: Step_contra, /) -> None:
        """Have the step attempted while no other suspect is: one of them takes the process down."""
        ...


class LifeEffects(Protocol[Run_contra, Step_contra]):
    """Where a run stands in the memory of its process."""

    def begin(self, run: Run_contra) -> None:
        """The run waits for its turn and was sent a signal: give it its body now."""
        ...

    def drive_soon(self, run: Run_contra) -> None:
        """Have the run's body driven in this turn of the event loop."""
        ...

    def guard_left(self) -> None:
        """Bodies have been driven, and the guard is no longer in the place of the event loop."""
        ...

    def idle(self, run: Run_contra) -> None:
        """The run has nothing in flight: it waits, or is stuck."""
        ...

    def ended(self, run: Run_contra, end: End) -> None:
        """The run's end is queued."""
        ...

    def got_stuck(self, run: Run_contra) -> None:
        """That the run is stuck is queued."""
        ...

    def failing(self, run: Run_contra, step: Step_contra) -> None:
        """The step has failed many times and will be attempted again."""
        ...

    def forget(self, run: Run_contra) -> None:
        """The run is no longer in memory."""
        ...

    def owner_after(self, run: Run_contra) -> str | None:
        """The owner of a run that is about to leave memory: this worker while attempts of it have not returned."""
        ...


class Effects(
    JournalEffects,
    TimeEffects,
    CallEffects[Run_contra, Step_contra],
    LifeEffects[Run_contra, Step_contra],
    Protocol[Run_contra, Step_contra],
):
    """All that a run needs."""

    worker: str
    """The name that entries carry."""
    guard: LoopGuard
    max_crashes: int
    leaving: bool
    """True once nothing new starts: bodies are no longer driven."""

    def token(self, run: Run_contra, key: str) -> str:
        """The token that proves the right to answer the callback at ``key``; the same on every replay."""
        ...

    def decoder(self, declared: Any) -> Callable[[bytes], Any]:
        """A function that reads JSON as a value of the declared type."""
        ...
