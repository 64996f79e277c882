"""The span that is current while a step runs."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.status import StatusCode

from durable_core.model.said import (
    LONGEST_NAME,
    LONGEST_STACK,
    LONGEST_TEXT,
    MOST_ATTRIBUTES,
    MOST_EVENTS,
    MOST_ITEMS,
    MOST_OF_AN_EVENT,
    NOTHING_SAID,
    Said,
    said_in,
)
from durable_core.tracing.otel import OtelContext, export_failures


class Attempt:
    """An attempt whose code sets things on the current span."""

    def __init__(self, *, sampled: bool = True, failures: bool = False) -> None:
        self.asked = 0
        self.sampled = sampled
        self.provider = TracerProvider(shutdown_on_exit=False)
        if failures:
            export_failures(self.provider)
        self.context = OtelContext(self.provider)
        self.token = self.context.enter(self._told, lambda: 77)
        self.span = trace.get_current_span()

    def _told(self) -> tuple[int, int, bool]:
        self.asked += 1
        return 7, 9, self.sampled

    def ended(self) -> Said:
        """The attempt is over: what the journal gets."""
        return said_in(self.context.leave(self.token))


@pytest.fixture
def attempt() -> Iterator[Attempt]:
    yield Attempt()
    assert not trace.get_current_span().get_span_context().is_valid


def test_ids_are_worked_out_once_they_are_asked_for(attempt: Attempt):
    """A step that starts no span of its own costs no ids; whoever asks gets the same ones each time."""
    assert not attempt.asked
    within = attempt.span.get_span_context()
    assert (within.trace_id, within.span_id, within.trace_flags.sampled, within.is_remote) == (7, 9, True, False)
    assert attempt.span.get_span_context() is within
    assert attempt.asked == 1
    assert attempt.ended() is NOTHING_SAID
    assert "0x00000000000000000000000000000007" in repr(attempt.span)


def test_what_is_set_is_kept(attempt: Attempt):
    """Attributes and events that a step's code sets are there when the attempt ends; the last of a name counts."""
    span = attempt.span
    assert span.is_recording()
    span.set_attribute("customer", "41")
    span.set_attributes({"customer": "42", "vip": True, "amount": 3, "rate": 0.5, "tags": ["a", "b"], "raw": b"x"})
    span.add_event("asked the bank", {"bank": "north"}, 55)
    span.add_event("and waited")
    said = attempt.ended()
    assert said.attributes == {
        "customer": "42",
        "vip": True,
        "amount": 3,
        "rate": 0.5,
        "tags": ("a", "b"),
        "raw": "x",
    }
    assert said.events == (("asked the bank", 55, {"bank": "north"}), ("and waited", 77, {}))
    assert not said.left_out


def test_an_exception_that_is_recorded_is_an_event(attempt: Attempt):
    """``record_exception`` keeps type, message and stack trace."""
    try:
        int("no")
    except ValueError as error:
        attempt.span.record_exception(error, {"which": "second"})
    ((name, at_ns, about),) = attempt.ended().events
    assert (name, at_ns) == ("exception", 77)
    assert {key: about[key] for key in ("exception.type", "exception.message", "which")} == {
        "exception.type": "ValueError",
        "exception.message": "invalid literal for int() with base 10: 'no'",
        "which": "second",
    }
    assert 'int("no")' in str(about["exception.stacktrace"])


def test_it_is_bounded(attempt: Attempt):
    """So many attributes, events, items and characters are kept; the rest is counted, never stored."""
    span = attempt.span
    for place in range(MOST_ATTRIBUTES + 2):
        span.set_attribute(f"{place:02}" + "k" * 100, "v" * 1_000)
    for place in range(MOST_EVENTS + 3):
        span.add_event(f"event {place}")
    said = attempt.ended()
    assert len(said.attributes) == MOST_ATTRIBUTES
    assert {len(name) for name in said.attributes} == {LONGEST_NAME}
    assert set(said.attributes.values()) == {"v" * LONGEST_TEXT}
    assert [name for name, *_ in said.events] == [f"event {place}" for place in range(MOST_EVENTS)]
    assert said.left_out == 2 + 3


def test_an_event_and_a_list_are_bounded_too(attempt: Attempt):
    """An event has few attributes, and of a stack trace the end is kept; of a list its beginning."""
    span = attempt.span
    span.set_attribute("list", list(range(100)))
    span.add_event("one", {"exception.stacktrace": "a" * 9_000 + "end", **{f"a{n}": n for n in range(20)}})
    said = attempt.ended()
    assert said.attributes["list"] == tuple(range(MOST_ITEMS))
    about = said.events[0][2]
    assert len(about) == MOST_OF_AN_EVENT
    assert len(str(about["exception.stacktrace"])) == LONGEST_STACK
    assert str(about["exception.stacktrace"]).endswith("end")
    assert said.left_out == 21 - MOST_OF_AN_EVENT


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2**63, str(2**63)),
        (-(2**63), -(2**63)),
        ("\ud800", "\\ud800"),
        ([1, object(), "x"], (1, "x")),
        (object(), None),
        (None, None),
        ({"a": 1}, None),
    ],
)
def test_values_that_no_span_can_hold(attempt: Attempt, value: Any, kept: Any):
    """A value that OTLP or JSON cannot say is kept as text where it is a number or text, else counted."""
    attempt.span.set_attribute("x", value)
    said = attempt.ended()
    assert said.attributes.get("x") == kept
    assert said.left_out == (kept is None)


def test_name_status_and_end_are_the_attempts_own(attempt: Attempt):
    """What a step's code says of name, status and end changes nothing, and does no harm."""
    attempt.span.update_name("mine")
    attempt.span.set_status(StatusCode.ERROR, "so I say")
    attempt.span.end()
    assert attempt.span.is_recording()
    assert attempt.ended() is NOTHING_SAID


def test_what_comes_after_the_end_is_not_kept(attempt: Attempt):
    """Code that goes on after its attempt has ended holds a span that records no more."""
    attempt.span.set_attribute("in time", 1)
    assert attempt.ended().attributes == {"in time": 1}
    attempt.span.set_attribute("too late", 1)
    attempt.span.add_event("too late")
    assert not attempt.span.is_recording()


@pytest.mark.parametrize("failures", [False, True])
def test_of_an_unsampled_saga_only_what_may_be_exported_is_kept(*, failures: bool):
    """Where the sampler left the saga out, nothing is stored, unless it is exported once it fails."""
    attempt = Attempt(sampled=False, failures=failures)
    attempt.span.set_attribute("customer", "42")
    attempt.span.add_event("x")
    assert attempt.span.is_recording() is failures
    assert (attempt.ended() is not NOTHING_SAID) is failures
