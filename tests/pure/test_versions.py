"""What the versions of a store come to, and how the command line shows them: pure functions."""

from datetime import UTC, datetime

import pytest

from durable_core.model.run import RunStatus
from durable_core.model.version import Announced, Offer, Tally, news, replaced
from sagas import SagaStatus, VersionVerdict
from sagas.cli.output import plain
from sagas.cli.views import versions_table
from sagas.model.versions import versions_of

NEW, IN_USE, RETIRED, VAIN = VersionVerdict


def announced(version: int, *workers: str) -> Announced:
    return Announced("order", version, f"{version}f{'0' * 14}", 1_500_000_000, workers)


def tally(version: int, status: RunStatus, runs: int, phase: str = "") -> Tally:
    return Tally("order", version, status, phase, runs)


@pytest.mark.parametrize(
    ("verdict", "version", "workers", "status"),
    [
        (NEW, 2, ("w",), None),
        (NEW, 2, (), None),
        (IN_USE, 2, ("w",), RunStatus.COMPLETED),
        (IN_USE, 2, (), RunStatus.COMPLETED),
        (IN_USE, 2, ("w",), RunStatus.WAITING),
        (IN_USE, 1, ("w",), RunStatus.WAITING),
        (VAIN, 2, (), RunStatus.RUNNING),
        (VAIN, 1, (), RunStatus.STUCK),
        (RETIRED, 1, ("w",), RunStatus.COMPLETED),
        (RETIRED, 1, (), None),
        (RETIRED, 1, (), RunStatus.KILLED),
    ],
)
def test_each_verdict(verdict: VersionVerdict, version: int, workers: tuple[str, ...], status: RunStatus | None):
    """Open and served or not, the newest or not, used before or not: every case has its verdict."""
    tallies = [] if status is None else [tally(version, status, 3)]
    all_announced = [announced(1, *workers), announced(2, *workers)]
    found = {info.version: info for info in versions_of(all_announced, tallies)}
    assert found[version].verdict is verdict
    assert found[version].newest is (version == 2)


def test_runs_are_counted_as_their_users_see_them():
    """Phases tell compensating, compensated and resolved apart; a version without any announcement is there too."""
    tallies = [
        tally(10, RunStatus.WAITING, 1),
        tally(10, RunStatus.WAITING, 2, "past-pivot"),
        tally(10, RunStatus.RUNNING, 4, "compensating/failed"),
        tally(10, RunStatus.PENDING, 8, "compensating/cancelled"),
        tally(10, RunStatus.FAILED, 16, "compensated/failed"),
        tally(10, RunStatus.FAILED, 32, "resolved/failed"),
        tally(10, RunStatus.KILLED, 64),
        tally(2, RunStatus.COMPLETED, 1),
    ]
    (ten, two) = versions_of([], tallies)
    assert (ten.version, two.version) == (10, 2)
    assert ten.open == {SagaStatus.WAITING: 3, SagaStatus.COMPENSATING: 12}
    assert (ten.ended, ten.workers, ten.fingerprint, ten.announced_at) == (112, (), "", None)
    assert two.newest is False


def test_the_table_for_a_person():
    """One row for each version, with the statuses of the open ones and the workers beneath."""
    found = versions_of(
        [announced(1), announced(2, "w-1", "w-2")],
        [tally(1, RunStatus.WAITING, 2), tally(1, RunStatus.STUCK, 1), tally(2, RunStatus.COMPLETED, 7)],
    )
    assert plain(versions_table(found, width=80)).splitlines() == [
        "saga      verdict   open  ended  workers  fingerprint",
        "order v2  in use       0      7        2  2f000000",
        "      served by w-1, w-2",
        "order v1  unserved     3      0        0  1f000000",
        "      open: 2 waiting, 1 stuck",
        "      start a worker that has this version",
    ]
    assert found[0].announced_at == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)


def test_what_is_news():
    """Only what this worker has not said yet, or says with another fingerprint, is to be written."""
    known = [
        Announced("a", 1, "x", 1, ("me",)),
        Announced("b", 1, "y", 1, ("other",)),
        Announced("c", 1, "", 1, ("me",)),
    ]
    same, moved, mine, silent, first = (
        Offer("a", 1, "x"), Offer("a", 1, "z"), Offer("b", 1, "y"), Offer("a", 1), Offer("c", 1, "q"),
    )  # fmt: skip
    assert news(known, "me", [same, silent]) == []
    assert news(known, "me", [moved, mine, first, moved]) == [moved, mine, first]
    assert replaced(known, [same, silent, mine, first]) == []
    assert replaced(known, [moved]) == [Offer("a", 1, "x")]
