"""The checker of traces: what it finds wrong, and what not."""

import pytest

from durable_core.layer import SpanRecord
from durable_core.testing import broken_rules

ROOT = SpanRecord("root", 1, 1, None, 10_000, 20_000, {})


def child(start_ns: int, end_ns: int) -> SpanRecord:
    """A span under the root, which lasts from 10 to 20 µs."""
    return SpanRecord("child", 1, 2, 1, start_ns, end_ns, {})


@pytest.mark.parametrize(
    ("start_ns", "end_ns", "broken"),
    [
        (10_000, 20_000, False),  # just as its parent
        (12_000, 18_000, False),  # within
        (10_000, 31_000, False),  # longer: it goes on after its parent
        (25_000, 36_000, False),  # longer, and begins after its parent's end
        (15_000, 25_000, True),  # as long as its parent, and ends after it
        (15_000, 24_000, True),
        (25_000, 26_000, True),  # a moment after its parent
        (20_000, 20_001, True),  # by a nanosecond
        (19_500, 29_999, True),  # by whole microseconds no longer than its parent
        (12_000, 22_500, True),  # longer by half a microsecond, of which a store keeps none
        (9_000, 40_000, True),  # longer, but begins before its parent
    ],
)
def test_a_span_that_seems_to_have_a_wrong_clock(start_ns: int, end_ns: int, *, broken: bool):
    """A span that is not longer than its parent lies within it, by nanoseconds and by whole microseconds."""
    assert bool(broken_rules([ROOT, child(start_ns, end_ns)])) is broken


def test_the_message_names_both():
    """It says which span, under which parent, and what comes of it."""
    (told,) = broken_rules([ROOT, child(25_000, 26_000)])
    assert told.startswith("'child' (")
    assert "outside of its parent 'root' and is not longer: Jaeger takes its clock for wrong" in told
