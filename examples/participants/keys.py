"""The idempotency keys of a step, for the participant that it calls."""

from sagas import current


def own_key() -> str:
    """The key of this step, compensation or probe: the same at every attempt."""
    return current().idempotency_key


def undone_key() -> str:
    """The key of the call that this compensation or probe is about."""
    key = current().forward_key
    assert key is not None, "only a compensation or a probe is about another call"  # noqa: S101 - so the contract says
    return key
