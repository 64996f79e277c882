"""One saga as commands show it, with its error as the journal tells it: no class of the user's needs to be imported."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import attrs
import msgspec

from durable_core import EntryKind, JournalEntry, RunNotFound, RunRecord, served
from sagas.model.children import child_info, children_of
from sagas.model.info import Entry, SagaInfo, SagaStatus, StepState, at, error_text, history_of, steps_of
from sagas.model.plan import PROBE
from sagas.runtime.operator import OperatorAction

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator

FAILED = frozenset({SagaStatus.STUCK, SagaStatus.COMPENSATED, SagaStatus.RESOLVED})


@attrs.frozen
class Seen:
    """A saga as it stands."""

    info: SagaInfo
    error: str | None
    """``TypeName: message`` of what left the body, or of what it is stuck on."""
    now_ns: int
    """When it was looked at, by the store's clock here."""
    root: SagaInfo = attrs.field(default=attrs.Factory(lambda seen: seen.info, takes_self=True))
    """The saga that it is a child of, or itself; its steps are those of all its children too, by their whole keys."""
    phase: str = ""
    """The driver's own word for where the root stands."""
    inner: Mapping[str, Sequence[StepState]] = attrs.field(factory=dict[str, Sequence[StepState]])
    """What each child did in itself, by the child's whole key."""
    due: Mapping[str, datetime] = attrs.field(factory=dict[str, datetime])
    """When each sleep and callback ends by itself, by its whole key."""
    probed: frozenset[str] = frozenset()
    """Whole keys of the steps whose probe has been asked."""

    @property
    def prefix(self) -> str:
        """What the whole keys of its steps begin with: empty but for a child."""
        return f"{self.info.id.removeprefix(f'{self.root.id}/')}/" if self.is_child else ""

    @property
    def is_child(self) -> bool:
        """Whether it is a part of another saga."""
        return self.info.id != self.root.id


async def look(orchestrator: "Orchestrator", saga_id: str) -> Seen:
    """Look at a saga, or at a child saga by ``<parent id>/<step key>``.

    Raises:
        SagaNotFound: there is none of this id.
    """
    info = await orchestrator.info(saga_id)
    record = await _root(orchestrator, saga_id)
    entries = await orchestrator.engine.journal(record.num)
    whole = info if record.id == saga_id else await orchestrator.info(record.id)
    root = attrs.evolve(whole, steps=steps_of(entries))
    children = {key: child_info(root, entries, key) for key in children_of(entries)}
    return Seen(
        info=info,
        error=_error(info, record, entries),
        now_ns=orchestrator.engine.clock.now_ns(),
        root=root,
        phase=record.phase,
        inner={key: child.steps for key, child in children.items() if child is not None},
        due={entry.key: at(entry.due_at_ns) for entry in entries if entry.kind == EntryKind.ARMED and entry.due_at_ns},
        probed=frozenset(
            served(entry.key) for entry in entries if entry.kind == EntryKind.STARTED and entry.label == PROBE
        ),
    )


async def _root(orchestrator: "Orchestrator", saga_id: str) -> RunRecord:
    """The run of this id, or the one that the child of this id is a part of."""
    try:
        return await orchestrator.engine.find(saga_id)
    except RunNotFound:
        parent, _, _ = saga_id.rpartition("/")
        if not parent:
            raise
        return await _root(orchestrator, parent)


def _error(info: SagaInfo, record: RunRecord, entries: Sequence[JournalEntry]) -> str | None:
    """What left the body, or the last that went wrong in what is not going well."""
    prefix = info.id.removeprefix(record.id)[1:]
    if not prefix and record.error is not None:
        return error_text(record.error)
    if info.status is not SagaStatus.STUCK and not (prefix and info.status in FAILED):
        return None
    child = children_of(entries).get(prefix)
    if child is not None and child.error is not None:
        return error_text(child.error)
    mine = [entry for entry in entries if not prefix or entry.key.startswith(f"{prefix}/")]
    return next((error_text(entry.error) for entry in reversed(mine) if entry.error is not None), None)


async def journal(orchestrator: "Orchestrator", saga_id: str) -> list[Entry]:
    """A saga's journal, oldest first; operators' entries with what they were about. A child's is its root's.

    Raises:
        SagaNotFound: there is none of this id.
    """
    await orchestrator.get(saga_id)
    record = await _root(orchestrator, saga_id)
    entries = await orchestrator.engine.journal(record.num)
    return [_told(told, entry) for told, entry in zip(history_of(entries), entries, strict=True)]


def _told(told: Entry, entry: JournalEntry) -> Entry:
    if entry.kind not in (EntryKind.SIGNALLED, EntryKind.HELD) or not entry.payload:
        return told
    verdict = msgspec.json.decode(entry.payload, type=OperatorAction)
    about = [] if verdict.step is None else [verdict.step]
    if verdict.happened is not None:
        about.append("happened" if verdict.happened else "did not happen")
    return attrs.evolve(
        told,
        actor=verdict.actor or None,
        note=verdict.note or verdict.reason or None,
        detail=" ".join(about) or told.detail,
    )
