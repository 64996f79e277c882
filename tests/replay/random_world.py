"""The world outside of random sagas: one line of time with every call's begin and end, every commit, and every verb.

Invariant: positions on that line are in the order in which things happened in this process.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal

import attrs

from durable_core.layer import CURRENT
from sagas import Orchestrator, current

Role = Literal["step", "undo", "probe"]
INTENTS = ("started", "retried", "reopened")


@attrs.frozen
class Call:
    """One call of a step, of its compensation or of its probe."""

    saga: str
    key: str
    """The journal's own key: ``act``, ``act~undo``."""
    role: Role
    attempt: int
    step_key: str
    """The idempotency key of the step that it is, or serves."""
    step: str
    """The key of that step."""

    @classmethod
    def here(cls) -> "Call":
        """The call that runs here."""
        info = current()
        role: Role = "step" if info.forward_key is None else "undo" if info.compensating else "probe"
        step_key = info.forward_key or info.idempotency_key
        return cls(info.saga_id, CURRENT.get().key, role, info.attempt, step_key, info.step)


@attrs.frozen
class Event:
    """Something that happened."""

    what: str
    """begin, end, effect, undone, commit, or the name of a verb or of a thing that was done to a worker."""
    saga: str
    about: Any = None

    def __str__(self) -> str:
        about = f"{self.about.key} #{self.about.attempt}" if isinstance(self.about, Call) else self.about
        return f"{self.what} {self.saga} {'' if about is None else about}"


@attrs.define
class Timeline:
    """What the participants of one seed did, and what was done to their sagas."""

    line: list[Event] = attrs.field(factory=list[Event])
    under_way: list[Call] = attrs.field(factory=list[Call])
    live: dict[str, Call] = attrs.field(factory=dict[str, Call])
    """Effects in force, by the step's idempotency key."""
    faults: list[str] = attrs.field(factory=list[str])
    """What must never happen, seen as it happened."""
    healed: bool = False
    """From now on every call succeeds."""
    intents: dict[tuple[int, str, int], int] = attrs.field(factory=dict[tuple[int, str, int], int])
    """Where on the line the commit of an attempt's intent last began, by run, key and attempt."""
    refs: dict[tuple[str, str], int] = attrs.field(factory=dict[tuple[str, str], int])
    """What each step was called with, by saga and key."""
    nums: dict[str, int] = attrs.field(factory=dict[str, int])
    """Runs by saga id."""

    def note(self, what: str, saga: str, about: Any = None) -> int:
        """Write down that something happened; its place on the line."""
        self.line.append(Event(what, saga, about))
        return len(self.line) - 1

    @contextmanager
    def watched(self, ref: int) -> Generator[Call]:
        """Watch the call that runs here, which was given ``ref``."""
        call = Call.here()
        self.refs[call.saga, call.step] = ref
        self.faults += [
            f"{call.saga}: {call.key} #{call.attempt} began beside {other.key} #{other.attempt}"
            for other in tuple(self.under_way)
            if other.step_key == call.step_key
        ]
        self.under_way.append(call)
        self.note("begin", call.saga, call)
        try:
            yield call
        except GeneratorExit:
            self.faults.append(f"{call.saga}: {call.key} #{call.attempt} was thrown away while it ran")
            raise
        finally:
            self.under_way.remove(call)
            self.note("end", call.saga, call)

    def effect(self, call: Call) -> None:
        """The effect of a step takes place, or is taken back; twice under one key is once."""
        if call.role == "step":
            if self.live.setdefault(call.step_key, call) is call:
                self.note("effect", call.saga, call)
        elif call.role == "undo" and self.live.pop(call.step_key, None) is not None:
            self.note("undone", call.saga, call)

    def undone_by_hand(self, saga: str, key: str) -> None:
        """A person takes an effect back."""
        for step_key in [step_key for step_key, call in self.live.items() if (call.saga, call.key) == (saga, key)]:
            self.note("by hand", saga, self.live.pop(step_key))

    def happened(self, saga: str, key: str) -> bool:
        """Whether the effect of a step is in force, as a person would find out."""
        return any((call.saga, call.key) == (saga, key) for call in self.live.values())

    def busy(self, saga: str) -> bool:
        """Whether a call for this saga is under way."""
        return any(call.saga == saga for call in self.under_way)

    def watch_commits(self, worker: Orchestrator) -> None:
        """Write down when the commit of each intent begins."""
        store: Any = worker.engine.store
        commit = store.journal.commit

        async def noted(batch: Any) -> Any:
            place = self.note("commit", "")
            for entry in batch.entries:
                if entry.kind in INTENTS:
                    self.intents[entry.run, entry.key, entry.attempt] = place
            return await commit(batch)

        store.journal.commit = noted
