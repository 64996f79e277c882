"""The order of an outbox, and which relay hands it on: what is decided, without any database."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_core import StoreError
from sagas.outbox import lease, relay
from sagas.outbox.entries import (
    Entry,
    HandedOn,
    Laned,
    NotNow,
    Refused,
    Start,
    lane_of,
    settled,
    waves,
)
from sagas.outbox.lease import Hold, Lease, Take, Wait, Watch, decide
from sagas.outbox.relay import backoff_s


def entry(number: int, saga_id: str = "one") -> Entry:
    return Entry(number, "start", saga_id, "{}", None, 0)


@given(st.lists(st.sampled_from("abcd")), st.integers(1, 5))
def test_waves_keep_the_order_of_each_saga(lanes: list[str], most: int):
    """Waves hold all entries once, in order, none of them two of one saga or more than may go together."""
    given_ones = [Laned(entry(number, lane), lane) for number, lane in enumerate(lanes)]
    found = list(waves(given_ones, most=most))
    assert [each.id for wave in found for each in wave] == list(range(len(lanes)))
    for wave in found:
        assert 1 <= len(wave) <= most
        assert len({each.saga_id for each in wave}) == len(wave)


def test_a_child_is_in_its_roots_lane():
    """What is about a child keeps its order with what is about its root."""
    assert lane_of("order-1/ship/pack") == lane_of("order-1") == "order-1"


def test_a_row_of_another_release_is_refused_by_itself():
    """A request that cannot be read is an error of that entry alone, whichever part of it is wrong."""
    for verb, request in (("start", "{}"), ("start", "not json"), ("send_event", "{}"), ("start", '{"saga": 1}')):
        with pytest.raises(ValueError, match=r"cannot be read|knows no entry"):
            attrs.evolve(entry(1), verb=verb, request=request).read()
    good = attrs.evolve(entry(1), request='{"saga": "order", "version": 2, "input": ["tea"]}').read()
    assert isinstance(good, Start)
    assert (good.saga, good.version, bytes(good.input), good.trace) == ("order", 2, b'["tea"]', "link")


def test_a_wave_is_summed_up():
    """Each entry counts as what became of it, and one that must wait stops what comes after the wave."""
    error = StoreError("away")
    came_to = settled([(entry(1), HandedOn()), (entry(2), Refused("no")), (entry(3), NotNow(error))])
    assert came_to.done == (1,)
    assert came_to.refused == ((entry(2), "no"),)
    assert came_to.failure is error


# -- the lease ---------------------------------------------------------------------------------------------------------

MINE, OTHERS = Lease("me", 4), Lease("other", 7)


def test_a_lease_is_taken_once_it_has_not_changed_for_long_enough():
    """Another relay's lease is left alone for ``TAKEOVER_S`` from when it was first seen so, then taken."""
    watch = Watch().saw(OTHERS, now_s=10.0)
    later = watch.saw(OTHERS, now_s=11.0)
    assert decide(later, OTHERS, owner="me", now_s=11.0) == Wait(lease.TAKEOVER_S - 1.0)
    assert decide(later, OTHERS, owner="me", now_s=10.0 + lease.TAKEOVER_S) == Take(OTHERS)
    renewed = Lease("other", 8)
    assert decide(later.saw(renewed, now_s=12.0), renewed, owner="me", now_s=14.0) == Wait(lease.TAKEOVER_S - 2.0)


def test_a_lease_that_is_nobodys_or_ones_own_is_taken_at_once():
    """One that was given up, that nobody ever had, or that this relay let lapse does not need to be waited for."""
    for free in (Lease("", 0), Lease("", 9), MINE):
        assert decide(Watch().saw(free, now_s=0.0), free, owner="me", now_s=0.0) == Take(free)


def test_a_holder_holds_for_less_long_than_others_wait():
    """A renewal counts from before it was asked for, and it has lapsed before another relay may take the lease."""
    watch = Watch().wrote(MINE, asked_s=5.0)
    assert decide(watch, MINE, owner="me", now_s=5.0 + lease.HOLD_S - 0.01) == Hold()
    assert decide(watch, MINE, owner="me", now_s=5.0 + lease.HOLD_S) == Take(MINE)
    assert lease.BEAT_S < lease.HOLD_S < lease.TAKEOVER_S
    assert not watch.lost().holds(now_s=5.0)
    assert not watch.saw(OTHERS, now_s=5.1).holds(now_s=5.2)


def test_waits_between_tries_grow_to_a_bound():
    """A database that is away is asked less and less often, but never given up."""
    waits = [backoff_s(failures) for failures in range(1, 40)]
    assert waits == sorted(waits)
    assert waits[0] < 0.2
    assert waits[-1] == relay.LONGEST_S
