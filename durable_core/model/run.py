"""A run as its row tells it: identity, status, and what it waits for."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import attrs

from durable_core.errors import DefinitionError
from durable_core.model.texts import check_text


class RunStatus(StrEnum):
    """Where a run stands. Stored by value."""

    PENDING = "pending"
    """Durable, and not begun by any worker."""
    RUNNING = "running"
    """A worker drives it."""
    WAITING = "waiting"
    """It waits for a time, a callback or a retry."""
    STUCK = "stuck"
    """It needs a person; see ``RunRecord.reason``."""
    COMPLETED = "completed"
    """Its body returned."""
    FAILED = "failed"
    """Its body raised; ``phase`` may say what that means to the layer above."""
    KILLED = "killed"
    """An operator ended it."""


OPEN = frozenset({RunStatus.PENDING, RunStatus.RUNNING, RunStatus.WAITING, RunStatus.STUCK})
ENDS = frozenset(RunStatus) - OPEN

MOVES: Mapping[RunStatus, frozenset[RunStatus]] = {
    RunStatus.PENDING: frozenset(RunStatus) - {RunStatus.PENDING},
    RunStatus.RUNNING: frozenset(RunStatus) - {RunStatus.RUNNING},
    RunStatus.WAITING: frozenset(RunStatus) - {RunStatus.WAITING},
    RunStatus.STUCK: frozenset(RunStatus) - {RunStatus.STUCK},
    RunStatus.COMPLETED: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.KILLED: frozenset({RunStatus.PENDING}),  # an operator may ask for its rollback
}
"""The moves a run may make. Only a killed run can be opened again, by an operator's verb."""


class NewRun(NamedTuple):
    """The row of a run that begins; a tuple in column order, bound to SQL as it stands."""

    num: int
    """Unique in the store, from ``Store.next_num``; joins the run to its journal."""
    id: str
    """The user's id, unique in the store."""
    uid: bytes
    """16 random bytes; keys, tokens and trace ids derive from it."""
    name: str
    version: int
    status: str
    owner: str | None
    """The worker that drives it, or None: any worker may claim it once ``wake_at_ns`` has come."""
    wake_at_ns: int | None
    """When an unowned run may be claimed; 0 is now, None not before somebody signals it."""
    deadline_at_ns: int | None
    input: bytes
    traceparent: str | None
    """What was decided of its trace: the caller's W3C trace context, as ``link:00-...`` or ``join:00-...``.

    Its flags say whether the run's own spans are exported; ``self:00-...-00`` is a run without a caller that is not.
    """
    created_at_ns: int
    tags: str | None = None
    """Those of its start, as ``model.tags`` writes them; None without any."""
    restarts: str | None = None
    """The id of the ended run that it begins again."""


class RunUpdate(NamedTuple):
    """All mutable columns of a run at once; the last of a batch wins. ``num`` comes last, for SQL's WHERE."""

    status: str
    phase: str
    """The layer above's word for where the run stands (``compensating``, ``past-pivot``); empty at first."""
    owner: str | None
    wake_at_ns: int | None
    paused: int
    """1 while an operator holds the run."""
    output: bytes | None
    """JSON of the result, once ended."""
    error: bytes | None
    """JSON of the stored failure that ended the run or that it is stuck on."""
    reason: str | None
    """For a person: why the run is stuck."""
    detail: bytes | None
    """JSON that the body published with ``set_status``."""
    updated_at_ns: int
    ended_at_ns: int | None
    retagged: str | None
    """All of its tags, once it has tagged itself; until then None."""
    awaits: str | None
    """What the run waits for, or is stuck on; see ``model.awaited``."""
    num: int


class RunRef(NamedTuple):
    """A run that was started or found."""

    num: int
    id: str
    name: str
    version: int


class Place(NamedTuple):
    """A run's place in the order of start: runs with equal times have one by number."""

    created_at_ns: int
    num: int


@attrs.frozen
class RunRecord:
    """A run's whole row, as the store reads it."""

    num: int
    id: str
    uid: bytes
    name: str
    version: int
    status: RunStatus
    phase: str
    owner: str | None
    wake_at_ns: int | None
    deadline_at_ns: int | None
    paused: bool
    input: bytes
    output: bytes | None
    error: bytes | None
    reason: str | None
    detail: bytes | None
    traceparent: str | None
    created_at_ns: int
    updated_at_ns: int
    ended_at_ns: int | None
    tags: str | None = None
    """Those of its start; see ``current_tags``."""
    retagged: str | None = None
    awaits: str | None = None
    restarts: str | None = None

    @property
    def current_tags(self) -> str | None:
        """Its tags now, in their stored form."""
        return self.tags if self.retagged is None else self.retagged

    @property
    def place(self) -> "Place":
        """Its place in the order of start."""
        return Place(self.created_at_ns, self.num)

    def claimed_by(self, worker: str) -> "RunRecord":
        """The run as ``worker``'s. A stuck one stays so: only what is promised beside that is due."""
        if self.status is RunStatus.STUCK:
            return attrs.evolve(self, owner=worker)  # should the worker die, the rest falls due all the same
        return attrs.evolve(self, owner=worker, status=RunStatus.RUNNING, wake_at_ns=None)


def _check_name(_: object, __: object, name: str | None) -> None:
    if name is not None:
        check_text(name, "the name to search for")


MOST = (1 << 63) - 1
"""The largest number that every store can take."""


def check_limit(_: object, __: "attrs.Attribute[Any]", value: object) -> None:
    """Refuse a ``limit`` that is no number of runs; None is all of them. A validator for the fields that hold one."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
        raise DefinitionError(
            f"limit={value!r} cannot be used: give a whole number from 0, or None for all of them; "
            "nothing was read or changed"
        )


@attrs.frozen(kw_only=True)
class RunQuery:
    """Which runs to list or count; every given field must hold. In the order of start, newest first."""

    statuses: frozenset[RunStatus] | None = None
    phases: frozenset[str] | None = None
    name: str | None = attrs.field(default=None, validator=_check_name)
    version: int | None = None
    since_ns: int | None = None
    """Created at or after."""
    ended_before_ns: int | None = None
    """Ended, and before that time."""
    tags: tuple[tuple[str, str], ...] = ()
    """Keys and values, all of which the run must have."""
    after: Place | None = None
    """A page's cursor: only runs that follow this place in the order asked for."""
    oldest_first: bool = False
    attention: bool = False
    """Only open runs that say why somebody should look (``RunRecord.reason``)."""
    at_ns: int | None = None
    """With ``attention``: also those that no worker serves at this time; see ``Store.unserved``."""
    limit: int | None = attrs.field(default=100, validator=check_limit)
    """At most so many; None is all."""


def unchanged(record: RunRecord) -> RunUpdate:
    """The row as it stands."""
    return RunUpdate(
        record.status,
        record.phase,
        record.owner,
        record.wake_at_ns,
        int(record.paused),
        record.output,
        record.error,
        record.reason,
        record.detail,
        record.updated_at_ns,
        record.ended_at_ns,
        record.retagged,
        record.awaits,
        record.num,
    )
