"""Child sagas, read from their root's journal.

Invariant: a child is a scope of its root's run, so it can be undone until the root ends. The rollback of a scope around
it undoes the child too, even if its body has returned.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from durable_core.layer import EntryKind, JournalEntry, StepStatus, at, error_text, fold, name_of, rebuild, tags_in
from sagas.model.info import SagaInfo, StepState
from sagas.model.phases import Cause, Mark, MarkKind, SagaStatus, marks_in, payload_of, skipped_in
from sagas.model.plan import undone

ROLLED_BACK = frozenset({SagaStatus.COMPENSATED, SagaStatus.RESOLVED})


@attrs.frozen
class Child:
    """One child, as the journal describes it."""

    key: str
    opened: JournalEntry
    closed: JournalEntry | None = None
    completed: bool = False
    """Whether its body has returned."""
    expired: bool = False
    """Whether its own deadline has passed in time."""
    undoing: JournalEntry | None = None
    """Where its rollback began, or that of a savepoint or child around it; None if only its root is rolled back."""
    undone_with: str = ""
    """The key of the savepoint or child whose rollback that is: perhaps its own."""

    @property
    def compensated(self) -> bool:
        """Whether it was rolled back by its own failure."""
        return self.closed is not None and not self.completed

    @property
    def cause(self) -> Cause:
        """Why it was rolled back, if by its own failure or deadline."""
        return Cause.DEADLINE if self.expired else Cause.FAILED

    @property
    def error(self) -> bytes | None:
        """The stored failure that caused its rollback; None without one, or in the journal of an older release."""
        payload = None if self.undoing is None else self.undoing.payload
        said = msgspec.json.decode(payload or b"{}", type=dict[str, msgspec.Raw])
        return bytes(said["error"]) if "error" in said else None


def children_of(entries: Sequence[JournalEntry]) -> dict[str, Child]:
    """The children by key, in the order in which they began."""
    found: dict[str, Child] = {}
    for mark, entry in marks_in(entries):
        key = mark.about
        if mark.kind is MarkKind.CHILD:
            found[key] = Child(key, entry)
        elif mark.kind is MarkKind.UNDOING:
            for inner, child in found.items():
                if child.undoing is None and f"{inner}/".startswith(mark.prefix):
                    found[inner] = attrs.evolve(child, undoing=entry, undone_with=key)
        elif key in found:
            found[key] = _with(found[key], mark, entry)
    return found


def _with(child: Child, mark: Mark, entry: JournalEntry) -> Child:
    """The child after one more mark about it."""
    match mark.kind:
        case MarkKind.CHILD_DEADLINE:
            return attrs.evolve(child, expired=True)
        case MarkKind.CHILD_COMPLETED | MarkKind.CHILD_COMPENSATED:
            return attrs.evolve(child, closed=entry, completed=mark.kind is MarkKind.CHILD_COMPLETED)
        case _:
            return child


def status_of_child(root: SagaStatus, entries: Sequence[JournalEntry], key: str) -> SagaStatus | None:
    """The status of the child at ``key``, given its root's; None if there is no such child."""
    children = children_of(entries)
    return _status(children[key], root, entries) if key in children else None


def undone_in(entries: Sequence[JournalEntry], key: str) -> tuple[list[str], list[str]]:
    """The steps of the child at ``key`` that were undone, in that order, and those that an operator skipped."""
    prefix = f"{key}/"
    skipped = skipped_in(mark for mark, _ in marks_in(entries))
    return _within(undone(fold(list(entries))), prefix), _within(skipped, prefix)


def _within(keys: Sequence[str], prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]


def _state(child: Child, status: SagaStatus) -> StepState:
    """The child as a step of its parent. During its rollback it is shown as running, or as it had ended."""
    before = "succeeded" if child.completed else "running"
    return StepState(
        key=child.key,
        name=name_of(child.key),
        kind="child",
        status="compensated" if status in ROLLED_BACK else before,
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
    """The child at ``key`` as a saga, or None. Its end is provisional until its root ends."""
    children = children_of(entries)
    child = children.get(key)
    if child is None:
        return None
    opened = payload_of(child.opened)
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
        tags=tags_in(entries, prefix),
        restarted_from=None,
        restarted_as=(),
        steps=[
            attrs.evolve(state, key=state.key.removeprefix(prefix)) for state in within(root, entries, prefix=prefix)
        ],
    )


def within(root: SagaInfo, entries: Sequence[JournalEntry], *, prefix: str) -> list[StepState]:
    """The steps under ``prefix``. A child saga is one step here; its own steps are in its own list."""
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
    """The entry at which each step, wait and child first began."""
    begun: dict[str, int] = {}
    for entry in entries:
        if entry.kind in (EntryKind.STARTED, EntryKind.ARMED):
            begun.setdefault(entry.key, entry.seq)
    for mark, entry in marks_in(entries):
        if mark.kind is MarkKind.CHILD:
            begun.setdefault(mark.about, entry.seq)
    return begun


def _cause(child: Child, children: Mapping[str, Child]) -> str | None:
    """Why a child is undone: its own failure or deadline, or that of a scope around it; None if only its root is."""
    if child.undoing is None:
        return None
    around = children.get(child.undone_with)
    return (Cause.FAILED if around is None else around.cause).value


def _status(child: Child, root: SagaStatus, entries: Sequence[JournalEntry]) -> SagaStatus:
    if child.compensated or (child.closed is not None and root in ROLLED_BACK):
        return SagaStatus.COMPENSATED
    if child.undoing is None:
        final = child.completed and root not in (SagaStatus.COMPENSATING, SagaStatus.STUCK)
        return SagaStatus.COMPLETED if final else root
    if not _being_undone(child.undone_with, entries):
        return SagaStatus.COMPENSATED
    return root if root in (*ROLLED_BACK, SagaStatus.KILLED, SagaStatus.STUCK) else SagaStatus.COMPENSATING


def _being_undone(scope: str, entries: Sequence[JournalEntry]) -> bool:
    """Whether the rollback of this scope is under way. A child's has a mark at its end, a savepoint's none."""
    around = children_of(entries).get(scope)
    if around is not None:
        return not around.compensated
    undos = [record for record in fold(list(entries)).values() if record.kind == "compensation"]
    return any(undo.key.startswith(f"{scope}/") and undo.status is not StepStatus.SUCCEEDED for undo in undos)
