"""The system clock, on a wall clock that steps and a steady one that does not."""

import logging

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_core.engine.clock import SystemClock
from durable_core.model.duration import NS

HOUR_NS = 3600 * NS
BEGAN_NS = 1_900_000_000 * NS


@attrs.define
class Machine:
    """The clocks of a machine."""

    wall_ns: int = BEGAN_NS
    steady_ns: int = 5 * NS

    def pass_by(self, span_ns: int) -> None:
        """Both clocks run."""
        self.wall_ns += span_ns
        self.steady_ns += span_ns

    def clock(self) -> SystemClock:
        """A process's clock on this machine."""
        return SystemClock(wall=lambda: self.wall_ns, steady=lambda: self.steady_ns)


def test_it_is_the_wall_clock_while_that_runs():
    """Where nothing steps it tells wall time, to the nanosecond."""
    machine = Machine()
    clock = machine.clock()
    for span_ns in (0, 1, 7, NS, HOUR_NS):
        machine.pass_by(span_ns)
        assert clock.now_ns() == machine.wall_ns


@pytest.mark.parametrize("back_ns", [1, NS, HOUR_NS, 400 * 24 * HOUR_NS])
def test_a_step_back_does_not_stop_time(back_ns: int):
    """After a step back ten seconds are ten seconds, but for the hundredth by which it lets the wall clock catch up."""
    machine = Machine()
    clock = machine.clock()
    began_ns = clock.now_ns()
    machine.wall_ns -= back_ns
    assert clock.now_ns() == began_ns
    machine.pass_by(10 * NS)
    passed_ns = clock.now_ns() - began_ns
    assert passed_ns == max(10 * NS - back_ns, 10 * NS - 10 * NS // 100)


def test_the_wall_clock_catches_up():
    """An hour set back is made good within a hundred hours, and from then on it tells wall time again."""
    machine = Machine()
    clock = machine.clock()
    clock.now_ns()
    machine.wall_ns -= HOUR_NS
    for _ in range(100):
        assert clock.now_ns() > machine.wall_ns
        machine.pass_by(HOUR_NS)
    assert clock.now_ns() == machine.wall_ns


def test_a_step_forward_is_followed_at_once():
    """A correction of the clock, and a machine that has slept, are seen at the next look."""
    machine = Machine()
    clock = machine.clock()
    clock.now_ns()
    machine.wall_ns += HOUR_NS
    assert clock.now_ns() == BEGAN_NS + HOUR_NS


def test_the_databases_clock_may_step_too():
    """What is followed is this machine's clock and how far the database's is ahead: a step of either is a step."""
    machine = Machine()
    clock = machine.clock()
    clock.ahead_ns = HOUR_NS
    began_ns = clock.now_ns()
    assert began_ns == BEGAN_NS + HOUR_NS
    clock.ahead_ns = 0
    machine.pass_by(100 * NS)
    assert clock.now_ns() == began_ns + 99 * NS


def test_it_goes_on_from_what_others_have_told(caplog: pytest.LogCaptureFixture):
    """A time that the store knows is past from then on; where that is far ahead, a line of the log says so."""
    machine = Machine()
    clock = machine.clock()
    with caplog.at_level(logging.WARNING):
        clock.go_on_from(0)
        clock.go_on_from(BEGAN_NS + NS)
        assert clock.now_ns() == BEGAN_NS + NS
        assert not caplog.records
        clock.go_on_from(BEGAN_NS + HOUR_NS)
    assert clock.now_ns() == BEGAN_NS + HOUR_NS
    assert "3599 s behind the last time that this store knows" in caplog.text


@given(st.lists(st.tuples(st.integers(-(10**15), 10**15), st.integers(0, 10**13), st.integers(-(10**12), 10**12))))
def test_it_never_goes_back_and_never_stands_still(steps: list[tuple[int, int, int]]):
    """Whatever the wall clock and the database's do: times never decrease, and time that passed is time that passed."""
    machine = Machine()
    clock = machine.clock()
    before_ns = clock.now_ns()
    for step_ns, passed_ns, ahead_ns in steps:
        machine.wall_ns += step_ns
        clock.ahead_ns += ahead_ns
        machine.pass_by(passed_ns)
        now_ns = clock.now_ns()
        assert now_ns >= before_ns + passed_ns * 99 // 100
        assert now_ns >= machine.wall_ns + clock.ahead_ns
        before_ns = now_ns
