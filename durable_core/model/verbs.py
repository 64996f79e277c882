"""Operators' verbs on a run that knows nothing of compensation: in which states each makes sense.

One table makes the guards, the tests of every verb in every state, and the page in the docs.
"""

from collections.abc import Mapping, Sequence

import attrs
import msgspec

from durable_core.model.entry import Entry, EntryKind
from durable_core.model.run import OPEN, RunRecord, RunStatus
from durable_core.model.texts import check_text


@attrs.frozen(kw_only=True)
class Verb:
    """When a verb makes sense."""

    accepted: frozenset[RunStatus]
    """Statuses in which it is journalled and acts."""
    repeated: frozenset[RunStatus] = frozenset()
    """Statuses in which it has been done already, by whomever: accepted, and nothing changes."""
    does: str
    """For the docs."""


VERBS: Mapping[str, Verb] = {
    "retry": Verb(
        accepted=frozenset({RunStatus.STUCK}),
        does="try again what the run is stuck on, with the code loaded now and a fresh retry policy",
    ),
    "kill": Verb(
        accepted=OPEN, repeated=frozenset({RunStatus.KILLED}), does="end it here and now; what it did stays done"
    ),
    "pause": Verb(accepted=OPEN, does="start no further step until it is resumed"),
    "resume": Verb(accepted=OPEN, does="go on after a pause"),
}


@attrs.frozen
class Accept:
    """The verb is journalled."""


@attrs.frozen
class Repeat:
    """It has been done already: nothing changes."""


@attrs.frozen
class Refuse:
    """It does not apply here."""

    why: str


class Asked(msgspec.Struct):
    """Who asked for a verb and why, as it is journalled."""

    actor: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        check_text(self.actor, "actor=")
        check_text(self.note, "note=")


def judge(verb: str, record: RunRecord, *, paused: bool) -> Accept | Repeat | Refuse:
    """Whether ``verb`` makes sense for a run that stands so, and is, or is about to be, ``paused``."""
    rule = VERBS[verb]
    if record.status in rule.repeated:
        return Repeat()
    if record.status not in rule.accepted:
        return Refuse(
            f"run {record.id!r} is {record.status}, and `{verb}` makes sense only where it is "
            f"{', '.join(sorted(rule.accepted))}; nothing was changed"
        )
    if verb in ("pause", "resume") and paused == (verb == "pause"):
        return Repeat()
    return Accept()


def faulted_on(entries: Sequence[Entry]) -> tuple[str, int]:
    """What a retry attempts again: a step's key, and the entry from which on all is void; empty for the body itself."""
    for entry in reversed(entries):
        if entry.kind == EntryKind.FAULTED:
            return entry.key, entry.attempt
        if entry.kind in (EntryKind.PARKED, EntryKind.SIGNALLED):
            break
    return "", 0
