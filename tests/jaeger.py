"""How Jaeger finds traces, re-told: the questions of its search page, against spans as they are sent.

Its rule: a trace is found by one of its spans. That span has the name that is asked for and all the attributes, each
as text; what is in its events counts too, and an error is ``error=true``. And it began in the time that is asked for.
"""

from collections.abc import Iterable, Iterator, Mapping

import attrs

from durable_core.layer import SpanRecord


@attrs.frozen(kw_only=True)
class Search:
    """What is typed into the page."""

    name: str = ""
    """The Span Name; empty for any."""
    attributes: Mapping[str, str] = attrs.field(factory=dict[str, str])
    since_ns: int
    until_ns: int
    longer_than_ns: int = 0

    def finds(self, spans: Iterable[SpanRecord]) -> bool:
        """Whether a trace of these spans is among the results."""
        return any(self._fits(span) for span in spans)

    def _fits(self, span: SpanRecord) -> bool:
        if self.name and span.name != self.name:
            return False
        if not self.since_ns <= span.start_ns <= self.until_ns or span.end_ns - span.start_ns < self.longer_than_ns:
            return False
        said = set(_said(span))
        return all(pair in said for pair in self.attributes.items())


def _said(span: SpanRecord) -> Iterator[tuple[str, str]]:
    """All that a span can be found by, besides its name."""
    for attributes in (span.attributes, *(event.attributes for event in span.events)):
        for name, value in attributes.items():
            yield name, str(value).lower() if isinstance(value, bool) else str(value)
    if span.failed:
        yield "error", "true"
