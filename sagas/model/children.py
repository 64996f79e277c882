"""Child sagas, read off their root's journal.

Invariant: a child is a scope of its root's run, so it stays undoable until that ends.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from durable_core import CHILD_COMPLETED as COMPLETED
from durable_core import CHILD_OPENED as OPENED
from durable_core import EntryKind, JournalEntry, name_of
from sagas.model.info import SagaInfo, SagaStatus, StepState, at

COMPENSATED = "child-compensated:"
EXPIRED = "child-deadline:"
UNDOING = "undoing:"


@attrs.frozen
class Child:
    """What the journal says of one child."""

    key: str
    opened: JournalEntry
    closed: JournalEntry | None
    expired: bool = False
    """Whether its deadline has passed in time."""
    undoing: bool = False
    """Whether its own rollback has begun."""
    within: str = ""
    """The innermost child around it that was rolled back by its own failure or deadline, and this one with it."""

    @property
    def completed(self) -> bool:
        """Whether its body has returned."""
        return self.closed is not None and self.closed.key.startswith(COMPLETED)

    @property
    def compensated(self) -> bool:
        """Whether it was rolled back by its own failure or deadline."""
        return self.closed is not None and self.closed.key.startswith(COMPENSATED)

    @property
    def cause(self) -> str:
        """Why it was rolled back, where it was so by itself."""
        return "deadline" if self.expired else "failed"


def children_of(entries: Sequence[JournalEntry]) -> dict[str, Child]:
    """The children by key, in the order in which they began."""
    found: dict[str, Child] = {}
    for entry in entries:
        if entry.kind != EntryKind.MARKED:
            continue
        word, _, key = entry.key.partition(":")
        if f"{word}:" == OPENED:
            found[key] = Child(key, entry, None)
        elif key not in found:
            continue
        elif f"{word}:" in (COMPLETED, COMPENSATED):
            found[key] = attrs.evolve(found[key], closed=entry)
        elif f"{word}:" == EXPIRED:
            found[key] = attrs.evolve(found[key], expired=True)
        elif f"{word}:" == UNDOING:
            found[key] = attrs.evolve(found[key], undoing=True)
    return {key: attrs.evolve(child, within=_rolled_back_with(child, found)) for key, child in found.items()}


def _rolled_back_with(child: Child, children: Mapping[str, Child]) -> str:
    """The innermost child around ``child`` that was rolled back by itself; empty where there is none."""
    around = [key for key, other in children.items() if child.key.startswith(f"{key}/") and other.compensated]
    return max(around, key=len, default="")


def _state(child: Child, *, rolled_back: bool) -> StepState:
    if child.compensated or child.within or (rolled_back and child.completed):
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
    children = children_of(entries)
    child = children.get(key)
    if child is None:
        return None
    status = _status(child, root)
    opened: dict[str, Any] = msgspec.json.decode(child.opened.payload or b"{}")
    arguments: list[Any] | dict[str, Any] = opened.get("input", [])
    given = {str(place): value for place, value in enumerate(arguments)} if isinstance(arguments, list) else arguments
    prefix = f"{key}/"
    return attrs.evolve(
        root,
        id=f"{root.id}/{key}",
        saga=opened.get("name", ""),
        version=opened.get("version", 1),
        status=status,
        cause=_cause(child, children) or root.cause,
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


def _cause(child: Child, children: Mapping[str, Child]) -> str | None:
    """Why a child was or is undone: its own cause, or that of a child around it; None where it is its root's."""
    if child.compensated or child.undoing:
        return child.cause
    return children[child.within].cause if child.within else None


def _status(child: Child, root: SagaInfo) -> SagaStatus:
    if child.compensated or child.within:
        return SagaStatus.COMPENSATED
    if child.closed is not None and root.status in (SagaStatus.COMPENSATED, SagaStatus.RESOLVED):
        return SagaStatus.COMPENSATED
    if child.undoing and root.status in (SagaStatus.RUNNING, SagaStatus.WAITING):
        return SagaStatus.COMPENSATING
    if child.completed and root.status not in (SagaStatus.COMPENSATING, SagaStatus.STUCK):
        return SagaStatus.COMPLETED
    return root.status
