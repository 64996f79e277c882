"""What is left of a run that was purged: enough to refuse its id, and to say when and how it ended.

Invariant: a tombstone takes its run's place in one commit. From then on the run is not shown, not even in part, and
what is left of its journal is removed in pieces; a crash in between leaves a tombstone that says so.
"""

from typing import NamedTuple

from durable_core.model.duration import moment


class EndedRun(NamedTuple):
    """A run that may be purged, as it was found; it is purged only while it still stands so."""

    num: int
    id: str
    ended_at_ns: int
    last_seq: int
    """The last entry of its journal; 0 where there is none."""


class Tombstone(NamedTuple):
    """A purged run; a tuple in column order."""

    num: int
    """The run's number, which is never given out again."""
    id: str
    name: str
    version: int
    status: str
    """How it ended."""
    phase: str
    """The layer above's word for how it ended."""
    created_at_ns: int
    ended_at_ns: int
    purged_at_ns: int
    until_ns: int | None
    """When the id is free again; None is never."""

    @property
    def told(self) -> str:
        """What was there, for messages."""
        ended, purged = moment(self.ended_at_ns), moment(self.purged_at_ns)
        return f"{self.id!r} ({self.name} v{self.version}), which ended at {ended}, was purged at {purged}"


class Swept(NamedTuple):
    """What one piece of a purge has removed."""

    entries: int
    left: bool
    """Whether journals of purged runs are left to remove."""
