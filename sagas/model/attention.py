"""What is logged of a saga that needs attention: its step, why, and what mends it. Pure functions of row and journal.

Invariant: it is read off the journal, so nothing is left out of the log because it was mended while it was looked at.
The same saga, steps and reason give the same line: one that was logged need not be logged again.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import attrs
import msgspec

from durable_core.layer import MANY_FAILURES, EntryKind, JournalEntry, describe, error_text
from sagas.model.info import SagaInfo


@attrs.frozen
class Need:
    """Why somebody should look."""

    reason: str
    """With what mends it."""
    steps: tuple[str, ...] = ()
    what: str = "is stuck"


def needs_of(info: SagaInfo, entries: Sequence[JournalEntry], *, worker: str) -> list[Need]:
    """What ``worker`` has found that needs a person, also what has been mended since, oldest first."""
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
                told = msgspec.json.decode(entry.payload or b"{}")
                yield Need(str(told.get("reason", "")), tuple(told.get("steps", ())))
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
        f"step {entry.key!r} has failed {MANY_FAILURES} times and is tried again ({error}). Mend what makes it fail, "
        f"and it goes on by itself; `sagas show {saga_id}` shows how it stands",
        (entry.key,),
        what="goes on",
    )


def line_of(info: SagaInfo, need: Need) -> str:
    """What to log of it."""
    reason = need.reason.removeprefix(f"saga {info.id}: ")
    unnamed = [key for key in need.steps if key not in reason]
    about = f" (step {', '.join(map(repr, unnamed))})" if unnamed else ""
    return f"saga {info.id!r} ({info.saga} v{info.version}) {need.what} and needs a person: {reason}{about}"
