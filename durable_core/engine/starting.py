"""What a start writes: the version, the arguments and the row, also of a function that is not loaded here."""

import asyncio
from typing import TYPE_CHECKING, Any

from durable_core.engine.registry import Registry
from durable_core.errors import StoreError, sentences
from durable_core.model.codec import Codec
from durable_core.model.run import NewRun, RunRecord, RunStatus
from durable_core.model.spec import DurableFunction
from durable_core.ports import Store

if TYPE_CHECKING:
    from durable_core.replay.run import Run


class StartReceipt:
    """A start under way: called by the writer once it is durable, or is known never to be.

    An object and not a function within a function: there is one for each start, and a closure is five objects.
    """

    __slots__ = ("_name", "run", "told")

    def __init__(self, name: str, told: "asyncio.Future[bool]") -> None:
        self._name = name
        self.told = told
        """Whether the run was begun; False where its id is taken."""
        self.run: Run | None = None
        """What this process drives already."""

    def __call__(self, accepted: bool, error: "StoreError | None") -> None:  # noqa: FBT001 - made for every start
        """Tell the run, and whoever waits."""
        run = self.run
        if run is not None:
            run.cursor.started(accepted=accepted)
            if not accepted and not run.dead:
                run.evict()
        if self.told.done():
            return
        if error is not None:
            what = (
                f"whether {self._name} was started is not known" if error.in_doubt else f"{self._name} was not started"
            )
            self.told.set_exception(refused(error, what))
        else:
            self.told.set_result(accepted)


def refused(error: StoreError, what: str) -> StoreError:
    """The store's refusal, told for one call."""
    again = "Start it again under the same id: that gives the run that is there, or a new one" if error.in_doubt else ""
    told = type(error)(f"{what}: {error.text}", sentences(error.advice, again), transient=error.transient)
    told.in_doubt = error.in_doubt
    told.__cause__ = error
    return told


def encoded_call(
    name: str, definition: DurableFunction | None, args: tuple[Any, ...], kwargs: dict[str, Any], *, codec: Codec
) -> bytes:
    """The arguments as they are stored. Without the function they are taken as given; its worker will check them."""
    what = f"starting {name}: the arguments"
    if definition is not None:
        return definition.shape.encode(args, kwargs, what=what)
    return codec.encode_ordered({"args": args, "kwargs": kwargs} if kwargs else args, what=what)


async def announced_version(store: Store, registry: Registry, name: str, version: int | None) -> int:
    """The version to start of a function that is not registered here: the one asked for, or the newest announced.

    Raises:
        DefinitionError: no worker has announced it.
    """
    known = [each.version for each in await store.versions.announced() if each.name == name]
    if not known or (version is not None and version not in known):
        return registry.get(name, version).version  # raises, and lists what there is
    return max(known) if version is None else version


def deadline_of(record: RunRecord, definition: DurableFunction) -> int | None:
    """The run's own, else its function's: whoever started it by name alone could not know that one."""
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
) -> NewRun:
    """The row of a run that begins: driven at once by ``owner``, or pending and due for any worker."""
    status = RunStatus.PENDING if owner is None else RunStatus.RUNNING
    wake_at_ns = 0 if owner is None else None
    deadline_at_ns = None if span_ns is None else now_ns + span_ns
    return NewRun(
        num, id, uid, name, version, status, owner, wake_at_ns, deadline_at_ns, input, None, traceparent, now_ns
    )
