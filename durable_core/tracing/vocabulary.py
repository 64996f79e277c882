"""The words that a layer above has for what its runs do: span names, attributes, and what its marks mean.

The core knows runs, steps, waits and marks. That a step undoes another, or that a mark begins a rollback, only the
layer above knows, and says here.
"""

from collections.abc import Callable, Mapping, Sequence

import attrs

from durable_core.model.entry import Entry
from durable_core.model.run import OPEN, RunQuery
from durable_core.tracing.metrics import Metric
from durable_core.tracing.span import Value

Attributes = Mapping[str, Value]
NOTHING: Attributes = {}


@attrs.frozen(kw_only=True)
class Opens:
    """A mark begins a part of the run: a short span, and the parent of what follows in it."""

    name: str
    scope: str = ""
    """The prefix of the keys of what is in it; empty for all."""
    kinds: frozenset[str] | None = None
    """Only steps of these kinds are in it; None: all that is under ``scope``."""
    done: str | None = None
    """The name of the span over the whole of it, where the run's end may end it."""
    inner: str | None = None
    """Where it holds steps by their kind: the name of the part in it for those of a child; ``{child}`` is its name."""
    child: bool = False
    """Whether it is another durable function that runs in this one."""
    attributes: Attributes = NOTHING


@attrs.frozen(kw_only=True)
class Closes:
    """A mark ends a part of the run: a span over the whole of it."""

    opened: str
    """The key of the mark that began it."""
    name: str | None = None
    """Default the ``done`` that it was opened with. In braces, an attribute that it was opened with."""
    attributes: Attributes = NOTHING
    """Besides those that it was opened with."""
    failed: bool = False


@attrs.frozen(kw_only=True)
class Notes:
    """A mark is worth a short span, and nothing else."""

    name: str
    attributes: Attributes = NOTHING


Meaning = Opens | Closes | Notes


@attrs.frozen(kw_only=True)
class StepWords:
    """How steps of one kind are shown."""

    name: str = "{step}"
    serves: str | None = None
    """The attribute that names the step which it serves."""
    must_succeed: bool = False
    """Whether it is over by success alone: one that has failed was given up, and somebody will have it tried again."""
    counts: str | None = None
    """The metric that counts those that have ended, by outcome; one of the vocabulary's own."""


@attrs.frozen(kw_only=True)
class Ending:
    """How a run's end is shown."""

    status: str
    attributes: Attributes = NOTHING
    failed: bool = False


def _ending(entry: Entry) -> Ending:
    return Ending(status=str(entry.label), failed=entry.label != "completed")


def _no_meaning(_entry: Entry) -> Sequence[Meaning]:
    return ()


def _no_facts(_entry: Entry) -> Attributes:
    return NOTHING


def _standings() -> Mapping[str, RunQuery]:
    return {status.value: RunQuery(statuses=frozenset({status})) for status in sorted(OPEN)}


@attrs.frozen(kw_only=True)
class Vocabulary:
    """One layer's words. The defaults are those of the core alone."""

    prefix: str = "run"
    """What attributes begin with, and what the root span is called."""
    scope: str = "durable_core"
    """The name of the instrumentation, as OpenTelemetry calls it."""
    kinds: Mapping[str, StepWords] = attrs.field(factory=dict[str, StepWords])
    """By step kind; others are shown by the step's name alone."""
    mark: Callable[[Entry], Sequence[Meaning]] = _no_meaning
    """What a mark means, in the order in which its spans are to come."""
    signal: Callable[[Entry], Attributes] = _no_facts
    """What a signal's span says besides its name."""
    ending: Callable[[Entry], Ending] = _ending
    standings: Callable[[], Mapping[str, RunQuery]] = _standings
    """How a run may stand that has not ended, and which runs those are: each in one of them."""
    metrics: tuple[Metric, ...] = ()
    """Instruments besides ``METRICS``."""


CORE = Vocabulary()
PLAIN = StepWords()
