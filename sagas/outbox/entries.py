"""What an outbox holds: requests for sagas, in the order in which their transactions were committed.

Pure. Invariant: two entries about one saga are never in one wave, so the earlier one is settled before the later one is
handed on.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

import attrs
import msgspec


class Verb(StrEnum):
    """What is asked for."""

    START = "start"
    COMPLETE = "complete_callback"
    FAIL = "fail_callback"
    CANCEL = "cancel"


class Start(msgspec.Struct, frozen=True):
    """A saga to start, as the row keeps it. ``input`` is what ``CallShape.encode`` wrote."""

    saga: str
    version: int
    input: msgspec.Raw
    deadline_ns: int | None = None
    trace: Literal["link", "join"] = "link"
    tags: dict[str, str] = {}


class Answered(msgspec.Struct, frozen=True):
    """A callback to answer: by its token, or by its name in the entry's saga."""

    value: msgspec.Raw
    token: str | None = None
    name: str | None = None
    actor: str = ""
    note: str = ""


class Cancelled(msgspec.Struct, frozen=True):
    """A saga to roll back."""

    reason: str = ""
    actor: str = ""
    note: str = ""


Request = Start | Answered | Cancelled
KINDS: Mapping[str, type[Start] | type[Answered] | type[Cancelled]] = {
    Verb.START: Start,
    Verb.COMPLETE: Answered,
    Verb.FAIL: Answered,
    Verb.CANCEL: Cancelled,
}


@attrs.frozen
class Entry:
    """One row that waits to be handed on."""

    id: int
    """Never used again, and higher than that of every entry whose commit had ended before this one's began."""
    verb: str
    saga_id: str | None
    """None where only a callback's token says which saga it is."""
    request: str
    """JSON of the verb's ``Request``."""
    traceparent: str | None
    at_ns: int

    def read(self) -> Request:
        """What is asked for.

        Raises:
            ValueError: the row was not written by an outbox of this release.
        """
        kind = KINDS.get(self.verb)
        if kind is None or (kind is not Answered and self.saga_id is None):
            raise ValueError(f"this release knows no entry {self.verb!r} of saga {self.saga_id!r}")
        try:
            return msgspec.json.decode(self.request, type=kind)
        except msgspec.MsgspecError as error:
            raise ValueError(f"its request cannot be read: {error}") from error


def lane_of(saga_id: str) -> str:
    """The saga whose entries keep their order with those of ``saga_id``: a child's are its root's."""
    return saga_id.partition("/")[0]


@attrs.frozen
class Laned:
    """An entry, and the saga that it is about."""

    entry: Entry
    lane: str


def waves(entries: Sequence[Laned], *, most: int) -> Iterator[list[Entry]]:
    """Cut entries into waves, in order: those of a wave are handed on together, and are about different sagas."""
    wave: list[Entry] = []
    lanes: set[str] = set()
    for each in entries:
        if each.lane in lanes or len(wave) == most:
            yield wave
            wave, lanes = [], set()
        wave.append(each.entry)
        lanes.add(each.lane)
    if wave:
        yield wave


# -- what became of an entry -------------------------------------------------------------------------------------------


@attrs.frozen
class HandedOn:
    """The store has it, or had it already."""


@attrs.frozen
class Refused:
    """It can never succeed."""

    reason: str


@attrs.frozen
class NotNow:
    """The store did not take it yet."""

    error: Exception


Verdict = HandedOn | Refused | NotNow


@attrs.frozen
class Settled:
    """What a wave came to, by entries."""

    done: tuple[int, ...]
    refused: tuple[tuple[Entry, str], ...]
    failure: Exception | None
    """Why some must wait: what comes after this wave waits with them."""


def settled(verdicts: Sequence[tuple[Entry, Verdict]]) -> Settled:
    """Sum a wave up."""
    return Settled(
        done=tuple(entry.id for entry, verdict in verdicts if isinstance(verdict, HandedOn)),
        refused=tuple((entry, verdict.reason) for entry, verdict in verdicts if isinstance(verdict, Refused)),
        failure=next((verdict.error for _, verdict in verdicts if isinstance(verdict, NotNow)), None),
    )


# -- what users see ----------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class RefusedEntry:
    """An entry that could not be handed on, and stays in the outbox until ``retry`` or ``drop``."""

    id: int
    """Its number in the outbox."""
    verb: str
    """``start``, ``complete_callback``, ``fail_callback`` or ``cancel``."""
    saga_id: str | None
    """The saga that it is about; None where a callback was named by its token."""
    saga: str | None
    """The name of the saga, for a start."""
    reason: str
    """What the orchestrator answered."""
    at: datetime
    """When it was added (UTC, by its writer's clock)."""
    refused_at: datetime
    """When it was refused (UTC, by the relay's clock)."""


@attrs.frozen(kw_only=True)
class OutboxStats:
    """How an outbox stands."""

    waiting: int
    """Entries that are committed and not handed on yet."""
    oldest: timedelta | None
    """For how long the oldest of them has waited; None where none waits."""
    refused: int
    """Entries that need a person."""
