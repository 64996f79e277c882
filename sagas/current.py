"""What a step may know about itself while it runs."""

import attrs

from durable_core import DefinitionError
from durable_core.layer import CURRENT


@attrs.frozen(kw_only=True)
class StepInfo:
    """The attempt under way."""

    saga_id: str
    saga: str
    version: int
    step: str
    """The step's key."""
    attempt: int
    idempotency_key: str
    """The same for each attempt, replay and worker of this step, and never that of another run."""
    forward_key: str | None
    """In a compensation or probe: the idempotency key of the step that it serves. None in a step."""
    traceparent: str | None
    compensating: bool


def current() -> StepInfo:
    """The step or compensation that is running here.

    Raises:
        DefinitionError: none is; a saga's body has ``s.id`` instead.
    """
    attempt = CURRENT.get(None)
    if attempt is None:
        raise DefinitionError(
            "sagas.current() was called outside a step; it works inside steps, compensations and probes "
            "while a saga runs them"
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
