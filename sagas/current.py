"""The attempt that is running: what a step can ask about itself."""

import attrs

from durable_core import DefinitionError
from durable_core.layer import CURRENT


@attrs.frozen(kw_only=True)
class StepInfo:
    """The attempt that is running; ``sagas.current()`` gives it."""

    saga_id: str
    """The saga's id."""
    saga: str
    """The saga's name."""
    version: int
    """The saga's version."""
    step: str
    """The step's key."""
    attempt: int
    """Which attempt this is, from 1; attempts that a crash cut count too."""
    idempotency_key: str
    """The same for each attempt, replay and worker of this step, and different in every other run, even under a reused
    saga id. Send it to the participant."""
    forward_key: str | None
    """In a compensation or probe: the idempotency key of its step. None in a step."""
    traceparent: str | None
    """The W3C trace context of this attempt, for calls that no instrumented client makes."""
    compensating: bool
    """Whether this is a compensation."""


def current() -> StepInfo:
    """The step, compensation or probe that is running here; also in functions and threads that it calls.

    Raises:
        DefinitionError: no step is running here; a saga's body has ``s.id`` instead.

    Examples:
        >>> def headers() -> dict[str, str]:
        ...     return {"Idempotency-Key": current().idempotency_key}
    """
    attempt = CURRENT.get(None)
    if attempt is None:
        raise DefinitionError(
            "sagas.current() was called outside a step",
            "Call it inside a step, compensation or probe while a saga runs it; a saga's body has `s.id`",
        )
    return StepInfo(
        saga_id=attempt.run_id,
        saga=attempt.name,
        version=attempt.version,
        step=attempt.key.partition("~")[0],
        attempt=attempt.attempt,
        idempotency_key=attempt.idempotency_key,
        forward_key=attempt.forward_key,
        traceparent=attempt.traceparent,
        compensating=attempt.kind == "compensation",
    )
