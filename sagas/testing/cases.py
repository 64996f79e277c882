"""The cases of an exploration as data: what goes wrong where, as a text that can be given again.

Invariant: ``parse(str(case)) == case``, and one case has one text.
"""

import re
from collections.abc import Iterator
from typing import Any

import attrs

from durable_core import DefinitionError
from durable_core.layer import StepSpec, served
from sagas.testing.faults import ROLES

ATTEMPT = ("reject", "fail", "unknown_before", "unknown_after", "crash_before", "crash_after", "twice", "cancel_in")
WAIT = ("cancel_at", "no_answer", "fail_answer", "answer_twice")
COMMIT = ("crash_before_commit", "crash_after_commit")
VERBS = (*ATTEMPT, *WAIT, *COMMIT)
"""What can go wrong.

``reject``: the step raises one of its ``rejects``; ``fail``: it fails before its own code, as often as its policy
attempts it; ``unknown_before`` and ``unknown_after``: its answer is lost, without and with its effect; ``crash_...``:
the worker dies; ``twice``: its own code is called twice, as by a repeated delivery; ``cancel_...``: somebody cancels
the saga; ``no_answer``, ``fail_answer``, ``answer_twice``: of a callback.
"""
_EVENT = re.compile(rf"({'|'.join(VERBS)})(?::(\S+))? (.+?)(?: #(\d+))?")
_NEXT = re.compile(rf" \+ (?=(?:{'|'.join(VERBS)})[ :])")


@attrs.frozen
class Event:
    """One thing that goes wrong, at one place."""

    verb: str
    target: str
    """An attempt's step (``charge``, ``undo charge``, ``leg/charge#2``), a wait's key, or a commit's first row."""
    nth: int = 1
    """Which attempt, or which row of that name."""
    error: str = ""
    """Of ``reject``: the exception's name, if it is not the first of ``rejects``."""

    def __str__(self) -> str:
        verb = f"{self.verb}:{self.error}" if self.error else self.verb
        return f"{verb} {self.target}" if self.verb in WAIT else f"{verb} {self.target} #{self.nth}"


@attrs.frozen
class Case:
    """What goes wrong in one run, in this order."""

    events: tuple[Event, ...] = ()

    def __str__(self) -> str:
        return " + ".join(map(str, self.events)) or "nothing"

    def then(self, event: Event) -> "Case":
        """This, and then something else."""
        return Case((*self.events, event))

    @classmethod
    def parse(cls, text: str) -> "Case":
        """The case of this text.

        Raises:
            DefinitionError: it is none.
        """
        if text == "nothing":
            return cls()
        found = [_EVENT.fullmatch(part) for part in _NEXT.split(text)]
        if not all(found):
            raise DefinitionError(
                f"only={text!r} is no case of an exploration", "Copy it from the message of ExploreFailed"
            )
        return cls(tuple(Event(one[1], one[3], int(one[4] or 1), one[2] or "") for one in found if one))


@attrs.frozen
class Attempt:
    """An attempt that was made."""

    target: str
    nth: int
    spec: StepSpec = attrs.field(eq=False)


@attrs.frozen
class Wait:
    """A sleep or callback that was begun."""

    key: str
    is_callback: bool
    ends: bool
    """Whether it ends by itself, once its time has come."""


@attrs.define
class Trail:
    """What one run has passed: the places where something can go wrong in it."""

    attempts: list[Attempt] = attrs.field(factory=list[Attempt])
    waits: list[Wait] = attrs.field(factory=list[Wait])
    commits: list[tuple[str, int]] = attrs.field(factory=list[tuple[str, int]])
    """The first row of each, and which of that name it is."""
    succeeded: set[str] = attrs.field(factory=set[str])
    """The keys of what has succeeded."""

    def place(self, event: Event) -> tuple[Event, bool]:
        """Where an event would come up: an undo of what has happened is another place than one of what has not."""
        role, _, key = event.target.partition(" ")
        return event, role == "undo" and key not in self.succeeded


def target_of(spec: StepSpec, key: str) -> str:
    """How an attempt is named."""
    return ROLES.get(spec.kind, "") + served(key)


def events_of(trail: Trail, *, answered: Any) -> Iterator[Event]:
    """All that can go wrong on the way of one run.

    Args:
        trail: what it has passed.
        answered: tells whether a callback of this key is given an answer.
    """
    for attempt in trail.attempts:
        if attempt.nth == 1:
            yield from _of_attempt(attempt)
    for wait in trail.waits:
        yield Event("cancel_at", wait.key)
        if wait.is_callback and answered(wait.key):
            if wait.ends:
                yield Event("no_answer", wait.key)
            yield Event("fail_answer", wait.key)
            yield Event("answer_twice", wait.key)
    for row, nth in trail.commits:
        yield Event("crash_before_commit", row, nth)
        yield Event("crash_after_commit", row, nth)


def _of_attempt(attempt: Attempt) -> Iterator[Event]:
    spec, target = attempt.spec, attempt.target
    for place, kind in enumerate(spec.rejects):
        yield Event("reject", target, error=kind.__name__ if place else "")
    if spec.kind != "probe":  # one that fails for good makes its saga stuck, which is what it is for
        yield Event("fail", target)
    yield Event("crash_before", target)
    if spec.kind not in {"lookup", "probe"}:
        yield Event("unknown_before", target)
        yield Event("unknown_after", target)
        yield Event("crash_after", target)
        yield Event("twice", target)
    if spec.kind not in ROLES:
        yield Event("cancel_in", target)


def rejection(spec: StepSpec, name: str) -> type[Exception] | None:
    """The exception that a step rejects with: the one of this name, or the first; None if there is none."""
    return next((kind for kind in spec.rejects if not name or kind.__name__ == name), None)
