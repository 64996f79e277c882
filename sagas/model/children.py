"""Child sagas, read off their root's journal.

Invariant: a child is a scope of its root's run, so it stays undoable until that ends. What undoes a scope around it
undoes the child too, also where its body had returned.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from durable_core.layer import CHILD_COMPLETED as COMPLETED
from durable_core.layer import CHILD_OPENED as OPENED
from durable_core.layer import EntryKind, JournalEntry, StepStatus, fold, name_of, rebuild
from sagas.model.info import SagaInfo, SagaStatus, StepState, at, error_text
from sagas.model.plan import undone

EXPIRED = "child-deadline:"
"""With the child's key: its own deadline has passed in time."""
COMPENSATED = "child-compensated:"
"""With the child's key: it failed, and what it did was undone."""
UNDOING = "undoing:"
"""With the key of a child or savepoint: its rollback begins. The payload holds what left it as ``error``."""
SKIPPED = "skipped:"
ROLLED_BACK = frozenset({SagaStatus.COMPENSATED, SagaStatus.RESOLVED})


@attrs.frozen
class Child:
    """What the journal says of one child."""

    key: str
    opened: JournalEntry
    closed: JournalEntry | None = None
    expired: bool = False
    """Whether its own deadline has passed in time."""
    undoing: JournalEntry | None = None
    """Where its rollback began, or that of a savepoint or child around it; None where there was none but its root's."""

    @property
    def completed(self) -> bool:
        """Whether its body has returned."""
        return self.closed is not None and self.closed.key.startswith(COMPLETED)

    @property
    def compensated(self) -> bool:
        """Whether it was rolled back by its own failure."""
        return self.closed is not None and self.closed.key.startswith(COMPENSATED)

    @property
    def cause(self) -> str:
        """Why it was rolled back, where it was so by itself."""
        return "deadline" if self.expired else "failed"

    @property
    def error(self) -> bytes | None:
        """The stored failure for which it was undone; None where it was not, or an older release wrote the journal."""
        payload = None if self.undoing is None else self.undoing.payload
        told = msgspec.json.decode(payload or b"{}", type=dict[str, msgspec.Raw])
        return bytes(told["error"]) if "error" in told else None


def children_of(entries: Sequence[JournalEntry]) -> dict[str, Child]:
    """The children by key, in the order in which they began."""
    found: dict[str, Child] = {}
    for entry in entries:
        if entry.kind != EntryKind.MARKED:
            continue
        if entry.key.startswith(OPENED):
            key = entry.key.removeprefix(OPENED)
            found[key] = Child(key, entry)
        elif entry.key.startswith(EXPIRED) and (key := entry.key.removeprefix(EXPIRED)) in found:
            found[key] = attrs.evolve(found[key], expired=True)
        elif entry.key.startswith(UNDOING):
            scope = f"{entry.key.removeprefix(UNDOING)}/"
            for key, child in found.items():
                if child.undoing is None and f"{key}/".startswith(scope):
                    found[key] = attrs.evolve(child, undoing=entry)
        for closing in (COMPLETED, COMPENSATED):
            if entry.key.startswith(closing) and (key := entry.key.removeprefix(closing)) in found:
                found[key] = attrs.evolve(found[key], closed=entry)
    return found


def status_of_child(root: SagaStatus, entries: Sequence[JournalEntry], key: str) -> SagaStatus | None:
    """How the child at ``key`` stands in a root that stands so; None where there is no such child."""
    children = children_of(entries)
    return _status(children[key], root, entries) if key in children else None


def undone_in(entries: Sequence[JournalEntry], key: str) -> tuple[list[str], list[str]]:
    """The steps of the child at ``key`` that were undone, in that order, and those that an operator skipped."""
    prefix = f"{key}/"
    marks = [entry.key for entry in entries if entry.kind == EntryKind.MARKED]
    skipped = [mark.removeprefix(SKIPPED) for mark in marks if mark.startswith(SKIPPED)]
    return _within(undone(fold(list(entries))), prefix), _within(skipped, prefix)


def _within(keys: Sequence[str], prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]


def _state(child: Child, status: SagaStatus) -> StepState:
    """The child as a step of its parent. While it is being undone it is told as running, or as it had ended."""
    told = "succeeded" if child.completed else "running"
    return StepState(
        key=child.key,
        name=name_of(child.key),
        kind="child",
        status="compensated" if status in ROLLED_BACK else told,
        attempts=1,
        result=_result(child),
        error=error_text(child.error),
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
    opened: dict[str, Any] = msgspec.json.decode(child.opened.payload or b"{}")
    arguments: list[Any] | dict[str, Any] = opened.get("input", [])
    given = {str(place): value for place, value in enumerate(arguments)} if isinstance(arguments, list) else arguments
    prefix = f"{key}/"
    return attrs.evolve(
        root,
        id=f"{root.id}/{key}",
        saga=opened.get("name", ""),
        version=opened.get("version", 1),
        status=_status(child, root.status, entries),
        cause=_cause(child, children) or root.cause,
        input=given,
        result=_result(child),
        error=root.error if child.error is None else rebuild(child.error),
        created_at=at(child.opened.at_ns),
        ended_at=None if child.closed is None else at(child.closed.at_ns),
        steps=[
            attrs.evolve(state, key=state.key.removeprefix(prefix)) for state in within(root, entries, prefix=prefix)
        ],
    )


def within(root: SagaInfo, entries: Sequence[JournalEntry], *, prefix: str) -> list[StepState]:
    """The steps under ``prefix``, of which a child saga is one: what it did in itself is its own list."""
    children = children_of(entries)
    mine = [key for key in children if key.startswith(prefix)]
    direct = [key for key in mine if not any(key.startswith(f"{other}/") for other in mine)]
    found = {key: _state(children[key], _status(children[key], root.status, entries)) for key in direct}
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
    """Why a child is undone: by its own failure or deadline, or that of a scope around it; None: by its root's."""
    if child.undoing is None:
        return None
    around = children.get(child.undoing.key.removeprefix(UNDOING))
    return "failed" if around is None else around.cause


def _status(child: Child, root: SagaStatus, entries: Sequence[JournalEntry]) -> SagaStatus:
    if child.compensated or (child.closed is not None and root in ROLLED_BACK):
        return SagaStatus.COMPENSATED
    if child.undoing is None:
        final = child.completed and root not in (SagaStatus.COMPENSATING, SagaStatus.STUCK)
        return SagaStatus.COMPLETED if final else root
    if not _being_undone(child.undoing.key.removeprefix(UNDOING), entries):
        return SagaStatus.COMPENSATED
    return root if root in (*ROLLED_BACK, SagaStatus.KILLED, SagaStatus.STUCK) else SagaStatus.COMPENSATING


def _being_undone(scope: str, entries: Sequence[JournalEntry]) -> bool:
    """Whether the rollback of this scope goes on: that of a child has a mark at its end, that of a savepoint none."""
    around = children_of(entries).get(scope)
    if around is not None:
        return not around.compensated
    undos = [record for record in fold(list(entries)).values() if record.kind == "compensation"]
    return any(undo.key.startswith(f"{scope}/") and undo.status is not StepStatus.SUCCEEDED for undo in undos)
