"""Requests for sagas that are part of the caller's own database transaction, and are handed on once it is committed.

``Outbox`` adds them to a session; a worker's relay, or ``sagas relay``, hands them on.
"""

from sagas.outbox.entries import OutboxStats, RefusedEntry
from sagas.outbox.outbox import Outbox

__all__ = ["Outbox", "OutboxStats", "RefusedEntry"]
