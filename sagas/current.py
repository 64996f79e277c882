"""The attempt that is running: what a step can ask about itself."""

import attrs

from durable_core import DefinitionError
from durable_core.layer import CURRENT


@attrs.frozen(kw_only=True)
class StepInfo:
    """The attempt that is running."""

    saga_id: str
    saga: str
    version: int
    step: str
    """The step's key."""
    attempt: int
    idempotency_key: str
    """The same for each attempt, replay and worker of this step, and different in every other run."""
    forward_key: str | None
    """In a compensation or probe: the idempotency key of its step. None in a step."""
    traceparent: str | None
    compensating: bool


def current() -> StepInfo:
    """The step, compensation or probe that is running here.

    Raises:
        DefinitionError: no step is running here; a saga's body has ``s.id`` instead.
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
