"""Sagas on Temporal: a worker that serves them on a task queue, and a client (extra ``temporal``).

One dynamic workflow drives every saga, one dynamic activity makes every attempt. Temporal's history is the only store:
the saga's journal is derived from it on each replay.
"""

from sagas.hosts.temporal.client import Client
from sagas.hosts.temporal.serving import worker

__all__ = ["Client", "worker"]
