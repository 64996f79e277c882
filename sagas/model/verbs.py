"""Operators' verbs: in which states each makes sense. One table makes the guards, their tests and their page in the docs."""

from collections.abc import Mapping

from sagas.model.info import SagaStatus

GOING = frozenset({SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.WAITING})

ALLOWED: Mapping[str, frozenset[SagaStatus]] = {
    "cancel": GOING | {SagaStatus.COMPENSATING, SagaStatus.STUCK},
    "retry": frozenset({SagaStatus.STUCK}),
}
"""The statuses in which each verb is accepted. A verb that is accepted and has nothing to do is harmless."""


def refusal(verb: str, status: SagaStatus, phase: str, *, saga_id: str) -> str | None:
    """Why ``verb`` makes no sense for a saga that stands so; None where it does."""
    if verb == "cancel" and phase == "past-pivot":
        return f"saga {saga_id!r} has passed its pivot: it goes forward, and nothing is undone any more"
    if status in ALLOWED[verb]:
        return None
    return (
        f"saga {saga_id!r} is {status}, and `{verb}` makes sense only where it is "
        f"{', '.join(sorted(ALLOWED[verb]))}; nothing was changed"
    )
