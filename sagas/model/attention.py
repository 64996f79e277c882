"""The log line of a saga that needs attention: its step, the reason and the remedy. Pure functions of row and journal.

Invariant: it is read from the journal, so a problem that was fixed in the meantime is logged too.
The same saga, steps and reason give the same line, so a line need not be logged twice.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import attrs
import msgspec

from durable_core.layer import MANY_FAILURES, EntryKind, JournalEntry, describe, error_text
from sagas.model.info import SagaInfo


@attrs.frozen
class Need:
    """One reason why a saga needs attention."""

    reason: str
    """What happened and what to do about it."""
    steps: tuple[str, ...] = ()
    what: str = "is stuck"


def needs_of(info: SagaInfo, entries: Sequence[JournalEntry], *, worker: str) -> list[Need]:
    """What ``worker`` found that needs a person, oldest first, including what has been fixed since."""
    found = [need for need in _journalled(info.id, entries, worker) if need is not None]
    if info.unserved and info.reason is not None:
        found.append(Need(info.reason, what=f"is {info.status}"))
    return found


def _journalled(saga_id: str, entries: Sequence[JournalEntry], worker: str) -> Iterator[Need | None]:
    failures = Counter[str]()
    for entry in entries:
        mine = entry.worker == worker
        match entry.kind:
            case EntryKind.PARKED if mine:
                payload = msgspec.json.decode(entry.payload or b"{}")
                yield Need(str(payload.get("reason", "")), tuple(payload.get("steps", ())))
            case EntryKind.FAULTED if mine and entry.error is not None:
                about = msgspec.json.decode(entry.payload or b"{}").get("steps", ())
                yield Need(describe(entry.error).message, (entry.key,) if entry.key else tuple(about))
            case EntryKind.REOPENED:
                del failures[entry.key]
            case EntryKind.FAILED:
                failures[entry.key] += 1
                again = failures[entry.key] == MANY_FAILURES and entry.due_at_ns is not None
                yield _failing(saga_id, entry) if again and mine else None
            case _:
                pass


def _failing(saga_id: str, entry: JournalEntry) -> Need:
    error = error_text(entry.error)
    return Need(
        f"step {entry.key!r} has failed {MANY_FAILURES} times and is tried again ({error}). Fix what makes it fail, "
        f"and it continues by itself; `sagas show {saga_id}` shows its state",
        (entry.key,),
        what="continues",
    )


def line_of(info: SagaInfo, need: Need) -> str:
    """The line to log."""
    reason = need.reason.removeprefix(f"saga {info.id}: ")
    unnamed = [key for key in need.steps if key not in reason]
    about = f" (step {', '.join(map(repr, unnamed))})" if unnamed else ""
    return f"saga {info.id!r} ({info.saga} v{info.version}) {need.what} and needs a person: {reason}{about}"
