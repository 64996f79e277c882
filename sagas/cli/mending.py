"""Which commands mend a stuck saga: a pure function of how it stands."""

import shlex
from collections.abc import Iterator
from typing import NamedTuple

from sagas.model.info import SagaInfo, SagaStatus, StepState
from sagas.model.verbs import ALLOWED


class Remedy(NamedTuple):
    """A command to type, and what it does."""

    command: str
    effect: str


def remedies(info: SagaInfo, *, option: str = "") -> list[Remedy]:
    """The commands that mend this saga, the most likely first; none where it is not stuck.

    Args:
        info: the saga.
        option: what each command needs at its end to find the store.
    """
    if info.status is not SagaStatus.STUCK:
        return []
    return [
        Remedy(f"sagas {' '.join(map(_typed, words))}{option}", effect)
        for words, effect in _ways(info)
        if words[0] in ALLOWED
    ]


def _ways(info: SagaInfo) -> Iterator[tuple[tuple[str, ...], str]]:
    doubts = [step for step in info.steps if step.status == "unknown" and step.kind in ("step", "pivot")]
    undone = [step for step in info.steps if step.status == "compensation_failed"]
    for step in doubts:
        yield ("resolve", info.id, step.key, "--happened"), f"{step.key} did happen; go on from there"
        yield ("resolve", info.id, step.key, "--did-not-happen"), f"{step.key} did not happen"
    yield ("retry", info.id), _retried(doubts, undone)
    for step in undone:
        yield ("skip", info.id, step.key), f"you have undone {step.key} by hand; count it as undone"
    yield ("rollback", info.id), "give up: undo what was done"


def _retried(doubts: list[StepState], undone: list[StepState]) -> str:
    if undone:
        return f"the cause is mended; undo {', '.join(step.key for step in undone)} again"
    if doubts:
        return f"attempt {', '.join(step.key for step in doubts)} again, under the same key"
    return "the cause is mended; go on"


def _typed(word: str) -> str:
    return word if word.startswith("--") else shlex.quote(word)
