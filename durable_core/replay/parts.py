"""What a run is made of, as it sees it: steps, waits, fibers that are stuck, and what is left of an abandoned body."""

from collections.abc import Mapping
from typing import Protocol

import attrs

from durable_core.model.callback import Answer
from durable_core.model.entry import Entry
from durable_core.model.failure import rebuild
from durable_core.model.record import StepRecord
from durable_core.model.spec import StepSpec
from durable_core.replay.cursor import LateResult
from durable_core.replay.effects import Timed


class Step(StepRecord):
    """A step, as its run sees it. By itself: one of an abandoned body, which nothing can run again."""

    __slots__ = ("spec",)

    live = False
    """Whether it can be driven."""
    waiting = False
    """Whether it has begun and not ended."""

    def __init__(self, key: str, kind: str, arguments: bytes | None, started_at_ns: int, started_seq: int = 0) -> None:
        super().__init__(key, kind, arguments, started_at_ns, started_seq)
        self.spec: StepSpec | None = None
        """What the code loaded here runs it with."""

    @classmethod
    def of(cls, record: StepRecord) -> "Step":
        """The step of an abandoned body, as its entries tell it."""
        step = cls(record.key, record.kind, record.arguments, record.started_at_ns)
        for name in StepRecord.__slots__:
            setattr(step, name, getattr(record, name))
        step.abandon()
        return step

    def stored_error(self) -> BaseException | None:
        """What ended it, rebuilt; None where it did not fail."""
        return None if self.error is None else rebuild(self.error)

    def take(self, entry: Entry) -> None:
        """Take up an entry about it."""

    def take_late(self, result: LateResult) -> None:
        """Take up how an attempt ended that was thought to be lost."""

    def recover(self) -> None:
        """The journal is fed: go on where the last process stopped."""

    def resume(self) -> None:
        """The run is no longer paused: make the attempt that was held back."""

    def withdraw(self) -> bool:
        """Make sure that the announced attempt is never begun; False where it has been, or none is announced."""
        return False

    def disarm(self) -> None:
        """The run leaves memory."""


class Wait(Timed, Protocol):
    """A wait, as its run sees it: a pause, a callback, a deadline."""

    over: bool

    def take(self, entry: Entry) -> None:
        """Take up an entry about it."""
        ...

    def answer(self, answer: Answer, seq: int) -> bool:
        """Take an answer or heartbeat from outside, which ``seq`` held back (0: none); False if it takes none now."""
        ...


class StuckFiber(Protocol):
    """A fiber that waits for a person."""

    reason: str
    steps: tuple[str, ...]

    def go_on(self, value: object) -> None:
        """Let it go on with ``value``."""
        ...


@attrs.frozen
class AbandonedBody:
    """What is left of a body whose part is over: an operator asked for the rollback of a run that cannot go on."""

    marks: tuple[str, ...] = ()
    """What it has marked."""
    bindings: Mapping[str, StepSpec] = attrs.field(factory=dict[str, StepSpec])
    """What the code loaded here runs each step key with."""
