"""Callbacks of a run in memory: waits that somebody outside ends with a value."""

import logging
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from durable_core.errors import CallbackFailed, CallbackTimeout, DurableError, PayloadError
from durable_core.model.callback import COMPLETED, Answer, Declared
from durable_core.model.entry import Entry, EntryKind
from durable_core.ports import Timer
from durable_core.runtime import structure
from durable_core.runtime.commands import Command
from durable_core.runtime.fibers import Fiber

if TYPE_CHECKING:
    from durable_core.runtime.run import Run

log = logging.getLogger("durable_core")

T = TypeVar("T")


class PendingCallback(Generic[T]):
    """A callback that was created: answered or not, awaited or not."""

    __slots__ = ("decode", "due_at_ns", "error", "fiber", "key", "over", "run", "timer", "token", "value", "watchers")

    def __init__(self, run: "Run", key: str, token: str, declared: Any, due_at_ns: int | None) -> None:
        self.run = run
        self.key = key
        self.token = token
        self.decode = run.shell.decoder(declared)
        self.due_at_ns = due_at_ns
        self.timer: Timer | None = None
        self.over = False
        """Answered, timed out or closed."""
        self.value: Any = None
        self.error: DurableError | None = None
        self.fiber: Fiber | None = None
        """Who waits for it."""
        self.watchers: list[AwaitFirst] = []

    def arm(self, run: "Run") -> None:
        """Set the timer of its timeout."""
        if self.due_at_ns is not None and self.timer is None and not self.over:
            self.timer = run.shell.clock.call_at(self.due_at_ns, self.ring)

    def disarm(self) -> None:
        """Cancel the timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def ring(self) -> None:
        """Its timeout has come; whichever of timeout, answer and cancel is journalled first counts."""
        run = self.run
        run.settle()
        if not run.dead and not run.shell.leaving and not self.over:
            run.feed(run.input(EntryKind.FIRED, self.key))

    def check(self, value: bytes) -> None:
        """Refuse an answer that is not of the declared type.

        Raises:
            PayloadError: it is not.
        """
        try:
            self.decode(value)
        except (msgspec.MsgspecError, DurableError, ValueError, TypeError) as error:
            raise PayloadError(
                f"run {self.run.id}: the answer to callback {self.key!r} is not of its declared type ({error}); "
                "it was not accepted, and the run keeps waiting"
            ) from error

    def take(self, run: "Run", entry: Entry) -> None:
        """It is over: answered, or timed out."""
        self.disarm()
        self.over = True
        about = f"run {run.id}: callback {self.key!r}"
        if entry.kind == EntryKind.FIRED:
            self.error = CallbackTimeout(f"{about} was not answered in time")
        elif entry.label == COMPLETED:
            self.check(entry.payload or b"null")
            self.value = self.decode(entry.payload or b"null")
        else:
            message = msgspec.json.decode(entry.payload or b'""')
            self.error = CallbackFailed(f"{about} was answered with a failure: {message}", answer=str(message))
        if self.fiber is not None:
            fiber, self.fiber = self.fiber, None
            structure.resume(run, fiber, self.value, self.error)
        for watcher in list(self.watchers):
            watcher.ended(run, self)

    def interrupt(self, run: "Run") -> bool:
        """The fiber that waits for it is being closed: it can no longer be answered."""
        self.fiber = None
        self.close(run)
        return True

    def close(self, run: "Run") -> None:
        """Give it up: a later answer is refused."""
        if not self.over:
            self.disarm()
            self.over = True
            run.output(EntryKind.CLOSED, self.key)


def answered(run: "Run", payload: bytes) -> None:
    """An answer came while the run was in nobody's memory: the first that fits is the answer."""
    answer = msgspec.json.decode(payload, type=Answer)
    callback = run.waits.get(answer.key)
    value = bytes(answer.value)
    if isinstance(callback, PendingCallback) and not callback.over:
        try:
            if answer.kind == COMPLETED:
                callback.check(value)
        except PayloadError as misfit:
            log.warning("%s", misfit)
        else:
            run.feed(run.input(EntryKind.ANSWERED, answer.key, 0, answer.kind, value))
            return
    run.input(EntryKind.NOTED, answer.key, 0, "answer refused")


def create(run: "Run", fiber: Fiber, name: str, declared: Any, due_at_ns: int | None) -> PendingCallback[Any]:
    """Journal a callback, or find it in the journal. It can be answered once that is durable."""
    key = fiber.scope.key(name)
    payload = msgspec.json.encode(Declared(_named(declared)))
    entry, new = run.output(EntryKind.ARMED, key, 0, "callback", payload, due_at_ns)
    token = run.shell.token(run, key)
    callback: PendingCallback[Any] = PendingCallback(run, key, token, declared, entry.due_at_ns)
    run.waits[key] = callback
    if new and entry.due_at_ns is not None:
        run.unarmed.append(callback)
    return callback


def _named(declared: Any) -> str:
    return f"{declared.__module__}:{declared.__qualname__}" if isinstance(declared, type) else ""


class AwaitCallback(Command[T]):
    """Wait for a callback's answer."""

    __slots__ = ("_callback",)

    def __init__(self, callback: PendingCallback[T]) -> None:
        self._callback = callback

    def issue(self, run: "Run", fiber: Fiber) -> None:
        """Wait, or go on at once where it is over already."""
        callback = self._callback
        if callback.over:
            run.ready.append((fiber, callback.value, callback.error))
            return
        callback.fiber = fiber
        fiber.wait = callback


class AwaitFirst(Command[int]):
    """Wait until one of several callbacks is over; answers its place."""

    __slots__ = ("_callbacks", "_fiber")

    def __init__(self, callbacks: list[PendingCallback[Any]]) -> None:
        self._callbacks = callbacks
        self._fiber: Fiber | None = None

    def issue(self, run: "Run", fiber: Fiber) -> None:
        """Wait, or go on at once where one is over already."""
        for place, callback in enumerate(self._callbacks):
            if callback.over:
                run.ready.append((fiber, place, None))
                return
        self._fiber = fiber
        fiber.wait = self
        for callback in self._callbacks:
            callback.watchers.append(self)

    def ended(self, run: "Run", callback: PendingCallback[Any]) -> None:
        """One of them is over."""
        fiber = self._unwatch()
        if fiber is not None:
            structure.resume(run, fiber, self._callbacks.index(callback))

    def interrupt(self, run: "Run") -> bool:
        """The waiting fiber is being closed: none of them can be answered any more."""
        self._unwatch()
        for callback in self._callbacks:
            callback.close(run)
        return True

    def _unwatch(self) -> Fiber | None:
        for callback in self._callbacks:
            if self in callback.watchers:
                callback.watchers.remove(self)
        fiber, self._fiber = self._fiber, None
        return fiber
