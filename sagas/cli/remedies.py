"""Which commands help a saga that cannot go on alone: a pure function of its snapshot."""

import shlex
from collections.abc import Iterator
from typing import NamedTuple

from sagas.cli.snapshot import Snapshot
from sagas.model.info import StepState
from sagas.model.phases import SagaStatus
from sagas.model.verbs import Accept, judge


class Remedy(NamedTuple):
    """A command to type, and what it does."""

    command: str
    effect: str


Way = tuple[tuple[str, ...], str]
"""A command's words after ``sagas``, and what it does."""


def remedies(snapshot: Snapshot, *, option: str = "") -> list[Remedy]:
    """The commands that help this saga, the most likely first; none if it needs no help.

    Args:
        snapshot: the saga. For a child, the commands are about the saga that it is part of.
        option: ends each command, so that it finds the store.
    """
    return [
        Remedy(f"sagas {' '.join(map(shlex.quote, words))}{option}", effect)
        for words, effect in _ways(snapshot)
        if _accepted(snapshot, *words)
    ]


def _accepted(snapshot: Snapshot, verb: str, _saga_id: str, step: str | None = None, *_options: str) -> bool:
    """Whether the verb would be accepted now; only such commands are offered."""
    return isinstance(judge(verb, snapshot.root, snapshot.phase, step), Accept)


def _ways(snapshot: Snapshot) -> Iterator[Way]:
    root = snapshot.root
    if root.ended_at is None and root.paused:
        yield ("resume", root.id), "let it continue"
    if root.status is SagaStatus.STUCK:
        yield from _unstick(snapshot)
    elif root.status is SagaStatus.KILLED and any(map(_leaves_something, root.steps)):
        yield ("rollback", root.id), "undo what it did before it was killed"


def _unstick(snapshot: Snapshot) -> Iterator[Way]:
    root = snapshot.root
    mine = [step for step in root.steps if step.key in root.stuck_on]
    doubts = [step for step in mine if step.status in ("unknown", "failed")]
    undone = [step for step in mine if step.status == "compensation_failed"]
    for step in doubts:
        yield (
            ("resolve", root.id, step.key, "--happened"),
            f"if {step.key} happened; give its result with --result JSON",
        )
        yield ("resolve", root.id, step.key, "--did-not-happen"), f"if {step.key} did not happen"
    yield ("retry", root.id), _retried(doubts, undone, snapshot)
    for step in undone:
        yield ("skip", root.id, step.key), f"if you undid {step.key} by hand: count it as undone"
    if root.cause is None:  # else the rollback has begun already
        yield ("rollback", root.id), "give up: undo what was done"


def _retried(doubts: list[StepState], undone: list[StepState], snapshot: Snapshot) -> str:
    if undone:
        return f"after you fixed the cause: undo {_keys(undone)} again"
    if doubts and all(step.key in snapshot.probed for step in doubts):
        return f"after you fixed the probe: ask it again about {_keys(doubts)}"
    if doubts:
        return f"call {_keys(doubts)} again, under the same key"
    return "after you fixed the cause: continue"


def _keys(steps: list[StepState]) -> str:
    return ", ".join(step.key for step in steps)


def _leaves_something(step: StepState) -> bool:
    return step.kind == "step" and step.status not in ("rejected", "failed", "skipped", "compensated")
