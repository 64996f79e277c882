"""Starts of runs: the version, the arguments and the row, also for a function that is not loaded here."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from durable_core.engine.registry import Registry
from durable_core.errors import PayloadError, RunExists, StoreError, sentences
from durable_core.model.codec import Codec
from durable_core.model.duration import moment
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.info import plain_input
from durable_core.model.run import NewRun, RunRecord, RunRef, RunStatus
from durable_core.model.shape import CallShape
from durable_core.model.spec import DurableFunction
from durable_core.ports import Store

if TYPE_CHECKING:
    from durable_core.replay.run import Run


class StartReceipt:
    """The outcome of a start: called by the writer once the start is durable, or is known never to be.

    An object and not a closure: there is one for each start, and a closure is five objects.
    """

    __slots__ = ("_name", "accepted", "run")

    def __init__(self, name: str, accepted: "asyncio.Future[bool]") -> None:
        self._name = name
        self.accepted = accepted
        """Whether the run has begun; False if its id is taken."""
        self.run: Run | None = None
        """The run, if this process drives it already."""

    def __call__(self, accepted: bool, error: "StoreError | None") -> None:  # noqa: FBT001 - made for every start
        """Pass the outcome to the run and to the caller."""
        run = self.run
        if run is not None:
            run.cursor.started(accepted=accepted)
            if not accepted and not run.dead:
                run.evict()
        if self.accepted.done():
            return
        if error is not None:
            what = (
                f"whether {self._name} was started is not known" if error.in_doubt else f"{self._name} was not started"
            )
            self.accepted.set_exception(refused(error, what))
        else:
            self.accepted.set_result(accepted)


RESTARTED = "restarted"
"""The label of the remark at the head of a journal that says who began an ended run again, and the key its id."""


@attrs.frozen
class Restart:
    """An ended run that is begun again, and who asked for it."""

    id: str
    actor: str = ""
    note: str = ""

    def entry(self, row: NewRun, *, worker: str) -> Entry:
        """The first entry of the new run's journal."""
        asked = msgspec.json.encode({"actor": self.actor, "note": self.note})
        at_ns = row.created_at_ns
        return Entry(row.num, 1, EntryKind.NOTED, self.id, 0, RESTARTED, asked, None, None, at_ns, None, worker)


def refused(error: StoreError, what: str) -> StoreError:
    """The store's error in terms of one call."""
    again = "Start it again under the same id: that gives the one that is there, or a new one" if error.in_doubt else ""
    failure = type(error)(f"{what}: {error.text}", sentences(error.advice, again), transient=error.transient)
    failure.in_doubt = error.in_doubt
    failure.__cause__ = error
    return failure


def encoded_call(
    name: str, definition: DurableFunction | None, args: tuple[Any, ...], kwargs: dict[str, Any], *, codec: Codec
) -> bytes:
    """The arguments as they are stored. Without the function they are not checked; its worker will do so."""
    what = f"starting {name}: the arguments"
    try:
        if definition is not None:
            return definition.shape.encode(args, kwargs, what=what)
        return codec.encode_ordered({"args": args, "kwargs": kwargs} if kwargs else args, what=what)
    except PayloadError as error:
        raise PayloadError(error.text, sentences(error.advice, "Nothing was started")) from error


def input_again(record: RunRecord, changes: Mapping[str, Any] | None, shape: CallShape | None) -> bytes:
    """The stored arguments of a run that is begun again; ``shape`` where its function is known here.

    Raises:
        PayloadError: there is no such parameter, or a value does not fit.
    """
    what = f"restarting {record.id}: the arguments"
    if changes is not None and not isinstance(changes, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PayloadError(f"{what}: give a dict of arguments by name; nothing was started")
    try:
        if shape is None:
            return _plain_again(record.input, changes or {}, what) if changes else record.input
        if changes:
            return shape.corrected(record.input, changes, what=what)
        shape.decode(record.input, what=what)  # another version may take other arguments
    except PayloadError as error:
        raise PayloadError(error.text, sentences(error.advice, "Nothing was started")) from error
    return record.input


def _plain_again(stored: bytes, changes: Mapping[str, Any], what: str) -> bytes:
    """The same where the function is not known: as plain JSON, by place or by keyword."""
    named = plain_input(stored)
    unknown = sorted(changes.keys() - named.keys())
    if unknown:
        raise PayloadError(f"{what}: there is no argument {unknown[0]!r}; there are {', '.join(named) or 'none'}")
    named |= changes
    args = [value for name, value in named.items() if name.isdigit()]
    kwargs = {name: value for name, value in named.items() if not name.isdigit()}
    return Codec().encode_ordered({"args": args, "kwargs": kwargs} if kwargs else args, what=what)


async def announced_version(store: Store, registry: Registry, name: str, version: int | None) -> int:
    """The version to start of a function that is not registered here: the one asked for, or the newest announced.

    Raises:
        DefinitionError: no worker has announced it.
    """
    announced = await store.versions.announced()
    known = [each.version for each in announced if each.name == name]
    if not known or (version is not None and version not in known):
        return registry.get(name, version, announced=[each[:2] for each in announced]).version  # raises
    return max(known) if version is None else version


def deadline_of(record: RunRecord, definition: DurableFunction) -> int | None:
    """The run's own deadline, else its function's: a start by name alone could not know that one."""
    if record.deadline_at_ns is not None or definition.deadline_ns is None:
        return record.deadline_at_ns
    return record.created_at_ns + definition.deadline_ns


def new_run(
    num: int,
    id: str,
    uid: bytes,
    *,
    name: str,
    version: int,
    owner: str | None,
    span_ns: int | None,
    input: bytes,
    now_ns: int,
    traceparent: str | None = None,
    tags: str | None = None,
    restarts: str | None = None,
) -> NewRun:
    """The row of a new run: driven at once by ``owner``, or pending and due for any worker."""
    status = RunStatus.PENDING if owner is None else RunStatus.RUNNING
    wake_at_ns = 0 if owner is None else None
    deadline_at_ns = None if span_ns is None else now_ns + span_ns
    return NewRun(
        num=num,
        id=id,
        uid=uid,
        name=name,
        version=version,
        status=status,
        owner=owner,
        wake_at_ns=wake_at_ns,
        deadline_at_ns=deadline_at_ns,
        input=input,
        traceparent=traceparent,
        created_at_ns=now_ns,
        tags=tags,
        restarts=restarts,
    )


async def existing(store: Store, row: NewRun) -> RunRef | None:
    """The run that has this id already: the same function with the same input. None: the id is free again.

    The order of the two questions matters, as a purge may turn the run into a tombstone meanwhile, never back.

    Raises:
        RunExists: the id is taken by another function or input, or was by a run that has been purged.
    """
    if found := await store.runs.find([row.id]):
        return _same(row, found[0])
    for stone in await store.retention.tombstones([row.id]):
        free = "" if stone.until_ns is None else f", or wait until {moment(stone.until_ns)}, when it is free again"
        raise RunExists(
            f"the id is taken: {stone.told}. Whether it was the same call is no longer known, so nothing was started",
            f"Use another id{free}",
            run_id=row.id,
            purged_at_ns=stone.purged_at_ns,
        )
    return None


def _same(row: NewRun, record: RunRecord) -> RunRef:
    """The run that has the id of ``row``, if it is the same function with the same input."""
    other = None
    if record.name != row.name:
        other = f"{record.name} v{record.version}"
    elif record.input != row.input:
        other = "the same function with other input"
    elif row.restarts not in (None, record.restarts):
        other = f"a run that does not begin {row.restarts!r} again"
    if other is not None:
        raise RunExists(
            f"the id {row.id!r} is taken by {other}; nothing was started",
            "Use another id, or start it with the same input to get the one that is there",
            run_id=row.id,
        )
    return RunRef(record.num, record.id, record.name, record.version)
