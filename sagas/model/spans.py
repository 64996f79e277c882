"""What sagas call things in a trace: the words for the core's neutral spans. `tools/spans_page.py` documents them.

Invariant: nothing of a payload gets into a trace; the texts of exceptions only into their own events.
"""

from collections.abc import Sequence
from typing import Any

from durable_core.layer import (
    Closes,
    Ending,
    JournalEntry,
    Meaning,
    Metric,
    Notes,
    Opens,
    RunQuery,
    StepWords,
    Vocabulary,
    name_of,
)
from sagas.model.phases import SAGA_ENDS, Cause, Mark, MarkKind, SagaStatus, payload_of, query_of

INNER = "compensate {child}"
SERVING = frozenset({"compensation", "probe"})
"""The kinds of steps that are the rollback's while one is under way."""


def mark(entry: JournalEntry) -> Sequence[Meaning]:  # noqa: PLR0911 - one answer for each mark
    """What a mark of the saga's driver means."""
    found = Mark.read(entry.key)
    if found is None:
        return []
    key = found.about
    match found.kind:
        case MarkKind.COMPENSATING:
            why = {"cause": str(payload_of(entry).get("cause"))}
            return [Opens(name="compensate", kinds=SERVING, done="compensate done", inner=INNER, attributes=why)]
        case MarkKind.UNDOING:
            name = INNER.format(child=name_of(key))
            return [Opens(name=name, scope=found.prefix, kinds=SERVING, inner=INNER, attributes={"step__key": key})]
        case MarkKind.CHILD:
            said = payload_of(entry)
            name, version = str(said.get("name", "")), int(said.get("version", 1))
            child: dict[str, Any] = {"name": name, "version": version, "step__key": key, "step__kind": "child"}
            return [Opens(name=f"saga {name}", scope=found.prefix, child=True, attributes=child)]
        case MarkKind.CHILD_COMPLETED:
            return [_child_ended(key, "completed")]
        case MarkKind.CHILD_DEADLINE:
            return [Notes(name="deadline", attributes={"step__key": key})]
        case MarkKind.CHILD_COMPENSATED:
            undone = Closes(opened=Mark(MarkKind.UNDOING, key).text, name="compensate done")
            return [undone, _child_ended(key, "compensated", cause=str(payload_of(entry).get("cause", Cause.FAILED)))]
        case MarkKind.TOO_LATE:
            return [Notes(name="too late", attributes={"cause": key})]
        case _:
            return []


def _child_ended(key: str, status: str, **more: Any) -> Closes:
    """A child's end is provisional, so a search for the ends of sagas does not find it."""
    return Closes(
        opened=Mark(MarkKind.CHILD, key).text,
        name=f"outcome {{name}} {status}",
        attributes={"step__outcome": status, **more},
        failed=status != "completed",
    )


def signal(entry: JournalEntry) -> dict[str, Any]:
    """Who gave the verb, and about which step. The reason is a text, and stays in the journal."""
    payload = payload_of(entry)
    about: dict[str, Any] = {"actor": payload.get("actor") or None, "step__key": payload.get("step") or None}
    return about


def ending(entry: JournalEntry) -> Ending:
    """How a saga ended: its status, and its cause if it was undone."""
    status, _, cause = str(entry.key or entry.label).partition("/")
    asked_for = (
        status == SagaStatus.COMPENSATED and cause == Cause.CANCELLED
    )  # as its customer wanted it: nothing failed
    return Ending(
        status=status,
        attributes={"cause": cause} if cause else {},
        failed=status != SagaStatus.COMPLETED and not asked_for,
    )


def standings() -> dict[str, RunQuery]:
    """The statuses of sagas that have not ended, and which runs have them."""
    found: dict[str, RunQuery] = {}
    for status in SagaStatus:
        if status not in SAGA_ENDS:
            statuses, phases = query_of(status)
            found[status.value] = RunQuery(statuses=statuses, phases=phases)
    return found


COMPENSATIONS = Metric(
    "compensations",
    "counter",
    "{compensation}",
    ("name", "step.name", "step.outcome"),
    "Compensations that have ended, with all their attempts, by outcome",
)
OUTBOX = (
    Metric("outbox.waiting", "gauge", "{entry}", (), "Entries of an outbox that are committed and not handed on yet"),
    Metric("outbox.oldest.age", "gauge", "s", (), "For how long the oldest of them has waited; 0 where none does"),
    Metric("outbox.refused", "gauge", "{entry}", (), "Entries of an outbox that were refused and need a person"),
)
VOCABULARY = Vocabulary(
    prefix="saga",
    scope="sagas",
    kinds={
        "compensation": StepWords(
            name="undo {step}", serves="compensates", must_succeed=True, counts=COMPENSATIONS.name
        ),
        "probe": StepWords(name="probe {step}", serves="probes", must_succeed=True),
    },
    mark=mark,
    signal=signal,
    ending=ending,
    standings=standings,
    metrics=(COMPENSATIONS, *OUTBOX),
)
