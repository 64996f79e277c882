"""Makes docs/reference/spans.md from the tables in ``spans.py``: ``python -m sagas.model.spans_page``."""

import sys

from durable_core.layer import METRICS, Metric
from sagas.model.spans import ATTRIBUTES, EVENTS, SPANS, VOCABULARY, AttributeDoc

HEAD = """\
# Spans

The contents of a saga's trace. `python -m sagas.model.spans_page` generates this page from the code, and a test keeps
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
    sys.stdout.write(page())
