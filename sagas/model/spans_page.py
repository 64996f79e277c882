"""Makes docs/reference/spans.md from the tables in ``spans.py``: ``python -m sagas.model.spans_page``."""

import sys

from durable_core import METRICS, Metric
from sagas.model.spans import ATTRIBUTES, EVENTS, SPANS, VOCABULARY, AttributeDoc

HEAD = """\
# Spans

What a saga's trace holds. This page is made from the code by `python -m sagas.model.spans_page`; a test keeps them
equal. How to get them: [Look at traces](../how-to/traces.md).

One saga is one trace, however many workers drive it and however often they die. Its spans are a function of its
journal: the same whoever sends them, and as often as you like. A span comes after its parent, always. So what holds
others is a moment that comes first, and what tells the whole comes last: `outcome` for the saga, `done` for a part.

A moment lasts a microsecond, and one more for each span that it is under. No span is as short as its parent unless it
lies within it: for where no machine is known, Jaeger would take its clock for wrong, and warn, or move it.

A document (`sagas trace export`, `sagas.tracing.document`) has what has ended as one span: it bears the name and id of
the moment, and the times, status and attributes of the whole. `outcome`, `done`, `ended` and `armed` are left out then.
A block ends with the last thing in it. What has not ended is a moment there too, and an attempt under way is
`<step> (running)`, up to now.

A name in `<...>` stands for one of yours. A step's name in a span has no scope and no occurrence; its key has both.
"""
FOOT = """\
The end of a child saga is provisional: where its root is undone later, the child's steps have their `undo` spans under
the root's `compensate`, in a part `compensate <child>`; and the outcome that counts is the root's.

Red are what failed and what it led to: failed attempts, `stuck`, and the outcome of a saga that failed, passed its
deadline, was resolved by an operator, or was killed. A saga that was undone because it was cancelled is not red.

What a step's own code sets on the current span, attributes and events, is on the span of its attempt; see
[Look at traces](../how-to/traces.md#your-own-attributes). Its names may be any but `saga.`.

Arguments, results, notes of operators and reasons are in no span. The texts of exceptions are in `exception` events
only.

Trace ids are the BLAKE2b hash of the saga's random uid in 128 bits; span ids are 64 bits of BLAKE2b, keyed by the uid,
over the span's kind, key, attempt and journal entry. `sagas.current().traceparent` tells a step its own.
"""

ABOUT_METRICS = """\
They go to the program's own provider of meters (`opentelemetry.metrics.set_meter_provider`), where it has set one of
the SDK before its orchestrator is made. Each worker counts what it has written, from the journal, after the commit,
sampled or not, and also while the collector of spans is down; what it was about to count when its process died is not
counted, and of `saga.spans.sent` and `saga.spans.dropped` up to ten seconds. No id is among the attributes. The gauges
are those of the whole store, looked up every ten seconds by every worker, which all tell the same: show the largest,
not the sum.
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
