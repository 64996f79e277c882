"""Runs durable functions: starts them, drives them, shows them, and takes operators' verbs.

Invariant: what a call reports has been committed before it returns.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from durable_core.bodies.binding import Binder
from durable_core.engine.attention import AttentionLog
from durable_core.engine.home import at_home
from durable_core.engine.runs import Runs
from durable_core.engine.settings import Settings
from durable_core.errors import DefinitionError
from durable_core.handle import RunHandle
from durable_core.model.durable import Durable
from durable_core.model.duration import Duration
from durable_core.model.info import RunInfo
from durable_core.model.run import RunRef
from durable_core.model.startable import Takes0, Takes1, Takes2, Takes3
from durable_core.operators import Operators
from durable_core.ports import Clock
from durable_core.tracing.enabled import spans_wanted

if TYPE_CHECKING:
    from durable_core.tracing.wiring import Tracing

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


@at_home("runs.home")
class Engine(Operators):
    """Durable functions on one store. An asynchronous context manager; on entry it recovers what was left.

    Args:
        url: ``sqlite:///file.db`` (a file, no server), ``postgresql://user@host/database``, or ``memory://`` for tests.
        functions: the durable functions that this process serves.
        worker: whether it executes runs; False only starts and observes.
        clock: drives waits, retry delays and step timeouts.
        concurrency: runs that may have something under way at once.
        threads: plain functions that may run at once, each on a thread; what waits for one has not begun.
        grace: how long leaving waits for attempts under way; a timedelta or seconds.
        store_timeout: how long a call waits for a store that fails before it raises ``StoreError``.
        max_crashes: after so many deaths of the process within one step its run is stuck.
        on_attention: called, at least once, when a run gets stuck, or a step of it has failed ten times and goes on.
            With and without it a worker logs each of these once, as an error of the logger ``durable_core``.
        tracer_provider: where spans go: a provider of OpenTelemetry's SDK. By default the global one, where the program
            has set one; else nothing is traced.

    Raises:
        DefinitionError: an argument makes no sense; the message names it.
    """

    def __init__(
        self,
        url: str,
        functions: Sequence[Durable[..., Any]] = (),
        *,
        worker: bool = True,
        clock: Clock | None = None,
        concurrency: int = 1000,
        threads: int = 32,
        grace: Duration = timedelta(seconds=10),
        store_timeout: Duration = timedelta(seconds=30),
        max_crashes: int = 5,
        on_attention: Callable[[RunInfo], Awaitable[None]] | None = None,
        tracer_provider: object = None,
    ) -> None:
        settings = Settings.of(
            worker=worker,
            concurrency=concurrency,
            threads=threads,
            grace=grace,
            store_timeout=store_timeout,
            max_crashes=max_crashes,
        )
        self._on_attention = on_attention
        self._attention_log = AttentionLog()
        tracing = _tracing(tracer_provider)
        self.runs = Runs(url, settings=settings, clock=clock, on_attention=self._attend, tracing=tracing)
        self._binder = Binder(self.runs.codec)
        self._registered: dict[tuple[str, int], Durable[..., Any]] = {}
        for function in functions:
            self.register(function)

    def register(self, function: Durable[..., Any]) -> None:
        """Serve another durable function. Versions live side by side; the same one twice is harmless.

        Raises:
            DefinitionError: it is none, or another one has this name and version.
            PayloadError: a type of its signature cannot be stored.
        """
        if not isinstance(function, Durable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(
                f"{function!r} is no durable function; decorate its body with @durable(name, version=...)"
            )
        key = (function.name, function.version)
        if self._registered.get(key) is not function:
            self.runs.register(self._binder.function(function))  # refuses another one of that name and version
            self._registered[key] = function

    async def __aenter__(self) -> Self:
        await self.runs.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.runs.__aexit__(kind, error, traceback)

    async def _attend(self, run_id: str) -> None:
        """A run of this process needs a person: log why, once for its reason, and tell whoever asked."""
        info = await self.info(run_id)
        if info.reason is not None:
            line = f"run {info.id!r} ({info.name} v{info.version}) is {info.status} and needs a person: {info.reason}"
            self._attention_log.once(line, run_id=run_id)
        if self._on_attention is not None:
            await self._on_attention(info)

    @overload
    async def start(
        self, what: str, /, *args: Any, id: str | None = ..., version: int | None = ..., **kwargs: Any
    ) -> RunHandle[Any]: ...
    @overload
    async def start(self, what: Takes0[R], /, *, id: str | None = ..., version: int | None = ...) -> RunHandle[R]: ...
    @overload
    async def start(
        self, what: Takes1[A, R], a: A, /, *, id: str | None = ..., version: int | None = ...
    ) -> RunHandle[R]: ...
    @overload
    async def start(
        self, what: Takes2[A, B, R], a: A, b: B, /, *, id: str | None = ..., version: int | None = ...
    ) -> RunHandle[R]: ...
    @overload
    async def start(
        self, what: Takes3[A, B, C, R], a: A, b: B, c: C, /, *, id: str | None = ..., version: int | None = ...
    ) -> RunHandle[R]: ...
    @overload
    async def start(self, what: Durable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> RunHandle[R]: ...
    async def start(  # type: ignore[misc]  # P has no options; the overloads that do come first
        self, what: Any, /, *args: Any, id: str | None = None, version: int | None = None, **kwargs: Any
    ) -> RunHandle[Any]:
        """Start a run; its start is durable on return.

        The same ``id`` with the same function and input gives the run that there is already.

        Args:
            what: the durable function, or its name. A name need not be registered here: its newest version here is
                started, else the newest that a worker has announced.
            *args: the body's arguments, after the context.
            id: unique in the store; default a random one.
            version: which version; default the one given, or the newest.
            **kwargs: the body's arguments.

        Raises:
            RunExists: the id is taken by another function or other input.
            DefinitionError: an unknown function, or arguments that do not match its signature.
            PayloadError: an argument cannot be stored.
            StoreError: the store did not take it; nothing was started.
        """
        if isinstance(what, Durable):
            self.register(what)  # pyright: ignore[reportUnknownArgumentType]
            name = what.name
            version = what.version if version is None else version
        elif isinstance(what, str):
            name = what
        else:
            raise DefinitionError(
                f"{what!r} is neither a durable function nor the name of one; decorate its body with @durable(...)"
            )
        return RunHandle(self, await self.runs.begin(name, args, kwargs, id=id, version=version))

    async def get(self, id: str) -> RunHandle[Any]:
        """The run of this id.

        Raises:
            RunNotFound: there is none.
        """
        record = await self.runs.find(id)
        return RunHandle(self, RunRef(record.num, record.id, record.name, record.version))


def _tracing(tracer_provider: object) -> "Tracing | None":
    """Where spans go; None, and nothing is loaded for it, where nobody wants them."""
    if not spans_wanted(tracer_provider):
        return None
    from durable_core.tracing.wiring import tracing_with  # noqa: PLC0415 - only for those who want spans

    try:
        return tracing_with(tracer_provider)
    except TypeError as error:
        raise DefinitionError(f"{error}; give one of its SDK, or none") from None
