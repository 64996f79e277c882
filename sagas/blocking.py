"""Sagas for programs without an event loop: the calls of ``sagas.Orchestrator``, made from plain threads.

Invariant: each call is the asynchronous method of the same name, run on one event loop in a thread of its own.
It adds no logic of its own, so both orchestrators behave alike.
"""

import asyncio
import functools
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, MutableSequence, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, Unpack, overload

from durable_core import DefinitionError, StoreError
from durable_core import HistoryEntry as Entry
from durable_core.layer import Duration, Takes0, Takes1, Takes2, Takes3
from sagas.model.definition import SagaDef
from sagas.model.info import SagaInfo, SagaSummary
from sagas.model.phases import SagaStatus
from sagas.orchestrator import Orchestrator as Served
from sagas.orchestrator import SagaFilters, SagaStartOptions
from sagas.orchestrator import SagaHandle as ServedHandle

__all__ = ["Orchestrator", "SagaHandle"]

log = logging.getLogger("sagas")

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
Raised = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]
PAGE = 100
"""Sagas that a walk fetches at once."""
COPIED = ("__name__", "__qualname__", "__doc__")
"""Copied from the asynchronous method; ``inspect.signature`` follows ``__wrapped__``."""


class LoopThread:
    """An event loop in a thread of its own: an asynchronous context manager lives on it, other threads make calls.

    Invariant: every call returns or raises, even if the loop ends before the call does. ``_loop`` is set exactly while
    calls are accepted. It is read and written under the lock, so no call reaches a loop that has stopped.
    """

    def __init__(self, served: AbstractAsyncContextManager[object]) -> None:
        self._served = served
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave = asyncio.Event()
        self._raised: Raised = (None, None, None)
        self._opened: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._pending: set[Future[Any]] = set()

    @property
    def entered(self) -> bool:
        """Whether the thread was started; it may have ended."""
        return self._thread is not None

    def enter(self) -> None:
        """Start the thread; an exception of the context manager's entry is raised here."""
        self._check_place()
        with self._lock:
            if self._thread is not None:
                raise DefinitionError(
                    "a blocking orchestrator was entered twice", "Make another one for another `with` block"
                )
            # A daemon, because a program that ends without leaving the block (a web application has no block to leave)
            # must still end: its sagas are cut as by any crash, and go on with the next process.
            self._thread = threading.Thread(target=self._run, name="sagas", daemon=True)
            self._thread.start()
        try:
            self._opened.result()
        except BaseException:
            self.leave((None, None, None), silent=True)
            raise

    def leave(self, raised: Raised, *, silent: bool = False) -> None:
        """Leave the context manager and end the thread. In a fork this does nothing: only the parent leaves the block.

        While Python is ending it cannot be done any more, and the log says so.

        Raises:
            StoreError: a step has ended the loop, by ``SystemExit`` or ``KeyboardInterrupt``.
        """
        if os.getpid() != self._process or self._thread is None:
            return
        if not threading.main_thread().is_alive():  # as in `atexit`: nothing on a thread can begin any more
            log.warning(
                "an orchestrator was left while Python was ending, which is too late: its sagas go on with the next "
                "one on their store. Leave it before the main thread ends, not in an atexit function; or never, where "
                "no block fits: what its calls have reported is durable"
            )
            return
        with self._lock:
            loop, self._loop = self._loop, None
            self._raised = raised
            if loop is not None:
                loop.call_soon_threadsafe(self._leave.set)
        error = self._ended.exception()  # an interrupt while it waits here does not stop the leaving
        self._thread.join()
        if error is None or silent:
            return
        if isinstance(error, Exception):
            raise error
        raise StoreError(self._closed()) from error

    def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the loop, in the caller's context, and wait for its end: its result, or what it raised."""
        self._check_place()
        coroutine = make()
        with self._lock:
            if self._loop is None:
                coroutine.close()
                raise StoreError(self._closed())
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        try:
            return future.result()
        except CancelledError as cut:
            raise StoreError(self._closed()) from cut
        except BaseException:
            future.cancel()  # the wait was interrupted, as by Ctrl-C: the answer is no longer needed
            raise
        finally:
            del future  # it holds the exception, whose traceback holds this frame

    def _check_place(self) -> None:
        if os.getpid() != self._process:
            raise StoreError(
                f"this orchestrator was made in process {self._process}, and process {os.getpid()} is a fork of "
                "it, without its thread and its connections",
                "Make and enter one in each process, after the fork",
            )
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise DefinitionError(
            "sagas.blocking was called in a thread that runs an event loop, and would block it",
            "Use sagas.Orchestrator there, and await its calls",
        )

    def _closed(self) -> str:
        """Why calls are refused."""
        if self._thread is None:
            return "this orchestrator has not been entered; use it within its `with` block"
        error = self._ended.exception() if self._ended.done() else None
        if error is not None and not isinstance(error, Exception):
            return (
                f"the event loop of this orchestrator was ended by {type(error).__name__} ({error}), raised in a step; "
                "its sagas go on with the next orchestrator on their store"
            )
        return "this orchestrator was left; its sagas go on with the next one on their store, so ask that one"

    def _run(self) -> None:
        """The thread: run the loop, then fail the calls that still wait."""
        error: BaseException | None = None
        try:
            asyncio.run(self._live())
        except BaseException as raised:  # noqa: BLE001 - a border: waiting calls raise what ended the loop
            error = raised
        with self._lock:
            self._loop = None
        (self._ended.set_result(None) if error is None else self._ended.set_exception(error))
        if not self._opened.done():
            self._opened.set_exception(error or StoreError(self._closed()))
        for future in list(self._pending):
            if not future.done():
                future.set_exception(StoreError(self._closed()))

    async def _live(self) -> None:
        await self._served.__aenter__()
        try:
            with self._lock:
                self._loop = asyncio.get_running_loop()
            self._opened.set_result(None)
            await self._leave.wait()
        finally:
            with self._lock:
                self._loop = None
            await self._served.__aexit__(*self._raised)


class SagaHandle(Generic[R]):
    """One saga, as its starter sees it; see ``sagas.SagaHandle``."""

    def __init__(self, home: LoopThread, handle: ServedHandle[R]) -> None:
        self._home = home
        self._handle = handle

    @property
    def id(self) -> str:
        """The saga's id."""
        return self._handle.id

    def __repr__(self) -> str:
        return repr(self._handle)

    def result(self, timeout: Duration | None = None) -> R:
        """Block until the end; returns what the body returned.

        Args:
            timeout: how long to wait, in real time; a timedelta or seconds.

        Raises:
            SagaCompensated: it was rolled back; ``__cause__`` is what left the body.
            SagaStuck: it needs a person; raised at once.
            SagaKilled: an operator ended it.
            TimeoutError: it has not ended in time; the saga goes on.
            StoreError: the orchestrator was left while this waited; the saga goes on.
        """
        return self._home.call(lambda: self._handle.result(timeout))

    def status(self) -> SagaStatus:
        """Its current, durable status. It reads one row, so polling it is cheap."""
        return self._home.call(self._handle.status)

    def info(self) -> SagaInfo:
        """Its current, durable state. It reads the whole journal; see ``status``."""
        return self._home.call(self._handle.info)

    def history(self) -> list[Entry]:
        """Its journal, oldest first."""
        return self._home.call(self._handle.history)

    def cancel(self, reason: str = "") -> None:
        """Ask for a rollback; the request is durable on return. See ``sagas.Orchestrator.cancel``.

        Args:
            reason: for the journal.
        """
        self._home.call(lambda: self._handle.cancel(reason))


def forward(
    method: Callable[Concatenate[Served, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Orchestrator", P], T]:
    """The blocking twin of an asynchronous method: same arguments, same result, same errors."""

    def call(orchestrator: "Orchestrator", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return orchestrator.home.call(lambda: method(orchestrator.served, *args, **kwargs))

    functools.update_wrapper(call, method, assigned=COPIED)
    return call


def made_like(
    make: Callable[P, Served],
) -> Callable[[Callable[["Orchestrator", Served], None]], Callable[Concatenate["Orchestrator", P], None]]:
    """Give a constructor the arguments of the class that it wraps."""

    def declare(init: Callable[["Orchestrator", Served], None]) -> Callable[Concatenate["Orchestrator", P], None]:
        def construct(orchestrator: "Orchestrator", /, *args: P.args, **kwargs: P.kwargs) -> None:
            init(orchestrator, make(*args, **kwargs))

        functools.update_wrapper(construct, Served.__init__, assigned=COPIED)
        return construct

    return declare


class Orchestrator:
    """Sagas on one store, for Flask, Django and scripts: ``sagas.Orchestrator`` without ``await``, with its arguments.

    A context manager. Between entry and exit any number of threads may use it at once; each call returns when the
    asynchronous method does, and raises the same errors. It runs one event loop in a thread of its own.

    Raises:
        DefinitionError: a call was made in a thread that runs an event loop, which it would block.
        StoreError: a call was made outside its block, or in a fork of the process that made it.

    Examples:
        >>> with Orchestrator("memory://") as orchestrator:
        ...     orchestrator.count()
        0
    """

    home: LoopThread
    served: Served

    @made_like(Served)
    def __init__(self, served: Served) -> None:
        self.served = served
        self.home = LoopThread(served)

    def __enter__(self) -> Self:
        self.home.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.home.leave((kind, error, traceback))

    def register(self, definition: SagaDef[..., Any]) -> None:
        """Serve another saga, also before the block; see ``sagas.Orchestrator.register``.

        Args:
            definition: the saga.

        Raises:
            DefinitionError: as there.
        """
        if not self.home.entered:
            self.served.register(definition)
            return

        async def register() -> None:
            self.served.register(definition)

        self.home.call(register)

    # -- starting and looking --------------------------------------------------------------------------------------

    @overload
    def start(
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
    def start(self, what: Takes0[R], /, **options: Unpack[SagaStartOptions]) -> SagaHandle[R]: ...
    @overload
    def start(self, what: Takes1[A, R], a: A, /, **options: Unpack[SagaStartOptions]) -> SagaHandle[R]: ...
    @overload
    def start(self, what: Takes2[A, B, R], a: A, b: B, /, **options: Unpack[SagaStartOptions]) -> SagaHandle[R]: ...
    @overload
    def start(
        self, what: Takes3[A, B, C, R], a: A, b: B, c: C, /, **options: Unpack[SagaStartOptions]
    ) -> SagaHandle[R]: ...
    @overload
    def start(self, what: SagaDef[P, R], /, *args: P.args, **kwargs: P.kwargs) -> SagaHandle[R]: ...
    def start(self, what: Any, /, *args: Any, **kwargs: Any) -> SagaHandle[Any]:
        """Start a saga; its start is durable on return. See ``sagas.Orchestrator.start``.

        Args:
            what: the saga, or its name.
            *args: the body's arguments.
            **kwargs: the body's arguments by name, and ``id=``, ``version=``, ``deadline=``, ``trace=``, ``tags=``.
        """
        return SagaHandle(self.home, self.home.call(lambda: self.served.start(what, *args, **kwargs)))

    def get(self, id: str) -> SagaHandle[Any]:
        """Get the saga with this id.

        Args:
            id: the saga's.

        Raises:
            SagaNotFound: no saga has this id.
        """
        return SagaHandle(self.home, self.home.call(lambda: self.served.get(id)))

    def scan(
        self, *, order: Literal["newest", "oldest"] = "newest", **filters: Unpack[SagaFilters]
    ) -> Iterator[SagaSummary]:
        """Walk through all sagas that match, page by page; see ``sagas.Orchestrator.scan``.

        Args:
            order: ``oldest``: the oldest first.
            **filters: see ``sagas.SagaFilters``.
        """
        walk = self.served.scan(order=order, **filters)

        async def page() -> Sequence[SagaSummary]:
            found: MutableSequence[SagaSummary] = []
            async for each in walk:
                found.append(each)
                if len(found) == PAGE:
                    break
            return found

        while found := self.home.call(page):
            yield from found

    list = forward(Served.list)
    count = forward(Served.count)
    info = forward(Served.info)
    versions = forward(Served.versions)

    # -- operators -------------------------------------------------------------------------------------------------

    def restart(
        self,
        id: str,
        new_id: str | None = None,
        *,
        input: Mapping[str, Any] | None = None,
        version: int | None = None,
        actor: str = "",
        note: str = "",
    ) -> SagaHandle[Any]:
        """Begin an ended saga again under a new id; durable on return. See ``sagas.Orchestrator.restart``.

        Args:
            id: the ended saga.
            new_id: of the new one. Default: a random one.
            input: arguments that replace those of the ended saga, by parameter name.
            version: default: that of the ended saga.
            actor: the person who asks.
            note: the reason.
        """
        options: dict[str, Any] = {"input": input, "version": version, "actor": actor, "note": note}
        return SagaHandle(self.home, self.home.call(lambda: self.served.restart(id, new_id, **options)))

    cancel = forward(Served.cancel)
    retry = forward(Served.retry)
    skip = forward(Served.skip)
    resolve = forward(Served.resolve)
    kill = forward(Served.kill)
    pause = forward(Served.pause)
    resume = forward(Served.resume)
    rollback = forward(Served.rollback)
    apply = forward(Served.apply)
    purge = forward(Served.purge)

    # -- callbacks -------------------------------------------------------------------------------------------------

    complete_callback = forward(Served.complete_callback)
    fail_callback = forward(Served.fail_callback)
    heartbeat_callback = forward(Served.heartbeat_callback)
