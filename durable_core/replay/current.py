"""The attempt that is running here, as its own code may ask about it. Light: who only declares steps loads this too."""

import contextvars
from typing import TYPE_CHECKING, Protocol

from durable_core.errors import DefinitionError
from durable_core.model.keys import idempotency_key, served
from durable_core.model.trace import attempt_span_id, origin_of, trace_id_of, traceparent

if TYPE_CHECKING:
    from durable_core.replay.cursor import RunIdentity


class Attempted(Protocol):
    """The step that is attempted: one of a run in memory, or one that came as bytes."""

    @property
    def key(self) -> str:
        """Its key."""
        ...

    @property
    def kind(self) -> str:
        """Its kind."""
        ...

    @property
    def attempt(self) -> int:
        """The attempt's number."""
        ...

    @property
    def started_seq(self) -> int:
        """The journal entry of its intent."""
        ...

    @property
    def edition(self) -> int:
        """How often it was begun anew."""
        ...


class AttemptInfo:
    """The attempt under way, as its own code may ask (``durable_core.current``)."""

    __slots__ = ("_run", "_step", "attempt")

    def __init__(self, run: "RunIdentity", step: Attempted) -> None:
        self._run = run
        self._step = step
        self.attempt = step.attempt

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._run.id

    @property
    def name(self) -> str:
        """The durable function's name."""
        return self._run.name

    @property
    def version(self) -> int:
        """The durable function's version."""
        return self._run.version

    @property
    def key(self) -> str:
        """The step's key."""
        return self._step.key

    @property
    def kind(self) -> str:
        """The step's kind."""
        return self._step.kind

    @property
    def idempotency_key(self) -> str:
        """The same for each attempt of this step, and for no other step of any run."""
        return idempotency_key(self._run.uid, self._step.key, self._step.edition)

    @property
    def forward_key(self) -> str | None:
        """The idempotency key of the step that this one serves; None where it serves none."""
        key = self._step.key
        forward = served(key)
        return None if forward == key else idempotency_key(self._run.uid, forward, self._step.edition)

    @property
    def under_way(self) -> bool:
        """Whether its code may still be running."""
        return getattr(self._step, "called", False)

    def span(self) -> tuple[int, int, bool]:
        """Trace id and span id of this attempt, known before it ends, and whether the run's spans are exported."""
        run, step = self._run, self._step
        origin = origin_of(run.traceparent)
        span_id = attempt_span_id(run.uid, step.key, self.attempt, step.started_seq)
        return trace_id_of(run.uid, origin), span_id, origin is None or origin.sampled

    @property
    def traceparent(self) -> str:
        """The W3C trace context of this attempt, for what is called by other means than an instrumented client."""
        trace_id, span_id, sampled = self.span()
        return traceparent(trace_id, span_id, sampled=sampled)


CURRENT: contextvars.ContextVar[AttemptInfo] = contextvars.ContextVar("durable_core_attempt")


def current() -> AttemptInfo:
    """The attempt that is running here: in a step, what it may know about itself.

    Raises:
        DefinitionError: none is; a body has its context instead.
    """
    attempt = CURRENT.get(None)
    if attempt is None:
        raise DefinitionError(
            "durable_core.current() was called outside of a step; it works inside steps while a run calls them"
        )
    return attempt
