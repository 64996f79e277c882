"""Runs sagas: starts them, drives them, shows them, and takes operators' verbs.

Invariant: what a call reports has been committed before it returns.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, overload

import attrs

from durable_core import (
    AttentionLog,
    Clock,
    DefinitionError,
    DurableFunction,
    Duration,
    RunExists,
    RunRef,
    Runs,
    Settings,
    Takes0,
    Takes1,
    Takes2,
    Takes3,
    at_home,
    check_timeout,
    place_of,
    spans_wanted,
    to_ns,
)
from sagas.answering import Answering
from sagas.errors import SagaExists, SagasError
from sagas.handle import SagaHandle
from sagas.model.attention import line_of, needs_of
from sagas.model.children import within
from sagas.model.definition import SagaDef
from sagas.model.info import SagaInfo
from sagas.model.resource import WAY_OUT
from sagas.observer import plain
from sagas.runtime.binding import Binder
from sagas.runtime.driver import function_of

if TYPE_CHECKING:
    from durable_core import Tracing

log = logging.getLogger("sagas")

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


@at_home("engine.home")
class Orchestrator(Answering):
    """Sagas on one store. An asynchronous context manager; on entry it recovers what an earlier process left.

    Args:
        url: ``sqlite:///orders.db`` (a file, no server), ``postgresql://user@host/database`` (a fleet), or ``memory://``
            for tests.
        sagas: the sagas that this process serves.
        resources: objects for the ``resource()`` parameters of steps, by type; a worker needs all that its sagas want.
        worker: whether it executes sagas; False only starts and observes.
        clock: drives waits, retry delays, deadlines and step timeouts.
        concurrency: sagas that may have something under way at once.
        threads: plain functions (``def`` steps) that may run at once, each on a thread; one that waits has not begun.
        lease: how long a silent worker keeps its sagas, on a store where its death cannot be seen at once.
        grace: how long leaving waits for attempts under way.
        store_timeout: how long a call waits for a store that fails before it raises ``StoreError``.
        secret: what the tokens of callbacks derive from, a text or bytes of at least 32; default ``SAGAS_SECRET`` of
            the environment, else the secret that the store keeps. All processes on a store must agree on it, and
            another one makes all tokens that are out invalid.
        max_crashes: after so many deaths of the process within one step its saga is stuck.
        retention: how long sagas are kept after their end; then a worker purges them. None is for ever.
        id_retention: how long the id of a purged saga stays refused; None is for ever.
        tracer_provider: where spans go: a provider of OpenTelemetry's SDK. By default the global one, where the program
            has set one (``sagas.tracing.configure`` does); else nothing is traced.
        on_attention: called, at least once, when a saga gets stuck, when a step of it has failed ten times and goes on,
            or when it has waited for 30 s (by ``clock``) for a version that no worker serves. With and without it a
            worker logs each of these once, as an error of the logger ``sagas``.
    """

    _serving = False
    """Whether it executes sagas now, so that what they ask for must be there."""

    def __init__(  # noqa: PLR0913 - one option for each thing that a program may decide
        self,
        url: str,
        *,
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
        self._on_attention = on_attention
        self._attention_log = AttentionLog(log)
        tracing = _tracing(tracer_provider)
        self.engine = Runs(
            url, settings=settings, clock=clock, on_attention=self._attend, on_rewritten=_rewritten, tracing=tracing
        )
        self._binder = Binder(self.engine.codec, resources)
        self._registered: dict[tuple[str, int], SagaDef[..., Any]] = {}
        for definition in sagas:
            self.register(definition)

    def register(self, definition: SagaDef[..., Any]) -> None:
        """Serve another saga. Versions live side by side; the same one twice is harmless.

        Raises:
            DefinitionError: it is no saga, or another one has this name and version; or this process executes sagas,
                and lacks a resource that its steps ask for.
        """
        if not isinstance(definition, SagaDef):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"{definition!r} is not a saga; decorate its body with @saga(name, version=...)")
        found = self._binder.scan(definition)
        if found.faults:
            raise DefinitionError(f"saga {definition.name!r} cannot work: " + "; ".join(found.faults))
        key = (definition.name, definition.version)
        known = self._registered.get(key)
        if known is definition:
            return
        if known is not None:
            raise DefinitionError(
                f"two different sagas are named {definition.name!r} version {definition.version}: "
                f"{place_of(known.body)} and {place_of(definition.body)}; give one another name, or a new version"
            )
        if self._serving:
            self._check_resources([definition])
        self.engine.register(function_of(definition, self._binder))
        self._registered[key] = definition
        for warning in found.warnings:
            log.warning("saga %r: %s", definition.name, warning)

    async def _attend(self, run_id: str) -> None:
        """A saga of this process needs attention: log why, once for its steps and reason, and tell whoever asked."""
        try:
            record = await self._find(run_id)
            entries = await self.engine.journal(record.num)
            info = self._whole(record, entries, in_vain=bool(await self.engine.in_vain([record])))
        except SagasError as error:
            self._attention_log.once(f"saga {run_id!r} needs a person, and could not be read: {error}", run_id=run_id)
            return
        for need in needs_of(info, entries, worker=self.engine.name):
            self._attention_log.once(line_of(info, need), run_id=run_id)
        if self._on_attention is not None:
            await self._on_attention(attrs.evolve(info, steps=within(info, entries, prefix="")))

    def _check_resources(self, definitions: Iterable[SagaDef[..., Any]]) -> None:
        """Refuse to execute sagas whose steps ask for something that is not there: the first one would get stuck."""
        lacking = [
            f"saga {each.name!r} v{each.version}: {lack}" for each in definitions for lack in self._binder.lacking(each)
        ]
        if lacking:
            raise DefinitionError(
                f"this worker cannot execute its sagas, and nothing was begun: {'; '.join(lacking)}. {WAY_OUT}"
            )

    async def __aenter__(self) -> Self:
        """Open the store, and recover what an earlier process left.

        Raises:
            DefinitionError: it executes sagas, and lacks a resource that their steps ask for; nothing was opened.
            StoreError: the store cannot be opened.
        """
        if self.engine.settings.worker:
            self._check_resources(self._registered.values())
        await self.engine.__aenter__()
        self._serving = self.engine.settings.worker
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._serving = False
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
        **kwargs: Any,
    ) -> SagaHandle[Any]: ...
    @overload
    async def start(
        self,
        what: Takes0[R],
        /,
        *,
        id: str | None = ...,
        version: int | None = ...,
        deadline: Duration | None = ...,
        trace: Literal["link", "join"] = ...,
    ) -> SagaHandle[R]: ...
    @overload
    async def start(
        self,
        what: Takes1[A, R],
        a: A,
        /,
        *,
        id: str | None = ...,
        version: int | None = ...,
        deadline: Duration | None = ...,
        trace: Literal["link", "join"] = ...,
    ) -> SagaHandle[R]: ...
    @overload
    async def start(
        self,
        what: Takes2[A, B, R],
        a: A,
        b: B,
        /,
        *,
        id: str | None = ...,
        version: int | None = ...,
        deadline: Duration | None = ...,
        trace: Literal["link", "join"] = ...,
    ) -> SagaHandle[R]: ...
    @overload
    async def start(
        self,
        what: Takes3[A, B, C, R],
        a: A,
        b: B,
        c: C,
        /,
        *,
        id: str | None = ...,
        version: int | None = ...,
        deadline: Duration | None = ...,
        trace: Literal["link", "join"] = ...,
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
            SagaExists: the id is taken by another saga or other input, or was by one that has been purged.
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
            deadline_ns = _ns(deadline, f"starting {name}: deadline")
            ref = await self.engine.begin(
                name, args, kwargs, id=id, version=version, deadline_ns=deadline_ns, trace=trace
            )
        except RunExists as taken:
            raise SagaExists(plain(taken), run_id=taken.run_id, purged_at_ns=taken.purged_at_ns) from None
        return SagaHandle(self, ref)

    async def get(self, id: str) -> SagaHandle[Any]:
        """The saga of this id.

        Raises:
            SagaNotFound: there is none, or none any more: ``purged_at_ns`` says when it was purged.
        """
        record, child = await self._find_with_child(id)
        if child:
            await self.info(id)
        return SagaHandle(self, RunRef(record.num, record.id, record.name, record.version), child=child)


def _tracing(tracer_provider: object) -> "Tracing | None":
    """Where spans go; None, and nothing is loaded for it, where nobody wants them."""
    if not spans_wanted(tracer_provider):
        return None
    from durable_core import tracing_with  # noqa: PLC0415 - only for those who want spans
    from sagas.model.spans import VOCABULARY  # noqa: PLC0415

    try:
        return tracing_with(tracer_provider, vocabulary=VOCABULARY)
    except TypeError as error:
        raise DefinitionError(f"{error}; give one of its SDK, or none") from None


def _rewritten(function: DurableFunction, runs: int) -> None:
    """The body of a saga is not the one that was announced under its version before."""
    log.warning(
        "the body of saga %r v%d has changed, and %d sagas of that version are open; one that does not fit the new "
        "code is parked as stuck, before any effect. Bring the old body back and declare the changed one under a new "
        "version beside it, or keep the old way in it behind `if not s.patched(...)`",
        function.name,
        function.version,
        runs,
    )


def _ns(span: Duration | None, what: str) -> int | None:
    return None if span is None else to_ns(check_timeout(span, what) or 0)
