"""The orchestrator of sagas: starts and drives them, shows them, and takes operators' verbs.

Invariant: what a call reports has been committed before it returns.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypedDict, TypeVar, Unpack, overload

import msgspec

from durable_core import Clock, DefinitionError, PayloadError, PurgeReport
from durable_core.layer import (
    CallbackAddress,
    CallShape,
    Client,
    Codec,
    DurableFunction,
    Duration,
    Handle,
    RunRecord,
    Runtime,
    Settings,
    StartOptions,
    Store,
    Takes0,
    Takes1,
    Takes2,
    Takes3,
    at_home,
    check_timeout,
    name_of,
    to_ns,
    warn_of_others,
)
from sagas.bulk import BulkReport, BulkVerb, apply, chosen
from sagas.face import SagaFace
from sagas.model.definition import SagaDef
from sagas.model.info import SagaInfo, SagaSummary
from sagas.model.phases import SagaStatus
from sagas.model.verbs import OperatorAction
from sagas.model.versions import VersionInfo, versions_of
from sagas.runtime.binding import Binder, StepFaults
from sagas.runtime.saga import function_of

if TYPE_CHECKING:
    from durable_core.layer import Vocabulary
    from sagas.outbox.outbox import Outbox
    from sagas.outbox.serving import Relays

log = logging.getLogger("sagas")

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


class SagaStartOptions(StartOptions, total=False):
    """The options of ``start``, beside the arguments of the saga."""

    deadline: Duration | None


class SagaFilters(TypedDict, total=False):
    """Which sagas ``list`` and ``count`` find; all that are given must hold."""

    status: SagaStatus | str | None
    """Only sagas with this status."""
    saga: str | None
    """Only sagas of this name."""
    version: int | None
    """Only sagas of this version."""
    since: datetime | None
    """Only sagas started at or after this time (aware)."""
    tags: Mapping[str, str] | None
    """Only sagas that have all of these tags."""
    attention: bool
    """Only sagas that need a person: stuck, failing repeatedly, or of a version that no worker serves."""


@at_home("_client.runtime.home")
class SagaHandle(Handle[R, SagaInfo, SagaStatus]):
    """One saga, as its starter sees it; ``start`` and ``get`` return it. It holds no state, only the id.

    Where there is no result, ``result()`` raises ``SagaCompensated`` for a saga that was rolled back, with what left
    its body as ``__cause__``; ``SagaStuck`` at once when it needs a person; ``SagaKilled`` where an operator ended it;
    ``SagaNotFound`` where it was purged.
    """

    __slots__ = ()

    async def cancel(self, reason: str = "") -> None:
        """Ask for a rollback; the request is durable on return. See ``Orchestrator.cancel``.

        Args:
            reason: for the journal.

        Raises:
            SagaPastPivot: nothing can be undone any more.
            WrongState: it has ended in another way.
        """
        await self._client.act(self.id, "cancel", OperatorAction(reason=reason))


@at_home("client.runtime.home")
class Orchestrator:
    """Sagas on one store.

    Use it as an asynchronous context manager: on entry it recovers the sagas of earlier processes.

    Args:
        url: ``sqlite:///orders.db`` (a file, no server), ``postgresql://user@host/database`` (a fleet), or
            ``memory://`` for tests.
        store: a store object instead of ``url``, such as ``durable_core.layer.open_store`` returns or one of your own
            (``durable_core.layer.Store``). One that is open is opened anew on entry; leaving closes it. It serves one
            orchestrator, and ``lease`` and ``store_timeout`` do not change it.
        sagas: the sagas that this process serves.
        resources: objects for the ``resource()`` parameters of steps, by type. A worker needs all that its sagas use.
        worker: whether it executes sagas; False only starts and observes.
        clock: drives waits, retry delays, deadlines and step timeouts.
        concurrency: how many sagas may have work in progress at once.
        threads: how many plain functions (``def`` steps) may run at once, each on a thread. A step that waits for a
            thread has not begun.
        lease: how long a silent worker keeps its sagas, on a store where its death cannot be seen at once.
        grace: how long leaving waits for attempts in progress.
        store_timeout: how long a call waits for a store that fails before it raises ``StoreError``.
        secret: callback tokens are derived from it; text or bytes, at least 32 long. Default: ``SAGAS_SECRET`` from the
            environment, else the secret that the store keeps. All processes on a store must use the same one. A
            different one invalidates all tokens that were handed out.
        max_crashes: after the process has died this often within one step, the saga is stuck.
        retention: how long sagas are kept after their end, before a worker purges them. None: for ever.
        id_retention: how long the id of a purged saga cannot be used again. None: for ever.
        tracer_provider: a tracer provider of OpenTelemetry's SDK. Default: the global one, if the program has set one
            (``sagas.tracing.configure`` does); else nothing is traced.
        on_attention: called, at least once, when a saga gets stuck, when a step has failed ten times and is still
            retried, or when no worker has served its version for 30 s (by ``clock``). With or without a listener, a
            worker logs each case once, as an error of the logger ``sagas``.
        outboxes: of programs' own databases (``sagas.outbox``): this worker hands on what is committed there.
        faults: for tests, what is to go wrong; see ``sagas.testing.Faults``.

    Raises:
        DefinitionError: an argument is invalid; the message names it. Also if both ``url`` and ``store`` are given, or
            neither is.

    Examples:
        >>> import asyncio
        >>> from sagas import Orchestrator, Saga, lookup, saga
        >>> @lookup
        ... def price_of(item: str) -> int:
        ...     return 42
        >>> @saga("quote", version=1)
        ... async def quote(s: Saga, item: str) -> int:
        ...     return await s.run(price_of, item)
        >>> async def main() -> int:
        ...     async with Orchestrator("memory://", sagas=[quote]) as orchestrator:
        ...         handle = await orchestrator.start(quote, "teapot", id="quote-1")
        ...         return await handle.result()
        >>> asyncio.run(main())
        42
    """

    _serving = False
    """Whether it executes sagas now, so that all of their resources must be given."""

    def __init__(  # noqa: PLR0913 - one option for each thing that a program may decide
        self,
        url: str | None = None,
        *,
        store: Store | None = None,
        sagas: Sequence[SagaDef[..., Any]] = (),
        resources: Sequence[object] = (),
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
        tracer_provider: object = None,
        on_attention: Callable[[SagaInfo], Awaitable[None]] | None = None,
        outboxes: Sequence["Outbox[Any]"] = (),
        faults: StepFaults | None = None,
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
            faults=faults,
        )
        self._face = SagaFace(self._step_shape)
        self.client: Client[SagaInfo, SagaStatus] = Client(
            url,
            self._face,
            store=store,
            settings=settings,
            clock=clock,
            on_attention=on_attention,
            on_rewritten=_rewritten,
            log=log,
            tracer_provider=tracer_provider,
            vocabulary=_vocabulary,
        )
        self._faults = faults
        self._binder = Binder(self.engine.codec, resources)
        self._relays = _relays(outboxes, self.client) if outboxes else None
        self._registered: dict[tuple[str, int], SagaDef[..., Any]] = {}
        for definition in sagas:
            self.register(definition)

    @property
    def engine(self) -> Runtime:
        """The low-level calls; see ``durable_core.layer``."""
        return self.client.runtime

    def register(self, definition: SagaDef[..., Any]) -> None:
        """Serve another saga. Versions live side by side. Registering the same one again is harmless.

        Args:
            definition: the saga.

        Raises:
            DefinitionError: it is no saga, or another one has this name and version; or this process executes sagas,
                and has no object for a resource of its steps.
        """
        found = self._binder.sound(definition)
        key = (definition.name, definition.version)
        known = self._registered.get(key)
        if known is definition:
            return
        if known is not None:
            raise DefinitionError(
                f"two different sagas are named {definition.name!r} version {definition.version}: "
                f"{known.place} and {definition.place}",
                "Give one another name, or a new version",
            )
        if self._serving:
            self._binder.check_resources([definition])
        self.engine.register(function_of(definition, self._binder))
        self._registered[key] = definition
        for warning in found.warnings:
            log.warning("saga %r: %s", definition.name, warning)

    def _step_shape(self, record: RunRecord, key: str) -> CallShape | None:
        """How the step at ``key`` is stored, where the saga is known here."""
        definition = self._registered.get((record.name, record.version))
        return None if definition is None else self._binder.step_shape(name_of(key), definition)

    async def __aenter__(self) -> Self:
        """Open the store, and recover the sagas of earlier processes.

        Raises:
            DefinitionError: it executes sagas, and has no object for a resource of their steps, or no saga has a step
                that ``faults`` names; nothing was opened. Or an outbox has no tables.
            StoreError: the store cannot be opened.
        """
        if self.engine.settings.worker:
            self._binder.check_resources(self._registered.values())
        if self._faults is not None:
            self._faults.check(lambda: self._binder.step_names(self._registered.values()))
        await self.engine.__aenter__()
        if self._relays is not None:
            await self._relays.enter()  # leaves the store again where it cannot
        self._serving = self.engine.settings.worker
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._serving = False
        try:
            if self._relays is not None:
                await self._relays.leave()
        finally:
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
        deadline: Duration | None = ...,
        trace: Literal["link", "join"] = ...,
        tags: Mapping[str, str] | None = ...,
        **kwargs: Any,
    ) -> SagaHandle[Any]: ...
    @overload
    async def start(self, what: Takes0[R], /, **options: Unpack[SagaStartOptions]) -> SagaHandle[R]: ...
    @overload
    async def start(self, what: Takes1[A, R], a: A, /, **options: Unpack[SagaStartOptions]) -> SagaHandle[R]: ...
    @overload
    async def start(
        self, what: Takes2[A, B, R], a: A, b: B, /, **options: Unpack[SagaStartOptions]
    ) -> SagaHandle[R]: ...
    @overload
    async def start(
        self, what: Takes3[A, B, C, R], a: A, b: B, c: C, /, **options: Unpack[SagaStartOptions]
    ) -> SagaHandle[R]: ...
    @overload
    async def start(self, what: SagaDef[P, R], /, *args: P.args, **kwargs: P.kwargs) -> SagaHandle[R]: ...
    async def start(  # type: ignore[misc]  # P has no options; the overloads that do come first
        self,
        what: Any,
        /,
        *args: Any,
        id: str | None = None,
        version: int | None = None,
        deadline: Duration | None = None,
        trace: Literal["link", "join"] = "link",
        tags: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> SagaHandle[Any]:
        """Start a saga; its start is durable on return.

        The same ``id`` with the same saga and input returns the existing saga, with the options of its start.

        Args:
            what: the saga, or its name.
            *args: the body's arguments.
            id: unique in the store. Default: a random one.
            version: default: that of the saga given, or the newest registered here, else the newest that a worker has
                announced.
            deadline: instead of the saga's own.
            trace: ``link``: the saga has a trace of its own with a link to the caller's; ``join``: it is part of that
                one.
            tags: to search by: up to 16 pairs of texts, keys of up to 64 characters, values of up to 256.
            **kwargs: the body's arguments.

        Raises:
            SagaExists: the id is taken by another saga or other input, or was by one that has been purged.
            DefinitionError: an unknown saga, or arguments that do not match its signature.
            PayloadError: an argument or a tag cannot be stored.
            StoreError: the store refused it; nothing was started.
        """
        if isinstance(what, SagaDef):
            self.register(what)  # pyright: ignore[reportUnknownArgumentType]
            name = what.name
            version = what.version if version is None else version
        elif isinstance(what, str):
            name = what
        else:
            raise DefinitionError(f"{what!r} is neither a saga nor a saga's name", "Decorate its body with @saga(...)")
        deadline_ns = None if deadline is None else to_ns(check_timeout(deadline, f"starting {name}: deadline") or 0)
        ref = await self.client.begin(
            name, args, kwargs, id=id, version=version, deadline_ns=deadline_ns, trace=trace, tags=tags
        )
        return SagaHandle(self.client, ref)

    async def get(self, id: str) -> SagaHandle[Any]:
        """Get the saga with this id; also a child saga, by ``<parent id>/<step key>``.

        Args:
            id: the saga's.

        Raises:
            SagaNotFound: no saga has this id, or it was purged: ``purged_at_ns`` says when it was purged.
        """
        return SagaHandle(self.client, *await self.client.ref(id))

    async def info(self, id: str) -> SagaInfo:
        """Describe a saga in its current, durable state; also a child saga, by ``<parent id>/<step key>``.

        It reads the whole journal. To poll, use ``SagaHandle.status``, which reads one row.

        Args:
            id: the saga's.

        Raises:
            SagaNotFound: no saga has this id, or it was purged.
        """
        return await self.client.info(id)

    async def versions(self, saga: str | None = None) -> list[VersionInfo]:
        """Every version that a worker has announced or that has sagas, by name, the newest first.

        Args:
            saga: only sagas of this name.
        """
        return versions_of(*await self.client.runtime.versions(saga))

    async def list(
        self,
        *,
        limit: int | None = 100,
        after: SagaSummary | str | None = None,
        order: Literal["newest", "oldest"] = "newest",
        **filters: Unpack[SagaFilters],
    ) -> "list[SagaSummary]":
        """List sagas in the order of their start, the newest first; it reads no journal.

        Args:
            limit: at most this many. None: all.
            after: the last saga of the page before, or its id: the page begins behind it.
            order: ``oldest``: the oldest first.
            **filters: see ``SagaFilters``: ``status=``, ``saga=``, ``version=``, ``since=``, ``tags=``, ``attention=``.

        Raises:
            DefinitionError: there is no such status or order, or ``since`` has no time zone.
            PayloadError: these are no tags.
            SagaNotFound: no saga has the id ``after``, and none that was purged had it.
        """
        query = self.client.query(limit=limit, order=order, **_of_runs(**filters))
        return [self._face.summary(each) for each in await self.client.rows(query, after=after)]

    async def scan(
        self, *, order: Literal["newest", "oldest"] = "newest", **filters: Unpack[SagaFilters]
    ) -> AsyncIterator[SagaSummary]:
        """Walk through all sagas that match, page by page: ``async for saga in orchestrator.scan(status="stuck")``.

        A saga that is there all the time comes once; one that starts, changes or is purged meanwhile may come or not.

        Args:
            order: ``oldest``: the oldest first.
            **filters: see ``SagaFilters``.

        Raises:
            DefinitionError: there is no such status or order, or ``since`` has no time zone.
            PayloadError: these are no tags.
        """
        self.engine.home.check("Orchestrator.scan")
        async for page in self.client.pages(self.client.query(order=order, **_of_runs(**filters))):
            for each in page:
                yield self._face.summary(each)

    async def count(self, **filters: Unpack[SagaFilters]) -> int:
        """Count the sagas that match these filters.

        Args:
            **filters: see ``SagaFilters``.
        """
        return await self.client.runtime.count(self.client.query(**_of_runs(**filters)))

    # -- operators -------------------------------------------------------------------------------------------------

    async def cancel(self, id: str, *, reason: str = "", actor: str = "", note: str = "") -> None:
        """Ask for a rollback; the request is durable on return. Steps in progress end first, then everything is undone.

        Args:
            id: the saga.
            reason: for the journal.
            actor: the person who asks.
            note: the reason, for other operators.

        Raises:
            SagaPastPivot: nothing can be undone any more.
            WrongState: it has ended in another way.
        """
        await self.client.act(id, "cancel", OperatorAction(reason=reason, actor=actor, note=note))

    async def retry(self, id: str, step: str | None = None, *, actor: str = "", note: str = "") -> None:
        """Retry the step, or the code, that a stuck saga is stuck on, with a fresh retry policy; durable on return.

        Args:
            id: the saga.
            step: only this step. Default: everything that it is stuck on.
            actor: the person who asks.
            note: the reason.

        Raises:
            WrongState: it is not stuck.
        """
        await self.client.act(id, "retry", OperatorAction(step=step, actor=actor, note=note))

    async def skip(self, id: str, step: str, *, actor: str = "", note: str = "") -> None:
        """Count the compensation of ``step`` as done, because a person has undone it; durable on return.

        The saga then ends as ``resolved`` instead of ``compensated``.

        Args:
            id: the saga.
            step: the key of the step whose compensation was given up.
            actor: the person who asks.
            note: the reason.

        Raises:
            WrongState: the saga is not stuck, or that step's compensation was not given up.
        """
        await self.client.act(id, "skip", OperatorAction(step=step, actor=actor, note=note))

    async def resolve(
        self,
        id: str,
        step: str,
        *,
        happened: bool,
        result: object = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Settle an unknown outcome: ``step`` has succeeded with ``result``, or never happened; durable on return.

        Likewise a failure that ``on_failure="stuck"`` holds back. Where the step has succeeded and its compensation was
        given up, that is meant: it has happened.

        Args:
            id: the saga.
            step: the key of the step.
            happened: whether its effect took place. False promises that it no longer can.
            result: what the step would have returned, if it happened; checked against its type.
            actor: the person who asks.
            note: the reason.

        Raises:
            WrongState: the saga is not stuck on that step, or its compensation is said not to have happened.
            PayloadError: the result cannot be stored.
        """
        stored = Codec().encode(result, what=f"saga {id}, step {step!r}: the result given to resolve")
        verdict = OperatorAction(step=step, happened=happened, result=msgspec.Raw(stored), actor=actor, note=note)
        if happened and result is not None:
            record, child = await self.client.find(id)
            shape = self._step_shape(record, f"{child}/{step}" if child else step)
            with contextlib.suppress(PayloadError):  # raised once it is known that the saga takes the verb
                typed = stored if shape is None else shape.encode_result(result, what="")
                verdict.result = msgspec.Raw(typed)
        await self.client.act(id, "resolve", verdict)

    async def kill(self, id: str, *, actor: str = "", note: str = "") -> None:
        """End a saga at once and undo nothing; durable on return. Results that come later are kept as evidence only.

        ``rollback`` can still undo it.

        Args:
            id: the saga.
            actor: the person who asks.
            note: the reason.

        Raises:
            WrongState: it has ended in another way.
        """
        await self.client.act(id, "kill", OperatorAction(actor=actor, note=note))

    async def pause(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Start no further step until ``resume``; durable on return. The saga keeps its status, its deadline continues.

        Args:
            id: the saga.
            actor: the person who asks.
            note: the reason.

        Raises:
            WrongState: it has ended.
        """
        await self.client.act(id, "pause", OperatorAction(actor=actor, note=note))

    async def resume(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Continue after ``pause``; durable on return.

        Args:
            id: the saga.
            actor: the person who asks.
            note: the reason.

        Raises:
            WrongState: it has ended.
        """
        await self.client.act(id, "resume", OperatorAction(actor=actor, note=note))

    async def rollback(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Undo what a stuck or killed saga has done; the request is durable on return.

        Args:
            id: the saga.
            actor: the person who asks.
            note: the reason.

        Raises:
            SagaPastPivot: nothing can be undone any more.
            WrongState: it is neither stuck nor killed.
        """
        await self.client.act(id, "rollback", OperatorAction(actor=actor, note=note))

    async def restart(
        self,
        id: str,
        new_id: str | None = None,
        *,
        input: Mapping[str, Any] | None = None,
        version: int | None = None,
        actor: str = "",
        note: str = "",
    ) -> SagaHandle[Any]:
        """Begin an ended saga again, from its first step, under a new id; durable on return. The ended one stays.

        The new one has the same deadline, counted anew, and the tags of the ended one's start. Its journal begins with
        the actor and the note. ``restarted_from`` and ``restarted_as`` link both.

        Args:
            id: the ended saga.
            new_id: of the new one. Default: a random one. Repeating a restart with it returns the saga that is there.
            input: arguments that replace those of the ended saga, by parameter name.
            version: default: that of the ended saga.
            actor: the person who asks.
            note: the reason.

        Raises:
            WrongState: it has not ended, or is a part of another saga.
            SagaExists: ``new_id`` is taken.
            PayloadError: there is no such parameter, or a value does not fit; nothing was started.
            DefinitionError: no worker has announced this version.
        """
        ref = await self.client.restart(id, new_id=new_id, input=input, version=version, actor=actor, note=note)
        return SagaHandle(self.client, ref)

    async def apply(
        self,
        verb: str,
        *,
        step: str | None = None,
        happened: bool | None = None,
        dry_run: bool = False,
        actor: str = "",
        note: str = "",
        **filters: Unpack[SagaFilters],
    ) -> BulkReport:
        """Give an operator's verb to all sagas that match, each in a commit of its own; durable on return.

        Sagas that have ended are left alone unless ``status=`` names them. What was done stays done: after a crash, or
        a ``StoreError``, call it again for the rest.

        Args:
            verb: ``retry``, ``skip``, ``resolve``, ``cancel``, ``kill``, ``pause``, ``resume``, ``rollback`` or
                ``restart``, which restarts each once, under its id and ``~restarted``.
            step: the key of the step, for ``retry``, ``skip`` and ``resolve``.
            happened: for ``resolve``: whether the step's effect took place. Its result is then None.
            dry_run: only count.
            actor: the person who asks.
            note: the reason.
            **filters: see ``SagaFilters``; at least one.

        Raises:
            DefinitionError: there is no filter, no such verb, or the verb lacks what it needs.
            StoreError: the store failed in the middle.
        """
        query = chosen(self.client.query(**_of_runs(**filters)), filters, verb)
        order = BulkVerb(verb=verb, step=step, happened=happened, actor=actor, note=note)
        return await apply(self.client, query, order, dry_run=dry_run)

    async def purge(
        self,
        *,
        older_than: Duration,
        saga: str | None = None,
        limit: int | None = None,
        archive: str | Path | None = None,
        dry_run: bool = False,
    ) -> PurgeReport:
        """Remove sagas that ended at least ``older_than`` ago, the longest ended first; durable on return.

        Open and stuck sagas are never removed. A killed one is, and can then no longer be rolled back. It works in
        small transactions, so other commits do not wait long for it.

        Args:
            older_than: the time since their end; a timedelta or seconds.
            saga: only sagas of this name.
            limit: at most this many. None: all.
            archive: append each saga to this file, as a line of JSON that is on disk before the saga is removed.
            dry_run: only count.

        Raises:
            DefinitionError: ``older_than`` or ``limit`` cannot be used.
            StoreError: the store or the archive failed; sagas that are not in the archive were not removed.
        """
        return await self.client.purge(older_than=older_than, name=saga, limit=limit, archive=archive, dry_run=dry_run)

    # -- callbacks -------------------------------------------------------------------------------------------------

    async def complete_callback(
        self,
        token: str | None = None,
        value: object = None,
        *,
        saga_id: str | None = None,
        name: str | None = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Answer a callback with ``value``; the answer is durable on return. Repeating it is harmless.

        Where no worker runs, the answer is kept for the next one, which then checks its type.

        Args:
            token: the callback's token; or give ``saga_id`` and ``name`` instead.
            value: a value of the callback's declared type; it is checked before it is accepted.
            saga_id: the saga that waits for it.
            name: the callback's name; ``approval#2`` for a second use of the name.
            actor: the person who answers; kept in the journal next to the answer. The same answer by another person
                counts as a repetition.
            note: the reason; also kept in the journal.

        Raises:
            CallbackNotFound: the token is unknown or forged.
            CallbackAlreadyAnswered: another answer came first.
            CallbackClosed: the wait was given up: timeout, cancel, or the end.
            PayloadError: the value is not of the declared type, or ``actor`` or ``note`` cannot be stored; the saga
                keeps waiting.
            SagaNotFound: no saga has this id.
        """
        await self.client.complete(
            CallbackAddress(token=token, run_id=saga_id, name=name), value, actor=actor, note=note
        )

    async def fail_callback(
        self,
        token: str | None = None,
        message: str = "",
        *,
        saga_id: str | None = None,
        name: str | None = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Answer a callback with a failure: the body sees ``CallbackFailed``; durable on return.

        Args:
            token: the callback's token; or give ``saga_id`` and ``name`` instead.
            message: what ``CallbackFailed.answer`` is in the body.
            saga_id: the saga that waits for it.
            name: the callback's name; ``approval#2`` for a second use of the name.
            actor: the person who answers; kept in the journal next to the answer.
            note: the reason; also kept in the journal.

        Raises:
            CallbackNotFound: the token is unknown or forged.
            CallbackAlreadyAnswered: another answer came first.
            CallbackClosed: the wait was given up: timeout, cancel, or the end.
            SagaNotFound: no saga has this id.
        """
        await self.client.fail(CallbackAddress(token=token, run_id=saga_id, name=name), message, actor=actor, note=note)

    async def heartbeat_callback(
        self, token: str | None = None, *, saga_id: str | None = None, name: str | None = None
    ) -> None:
        """Report that the answer to a callback is still being worked on; durable on return.

        The callback then waits for at least another ``heartbeat=``, but never beyond its ``timeout=``. It changes
        nothing for a callback without ``heartbeat=``.

        Args:
            token: the callback's token; or give ``saga_id`` and ``name`` instead.
            saga_id: the saga that waits for it.
            name: the callback's name.

        Raises:
            CallbackNotFound: the token is unknown or forged.
            CallbackAlreadyAnswered: the callback has its answer; no more heartbeats are needed.
            CallbackClosed: the wait was given up: timeout, a heartbeat too late, cancel, or the end.
            SagaNotFound: no saga has this id.
        """
        await self.client.beat(CallbackAddress(token=token, run_id=saga_id, name=name))


def _of_runs(*, saga: str | None = None, **filters: Any) -> dict[str, Any]:
    """Filters of sagas as filters of runs."""
    return {"name": saga, **filters}


def _relays(outboxes: Sequence["Outbox[Any]"], client: Client[SagaInfo, SagaStatus]) -> "Relays":
    from sagas.outbox.serving import Relays, checked  # noqa: PLC0415 - who has no outbox does not load SQLAlchemy

    return Relays(checked(outboxes, worker=client.runtime.settings.worker), client)


def _vocabulary() -> "Vocabulary":
    from sagas.model.spans import VOCABULARY  # noqa: PLC0415 - only spans need it

    return VOCABULARY


def _rewritten(function: DurableFunction, runs: int, others: Sequence[str]) -> None:
    """Warn that the body of a saga has changed under a version that was announced before."""
    warn_of_others(log, f"saga {function.name!r} v{function.version}", others)
    if not runs:
        return
    log.warning(
        "the body of saga %r v%d has changed, and %d sagas of that version are open; one that does not fit the new "
        "code is parked as stuck, before any effect. Bring the old body back and declare the changed one under a new "
        "version beside it, or keep the old way in it behind `if not s.patched(...)`",
        function.name,
        function.version,
        runs,
    )
