"""What a run needs of the worker that drives it: the effects of its decisions, and nothing else."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from durable_core.model.entry import Entry
from durable_core.model.run import RunUpdate
from durable_core.ports import Clock

if TYPE_CHECKING:
    from durable_core.replay.cursor import End
    from durable_core.replay.guard import LoopGuard
    from durable_core.replay.run import Run
    from durable_core.replay.steps import Evidence, PendingStep


class Effects(Protocol):
    """The worker, as its runs see it."""

    worker: str
    guard: "LoopGuard"
    clock: Clock
    max_crashes: int
    secret: bytes
    """What the tokens of callbacks derive from."""
    leaving: bool
    """True once the worker starts nothing new: bodies are no longer driven."""

    def now_ns(self) -> int:
        """What the clock says."""
        ...

    def draw(self) -> float:
        """A number in [0, 1), for the jitter of a retry."""
        ...

    def append(self, entry: Entry, /) -> None:
        """Queue a journal entry."""
        ...

    def update(self, update: RunUpdate, /) -> None:
        """Queue a run's row as it stands now; the last of a batch wins."""
        ...

    def after(self, call: Callable[[], None], /) -> None:
        """Make ``call`` once all that is queued so far is durable."""
        ...

    def attempt(self, run: "Run", step: "PendingStep") -> None:
        """Call the step's function; its end comes back by ``PendingStep.attempted``."""
        ...

    def recall(self, step: "PendingStep") -> bool:
        """Leave out a call that was asked for; False where the function has been called."""
        ...

    def take_over(self, step: "PendingStep") -> bool:
        """Let ``step`` have the end of a call that another run in memory, of which it is a part, has begun."""
        ...

    def returned_late(self, step: "PendingStep", evidence: "Evidence") -> None:
        """An attempt has returned whose run is driven no more in this form."""
        ...

    def cut(self, step: "PendingStep") -> None:
        """An attempt was cut from outside: it has no outcome, as after a crash."""
        ...

    def suspect(self, step: "PendingStep", /) -> None:
        """Have the step attempted while no other suspect is: one of them takes the process down."""
        ...

    def tell_deadline(self, run: "Run") -> None:
        """The run's deadline has passed: have it take that up before its body goes on."""
        ...

    def drive_soon(self, run: "Run") -> None:
        """Have the run's body driven in this turn of the event loop."""
        ...

    def decoder(self, declared: Any) -> Callable[[bytes], Any]:
        """Reads JSON as a value of the declared type."""
        ...

    def idle(self, run: "Run") -> None:
        """The run has nothing under way: it waits, or is parked."""
        ...

    def ended(self, run: "Run", end: "End") -> None:
        """The run's end is queued."""
        ...

    def parked(self, run: "Run") -> None:
        """The run's parking is queued."""
        ...

    def failing(self, run: "Run", step: "PendingStep") -> None:
        """The step has failed many times and will be attempted again."""
        ...

    def forget(self, run: "Run") -> None:
        """The run is no longer in memory."""
        ...

    def owner_after(self, run: "Run") -> str | None:
        """Who owns a run that is about to leave memory: this worker while attempts of it have not returned."""
        ...
