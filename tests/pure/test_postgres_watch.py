"""Who is dead, and what time it is, by a database whose clock may be set: the arithmetic alone."""

import logging

import pytest

from durable_core.stores.postgres import offset
from durable_core.stores.postgres.offset import NS, Offset
from durable_core.stores.postgres.watch import Answered, Leased, Watch

LEASE_S = 15.0
HOUR_S = 3600.0
START_S = 1_000_000.0
"""What the database's clock says when the steady one says 0."""


class Fleet:
    """Workers that renew their leases at a database, and one process that watches them; time is told by the test."""

    def __init__(self, *, machine_ahead_s: float = 0.0, lease_s: float = LEASE_S) -> None:
        self.now_s = 0.0
        self.set_s = 0.0
        self.up_since_s = START_S - HOUR_S
        self.until_s: dict[str, float] = {}
        self.watch = Watch(lease_s, theirs_ns=round((START_S + machine_ahead_s) * NS), at_s=0.0)

    @property
    def theirs_s(self) -> float:
        return START_S + self.now_s + self.set_s

    def renew(self, *workers: str, lease_s: float = LEASE_S) -> None:
        for worker in workers:
            self.until_s[worker] = self.theirs_s + lease_s

    def dead(self, *, took_s: float = 0.0) -> list[str]:
        rows = [Leased(worker, round(until_s * NS)) for worker, until_s in self.until_s.items()]
        at = Answered(
            round(self.theirs_s * NS),
            up_since_ns=round(self.up_since_s * NS),
            sent_s=self.now_s,
            got_s=self.now_s + took_s,
        )
        return sorted(row.worker for row in self.watch.dead(rows, at))

    def live(self, seconds: float, *alive: str) -> list[str]:
        """Let time pass: ``alive`` renew each 5 s, the watcher looks each second. Tells who was found dead."""
        found: list[str] = []
        for _ in range(round(seconds)):
            self.now_s += 1
            if self.now_s % 5 == 0:
                self.renew(*alive)
            found += [worker for worker in self.dead() if worker not in found]
        return found


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S, 60.0, -60.0, 2.0, -2.0])
@pytest.mark.parametrize("age_s", [0, 1, 4])
def test_a_clock_that_is_set_buries_no_living_and_keeps_no_dead(by_s: float, age_s: int):
    """Whenever since the last renewal: the living are let live, and the dead are found when their lease has run out."""
    fleet = Fleet()
    fleet.renew("living", "dying")
    assert fleet.live(20, "living", "dying") == []
    for _ in range(age_s):
        fleet.live(1, "living")
    fleet.set_s += by_s
    assert fleet.live(LEASE_S - age_s - 3, "living") == []
    assert fleet.live(8, "living") == ["dying"]
    del fleet.until_s["dying"]
    assert fleet.live(100, "living") == []


def test_a_lease_that_was_renewed_right_before_the_clock_was_set_is_given_its_length():
    """By which time it was granted cannot be told: it counts from when it was seen."""
    for by_s in (HOUR_S, -HOUR_S):
        fleet = Fleet()
        fleet.renew("w")
        fleet.live(5)
        fleet.renew("w")
        fleet.set_s = by_s
        assert fleet.live(LEASE_S) == []
        assert fleet.live(2) == ["w"]


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
def test_who_comes_after_the_clock_was_set_waits_for_the_living(by_s: float):
    """Its machine's clock does not agree with the database's: it takes nobody for dead before a lease has passed."""
    fleet = Fleet()
    fleet.renew("living", "dead")
    fleet.now_s, fleet.set_s = 3.0, by_s
    assert fleet.dead() == []
    assert fleet.live(LEASE_S - 1, "living") == []
    assert fleet.live(3, "living") == ["dead"]


def test_who_comes_long_after_a_death_need_not_wait():
    """Where the machine's clock agrees with the database's, a lease that has run out has run out."""
    fleet = Fleet()
    fleet.renew("dead")
    fleet.now_s = 100.0
    assert fleet.dead() == ["dead"]


def test_a_longer_lease_is_kept():
    """That of a worker that was given another lease= than this process."""
    fleet = Fleet()
    fleet.renew("patient", lease_s=60.0)
    assert fleet.live(59) == []
    assert fleet.live(2) == ["patient"]


def test_a_database_that_is_slow_to_answer_buries_nobody():
    """Who waits for it as long may have waited to renew; the next quick answer counts."""
    fleet = Fleet()
    fleet.renew("w")
    fleet.dead()
    fleet.now_s = 20.0
    assert fleet.dead(took_s=4.0) == []
    fleet.now_s = 25.0
    assert fleet.dead() == ["w"]


def test_a_lease_that_ran_out_while_the_server_was_down_may_be_renewed():
    """Right after its start nobody is dead whom it could not hear; a while later they are."""
    fleet = Fleet()
    fleet.renew("w")
    fleet.now_s, fleet.up_since_s = 100.0, START_S + 99.0
    assert fleet.dead() == []
    fleet.now_s = 105.0
    assert fleet.dead() == ["w"]


class Hands:
    """A machine's clocks, moved by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steady = 50.0
        self.wall = 1_000 * NS
        monkeypatch.setattr(offset, "steady_s", lambda: self.steady)
        monkeypatch.setattr(offset, "wall_ns", lambda: self.wall)

    def measure(self, made: Offset, theirs_s: float, *, took_s: float = 0.0) -> None:
        """The database said so, amid an answer that took so long."""
        sent_ns = made.local_ns()
        self.steady += took_s
        made.measured(round(theirs_s * NS), sent_ns=sent_ns, got_ns=made.local_ns())


def test_a_machine_that_is_wrong_tells_the_databases_time(monkeypatch: pytest.MonkeyPatch):
    """From the first measurement on, also where the machine's own clock is set later."""
    hands = Hands(monkeypatch)
    made = Offset()
    hands.measure(made, 4_600.0)
    assert made.ahead_ns == 3_600 * NS
    hands.wall -= 3_600 * NS
    hands.steady += 10
    assert made.local_ns() + made.ahead_ns == hands.wall + made.ahead_of_wall_ns() == 4_610 * NS


@pytest.mark.parametrize("by_s", [3_600.0, -3_600.0])
def test_a_database_clock_that_is_set_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, by_s: float
):
    """Time goes on in this process, a person is told once, and a clock that is slow after that is still followed."""
    hands = Hands(monkeypatch)
    made = Offset(shown="db")
    hands.measure(made, 1_000.0)
    for second in range(1, 100):
        hands.steady += 1
        hands.measure(made, 1_000.0 + second + by_s)
        assert abs(made.ahead_ns) < NS // 100
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the clock of db was set" in caplog.text
    for second in range(100, 10_100):
        hands.steady += 1
        hands.measure(made, 1_000.0 + second + by_s - 0.0002 * (second - 100))
    assert abs(made.ahead_ns + 2 * NS) < NS // 10
    assert len(caplog.records) == 1


def test_a_slow_answer_moves_nothing(monkeypatch: pytest.MonkeyPatch):
    """It says when the database's clock was read to no better than how long it took."""
    hands = Hands(monkeypatch)
    made = Offset()
    hands.measure(made, 1_000.0)
    hands.steady += 5
    hands.measure(made, 1_009.0, took_s=9.0)
    assert abs(made.ahead_ns) < NS // 100


def test_a_first_answer_that_was_slow_is_corrected(monkeypatch: pytest.MonkeyPatch):
    """By the first quick one, which is surer."""
    hands = Hands(monkeypatch)
    made = Offset()
    hands.measure(made, 1_000.0, took_s=8.0)
    assert made.ahead_ns == 0
    hands.measure(made, 1_003.0)  # it had been read at the very beginning of those eight seconds
    assert abs(made.ahead_ns + 5 * NS) < NS // 100
