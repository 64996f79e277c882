"""Runs sagas: starts them, drives them, shows them, and takes operators' verbs.

Invariant: what a call reports has been committed before it returns.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

import msgspec

from durable_core import (
    CallShape,
    Clock,
    DefinitionError,
    DurableFunction,
    Engine,
    RunExists,
    RunNotFound,
    RunOutcome,
    RunQuery,
    RunRecord,
    RunRef,
    RunStatus,
    Settings,
    WrongState,
    rebuild,
    to_ns,
)
from sagas.errors import SagaCompensated, SagaExists, SagaKilled, SagaNotFound, SagaPastPivot, SagaStuck
from sagas.model.definition import SagaDef, Span
from sagas.model.info import Entry, SagaInfo, SagaStatus, cause_of, history_of, info_of, query_of, status_of
from sagas.model.verbs import refusal
from sagas.runtime.binding import Binder
from sagas.runtime.driver import Verdict, body_of

R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")


class SagaHandle(Generic[R]):
    """One saga, as its starter sees it."""

    def __init__(self, orchestrator: "Orchestrator", ref: RunRef) -> None:
        self._orchestrator = orchestrator
        self._ref = ref

    @property
    def id(self) -> str:
        """The saga's id."""
        return self._ref.id

    def __repr__(self) -> str:
        return f"<SagaHandle {self._ref.name} v{self._ref.version} {self.id!r}>"

    async def result(self, timeout: Span | None = None) -> R:
        """Wait for the end; returns what the body returned.

        Args:
            timeout: how long to wait, in real time; a timedelta or seconds.

        Raises:
            SagaCompensated: it was rolled back; ``__cause__`` is what left the body.
            SagaStuck: it needs a person; raised at once.
            SagaKilled: an operator ended it.
            TimeoutError: it has not ended in time; the saga goes on.
        """
        if timeout is None:
            outcome = await self._orchestrator.engine.outcome(self._ref.num, self.id)
        else:
            async with asyncio.timeout(_seconds(timeout)):
                outcome = await self._orchestrator.engine.outcome(self._ref.num, self.id)
        return await self._orchestrator.answer(self._ref, outcome)  # type: ignore[no-any-return]

    async def info(self) -> SagaInfo:
        """The saga as it stands, as far as it is durable."""
        return await self._orchestrator.info(self.id)

    async def history(self) -> list[Entry]:
        """Its journal, oldest first."""
        return history_of(await self._orchestrator.engine.journal(self._ref.num))

    async def cancel(self, reason: str = "") -> None:
        """Ask for a rollback; see ``Orchestrator.cancel``."""
        await self._orchestrator.cancel(self.id, reason=reason)


class Orchestrator:
    """Sagas on one store. An asynchronous context manager; on entry it recovers what an earlier process left.

    Args:
        url: ``sqlite:///orders.db`` (a file, no server), or ``memory://`` for tests.
        sagas: the sagas that this process serves.
        resources: objects for the ``resource()`` parameters of steps, by type.
        worker: whether it executes sagas; False only starts and observes.
        clock: drives waits, retry delays, deadlines and step timeouts.
        concurrency: sagas that may have something under way at once.
        lease: how long a silent worker keeps its sagas, on a store where its death cannot be seen at once.
        grace: how long leaving waits for attempts under way.
        store_timeout: how long a call waits for a store that fails before it raises ``StoreError``.
        max_crashes: after so many deaths of the process within one step its saga is stuck.
        tracer_provider: where spans go.
    """

    def __init__(
        self,
        url: str,
        *,
        sagas: Sequence[SagaDef[..., Any]] = (),
        resources: Sequence[object] = (),
        worker: bool = True,
        clock: Clock | None = None,
        concurrency: int = 1000,
        lease: Span = timedelta(seconds=15),
        grace: Span = timedelta(seconds=10),
        store_timeout: Span = timedelta(seconds=30),
        max_crashes: int = 5,
        tracer_provider: object = None,
    ) -> None:
        settings = Settings(
            worker=worker,
            concurrency=concurrency,
            grace_s=_seconds(grace),
            store_timeout_s=_seconds(store_timeout),
            max_crashes=max_crashes,
        )
        self.lease = lease
        self.tracer_provider = tracer_provider
        self.engine = Engine(url, settings=settings, clock=clock)
        self._binder = Binder(self.engine.codec, resources)
        self._registered: dict[tuple[str, int], SagaDef[..., Any]] = {}
        for definition in sagas:
            self.register(definition)

    def register(self, definition: SagaDef[..., Any]) -> None:
        """Serve another saga. Versions live side by side; the same one twice is harmless.

        Raises:
            DefinitionError: it is no saga, or another one has this name and version.
        """
        if not isinstance(definition, SagaDef):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"{definition!r} is not a saga; decorate its body with @saga(name, version=...)")
        key = (definition.name, definition.version)
        known = self._registered.get(key)
        if known is definition:
            return
        if known is not None:
            raise DefinitionError(f"two different sagas are named {definition.name!r} version {definition.version}")
        shape = CallShape.of(definition.body, self.engine.codec, skip=1)
        self.engine.registry.add(
            DurableFunction(
                name=definition.name,
                version=definition.version,
                fn=body_of(definition, self._binder, shape),
                shape=shape,
                deadline_ns=None if definition.deadline is None else to_ns(definition.deadline),
                operations="s",
            )
        )
        self._registered[key] = definition

    async def __aenter__(self) -> Self:
        await self.engine.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.engine.__aexit__(kind, error, traceback)

    # -- starting and looking --------------------------------------------------------------------------------------

    @overload
    async def start(
        self,
        what: str,
        /,
        *args: Any,
        id: str | None = ...,
        version: int | None = ...,
        deadline: Span | None = ...,
        trace: Literal["link", "join"] = ...,
        **kwargs: Any,
    ) -> SagaHandle[Any]: ...
    @overload
    async def start(
        self,
        what: SagaDef[[], R],
        /,
        *,
        id: str | None = ...,
        version: int | None = ...,
        deadline: Span | None = ...,
        trace: Literal["link", "join"] = ...,
    ) -> SagaHandle[R]: ...
    @overload
    async def start(
        self,
        what: SagaDef[[A], R],
        a: A,
        /,
        *,
        id: str | None = ...,
        version: int | None = ...,
        deadline: Span | None = ...,
        trace: Literal["link", "join"] = ...,
    ) -> SagaHandle[R]: ...
    @overload
    async def start(
        self,
        what: SagaDef[[A, B], R],
        a: A,
        b: B,
        /,
        *,
        id: str | None = ...,
        version: int | None = ...,
        deadline: Span | None = ...,
        trace: Literal["link", "join"] = ...,
    ) -> SagaHandle[R]: ...
    @overload
    async def start(
        self,
        what: SagaDef[..., R],
        /,
        *args: Any,
        id: str | None = ...,
        version: int | None = ...,
        deadline: Span | None = ...,
        trace: Literal["link", "join"] = ...,
        **kwargs: Any,
    ) -> SagaHandle[R]: ...
    async def start(
        self,
        what: Any,
        /,
        *args: Any,
        id: str | None = None,
        version: int | None = None,
        deadline: Span | None = None,
        trace: Literal["link", "join"] = "link",
        **kwargs: Any,
    ) -> SagaHandle[Any]:
        """Start a saga; its start is durable on return.

        The same ``id`` with the same saga and input gives the saga that runs already.

        Args:
            what: the saga, or its name.
            *args: the body's arguments.
            id: unique in the store; default a random one.
            version: which version; default the one given, or the newest registered here.
            deadline: instead of the saga's own.
            trace: whether the saga's trace links to the caller's or joins it.
            **kwargs: the body's arguments.

        Raises:
            SagaExists: the id is taken by another saga or other input.
            DefinitionError: an unknown saga, or arguments that do not match its signature.
            PayloadError: an argument cannot be stored.
            StoreError: the store did not take it; nothing was started.
        """
        if trace not in ("link", "join"):
            raise DefinitionError(f"trace={trace!r}; use 'link' or 'join'")
        if isinstance(what, SagaDef):
            self.register(what)  # pyright: ignore[reportUnknownArgumentType]
            name = what.name
            version = what.version if version is None else version
        elif isinstance(what, str):
            name = what
        else:
            raise DefinitionError(f"{what!r} is neither a saga nor a saga's name; decorate its body with @saga(...)")
        try:
            ref = await self.engine.start(
                name, args, kwargs, id=id, version=version, deadline_ns=None if deadline is None else to_ns(deadline)
            )
        except RunExists as taken:
            raise SagaExists(_plain(taken), run_id=taken.run_id) from None
        return SagaHandle(self, ref)

    async def get(self, id: str) -> SagaHandle[Any]:
        """The saga of this id.

        Raises:
            SagaNotFound: there is none.
        """
        record = await self._find(id)
        return SagaHandle(self, RunRef(record.num, record.id, record.name, record.version))

    async def list(
        self,
        *,
        status: SagaStatus | str | None = None,
        saga: str | None = None,
        version: int | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[SagaInfo]:
        """Sagas, newest first."""
        records = await self.engine.select(_query(status, saga, version, since, limit))
        journals = await self.engine.journals([record.num for record in records])
        return [self._info(record, journals[record.num]) for record in records]

    async def count(
        self,
        *,
        status: SagaStatus | str | None = None,
        saga: str | None = None,
        version: int | None = None,
        since: datetime | None = None,
    ) -> int:
        """How many sagas there are of that description."""
        return await self.engine.count(_query(status, saga, version, since, None))

    async def info(self, id: str) -> SagaInfo:
        """A saga as it stands, as far as it is durable."""
        record = await self._find(id)
        return self._info(record, await self.engine.journal(record.num))

    async def _find(self, id: str) -> RunRecord:
        try:
            return await self.engine.find(id)
        except RunNotFound:
            raise SagaNotFound(
                f"no saga has the id {id!r} in this store; `sagas list` shows those there are", run_id=id
            ) from None

    def _info(self, record: RunRecord, entries: Sequence[Any]) -> SagaInfo:
        registered = (record.name, record.version) in self._registered
        shape = self.engine.registry.get(record.name, record.version).shape if registered else None
        return info_of(
            record,
            entries,
            read_input=shape.as_mapping if shape else _plain_input,
            read_result=(lambda stored: shape.decode_result(stored, what="the result"))
            if shape
            else msgspec.json.decode,
        )

    async def answer(self, ref: RunRef, outcome: RunOutcome) -> Any:
        """The result of a saga that has ended, or the exception that tells how it stands."""
        match outcome.status:
            case RunStatus.COMPLETED:
                return self._result(ref, outcome)
            case RunStatus.STUCK:
                reason = outcome.reason or "no reason recorded"
                steps = tuple(step.key for step in (await self.info(ref.id)).steps if _needs_help(step.status))
                raise SagaStuck(f"saga {ref.id!r} is stuck: {reason}", run_id=ref.id, reason=reason, steps=steps)
            case RunStatus.KILLED:
                raise SagaKilled(f"saga {ref.id!r} was killed by an operator; nothing was undone", run_id=ref.id)
            case _:
                raise self._compensated(ref, outcome)

    def _result(self, ref: RunRef, outcome: RunOutcome) -> Any:
        stored = outcome.output or b"null"
        if (ref.name, ref.version) not in self._registered:
            return msgspec.json.decode(stored)
        shape = self.engine.registry.get(ref.name, ref.version).shape
        return shape.decode_result(stored, what=f"saga {ref.id!r}: the result")

    def _compensated(self, ref: RunRef, outcome: RunOutcome) -> SagaCompensated:
        told: dict[str, list[str]] = msgspec.json.decode(outcome.output or b"{}")
        status = status_of(outcome.status, outcome.phase)
        cause = cause_of(outcome.phase) or "failed"
        error = None if outcome.error is None else rebuild(outcome.error)
        undone = told.get("compensated", [])
        why = f"{type(error).__name__}: {error}" if error is not None else cause
        raised = SagaCompensated(
            f"saga {ref.id!r} was rolled back ({why}); undone: {', '.join(undone) or 'nothing had to be'}",
            saga_id=ref.id,
            status=status.value,
            cause=cause,
            compensated=undone,
            skipped=told.get("skipped", []),
        )
        raised.__cause__ = error
        return raised

    # -- operators -------------------------------------------------------------------------------------------------

    async def cancel(self, id: str, *, reason: str = "", actor: str = "", note: str = "") -> None:
        """Ask for a rollback; durable on return. What is in flight ends first, then everything is undone.

        Raises:
            SagaPastPivot: nothing can be undone any more.
            WrongState: it has ended.
        """
        await self._verb(id, "cancel", Verdict(reason=reason, actor=actor, note=note))

    async def retry(self, id: str, step: str | None = None, *, actor: str = "", note: str = "") -> None:
        """Have a stuck saga try again what it is stuck on, with a fresh policy; durable on return.

        Args:
            id: the saga.
            step: only this step; default whatever it is stuck on.
            actor: who asks.
            note: why.

        Raises:
            WrongState: it is not stuck.
        """
        await self._verb(id, "retry", Verdict(step=step, actor=actor, note=note))

    async def _verb(self, id: str, verb: str, verdict: Verdict) -> None:
        record = await self._find(id)
        payload = msgspec.json.encode(verdict)

        def allowed(record: RunRecord) -> str | None:
            return refusal(verb, status_of(record.status, record.phase), record.phase, saga_id=id)

        label, since = "", 0
        if verb == "retry":
            label, since = await self._reopens(record)
        try:
            await self.engine.signal(id, verb, payload, allowed=allowed, reopen=label, since=since)
        except WrongState as wrong:
            if verb == "cancel" and record.phase == "past-pivot":
                raise SagaPastPivot(_plain(wrong), run_id=id, status=wrong.status) from None
            raise

    async def _reopens(self, record: RunRecord) -> tuple[str, int]:
        """Which step a retry attempts again, and from which entry on the journal is void then."""
        for entry in reversed(await self.engine.journal(record.num)):
            if entry.kind == "faulted":
                return entry.key, entry.attempt
            if entry.kind in ("parked", "signalled"):
                break
        return "", 0


def _needs_help(status: str) -> bool:
    return status in ("unknown", "compensation_failed", "failed", "running")


def _query(
    status: SagaStatus | str | None, saga: str | None, version: int | None, since: datetime | None, limit: int | None
) -> RunQuery:
    statuses, phases = (None, None) if status is None else query_of(_status(status))
    since_ns = None if since is None else round(since.timestamp() * 1e6) * 1000
    return RunQuery(statuses=statuses, phases=phases, name=saga, version=version, since_ns=since_ns, limit=limit)


def _status(status: SagaStatus | str) -> SagaStatus:
    try:
        return SagaStatus(status)
    except ValueError:
        raise DefinitionError(f"{status!r} is no status of a saga; use one of {', '.join(SagaStatus)}") from None


def _plain_input(stored: bytes) -> dict[str, Any]:
    call = msgspec.json.decode(stored)
    args = call.get("args", []) if isinstance(call, dict) else call
    named = {str(index): value for index, value in enumerate(args)}
    return {**named, **call.get("kwargs", {})} if isinstance(call, dict) else named


def _seconds(span: Span) -> float:
    return span.total_seconds() if isinstance(span, timedelta) else float(span)


def _plain(error: Exception) -> str:
    """An error's message without its code."""
    return str(error.args[0]).rpartition(" [")[0]
