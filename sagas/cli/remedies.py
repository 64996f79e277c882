"""Which commands mend a saga: a pure function of how it stands."""

import shlex
from collections.abc import Iterator
from typing import NamedTuple

from sagas.cli.looking import Seen
from sagas.model.info import SagaStatus, StepState
from sagas.model.verbs import Accept, judge


class Remedy(NamedTuple):
    """A command to type, and what it does."""

    command: str
    effect: str


Way = tuple[tuple[str, ...], str]
"""A command's words behind ``sagas``, and what it does."""


def remedies(seen: Seen, *, option: str = "") -> list[Remedy]:
    """The commands that help this saga on, the most likely first; none where it needs nobody.

    Args:
        seen: the saga. What mends a child is about the saga that it is a part of.
        option: what each command needs at its end to find the store.
    """
    return [
        Remedy(f"sagas {' '.join(map(shlex.quote, words))}{option}", effect)
        for words, effect in _ways(seen)
        if _accepted(seen, *words)
    ]


def _accepted(seen: Seen, verb: str, _saga_id: str, step: str | None = None, *_options: str) -> bool:
    """Whether the verb would be taken as the saga stands: of the likely ways only those are offered."""
    return isinstance(judge(verb, seen.root, seen.phase, step), Accept)


def _ways(seen: Seen) -> Iterator[Way]:
    root = seen.root
    if root.ended_at is None and root.paused:
        yield ("resume", root.id), "let it go on"
    if root.status is SagaStatus.STUCK:
        yield from _unstick(seen)
    elif root.status is SagaStatus.KILLED and any(map(_leaves_something, root.steps)):
        yield ("rollback", root.id), "undo what was done before it was killed"


def _unstick(seen: Seen) -> Iterator[Way]:
    root = seen.root
    mine = [step for step in root.steps if step.key in root.stuck_on]
    doubts = [step for step in mine if step.status == "unknown"]
    undone = [step for step in mine if step.status == "compensation_failed"]
    for step in doubts:
        yield ("resolve", root.id, step.key, "--happened"), f"{step.key} did happen; --result JSON is its result"
        yield ("resolve", root.id, step.key, "--did-not-happen"), f"{step.key} did not happen"
    yield ("retry", root.id), _retried(doubts, undone, seen)
    for step in undone:
        yield ("skip", root.id, step.key), f"you have undone {step.key} by hand; count it as undone"
    if root.cause is None:  # else it is being undone already
        yield ("rollback", root.id), "give up: undo what was done"


def _retried(doubts: list[StepState], undone: list[StepState], seen: Seen) -> str:
    if undone:
        return f"the cause is mended; undo {_keys(undone)} again"
    if doubts and all(step.key in seen.probed for step in doubts):
        return f"the probe is mended; ask it again about {_keys(doubts)}"
    if doubts:
        return f"attempt {_keys(doubts)} again, under the same key"
    return "the cause is mended; go on"


def _keys(steps: list[StepState]) -> str:
    return ", ".join(step.key for step in steps)


def _leaves_something(step: StepState) -> bool:
    return step.kind == "step" and step.status not in ("rejected", "failed", "skipped", "compensated")
