"""What a run writes: its entries and its row; and how what the code asks for is held against the journal.

Invariant: while entries are still to be fed (``backlog``), outputs are compared with them and nothing is written.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from durable_core.errors import Closed, NonDeterminismError
from durable_core.model.decide import agree, describe
from durable_core.model.differing import differing, digest
from durable_core.model.entry import Entry
from durable_core.model.masking import Masks
from durable_core.model.run import ENDS, RunStatus, RunUpdate
from durable_core.model.spec import DurableFunction
from durable_core.replay.effects import Effects

new_row: Callable[[type[Entry], tuple[Any, ...]], Entry] = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
"""Makes a named tuple as its class would, without a call of Python."""
NOTHING: deque[Entry] = deque(maxlen=0)
"""The backlog of a run that is not replayed: one for all, for it stays empty."""


@attrs.frozen(kw_only=True)
class End:
    """How a body says that its run ends, where a plain return or raise is not enough."""

    status: RunStatus = RunStatus.COMPLETED
    phase: str = ""
    output: bytes | None = None
    error: bytes | None = None
    reason: str | None = None


class Cursor:
    """A run's identity, its row as it stands, and its place in its journal."""

    __slots__ = (
        "abandoned",
        "backlog",
        "dead",
        "deadline_at_ns",
        "definition",
        "detail",
        "ended_at_ns",
        "held",
        "id",
        "last_at_ns",
        "masks",
        "num",
        "paused",
        "phase",
        "reason",
        "seq",
        "shell",
        "status",
        "told_seq",
        "traceparent",
        "uid",
        "undriven",
        "unsaid",
        "void",
    )

    def __init__(
        self,
        shell: Effects,
        definition: DurableFunction,
        *,
        num: int,
        id: str,
        uid: bytes,
        created_at_ns: int,
        status: RunStatus = RunStatus.RUNNING,
        phase: str = "",
        paused: bool = False,
        reason: str | None = None,
        detail: bytes | None = None,
        deadline_at_ns: int | None = None,
    ) -> None:
        self.shell, self.definition = shell, definition
        self.num, self.id, self.uid = num, id, uid
        self.status, self.phase, self.paused = status, phase, paused
        self.reason, self.detail = reason, detail
        self.deadline_at_ns = deadline_at_ns
        self.traceparent: str | None = None  # what the run's row says of its trace
        self.unsaid: list[logging.LogRecord] | None = None
        """What a new run has logged before its start is durable; None from then on. Its id may turn out to be taken."""
        self.held = False
        """The body is not driven: an operator has paused the run, or its worker is leaving."""
        self.abandoned = False
        """The body's part is over: an operator asked for the rollback of a run whose body cannot go on."""
        self.last_at_ns = created_at_ns
        """The time of the last entry that the body has seen."""
        self.masks: Masks | None = None
        """The tokens that must not be stored; None where the run has no callbacks."""
        self.seq = 0
        """The last entry written."""
        self.backlog: deque[Entry] = NOTHING
        """Entries still to be fed."""
        self.undriven = False
        """The body has not yet been driven since the last input."""
        self.told_seq = 0
        """The last entry that took up something told from outside."""
        self.ended_at_ns: int | None = None
        self.void = False
        """What it decided last was not written: a signal came first, and it is loaded again."""
        self.dead = False
        """No longer this worker's business: ended, evicted, refused or parked. Nothing more is written for it."""

    def heard(self, *, accepted: bool) -> bool:
        """The start is durable, or was refused: what was logged meanwhile is said, or was never so."""
        unsaid, self.unsaid = self.unsaid, None
        if accepted:
            for record in unsaid or ():
                logging.getLogger(record.name).handle(record)
        return accepted

    def settle(self) -> None:
        """Let the body answer what it has been told, before the next input is judged and journalled, as in a replay.

        What rings or ends must call this first, and look at its own state only then: the body may have given it up.
        """
        if self.undriven:
            self.pump()

    def pump(self) -> None:
        """Drive the body until it waits; see ``Run.pump``."""
        raise NotImplementedError

    def input(  # noqa: PLR0917 - an entry's columns in order, by position: called for every row
        self,
        kind: str,
        key: str,
        attempt: int = 0,
        label: str = "",
        payload: bytes | None = None,
        error: bytes | None = None,
        started_at_ns: int | None = None,
        due_at_ns: int | None = None,
    ) -> Entry:
        """Append an entry; durable when the writer's next flush returns."""
        if self.undriven:
            self.pump()
        if self.dead:
            raise Closed
        shell = self.shell
        self.seq += 1
        entry = new_row(
            Entry,
            (
                self.num,
                self.seq,
                kind,
                key,
                attempt,
                label,
                payload,
                error,
                started_at_ns,
                shell.now_ns(),
                due_at_ns,
                shell.worker,
            ),
        )
        shell.append(entry if self.masks is None else self.masks.hide(entry))
        return entry

    def output(  # noqa: PLR0917 - an entry's columns in order
        self,
        kind: str,
        key: str,
        attempt: int = 0,
        label: str = "",
        payload: bytes | None = None,
        due_at_ns: int | None = None,
    ) -> tuple[Entry, bool]:
        """What the body asks for: the journal's next entry where it agrees, else a new one. True where it is new.

        Raises:
            NonDeterminismError: the journal holds something else.
        """
        backlog = self.backlog
        if not backlog:
            return self.input(kind, key, attempt, label, payload, None, None, due_at_ns), True
        recorded = backlog[0]
        if not agree(recorded, kind=kind, key=key, label=label, payload=payload):
            raise self.mismatch(recorded, describe(kind, key, label), payload)
        backlog.popleft()
        return recorded, False

    def mismatch(self, recorded: Entry, asked: str, arguments: bytes | None = None) -> NonDeterminismError:
        """The fault of code that does not fit its journal: the entry and what the code asks for, side by side."""
        holds, places = describe(recorded.kind, recorded.key, recorded.label), tuple[str, ...]()
        if holds == asked:  # so it is about the arguments
            places = differing(recorded.payload, arguments)
            holds = f"{holds} with arguments {digest(recorded.payload, key=self.uid)}"
            asked = f"{asked} with arguments {digest(arguments, key=self.uid)}; they differ in {', '.join(places)}"
        return NonDeterminismError(
            f"run {self.id} of {self.definition.name} v{self.definition.version}, entry #{recorded.seq}: the journal "
            f"holds {holds}, and the code asks for {asked}. Nothing was done. Bring back the code that began this run, "
            "or keep the old branch behind patched(...), then retry the run; start new runs under a new version",
            seq=recorded.seq,
            recorded=holds,
            asked=asked,
            differing=places,
        )

    def save(self, *, owner: str | None, wake_at_ns: int | None, end: End | None = None) -> None:
        """Queue the run's row as it stands now."""
        now_ns = self.shell.now_ns()
        if self.status in ENDS and self.ended_at_ns is None:
            self.ended_at_ns = now_ns
        self.shell.update(
            RunUpdate(
                self.status,
                self.phase,
                owner,
                wake_at_ns,
                int(self.paused),
                end.output if end else None,
                end.error if end else None,
                self.reason,
                self.detail,
                now_ns,
                self.ended_at_ns,
                self.num,
            )
        )
