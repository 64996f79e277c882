"""One saga as commands show it, with its error as the journal tells it: no class of the user's needs to be imported."""

from typing import TYPE_CHECKING

import attrs

from sagas.model.info import SagaInfo, SagaStatus, error_text

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator


@attrs.frozen
class Seen:
    """A saga as it stands."""

    info: SagaInfo
    error: str | None
    """``TypeName: message`` of what left the body, or of what it is stuck on."""
    now_ns: int
    """When it was looked at, by the store's clock here."""


async def look(orchestrator: "Orchestrator", saga_id: str) -> Seen:
    """Look at a saga.

    Raises:
        SagaNotFound: there is none of this id.
    """
    info = await orchestrator.info(saga_id)
    record = await orchestrator.engine.find(saga_id)
    error = error_text(record.error)
    if error is None and info.status is SagaStatus.STUCK:
        entries = await orchestrator.engine.journal(record.num)
        error = next((error_text(entry.error) for entry in reversed(entries) if entry.error is not None), None)
    return Seen(info, error, orchestrator.engine.clock.now_ns())
