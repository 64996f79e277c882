"""Durations, times and texts as people give them: taken whole, or refused with what was given."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from durable_core.errors import DefinitionError, PayloadError
from durable_core.model.duration import (
    LAST_NS,
    LONGEST_S,
    duration_ns,
    iso,
    maybe_at,
    moment,
    moment_of,
    not_before,
    ns_of,
    seconds_of,
    shown,
)
from durable_core.model.run import RunQuery
from durable_core.model.texts import check_text, is_text
from durable_core.model.tombstone import Tombstone
from durable_core.model.trace import Origin, origin_of, trace_id_of

TEN = datetime(2026, 8, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "value", [-1, LONGEST_S + 1, float("nan"), True, "5", None, timedelta(days=-1), 0, timedelta()]
)
def test_what_is_no_duration_is_refused(value: Any):
    """Below zero or none at all, above a century, NaN, and what is no number; only zero can be allowed."""
    assert seconds_of(value) is None
    assert seconds_of(value, zero=True) == (0.0 if value in (0, timedelta()) and value is not True else None)
    if value is not None:
        with pytest.raises(DefinitionError, match=r"keep=.* is no duration. Give a timedelta or seconds, above zero"):
            duration_ns(value, what="keep")


def test_a_duration_is_a_whole_number_of_nanoseconds():
    """At least one; none where none is given."""
    assert duration_ns(timedelta(seconds=1.5), what="keep") == 1_500_000_000
    assert duration_ns(1e-12, what="keep") == 1
    assert duration_ns(None, what="keep") is None


class Rude:
    def __repr__(self) -> str:
        raise ZeroDivisionError


def test_a_wrong_value_is_shown_whatever_it_is():
    """Cut where it is long; one whose repr raises goes by its class."""
    assert shown(7) == "7"
    assert shown("x" * 200) == "'" + "x" * 79 + "..."
    assert shown(Rude()) == "<Rude whose repr raised ZeroDivisionError>"


@pytest.mark.parametrize("when", [TEN.replace(tzinfo=None), date(2026, 8, 1), "2026-08-01", None])
def test_only_a_time_with_a_zone_is_a_moment(when: object):
    """What could mean several moments is none."""
    assert moment_of(when) is None


def test_a_moment_is_the_same_in_each_zone():
    """To the microsecond, as nanoseconds since the epoch; it is shown in UTC."""
    at_ns = moment_of(TEN)
    assert at_ns == moment_of(TEN.astimezone(timezone(timedelta(hours=5)))) == ns_of(TEN)
    assert at_ns is not None
    assert (iso(at_ns), moment(at_ns)) == ("2026-08-01T10:00:00.000000000Z", "2026-08-01 10:00:00 UTC")
    assert (maybe_at(at_ns), maybe_at(0), maybe_at(None), not_before(None)) == (TEN, None, None, None)
    assert not_before(at_ns + 1) == TEN + timedelta(microseconds=1)


def test_a_time_beyond_what_a_store_holds_is_the_last_that_it_does():
    """So a search from or to the year 9999 is one of all runs."""
    assert ns_of(datetime.max.replace(tzinfo=UTC)) == LAST_NS
    assert ns_of(datetime.min.replace(tzinfo=UTC)) == -LAST_NS
    assert iso(LAST_NS) == "2262-04-11T23:47:16.854775807Z"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a\ud800", r"note= is 'a\\ud800', which holds half of a surrogate pair, so UTF-8 cannot write it"),
        (7, "note= is 7; give a text"),
    ],
)
def test_what_no_store_can_hold_is_no_text(value: object, said: str):
    """Half of a surrogate pair, and what is no text at all; the message says that nothing was changed."""
    assert is_text("a\ud7ff")
    assert not is_text(value)
    with pytest.raises(PayloadError, match=f"{said}.* Nothing was changed"):
        check_text(value, "note=")


def test_a_search_takes_only_names_that_can_be():
    """A name that no store could hold is refused before it is looked for."""
    assert RunQuery(name="trip").name == "trip"
    with pytest.raises(PayloadError, match="the name to search for is 7; give a text"):
        RunQuery(name=7)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [-1, True, 2.0, 1 << 63, "7"])
def test_a_search_is_limited_by_a_whole_number(limit: Any):
    """From 0, and up to what a store can take."""
    with pytest.raises(DefinitionError, match=r"limit=.* cannot be used: .* nothing was read or changed"):
        RunQuery(limit=limit)


def test_a_tombstone_says_what_was_there():
    """The run's id, name and version, when it ended and when it was purged."""
    stone = Tombstone(1, "trip-1", "trip", 2, "completed", "", 0, ns_of(TEN), ns_of(TEN) + 10**9, None)
    assert stone.told == (
        "'trip-1' (trip v2), which ended at 2026-08-01 10:00:00 UTC, was purged at 2026-08-01 10:00:01 UTC"
    )


@pytest.mark.parametrize("mode", ["link", "join", "self"])
@pytest.mark.parametrize("sampled", [True, False])
def test_a_traces_origin_reads_back_as_it_was_stored(mode: Any, *, sampled: bool):
    """And a run that joins its caller's trace has that trace's id."""
    origin = Origin(mode, 7, 8, sampled)
    assert origin_of(origin.stored()) == origin
    assert (trace_id_of(b"u" * 16, origin) == 7) is (mode == "join")


@pytest.mark.parametrize("stored", [None, "", "link:", "link:01-7-8-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_run_without_an_origin_has_a_trace_of_its_own(stored: str | None):
    """Nothing stored, and what no release has stored, decide nothing."""
    assert origin_of(stored) is None
    assert trace_id_of(b"u" * 16, None) == trace_id_of(b"u" * 16)
