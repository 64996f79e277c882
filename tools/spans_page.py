"""Documents what is in a trace: ``python -m tools.spans_page`` writes docs/reference/spans.md."""

from pathlib import Path

import attrs

from durable_core.layer import METRICS, Metric
from sagas.model.spans import VOCABULARY

PAGE = Path(__file__).parents[1] / "docs/reference/spans.md"


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
    AttributeDoc(
        "saga.tag.<key>", "all", "The root's tags: those of its start, and each other one from the moment it was set on"
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

HEAD = """\
# Spans

The contents of a saga's trace. `python -m tools.spans_page` generates this page from the code, and a test keeps
them equal. [Look at traces](../how-to/traces.md) explains how to get traces.

One saga is one trace, however many workers drive it and however often they die. Its spans are a function of its
journal: they are the same whichever process sends them, and however often. A span always comes after its parent. The
parent of other spans is therefore a moment that comes first, and the span of the whole comes last: `outcome` for the
saga, `done` for a part.

A moment lasts one microsecond, plus one for each span that it is under. No span is as short as its parent unless it
lies within it. Otherwise, if the machine is unknown, Jaeger would assume a wrong clock, and warn about the span or move
it.

In a document (`sagas trace export`, `sagas.tracing.document`) each part that has ended is one span: it has the name and
id of the moment, and the times, status and attributes of the whole. The spans `outcome`, `done`, `ended` and `armed`
are left out. A block ends with the last thing in it. A part that has not ended is a moment, and an attempt under way
is `<step> (running)`, up to now.

A name in `<...>` stands for one of your names. In a span, a step's name has no scope and no occurrence; its key has
both.
"""
FOOT = """\
The end of a child saga is provisional. If its root is undone later, the child's steps have their `undo` spans under
the root's `compensate`, in a part `compensate <child>`, and the root's outcome is the one that counts.

Failures and their consequences are red: failed attempts, `stuck`, and the outcome of a saga that failed, passed its
deadline, was resolved by an operator, or was killed. A saga that was undone because it was cancelled is not red.

Attributes and events that a step's own code sets on the current span are on the span of its attempt; see
[Look at traces](../how-to/traces.md#your-own-attributes). Their names may be any that do not begin with `saga.`.

No span contains arguments, results, operators' notes or reasons. The texts of exceptions are in `exception` events
only.

Trace ids are the BLAKE2b hash of the saga's random uid in 128 bits; span ids are 64 bits of BLAKE2b, keyed by the uid,
over the span's kind, key, attempt and journal entry. A step reads its own from `sagas.current().traceparent`.
"""

ABOUT_METRICS = """\
Metrics go to the program's own meter provider (`opentelemetry.metrics.set_meter_provider`), if the program has set one
of the SDK before it creates its orchestrator. Each worker counts the entries that it has written, from the journal and
after the commit. It counts unsampled sagas too, and continues while the collector of spans is down. When a process
dies, the counts that it had not yet made are lost, and up to ten seconds of `saga.spans.sent` and
`saga.spans.dropped`. No attribute contains an id. The gauges cover the whole store. Every worker looks them up every
ten seconds and reports the same values: show the largest, not the sum.
"""


MEASURED = METRICS + VOCABULARY.metrics


def page() -> str:
    """The page, as Markdown."""
    spans = [f"| `{doc.name}` | {_code(doc.parent)} | {doc.when} |" for doc in SPANS]
    return "\n".join(
        [
            HEAD,
            *_table("Names", ("Span", "Parent", "When"), spans),
            *_table("Attributes", ("Attribute", "On", "Meaning"), _rows(ATTRIBUTES)),
            *_table("Events", ("Event", "On", "Meaning"), _rows(EVENTS)),
            FOOT,
            *_table(
                "Measurements",
                ("Metric", "Instrument", "Unit", "Attributes", "What"),
                [_metric(one) for one in METRICS + VOCABULARY.metrics],
            ),
            ABOUT_METRICS,
        ]
    )


def _table(title: str, columns: tuple[str, ...], rows: list[str]) -> list[str]:
    return [f"## {title}\n", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows, ""]


def _rows(docs: tuple[AttributeDoc, ...]) -> list[str]:
    return [f"| `{doc.name}` | {doc.on} | {doc.meaning} |" for doc in docs]


def _metric(metric: Metric) -> str:
    prefix = VOCABULARY.prefix
    attributes = ", ".join(f"`{prefix}.{name}`" for name in metric.attributes)
    columns = (f"`{prefix}.{metric.name}`", metric.kind, f"`{metric.unit_of(prefix)}`", attributes, metric.description)
    return f"| {' | '.join(columns)} |"


def _code(parent: str) -> str:
    return f"`{parent}`" if parent.startswith(("<", "saga <", "undo <")) or parent == "compensate" else parent


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
