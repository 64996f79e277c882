"""A run's place in its journal, and its row as it stands.

Invariant: while entries are still to be fed (``Cursor.backlog``), what the body asks for is compared with them, and
nothing is written.
"""

import logging
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import attrs

from durable_core.errors import NonDeterminismError
from durable_core.model.decide import agree, describe
from durable_core.model.differing import differing, digest
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.masking import Masks
from durable_core.model.run import ENDS, MOVES, RunStatus, RunUpdate

NOTHING: deque[Entry] = deque(maxlen=0)
"""The backlog of a run that is not replayed: one for all, because it stays empty."""


class RunIdentity(NamedTuple):
    """What never changes about a run."""

    num: int
    id: str
    uid: bytes
    name: str
    version: int
    traceparent: str | None = None
    """What the run's row says of its trace."""
    noun: str = "run"
    """See ``DurableFunction.noun``."""

    @property
    def title(self) -> str:
        """What it is and its id, at the head of messages."""
        return f"{self.noun} {self.id}"


class LateResult(NamedTuple):
    """How an attempt ended while its run was not driven: what a ``noted`` entry keeps of it."""

    key: str
    attempt: int
    label: str
    """The outcome, or ``withheld`` if the step was never called."""
    payload: bytes | None
    error: bytes | None
    started_at_ns: int

    @classmethod
    def of(cls, entry: Entry) -> "LateResult":
        """What this ``noted`` entry holds."""
        return cls(entry.key, entry.attempt, entry.label, entry.payload, entry.error, entry.started_at_ns or 0)

    @classmethod
    def withheld(cls, key: str, attempt: int, at_ns: int) -> "LateResult":
        """An announced attempt that was never called."""
        return cls(key, attempt, EntryKind.WITHHELD, None, None, at_ns)


class Message(NamedTuple):
    """A signal that was sent to a run, and that the run has not taken up."""

    name: str
    payload: bytes
    seq: int = 0
    """The entry that holds it back, or 0."""
    at_ns: int = 0
    """When it was sent."""


@attrs.frozen(kw_only=True)
class End:
    """How a body says that its run ends, where a plain return or raise is not enough."""

    status: RunStatus = RunStatus.COMPLETED
    phase: str = ""
    output: bytes | None = None
    error: bytes | None = None
    reason: str | None = None


@attrs.define(eq=False)
class Row:
    """The run's row as it stands: what ``RunUpdate`` writes."""

    status: RunStatus = RunStatus.RUNNING
    phase: str = ""
    paused: bool = False
    reason: str | None = None
    stuck_on: tuple[str, ...] = ()
    """The steps that a fault is about."""
    error: bytes | None = None
    """The last failure in the journal: where the run is stuck, it is stuck on that."""
    detail: bytes | None = None
    tags: str | None = None
    """Those of the start."""
    retagged: str | None = None
    deadline_at_ns: int | None = None
    ended_at_ns: int | None = None
    void: bool = False
    """The last decisions were not written, because a signal came first: the run is loaded again."""

    def move(self, status: RunStatus) -> None:
        """Change the status.

        Raises:
            RuntimeError: ``MOVES`` has no such move; a bug of ours.
        """
        if status is not self.status and status not in MOVES[self.status]:
            raise RuntimeError(f"a run cannot go from {self.status} to {status}")
        self.status = status

    def update(
        self,
        num: int,
        *,
        owner: str | None,
        wake_at_ns: int | None,
        now_ns: int,
        end: End | None,
        awaits: str | None = None,
    ) -> RunUpdate:
        """All mutable columns at once."""
        if self.status in ENDS and self.ended_at_ns is None:
            self.ended_at_ns = now_ns
        return RunUpdate(
            self.status,
            self.phase,
            owner,
            wake_at_ns,
            int(self.paused),
            end.output if end else None,
            end.error if end else self.error if self.status is RunStatus.STUCK else None,
            self.reason,
            self.detail,
            now_ns,
            self.ended_at_ns,
            self.retagged,
            awaits,
            num,
        )


class Cursor:
    """The run's place in its journal: what is still to be fed, and what was written last."""

    __slots__ = ("backlog", "identity", "inbox", "last_at_ns", "masks", "restoring", "seq", "signal_seq", "start_log")

    def __init__(self, identity: RunIdentity, created_at_ns: int) -> None:
        self.identity = identity
        self.seq = 0
        """The last entry written."""
        self.last_at_ns = created_at_ns
        """The time of the last entry that the body has seen."""
        self.signal_seq = 0
        """The last entry that took up a signal."""
        self.backlog: deque[Entry] = NOTHING
        """Entries still to be fed."""
        self.inbox: Sequence[Message | LateResult] = ()
        """What came while the run was not in memory, in the order in which it counts; fed after the backlog."""
        self.restoring = False
        """The journal is being fed, or what came meanwhile."""
        self.masks: Masks | None = None
        """The tokens that must not be stored; None where the run has no callbacks."""
        self.start_log: list[logging.LogRecord] | None = None
        """What a new run has logged before its start is durable, because its id may turn out to be taken; else None."""

    def next(self, kind: str, key: str, label: str, payload: bytes | None) -> Entry:
        """The next entry to be fed, which must be what the body asks for; there is one.

        Raises:
            NonDeterminismError: the journal holds something else.
        """
        recorded = self.backlog[0]
        if not agree(recorded, kind=kind, key=key, label=label, payload=payload):
            raise self.mismatch(recorded, describe(kind, key, label), payload)
        self.backlog.popleft()
        return recorded

    def started(self, *, accepted: bool) -> None:
        """The start is durable, or was refused: only then is what the body has logged meanwhile true."""
        records, self.start_log = self.start_log, None
        for record in records or () if accepted else ():
            logging.getLogger(record.name).handle(record)

    def mismatch(self, recorded: Entry, asked: str, arguments: bytes | None = None) -> NonDeterminismError:
        """The fault of code that does not fit its journal: the entry and what the code asks for, side by side."""
        run = self.identity
        holds, places = describe(recorded.kind, recorded.key, recorded.label), tuple[str, ...]()
        if holds == asked:  # then the arguments differ
            places = differing(recorded.payload, arguments)
            holds = f"{holds} with arguments {digest(recorded.payload, key=run.uid)}"
            asked = f"{asked} with arguments {digest(arguments, key=run.uid)}; they differ in {', '.join(places)}"
        return NonDeterminismError(
            f"{run.title} of {run.name} v{run.version}, entry #{recorded.seq}: the journal "
            f"holds {holds}, and the code asks for {asked}. Nothing was done. Bring back the code that began this "
            f"{run.noun}, or keep the old branch behind patched(...), then retry the {run.noun}; start new {run.noun}s "
            "under a new version",
            seq=recorded.seq,
            recorded=holds,
            asked=asked,
            differing=places,
        )
