"""What sagas call things in a trace: the words for the core's neutral spans, and the tables of docs/reference/spans.md.

Invariant: nothing of a payload gets into a trace; the texts of exceptions only into their own events.
"""

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from durable_core.layer import CHILD_OPENED as OPENED
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
from sagas.model.children import UNDOING
from sagas.model.info import SAGA_ENDS, SagaStatus, query_of

TOO_LATE = "too-late:"
INNER = "compensate {child}"
SERVING = frozenset({"compensation", "probe"})
"""The kinds of steps that are the rollback's while one is under way."""


def mark(entry: JournalEntry) -> Sequence[Meaning]:  # noqa: PLR0911 - one answer for each mark
    """What a mark of the saga's driver means."""
    word, _, key = entry.key.partition(":")
    match f"{word}:":
        case "compensating:":
            cause = _data(entry).get("cause")
            why = {"cause": str(cause)}
            return [Opens(name="compensate", kinds=SERVING, done="compensate done", inner=INNER, attributes=why)]
        case "undoing:":
            inside = {"step__key": key}
            name = INNER.format(child=name_of(key))
            return [Opens(name=name, scope=f"{key}/", kinds=SERVING, inner=INNER, attributes=inside)]
        case "child:":
            told = _data(entry)
            name, version = str(told.get("name", "")), int(told.get("version", 1))
            child: dict[str, Any] = {"name": name, "version": version, "step__key": key, "step__kind": "child"}
            return [Opens(name=f"saga {name}", scope=f"{key}/", child=True, attributes=child)]
        case "child-completed:":
            return [_child_ended(key, "completed")]
        case "child-deadline:":
            return [Notes(name="deadline", attributes={"step__key": key})]
        case "child-compensated:":
            cause = str(_data(entry).get("cause", "failed"))
            return [
                Closes(opened=UNDOING + key, name="compensate done"),
                _child_ended(key, "compensated", cause=cause),
            ]
        case "too-late:":
            return [Notes(name="too late", attributes={"cause": key})]
        case _:
            return []


def _child_ended(key: str, status: str, **more: Any) -> Closes:
    """A child's end is provisional, so it is no end of a saga to whoever searches for those."""
    return Closes(
        opened=OPENED + key,
        name=f"outcome {{name}} {status}",
        attributes={"step__outcome": status, **more},
        failed=status != "completed",
    )


def signal(entry: JournalEntry) -> dict[str, Any]:
    """Who asked for it, and of which step; why is a text, and stays in the journal."""
    told = _data(entry)
    about: dict[str, Any] = {"actor": told.get("actor") or None, "step__key": told.get("step") or None}
    return about


def ending(entry: JournalEntry) -> Ending:
    """How a saga ended: its status, and its cause where it was undone."""
    status, _, cause = str(entry.key or entry.label).partition("/")
    asked_for = status == SagaStatus.COMPENSATED and cause == "cancelled"  # as its customer wanted it: nothing failed
    return Ending(
        status=status,
        attributes={"cause": cause} if cause else {},
        failed=status != SagaStatus.COMPLETED and not asked_for,
    )


def _data(entry: JournalEntry) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(entry.payload or b"{}")
    return data


def standings() -> dict[str, RunQuery]:
    """How a saga may stand that has not ended, and which runs those are."""
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
    metrics=(COMPENSATIONS,),
)


# -- the page docs/reference/spans.md ----------------------------------------------------------------------------------


@attrs.frozen
class SpanDoc:
    """One kind of span."""

    name: str
    parent: str
    when: str


@attrs.frozen
class AttributeDoc:
    """One attribute."""

    name: str
    on: str
    meaning: str


SPANS = (
    SpanDoc("saga <name>", "none, or the caller's span", "The saga began; the root of its trace"),
    SpanDoc(
        "<step>", "the block around it", "A step that was attempted once. Of one attempted again: a moment, the group"
    ),
    SpanDoc("<step> #<n>", "<step>", "One of several attempts of a step"),
    SpanDoc("<step> #<n> cut", "<step>", "Its process died, or its saga was killed; nobody knows what came of it"),
    SpanDoc("<step> done", "<step>", "A step of several attempts, from the first to its end"),
    SpanDoc("<step> (running)", "as for <step>", "In a document only: the attempt under way, up to now"),
    SpanDoc(
        "<step> ended late",
        "the block around it",
        "An attempt that came back after its saga was killed or got stuck: evidence",
    ),
    SpanDoc("<block>", "the block around it", "A savepoint or branch that has keys of its own began; a moment"),
    SpanDoc("wait <name> armed", "the block around it", "A sleep or callback began; a moment"),
    SpanDoc("wait <name>", "the block around it", "A sleep or callback, from beginning to end"),
    SpanDoc(
        "probe <step>", "as for <step>", "A probe that settles an unknown outcome; with a link to the attempt in doubt"
    ),
    SpanDoc("settle <step>", "as for <step>", "An unknown outcome was settled; a moment, with a link to the attempt"),
    SpanDoc("compensate", "saga <name>", "The rollback began; a moment"),
    SpanDoc(
        "compensate <block>",
        "the block, or compensate",
        "The rollback of a savepoint or child began; a moment. Of a child that had ended: its part of the rollback",
    ),
    SpanDoc(
        "undo <step>", "compensate", "A compensation, told as a step is; with a link to the attempt that it undoes"
    ),
    SpanDoc(
        "undo <step> gave up",
        "undo <step>",
        "A compensation of several attempts that was given up: it is undone once somebody has it tried again. Of a "
        "probe likewise",
    ),
    SpanDoc("compensate done", "compensate", "The whole rollback"),
    SpanDoc("saga <child>", "the block around it", "A child saga began; a moment, in the same trace"),
    SpanDoc("outcome <child> <status>", "saga <child>", "The whole child saga. Its end is provisional"),
    SpanDoc(
        "stuck",
        "saga <name>",
        "It needs a person; a moment, an error, with the step's last exception and a link to that attempt",
    ),
    SpanDoc("<verb>", "saga <name>", "A verb or a deadline (its own, a child's): `cancel`, `deadline` ...; a moment"),
    SpanDoc("too late", "saga <name>", "A cancel or deadline came when the pivot had succeeded; a moment"),
    SpanDoc("ended <status>", "saga <name>", "The saga ended; a moment, to be found by the time of the end"),
    SpanDoc("outcome <status>", "saga <name>", "The whole saga, from beginning to end"),
)

ATTRIBUTES = (
    AttributeDoc("saga.id", "all", "The saga's id: what to search for. A child's spans have its root's"),
    AttributeDoc(
        "saga.name", "all", "The saga's name; that of the root, but the child's own on `saga <child>` and its outcome"
    ),
    AttributeDoc("saga.version", "saga, ended, outcome", "The saga's version"),
    AttributeDoc(
        "saga.status", "ended, outcome", "How it ended: completed, compensated, resolved, killed. Not of a child"
    ),
    AttributeDoc(
        "saga.cause", "compensate, ended, outcome, too late", "Why it was undone: failed, cancelled, deadline"
    ),
    AttributeDoc("saga.step.name", "steps, waits, blocks", "The name, without scope and occurrence"),
    AttributeDoc("saga.step.key", "steps, waits, blocks, children, verbs", "The key, as `sagas show` has it"),
    AttributeDoc(
        "saga.step.kind",
        "steps, waits, blocks, children",
        "step, pivot, retriable, lookup, compensation, probe, sleep, callback, block, child",
    ),
    AttributeDoc("saga.step.attempt", "attempts", "Its number, from 1"),
    AttributeDoc(
        "saga.step.outcome",
        "attempts, steps done, waits, settle, outcome of a child",
        "Of an attempt: succeeded, rejected, failed, unknown, cut, running. Of a wait: fired, completed, failed, "
        "timed_out, closed. Of a settled doubt: happened, did_not_happen. Of a child: completed, compensated",
    ),
    AttributeDoc("saga.step.idempotency_key", "attempts", "What the participant was given to tell calls apart"),
    AttributeDoc("saga.step.retry_in_ms", "failed attempts", "After how long the next attempt was to be made"),
    AttributeDoc(
        "saga.step.left_out",
        "attempts",
        "How many attributes and events of the step's own code were too many to be kept",
    ),
    AttributeDoc("saga.compensates", "undo", "The key of the step that is undone"),
    AttributeDoc("saga.probes", "probe", "The key of the step that is asked about"),
    AttributeDoc("saga.stuck_on", "stuck", "The keys of the steps that a person must mend"),
    AttributeDoc("saga.actor", "verbs, waits", "Who asked; of a callback, who answered"),
    AttributeDoc("saga.worker.id", "all but saga and blocks", "The worker that wrote the journal entry"),
    AttributeDoc("saga.worker.host", "all but saga and blocks", "The machine that it was on, as far as its name says"),
    AttributeDoc("saga.worker.pid", "all but saga and blocks", "The process that it was"),
    AttributeDoc(
        "error.type",
        "failed attempts, steps done, stuck, ended, outcome",
        "The exception's type, or the outcome where there was none",
    ),
)
EVENTS = (
    AttributeDoc("exception", "failed attempts, stuck, outcome", "The exception's type, message and stack trace"),
    AttributeDoc("timeout", "attempts", "The attempt passed its timeout, and had not returned yet"),
)
