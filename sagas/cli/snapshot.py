"""One saga as commands show it, read from its row and journal: no class of the user's has to be imported."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import attrs
import msgspec

from durable_core import HistoryEntry as Entry
from durable_core import RunNotFound
from durable_core.layer import Answer, EntryKind, JournalEntry, RunRecord, at, error_text, held, history_of, served
from sagas.model.children import child_info, children_of
from sagas.model.info import SagaInfo, StepState, steps_of
from sagas.model.phases import SagaStatus
from sagas.model.plan import PROBE
from sagas.model.verbs import VERBS, OperatorAction

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator

ANSWERS = frozenset({"answer", "heartbeat"})
"""Names of the signals that are about a callback."""
SAID_BY: Mapping[str, str] = {"completed": "an answer to", "failed": "a failure of", "heartbeat": "a heartbeat of"}
FAILED = frozenset({SagaStatus.STUCK, SagaStatus.COMPENSATED, SagaStatus.RESOLVED})


@attrs.frozen
class Snapshot:
    """A saga at one moment."""

    info: SagaInfo
    error: str | None
    """``TypeName: message`` of the exception that left the body, or that it is stuck on."""
    now_ns: int
    """When it was taken, by the orchestrator's clock."""
    root: SagaInfo = attrs.field(default=attrs.Factory(lambda snapshot: snapshot.info, takes_self=True))
    """The saga that it is a child of, or itself; its steps include those of all its children, by their full keys."""
    phase: str = ""
    """The driver's phase of the root."""
    inner: Mapping[str, Sequence[StepState]] = attrs.field(factory=dict[str, Sequence[StepState]])
    """The steps of each child, by the child's full key."""
    due: Mapping[str, datetime] = attrs.field(factory=dict[str, datetime])
    """When each sleep and callback ends on its own, by its full key."""
    probed: frozenset[str] = frozenset()
    """Full keys of the steps whose probe has been called."""
    recorded: Sequence[str] = ()
    """Verbs and answers that are recorded, and that no worker has taken up yet, oldest first."""

    @property
    def prefix(self) -> str:
        """The beginning of its steps' full keys; empty unless it is a child."""
        return f"{self.info.id.removeprefix(f'{self.root.id}/')}/" if self.is_child else ""

    @property
    def is_child(self) -> bool:
        """Whether it is part of another saga."""
        return self.info.id != self.root.id


async def take(orchestrator: "Orchestrator", saga_id: str) -> Snapshot:
    """Take a snapshot of a saga, or at a child saga by ``<parent id>/<step key>``.

    Raises:
        SagaNotFound: no saga has this id.
    """
    info = await orchestrator.info(saga_id)
    record = await _root(orchestrator, saga_id)
    entries = await orchestrator.engine.journal(record.num)
    whole = info if record.id == saga_id else await orchestrator.info(record.id)
    root = attrs.evolve(whole, steps=steps_of(entries))
    children = {key: child_info(root, entries, key) for key in children_of(entries)}
    return Snapshot(
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
        recorded=[
            *(_recorded(each.key, each.payload) for each in held(entries)),
            *(
                _recorded(each.name, each.payload)
                for each in await orchestrator.engine.store.signals.waiting([record.num])
            ),
        ],
    )


def _recorded(signal: str, payload: bytes | None) -> str:
    """A verb or an answer as people say it: what, about which step or callback, by whom."""
    name = signal.partition(" ")[0]
    by: OperatorAction | Answer
    if name in VERBS:
        by = OperatorAction.read(name, payload)
        what = name if by.step is None else f"{name} of {by.step}"
    elif name in ANSWERS and payload:
        by = msgspec.json.decode(payload, type=Answer)
        what = f"{SAID_BY[by.kind]} callback {by.key}"
    else:
        return name
    return what + (f" by {by.actor}" if by.actor else "") + (f" ({by.note})" if by.note else "")


async def _root(orchestrator: "Orchestrator", saga_id: str) -> RunRecord:
    """The run of this id; for a child, the run that it is part of."""
    try:
        return await orchestrator.engine.find(saga_id)
    except RunNotFound:
        parent, _, _ = saga_id.rpartition("/")
        if not parent:
            raise
        return await _root(orchestrator, parent)


def _error(info: SagaInfo, record: RunRecord, entries: Sequence[JournalEntry]) -> str | None:
    """The exception that left the body, or the last one of a saga or child that is stuck or failed."""
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
    """A saga's journal, oldest first; operators' entries name their step. A child's journal is its root's.

    Raises:
        SagaNotFound: no saga has this id.
    """
    await orchestrator.get(saga_id)
    record = await _root(orchestrator, saga_id)
    entries = await orchestrator.engine.journal(record.num)
    return [_with_action(shown, entry) for shown, entry in zip(history_of(entries), entries, strict=True)]


def _with_action(shown: Entry, entry: JournalEntry) -> Entry:
    if entry.kind not in (EntryKind.SIGNALLED, EntryKind.HELD) or not entry.payload:
        return shown
    action = msgspec.json.decode(entry.payload, type=OperatorAction)
    about = [] if action.step is None else [action.step]
    if action.happened is not None:
        about.append("happened" if action.happened else "did not happen")
    return attrs.evolve(
        shown,
        actor=action.actor or None,
        note=action.note or action.reason or None,
        detail=" ".join(about) or shown.detail,
    )
