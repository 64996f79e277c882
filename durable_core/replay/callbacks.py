"""Callbacks of a run in memory: waits that somebody outside ends with a value."""

import logging
from typing import Any, Generic, TypeVar

import msgspec

from durable_core.errors import (
    CallbackFailed,
    CallbackTimeout,
    DurableError,
    Fault,
    PayloadError,
    SiblingFailed,
    in_words,
)
from durable_core.model.callback import COMPLETED, HEARTBEAT, Answer, Declared, pulse_of
from durable_core.model.duration import NS
from durable_core.model.entry import ANSWERED_BY, MISFIT, Entry, EntryKind
from durable_core.model.masking import Masks
from durable_core.model.plain import type_name
from durable_core.replay.effects import TimedKind
from durable_core.replay.run import Run
from durable_core.replay.scheduler import Command, Fiber

log = logging.getLogger("durable_core")

T = TypeVar("T")


class PendingCallback(Generic[T]):
    """A callback that was created: answered or not, awaited or not."""

    __slots__ = (
        "decode",
        "error",
        "fiber",
        "key",
        "over",
        "owner",
        "pulse",
        "run",
        "timeout_at_ns",
        "token",
        "value",
        "watchers",
    )

    def __init__(self, run: Run, owner: Fiber, armed: Entry, *, token: str, decode: Any, heartbeat_ns: int) -> None:
        self.run = run
        self.owner = owner
        """Who created it."""
        self.key = armed.key
        self.token = token
        self.decode = decode
        self.timeout_at_ns = armed.due_at_ns
        self.pulse = pulse_of(armed, heartbeat_ns)
        """Its heartbeats; None where none are asked for."""
        self.over = False
        """Answered, timed out or closed."""
        self.value: Any = None
        self.error: DurableError | None = None
        self.fiber: Fiber | None = None
        """Who waits for it."""
        self.watchers: list[AwaitFirst] = []

    timed: TimedKind = "callback"

    @property
    def shut(self) -> bool:
        """Whether it can no longer be answered: it is over, or its body is being closed, though steps end first."""
        owner = self.owner.interrupt
        return self.over or (owner is not None and not isinstance(owner, SiblingFailed))

    @property
    def due_at_ns(self) -> int | None:
        """When it ends by itself: its timeout, or the heartbeat that did not come; None once it is over."""
        if self.over:
            return None
        ends = [self.timeout_at_ns, None if self.pulse is None else self.pulse.due_ns]
        return min((at_ns for at_ns in ends if at_ns is not None), default=None)

    def ring(self) -> None:
        """Its end has come; whichever of it, an answer and a cancel is journalled first counts."""
        run = self.run
        run.settle()
        if not run.dead and not run.effects.leaving and not self.over:
            label = "" if self.due_at_ns == self.timeout_at_ns else HEARTBEAT
            run.feed(run.input(EntryKind.FIRED, self.key, 0, label))

    def check(self, value: bytes) -> None:
        """Refuse an answer that is not of the declared type.

        Raises:
            PayloadError: it is not.
        """
        try:
            self.decode(value)
        except Exception as error:  # a user's model validates itself and may raise anything
            raise misfit(self.run.noun, self.run.id, self.key, error) from error

    def answer(self, answer: Answer, seq: int) -> bool:
        """Accept an answer that fits, refuse one that does not; False if it can no longer be answered."""
        if self.shut:
            return False
        run = self.run
        try:
            if answer.kind == COMPLETED:
                self.check(bytes(answer.value))
        except PayloadError:  # whose message may quote the answer
            log.warning(
                "%s: an answer to callback %r is not of its declared type, and was refused", run.title, self.key
            )
            run.cursor.signal_seq = run.input(EntryKind.NOTED, self.key, seq, MISFIT, answer.by).seq
        else:
            self.accept(answer, seq)
        return True

    def accept(self, answer: Answer, seq: int = 0) -> None:
        """Journal and feed an answer or heartbeat from outside; the callback is not over.

        Args:
            answer: an answer that fits, or a heartbeat.
            seq: the entry that held it back, or 0.
        """
        run = self.run
        if answer.kind != HEARTBEAT:
            if answer.by is not None:  # in the commit of the answer, and right before it
                run.input(EntryKind.NOTED, self.key, 0, ANSWERED_BY, answer.by)
            entry = run.input(EntryKind.ANSWERED, self.key, seq, answer.kind, bytes(answer.value))
            run.cursor.signal_seq = entry.seq
            run.feed(entry)
            return
        due_ns = None if self.pulse is None else self.pulse.beat(run.effects.now_ns())
        if due_ns is not None or seq:
            due_ns = due_ns or (None if self.pulse is None else self.pulse.due_ns)
            entry = run.input(EntryKind.HEARTBEAT, self.key, seq, due_at_ns=due_ns)
            run.cursor.signal_seq = entry.seq
            run.feed(entry)

    def take(self, entry: Entry) -> None:
        """It is over: answered, or timed out. Or a heartbeat has come."""
        run = self.run
        if entry.kind == EntryKind.HEARTBEAT:
            self._beat(entry)
            return
        run.effects.disarm(self)
        self.over = True
        about = f"{run.title}: callback {self.key!r}"
        if entry.kind == EntryKind.FIRED and entry.label == HEARTBEAT:
            span_s = 0.0 if self.pulse is None else self.pulse.span_ns / NS
            self.error = CallbackTimeout(f"{about} was given up: no heartbeat came for {span_s:g} s")
        elif entry.kind == EntryKind.FIRED:
            self.error = CallbackTimeout(f"{about} was not answered in time")
        elif entry.label == COMPLETED:
            self._read(entry.payload or b"null")
        else:
            message = msgspec.json.decode(entry.payload or b'""')
            self.error = CallbackFailed(f"{about} was answered with a failure: {message}", answer=str(message))
        if self.fiber is not None:
            fiber, self.fiber = self.fiber, None
            run.scheduler.resume(fiber, self.value, self.error)
        for watcher in list(self.watchers):
            watcher.ended(self)

    def _read(self, value: bytes) -> None:
        try:
            self.value = self.decode(value)
        except Exception as error:  # noqa: BLE001 - as in ``check``; the answer did fit when it was accepted
            self.run.fault = Fault(
                f"{self.run.title}: the answer that was accepted for callback {self.key!r} can no longer be read as "
                f"its declared type ({in_words(error)})",
                f"Keep the type able to read it, then retry the {self.run.noun}",
            )

    def _beat(self, entry: Entry) -> None:
        if self.pulse is not None and entry.due_at_ns is not None:
            self.pulse = type(self.pulse)(self.pulse.span_ns, entry.due_at_ns, entry.at_ns)
        effects = self.run.effects
        if not self.run.cursor.restoring:
            effects.disarm(self)
            self.run.arm(self)

    def interrupt(self) -> bool:
        """The fiber that waits for it is being closed: it can no longer be answered."""
        self.fiber = None
        self.close()
        return True

    def close(self) -> None:
        """Give it up: a later answer is refused."""
        if not self.over:
            self.run.effects.disarm(self)
            self.over = True
            self.run.output(EntryKind.CLOSED, self.key)


def misfit(noun: str, run_id: str, key: str, why: Exception | None = None) -> PayloadError:
    """The error for an answer that is not of the declared type."""
    reason = "" if why is None else f" ({why})"
    return PayloadError(
        f"{noun} {run_id}: the answer to callback {key!r} is not of its declared type{reason}; it was not accepted, "
        f"and the {noun} keeps waiting"
    )


def create(
    run: Run,
    fiber: Fiber,
    name: str,
    declared: Any,
    *,
    due_at_ns: int | None,
    heartbeat_ns: int = 0,
    key: str | None = None,
) -> PendingCallback[Any]:
    """Journal a callback, or find it in the journal. It can be answered once that is durable.

    Raises:
        PayloadError: answers of the declared type could not be read; nothing was journalled.
    """
    try:
        decode = run.effects.decoder(declared)
    except PayloadError as unreadable:
        text = f"{run.title}: callback {name!r} of type {type_name(declared)}: {unreadable.text}"
        raise PayloadError(text, unreadable.advice) from unreadable
    key = fiber.scope.key(name) if key is None else key
    payload = msgspec.json.encode(Declared(_named(declared), heartbeat_ns))
    entry, new = run.output(EntryKind.ARMED, key, 0, "callback", payload, due_at_ns)
    if not new:
        heartbeat_ns = msgspec.json.decode(entry.payload or b"{}", type=Declared).heartbeat_ns
    token = run.effects.token(run, key)
    if run.cursor.masks is None:
        run.cursor.masks = Masks(run.num)
    run.cursor.masks.add(run.num, run.uid, key, token)
    callback: PendingCallback[Any] = PendingCallback(
        run, fiber, entry, token=token, decode=decode, heartbeat_ns=heartbeat_ns
    )
    run.waits[key] = callback
    if new and callback.due_at_ns is not None:
        run.arm(callback)
    return callback


def _named(declared: Any) -> str:
    return f"{declared.__module__}:{declared.__qualname__}" if isinstance(declared, type) else ""


class AwaitCallback(Command[T]):
    """Wait for a callback's answer."""

    __slots__ = ("_callback",)

    def __init__(self, callback: PendingCallback[T]) -> None:
        self._callback = callback

    def issue(self, run: Run, fiber: Fiber) -> None:
        """Wait, or go on at once where it is over already."""
        callback = self._callback
        if callback.over:
            run.scheduler.ready.append((fiber, callback.value, callback.error))
            return
        callback.fiber = fiber
        fiber.wait = callback


class AwaitFirst(Command[int]):
    """Wait until one of several callbacks is over; answers its place."""

    __slots__ = ("_callbacks", "_fiber")

    def __init__(self, callbacks: list[PendingCallback[Any]]) -> None:
        self._callbacks = callbacks
        self._fiber: Fiber | None = None

    def issue(self, run: Run, fiber: Fiber) -> None:
        """Wait, or go on at once where one is over already."""
        for place, callback in enumerate(self._callbacks):
            if callback.over:
                run.scheduler.ready.append((fiber, place, None))
                return
        self._fiber = fiber
        fiber.wait = self
        for callback in self._callbacks:
            callback.watchers.append(self)

    def ended(self, callback: PendingCallback[Any]) -> None:
        """One of them is over."""
        fiber = self._unwatch()
        if fiber is not None:
            callback.run.scheduler.resume(fiber, self._callbacks.index(callback))

    def interrupt(self) -> bool:
        """The waiting fiber is being closed: none of them can be answered any more."""
        self._unwatch()
        for callback in self._callbacks:
            callback.close()
        return True

    def _unwatch(self) -> Fiber | None:
        for callback in self._callbacks:
            if self in callback.watchers:
                callback.watchers.remove(self)
        fiber, self._fiber = self._fiber, None
        return fiber
