"""What a collector's answer does to the spans it was offered: taken, waited with, or apart until one is to blame."""

import pytest

from durable_core.tracing.answers import Later, Refused, answer_to

DATE = "Thu, 26 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_the_specification_calls_retryable_is_offered_again(status: int):
    """Exactly the four retryable statuses of OTLP are waited for, with no limit."""
    assert isinstance(answer_to(status, {}), Later)


@pytest.mark.parametrize(
    ("status", "certain"),
    [(400, True), (413, True), (422, True), (500, False), (401, False), (403, False), (404, False), (307, False)],
)
def test_only_some_refusals_are_surely_about_the_spans(status: int, *, certain: bool):
    """400, 413 and 422 are about what was sent; 500, a wrong password or a wrong path may well not be."""
    answer = answer_to(status, {})
    assert isinstance(answer, Refused)
    assert answer.certain is certain


@pytest.mark.parametrize(
    ("told", "after_s"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Thu, 26 Nov 2026 10:01:30 GMT", 90.0),
        ("Thu, 26 Nov 2026 09:00:00 GMT", 0.0),
        ("999999999", 600.0),
        ("nan", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_heeded_in_both_its_forms(told: str, after_s: float | None):
    """Seconds or a date by the collector's clock, never more than ten minutes; what is neither is as if it were not."""
    assert answer_to(503, {"retry-after": told, "date": DATE}) == Later("it answered 503", after_s)


def test_a_date_without_the_collectors_own_is_no_pause():
    """Without a ``Date`` beside it a date says nothing: the clocks of two machines are not compared."""
    assert answer_to(503, {"retry-after": DATE}) == Later("it answered 503", None)
