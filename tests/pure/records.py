"""A run's row, for tests of what is made of it."""

from durable_core import RunStatus
from durable_core.layer import RunRecord


def record(status: RunStatus, *, paused: bool = False) -> RunRecord:
    """The row of a run that stands so."""
    return RunRecord(
        num=1,
        id="r",
        uid=b"u" * 16,
        name="f",
        version=1,
        status=status,
        phase="",
        owner=None,
        wake_at_ns=None,
        deadline_at_ns=None,
        paused=paused,
        input=b"[]",
        output=None,
        error=None,
        reason=None,
        detail=None,
        traceparent=None,
        created_at_ns=0,
        updated_at_ns=0,
        ended_at_ns=None,
    )
