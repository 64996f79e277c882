"""The engine of durable functions: starts and drives runs, shows them, and takes operators' verbs.

Invariant: what a call reports has been committed before it returns.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, ParamSpec, Self, TypedDict, TypeVar, Unpack, overload

import attrs
import msgspec

from durable_core.client import CallbackAddress, Client, Handle
from durable_core.context import Binder
from durable_core.engine.home import at_home
from durable_core.engine.registry import warn
from durable_core.engine.retention import PurgeReport
from durable_core.engine.runtime import Runtime
from durable_core.engine.settings import Settings
from durable_core.engine.waiting import RunOutcome
from durable_core.errors import DefinitionError, RunExists, RunKilled, RunNotFound, RunStuck, WrongState
from durable_core.face import Face, Order, Standing
from durable_core.model.durable import Durable
from durable_core.model.duration import Duration
from durable_core.model.entry import Entry
from durable_core.model.failure import rebuild
from durable_core.model.info import RunInfo, RunSummary, run_info, run_summary
from durable_core.model.run import ENDS, RunRef, RunStatus
from durable_core.model.startable import StartOptions, Takes0, Takes1, Takes2, Takes3
from durable_core.model.verbs import Accept, Asked, Refuse, Repeat, faulted_on, judge
from durable_core.model.versions import VersionInfo, versions_of
from durable_core.ports import Clock, Store

log = logging.getLogger("durable_core")

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


class RunFace(Face[RunInfo, RunStatus]):
    """The face of runs."""

    noun: ClassVar[str] = "run"
    not_open: ClassVar[tuple[str, str]] = ("this engine is not open", "Use it within its `async with` block")
    exists: ClassVar[type[RunExists]] = RunExists
    killed: ClassVar[type[RunKilled]] = RunKilled
    stuck: ClassVar[type[RunStuck]] = RunStuck

    def not_found(self, id: str, missing: RunNotFound | None = None) -> RunNotFound:
        """What the runtime says."""
        return missing or RunNotFound(
            f"no run has the id {id!r} in this store", "Check the id and the store", run_id=id
        )

    def failed(self, ref: RunRef, outcome: RunOutcome) -> BaseException:  # noqa: ARG002
        """What left the body."""
        return rebuild(outcome.error or b"{}")

    def query(self, status: str) -> tuple[frozenset[RunStatus], None]:
        """Runs with this status, in any phase."""
        try:
            return frozenset({RunStatus(status)}), None
        except ValueError:
            raise DefinitionError(f"{status!r} is no status of a run", f"Use one of {', '.join(RunStatus)}") from None

    def status(self, standing: Standing) -> RunStatus:
        """As the row says."""
        return standing.record.status

    def describe(self, standing: Standing) -> RunInfo:
        """Its row and its steps."""
        info = run_info(
            standing.record,
            standing.entries,
            read_input=standing.read_input,
            read_result=standing.result_reader(self.noun),
        )
        return info if standing.unserved_at_ns is None else attrs.evolve(info, reason=self.unserved(standing))

    def stuck_on(self, standing: Standing) -> tuple[str, ...]:
        """The step whose exception it was; none where it is the code itself."""
        step, _ = faulted_on(standing.entries)
        return (step,) if step else ()

    def judge(self, verb: str, action: Asked, standing: Standing) -> Order | None:
        """As the table of verbs says."""
        record = standing.record
        match judge(verb, record, paused=standing.paused):
            case Repeat():
                return None
            case Refuse(why=why):
                raise WrongState(why, run_id=record.id, status=record.status)
            case Accept():
                label, since = faulted_on(standing.entries) if verb == "retry" else ("", 0)
                return Order(name=verb, payload=msgspec.json.encode(action), label=label, since=since)

    def summary(self, standing: Standing) -> RunSummary:
        """A run in a list; its journal is not needed."""
        told = run_summary(standing.record)
        return told if standing.unserved_at_ns is None else attrs.evolve(told, reason=self.unserved(standing))

    def attention(self, info: RunInfo, entries: Sequence[Entry], *, worker: str) -> Iterator[str]:  # noqa: ARG002
        """The reason that its row gives."""
        if info.reason is not None:
            yield f"run {info.id!r} ({info.name} v{info.version}) is {info.status} and needs a person: {info.reason}"


class RunFilters(TypedDict, total=False):
    """Which runs are listed or counted."""

    status: RunStatus | str | None
    """Only runs with this status."""
    name: str | None
    """Only runs of this durable function."""
    version: int | None
    """Only runs of this version."""
    since: datetime | None
    """Only runs started at or after this time (aware)."""
    tags: Mapping[str, str] | None
    """Only runs that have all of these tags."""
    attention: bool
    """Only runs that need a person: stuck, failing repeatedly, or of a version that no worker serves."""


class RunHandle(Handle[R, RunInfo, RunStatus]):
    """One run, as its starter sees it.

    Where there is no result, ``result()`` raises what left the body, of its own class and with its own data;
    ``RunStuck`` at once when the run needs a person; ``RunKilled`` where an operator ended it.
    """

    __slots__ = ()


@at_home("client.runtime.home")
class Engine:
    """Durable functions on one store.

    Use it as an asynchronous context manager: on entry it recovers the runs of earlier processes.

    Args:
        url: ``sqlite:///file.db`` (a file, no server), ``postgresql://user@host/database``, or ``memory://`` for tests.
        functions: the durable functions that this process serves.
        store: a store object instead of ``url``, such as ``durable_core.layer.open_store`` returns or one of your own
            (``durable_core.layer.Store``). One that is open is opened anew on entry; leaving closes it. It serves one
            engine, and ``lease`` and ``store_timeout`` do not change it.
        worker: whether it executes runs; False only starts and observes.
        clock: drives waits, retry delays and step timeouts.
        concurrency: how many runs may have work in progress at once.
        threads: how many plain functions may run at once, each on a thread. A step that waits for a thread has not
            begun.
        lease: how long a silent worker keeps its runs, in a store where its death cannot be seen at once; a timedelta
            or seconds.
        grace: how long leaving waits for attempts in progress.
        store_timeout: how long a call waits for a store that fails before it raises ``StoreError``.
        max_crashes: after the process has died this often within one step, the run is stuck.
        secret: callback tokens are derived from it; text or bytes, at least 32 long. Default: ``SAGAS_SECRET`` from the
            environment, else the secret that the store keeps. All processes on a store must use the same one. A
            different one invalidates all tokens that were handed out.
        retention: how long runs are kept after their end, before a worker purges them. None: for ever.
        id_retention: how long the id of a purged run cannot be used again. None: for ever.
        on_attention: called, at least once, when a run gets stuck, when a step has failed ten times and is still
            retried, or when no worker has served its version for 30 s (by ``clock``). With or without a listener, a
            worker logs each case once, as an error of the logger ``durable_core``.
        tracer_provider: a tracer provider of OpenTelemetry's SDK. Default: the global one, if the program has set one;
            else nothing is traced.

    Raises:
        DefinitionError: an argument is invalid; the message names it. Also if both ``url`` and ``store`` are given, or
            neither is.
    """

    def __init__(  # noqa: PLR0913 - one option for each thing that a program may decide
        self,
        url: str | None = None,
        functions: Sequence[Durable[..., Any]] = (),
        *,
        store: Store | None = None,
        worker: bool = True,
        clock: Clock | None = None,
        concurrency: int = 1000,
        threads: int = 32,
        lease: Duration = timedelta(seconds=15),
        grace: Duration = timedelta(seconds=10),
        store_timeout: Duration = timedelta(seconds=30),
        max_crashes: int = 5,
        secret: str | bytes | None = None,
        retention: Duration | None = None,
        id_retention: Duration | None = timedelta(days=90),
        on_attention: Callable[[RunInfo], Awaitable[None]] | None = None,
        tracer_provider: object = None,
    ) -> None:
        settings = Settings.of(
            worker=worker,
            concurrency=concurrency,
            threads=threads,
            grace=grace,
            store_timeout=store_timeout,
            lease=lease,
            max_crashes=max_crashes,
            secret=secret,
            retention=retention,
            id_retention=id_retention,
        )
        self._face = RunFace()
        self.client: Client[RunInfo, RunStatus] = Client(
            url,
            self._face,
            store=store,
            settings=settings,
            clock=clock,
            on_attention=on_attention,
            on_rewritten=warn,
            log=log,
            tracer_provider=tracer_provider,
        )
        self._binder = Binder(self.runs.codec)
        self._registered: dict[tuple[str, int], Durable[..., Any]] = {}
        for function in functions:
            self.register(function)

    @property
    def runs(self) -> Runtime:
        """The low-level calls; see ``durable_core.layer``."""
        return self.client.runtime

    def register(self, function: Durable[..., Any]) -> None:
        """Serve another durable function. Versions live side by side. Registering the same one again is harmless.

        Raises:
            DefinitionError: it is no durable function, or another one has this name and version.
            PayloadError: a type of its signature cannot be stored.
        """
        if not isinstance(function, Durable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(
                f"{function!r} is no durable function", "Decorate its body with @durable(name, version=...)"
            )
        key = (function.name, function.version)
        if self._registered.get(key) is not function:
            self.runs.register(self._binder.function(function))  # refuses another one of that name and version
            self._registered[key] = function

    async def __aenter__(self) -> Self:
        """Open the store, and recover the runs of earlier processes.

        Raises:
            StoreError: the store cannot be opened.
        """
        await self.runs.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.runs.__aexit__(kind, error, traceback)

    # -- starting and looking --------------------------------------------------------------------------------------

    @overload
    async def start(
        self,
        what: str,
        /,
        *args: Any,
        id: str | None = ...,
        version: int | None = ...,
        trace: Literal["link", "join"] = ...,
        tags: Mapping[str, str] | None = ...,
        **kwargs: Any,
    ) -> RunHandle[Any]: ...
    @overload
    async def start(self, what: Takes0[R], /, **options: Unpack[StartOptions]) -> RunHandle[R]: ...
    @overload
    async def start(self, what: Takes1[A, R], a: A, /, **options: Unpack[StartOptions]) -> RunHandle[R]: ...
    @overload
    async def start(self, what: Takes2[A, B, R], a: A, b: B, /, **options: Unpack[StartOptions]) -> RunHandle[R]: ...
    @overload
    async def start(
        self, what: Takes3[A, B, C, R], a: A, b: B, c: C, /, **options: Unpack[StartOptions]
    ) -> RunHandle[R]: ...
    @overload
    async def start(self, what: Durable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> RunHandle[R]: ...
    async def start(  # type: ignore[misc]  # P has no options; the overloads that do come first
        self,
        what: Any,
        /,
        *args: Any,
        id: str | None = None,
        version: int | None = None,
        trace: Literal["link", "join"] = "link",
        tags: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> RunHandle[Any]:
        """Start a run; its start is durable on return.

        The same ``id`` with the same function and input returns the existing run, as it was begun.

        Args:
            what: the durable function, or its name. A name need not be registered here: its newest version here is
                started, else the newest that a worker has announced.
            *args: the body's arguments, after the context.
            id: unique in the store. Default: a random one.
            version: default: that of the function given, or the newest.
            trace: ``link``: the run has a trace of its own with a link to the caller's; ``join``: it is part of that
                one.
            tags: to search by: up to 16 pairs of texts, keys of up to 64 characters, values of up to 256.
            **kwargs: the body's arguments.

        Raises:
            RunExists: the id is taken by another function or other input.
            DefinitionError: an unknown function, or arguments that do not match its signature.
            PayloadError: an argument or a tag cannot be stored.
            StoreError: the store refused it; nothing was started.
        """
        if isinstance(what, Durable):
            self.register(what)  # pyright: ignore[reportUnknownArgumentType]
            name = what.name
            version = what.version if version is None else version
        elif isinstance(what, str):
            name = what
        else:
            raise DefinitionError(
                f"{what!r} is neither a durable function nor the name of one", "Decorate its body with @durable(...)"
            )
        ref = await self.client.begin(name, args, kwargs, id=id, version=version, trace=trace, tags=tags)
        return RunHandle(self.client, ref)

    async def get(self, id: str) -> RunHandle[Any]:
        """Get the run with this id.

        Raises:
            RunNotFound: no run has this id.
        """
        return RunHandle(self.client, *await self.client.ref(id))

    async def info(self, id: str) -> RunInfo:
        """Describe a run in its current, durable state.

        Raises:
            RunNotFound: no run has this id.
        """
        return await self.client.info(id)

    async def versions(self, name: str | None = None) -> list[VersionInfo[RunStatus]]:
        """Every version that a worker has announced or that has runs, by name, the newest first.

        Args:
            name: only versions of this durable function.
        """
        announced, tallies = await self.client.runtime.versions(name)
        going = [status for status in RunStatus if status not in ENDS]
        return versions_of(announced, tallies, status_of=lambda status, _: status, open=going)

    async def list(
        self,
        *,
        limit: int | None = 100,
        after: RunSummary | str | None = None,
        order: Literal["newest", "oldest"] = "newest",
        **filters: Unpack[RunFilters],
    ) -> "list[RunSummary]":
        """List runs in the order of their start, the newest first; it reads no journal.

        Args:
            limit: at most this many. None: all.
            after: the last run of the page before, or its id: the page begins behind it.
            order: ``oldest``: the oldest first.
            **filters: see ``RunFilters``; a run is listed if all that are given hold.

        Raises:
            DefinitionError: there is no such status or order, or ``since`` has no time zone.
            PayloadError: these are no tags.
            RunNotFound: no run has the id ``after``, and none that was purged had it.
        """
        query = self.client.query(limit=limit, order=order, **filters)
        return [self._face.summary(each) for each in await self.client.rows(query, after=after)]

    async def count(self, **filters: Unpack[RunFilters]) -> int:
        """Count the runs that match these filters; see ``RunFilters``."""
        return await self.client.runtime.count(self.client.query(**filters))

    # -- operators -------------------------------------------------------------------------------------------------

    async def retry(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Retry the step, or the code, that a stuck run is stuck on, with a fresh retry policy; durable on return.

        Raises:
            RunNotFound: no run has this id.
            WrongState: it is not stuck.
        """
        await self.client.act(id, "retry", Asked(actor, note))

    async def kill(self, id: str, *, actor: str = "", note: str = "") -> None:
        """End a run at once; results that come later are kept as evidence only. Durable on return.

        Raises:
            RunNotFound: no run has this id.
            WrongState: it has ended in another way.
        """
        await self.client.act(id, "kill", Asked(actor, note))

    async def pause(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Start no further step until ``resume``; attempts in progress end and are recorded. Durable on return.

        Raises:
            RunNotFound: no run has this id.
            WrongState: it has ended.
        """
        await self.client.act(id, "pause", Asked(actor, note))

    async def resume(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Continue after ``pause``. Durable on return.

        Raises:
            RunNotFound: no run has this id.
            WrongState: it has ended.
        """
        await self.client.act(id, "resume", Asked(actor, note))

    async def purge(
        self,
        *,
        older_than: Duration,
        name: str | None = None,
        limit: int | None = None,
        archive: str | Path | None = None,
        dry_run: bool = False,
    ) -> PurgeReport:
        """Remove runs that ended at least ``older_than`` ago, the longest ended first; durable on return.

        Open and stuck runs are never removed. It works in small transactions, so other commits do not wait long
        for it.

        Args:
            older_than: the time since their end; a timedelta or seconds.
            name: only runs of this durable function.
            limit: at most this many. None: all.
            archive: append each run to this file, as a line of JSON that is on disk before the run is removed.
            dry_run: only count.

        Raises:
            DefinitionError: ``older_than`` or ``limit`` cannot be used.
            StoreError: the store or the archive failed; runs that are not in the archive were not removed.
        """
        return await self.client.purge(older_than=older_than, name=name, limit=limit, archive=archive, dry_run=dry_run)

    # -- callbacks -------------------------------------------------------------------------------------------------

    async def complete_callback(
        self,
        token: str | None = None,
        value: object = None,
        *,
        run_id: str | None = None,
        name: str | None = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Answer a callback with ``value``; the answer is durable on return. Repeating it is harmless.

        Args:
            token: the callback's token; or give ``run_id`` and ``name`` instead.
            value: a value of the callback's declared type; it is checked before it is accepted.
            run_id: the run that waits for it.
            name: the callback's key: its name, ``approval#2`` for a second use of the name, ``load/approval`` within a
                child.
            actor: the person who answers; kept in the journal next to the answer. The same answer by another person
                counts as a repetition.
            note: the reason; also kept in the journal.

        Raises:
            CallbackNotFound: the token is unknown or forged.
            CallbackAlreadyAnswered: another answer came first.
            CallbackClosed: the wait was given up: timeout, a failure beside it, or the end.
            PayloadError: the value is not of the declared type, or ``actor`` or ``note`` cannot be stored; the run
                keeps waiting.
        """
        which = CallbackAddress(token=token, run_id=run_id, name=name)
        await self.client.complete(which, value, actor=actor, note=note)

    async def fail_callback(
        self,
        token: str | None = None,
        message: str = "",
        *,
        run_id: str | None = None,
        name: str | None = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Answer a callback with a failure: the body sees ``CallbackFailed``. Otherwise as ``complete_callback``."""
        which = CallbackAddress(token=token, run_id=run_id, name=name)
        await self.client.fail(which, message, actor=actor, note=note)

    async def heartbeat_callback(
        self, token: str | None = None, *, run_id: str | None = None, name: str | None = None
    ) -> None:
        """Report that the answer to a callback is still being worked on; durable on return.

        The callback then waits for at least another ``heartbeat=``, but never beyond its ``timeout=``. It changes
        nothing for a callback without ``heartbeat=``.

        Raises:
            CallbackNotFound: the token is unknown or forged.
            CallbackAlreadyAnswered: the callback has its answer; no more heartbeats are needed.
            CallbackClosed: the wait was given up: timeout, a heartbeat too late, a failure beside it, or the end.
        """
        await self.client.beat(CallbackAddress(token=token, run_id=run_id, name=name))
