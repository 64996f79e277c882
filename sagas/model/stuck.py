"""What a saga is stuck on: read off its journal, so that verbs, messages and engine agree.

Invariant: something is stuck from its ``parked`` (or ``faulted``) entry until a verb that is about it, or about all.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from durable_core.layer import EntryKind, JournalEntry, served

ANSWERING = frozenset({"retry", "skip", "resolve"})
ABANDON = "abandon"


def parked(entries: Sequence[JournalEntry]) -> dict[str, tuple[str, ...]]:
    """What waits for a person: under each key that is parked, the steps concerned. A fault's key is empty."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        if entry.kind == EntryKind.PARKED:
            found[entry.key] = tuple(_data(entry).get("steps", ()))
        elif entry.kind == EntryKind.FAULTED:
            found[""] = (entry.key,) if entry.key else tuple(_data(entry).get("steps", ()))
        elif entry.kind == EntryKind.CLOSED:
            found.pop(entry.key, None)
        elif entry.kind == EntryKind.SIGNALLED:
            found = _after(found, entry)
        elif entry.kind == EntryKind.ENDED:
            found = {}
    return found


def _after(found: dict[str, tuple[str, ...]], entry: JournalEntry) -> dict[str, tuple[str, ...]]:
    if entry.label == ABANDON:
        return {}
    if entry.key not in ANSWERING:
        return found
    step = _data(entry).get("step")
    return {key: steps for key, steps in found.items() if key and step is not None and step not in steps}


def undo_given_up(found: dict[str, tuple[str, ...]]) -> set[str]:
    """The steps whose compensation was given up, of what is parked."""
    return {step for key, steps in found.items() if key != served(key) for step in steps}


def _data(entry: JournalEntry) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(entry.payload or b"{}")
    return data
