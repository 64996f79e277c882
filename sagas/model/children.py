"""Child sagas, read off their root's journal.

Invariant: a child is a scope of its root's run, so it stays undoable until that ends.
"""

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from durable_core import CHILD_COMPLETED as COMPLETED
from durable_core import CHILD_OPENED as OPENED
from durable_core import EntryKind, JournalEntry, name_of
from sagas.model.info import SAGA_ENDS, SagaInfo, SagaStatus, StepState, at

COMPENSATED = "child-compensated:"


@attrs.frozen
class Child:
    """What the journal says of one child."""

    key: str
    opened: JournalEntry
    closed: JournalEntry | None

    @property
    def completed(self) -> bool:
        """Whether its body has returned."""
        return self.closed is not None and self.closed.key.startswith(COMPLETED)

    @property
    def compensated(self) -> bool:
        """Whether it was rolled back by its own failure."""
        return self.closed is not None and self.closed.key.startswith(COMPENSATED)


def children_of(entries: Sequence[JournalEntry]) -> dict[str, Child]:
    """The children by key, in the order in which they began."""
    found: dict[str, Child] = {}
    for entry in entries:
        if entry.kind != EntryKind.MARKED:
            continue
        if entry.key.startswith(OPENED):
            key = entry.key.removeprefix(OPENED)
            found[key] = Child(key, entry, None)
        for closing in (COMPLETED, COMPENSATED):
            if entry.key.startswith(closing) and (key := entry.key.removeprefix(closing)) in found:
                found[key] = attrs.evolve(found[key], closed=entry)
    return found


def _state(child: Child, *, rolled_back: bool) -> StepState:
    if child.compensated or (rolled_back and child.completed):
        status = "compensated"
    elif child.completed:
        status = "succeeded"
    else:
        status = "compensated" if rolled_back else "running"
    return StepState(
        key=child.key,
        name=name_of(child.key),
        kind="child",
        status=status,
        attempts=1,
        result=_result(child),
        started_at=at(child.opened.at_ns),
        ended_at=None if child.closed is None else at(child.closed.at_ns),
    )


def _result(child: Child) -> Any:
    if child.closed is None or not child.completed:
        return None
    return msgspec.json.decode(child.closed.payload or b"null")


def child_info(root: SagaInfo, entries: Sequence[JournalEntry], key: str) -> SagaInfo | None:
    """The child at ``key`` as a saga of its own, or None. Its end is provisional until its root ends."""
    child = children_of(entries).get(key)
    if child is None:
        return None
    opened: dict[str, Any] = msgspec.json.decode(child.opened.payload or b"{}")
    arguments: list[Any] | dict[str, Any] = opened.get("input", [])
    given = {str(place): value for place, value in enumerate(arguments)} if isinstance(arguments, list) else arguments
    prefix = f"{key}/"
    return attrs.evolve(
        root,
        id=f"{root.id}/{key}",
        saga=opened.get("name", ""),
        version=opened.get("version", 1),
        status=_status(child, root),
        cause="failed" if child.compensated else root.cause,
        input=given,
        result=_result(child),
        created_at=at(child.opened.at_ns),
        ended_at=None if child.closed is None else at(child.closed.at_ns),
        steps=[
            attrs.evolve(state, key=state.key.removeprefix(prefix)) for state in within(root, entries, prefix=prefix)
        ],
    )


def within(root: SagaInfo, entries: Sequence[JournalEntry], *, prefix: str) -> list[StepState]:
    """The steps under ``prefix``, of which a child saga is one: what it did in itself is its own list."""
    children = children_of(entries)
    rolled_back = root.status in (SagaStatus.COMPENSATED, SagaStatus.RESOLVED)
    mine = [key for key in children if key.startswith(prefix)]
    direct = [key for key in mine if not any(key.startswith(f"{other}/") for other in mine)]
    found = {key: _state(children[key], rolled_back=rolled_back) for key in direct}
    for state in root.steps:
        if state.key.startswith(prefix) and not any(state.key.startswith(f"{key}/") for key in direct):
            found[state.key] = state
    begun = _begun(entries)
    return sorted(found.values(), key=lambda state: begun.get(state.key, 0))


def _begun(entries: Sequence[JournalEntry]) -> dict[str, int]:
    """At which entry each step, wait and child first began."""
    begun: dict[str, int] = {}
    for entry in entries:
        if entry.kind in (EntryKind.STARTED, EntryKind.ARMED):
            begun.setdefault(entry.key, entry.seq)
        elif entry.kind == EntryKind.MARKED and entry.key.startswith(OPENED):
            begun.setdefault(entry.key.removeprefix(OPENED), entry.seq)
    return begun


def _status(child: Child, root: SagaInfo) -> SagaStatus:
    if child.compensated or (child.closed is not None and root.status in (SagaStatus.COMPENSATED, SagaStatus.RESOLVED)):
        return SagaStatus.COMPENSATED
    if child.completed and root.status not in (SagaStatus.COMPENSATING, SagaStatus.STUCK):
        return SagaStatus.COMPLETED
    if root.status in SAGA_ENDS and child.closed is None:
        return root.status
    return root.status
