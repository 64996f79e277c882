"""The words and signs for where a saga or a step stands: one table for each, so that all commands speak alike."""

from collections.abc import Mapping
from typing import NamedTuple

from sagas.model.info import SagaInfo, SagaStatus


class Meaning(NamedTuple):
    """A saga's status, told to somebody who sees it for the first time."""

    text: str
    """``{why}`` stands for the cause."""
    style: str


MEANINGS: Mapping[SagaStatus, Meaning] = {
    SagaStatus.PENDING: Meaning("not begun yet: it waits for a worker that serves it", ""),
    SagaStatus.RUNNING: Meaning("a worker is running it", "cyan"),
    SagaStatus.WAITING: Meaning("nothing to do until a time, an answer or a retry", "cyan"),
    SagaStatus.COMPENSATING: Meaning("rolling back{why}: what was done is being undone", "yellow"),
    SagaStatus.STUCK: Meaning("it cannot go on without you", "bold red"),
    SagaStatus.COMPLETED: Meaning("done", "bold green"),
    SagaStatus.COMPENSATED: Meaning("rolled back{why}: every completed step was undone", "yellow"),
    SagaStatus.RESOLVED: Meaning("rolled back{why}, with an operator's help", "yellow"),
    SagaStatus.KILLED: Meaning("ended by an operator; nothing was undone", "red"),
}
UNSERVED: Mapping[SagaStatus, Meaning] = {
    SagaStatus.RUNNING: Meaning("begun, and no worker runs it: none serves its version", "bold red"),
    SagaStatus.WAITING: Meaning("its wait is over, and no worker goes on with it: none serves its version", "bold red"),
    SagaStatus.PENDING: Meaning("not begun yet: no worker serves its version", "bold red"),
    SagaStatus.COMPENSATING: Meaning("to be rolled back{why}: no worker serves its version", "bold red"),
}
"""What these mean where no living worker serves the saga's version."""
CAUSES: Mapping[str | None, str] = {
    None: "",
    "failed": ", because a step or the saga's own code failed",
    "cancelled": ", because it was cancelled",
    "deadline": ", because its deadline passed",
}


class Sign(NamedTuple):
    """A step's status at a glance."""

    sign: str
    ascii: str
    style: str


SIGNS: Mapping[str, Sign] = {
    "pending": Sign("·", ".", "dim"),
    "running": Sign("▶", ">", "cyan"),
    "succeeded": Sign("✓", "+", "green"),
    "rejected": Sign("✗", "x", "red"),
    "failed": Sign("✗", "x", "red"),
    "unknown": Sign("?", "?", "bold red"),
    "skipped": Sign("»", "-", "yellow"),
    "compensated": Sign("↩", "<", "yellow"),
    "compensation_failed": Sign("!", "!", "bold red"),
}
UNLISTED = Sign(" ", " ", "")
WAITING_KINDS = frozenset({"sleep", "callback"})
WAITS: Mapping[str, str] = {"running": "waiting", "succeeded": "over", "skipped": "given up"}
"""What a sleep's or callback's status is called, for nothing runs while it lasts."""
ONCE = WAITING_KINDS | {"child"}
"""Kinds of which attempts are not counted."""
BRANCH, ASCII_BRANCH = "└ ", "` "
EVERY_SIGN = BRANCH + "".join(sign.sign for sign in SIGNS.values())
"""What stdout must be able to write, or the ASCII signs are used."""


def meaning(info: SagaInfo) -> Meaning:
    """What the saga's status means."""
    known = MEANINGS[info.status]
    text, style = UNSERVED.get(info.status, known) if info.unserved else known
    told = text.format(why=CAUSES.get(info.cause, f", because: {info.cause}"))
    return Meaning(f"{told}; paused by an operator: no step begins" if info.paused else told, style)
