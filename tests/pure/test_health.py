"""The health of a store, judged by facts alone: how bad each is, in which words, and what to do."""

from typing import Any

import attrs
import pytest

from durable_core.layer import Facts, Finding, Group, Level, WorkerSeen
from sagas.model.health import judged

NS = 1_000_000_000
HEALTHY = Facts(
    statuses={"pending": 0, "running": 0, "stuck": 0, "waiting": 0},
    rows={"runs": 0, "journal": 0, "signals": 0, "tombstones": 0, "workers": 0, "served": 0},
    unswept=0,
    oldest_end_ns=None,
    newest_at_ns=None,
    workers=(),
    stuck=Group(),
    runnable=None,
    overdue=Group(),
    past_deadline=Group(),
    paused=Group(),
    unserved={},
)


def test_an_empty_store_is_healthy():
    """Without rows there is nothing to say against it."""
    assert {finding.level for finding in judged(HEALTHY, now_ns=0)} == {Level.OK}


@pytest.mark.parametrize(("ahead_s", "level"), [(0.5, "ok"), (5, "warn"), (61, "fail"), (-9, "ok")])
def test_a_clock_is_judged_by_the_newest_row(ahead_s: float, level: str):
    """A second is forgiven; a minute is not."""
    found = judged(attrs.evolve(HEALTHY, newest_at_ns=round(ahead_s * NS)), now_ns=0)
    assert found[0].level == level


def test_many_ids_are_cut_short():
    """A group of thousands is told by its count and its first ids."""
    worker = WorkerSeen("w", 1, "here", 0, alive=True)
    facts = attrs.evolve(
        HEALTHY, workers=(worker,), overdue=Group(9000, ("a", "b")), unswept=2, paused=Group(1, ("p",))
    )
    told = {finding.check: finding for finding in judged(facts, now_ns=0)}
    assert told["overdue"].what.endswith("a, b, ...")
    assert "--concurrency" in told["overdue"].advice
    assert "paused: p" in told["open"].what
    assert "2 purged ones" in told["kept"].what


ALIVE = WorkerSeen("w-1", 7, "here", 0, alive=True)
DEAD = WorkerSeen("w-2", 8, "there", 0, alive=False)
NO_WORKER = "open sagas wait for one: sagas worker MODULE"


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (
            {"newest_at_ns": 90 * NS},
            Finding(
                "clock",
                Level.FAIL,
                "it is 0:01:30 behind the newest row, of 1970-01-01 00:01:30 UTC",
                "set the clock of this machine; until then, time continues from that row's",
            ),
        ),
        ({"workers": (ALIVE,)}, Finding("workers", Level.OK, "w-1 (pid 7 on here)")),
        (
            {"workers": (DEAD,)},
            Finding(
                "workers",
                Level.OK,
                "none alive; 1 died without signing off; the next worker that looks releases their sagas",
            ),
        ),
        ({"statuses": {"running": 2}}, Finding("workers", Level.WARN, "none alive", NO_WORKER)),
        (
            {"stuck": Group(1, ("a",))},
            Finding("stuck", Level.WARN, "1 stuck: a", "sagas show ID says why, and what to do"),
        ),
        (
            {"overdue": Group(1, ("a",))},
            Finding(
                "overdue",
                Level.WARN,
                "1 due for more than a minute, and no worker has taken them: a",
                "start a worker that serves them: sagas worker MODULE",
            ),
        ),
        (
            {"runnable": ("a", -3 * NS)},
            Finding("overdue", Level.OK, "none; a has waited longest for a worker: 3 s"),
        ),
        (
            {"past_deadline": Group(2, ("a", "b"))},
            Finding(
                "deadline",
                Level.WARN,
                "2 past their deadline, and not being undone: a, b",
                "a worker that serves them undoes them, after the step that is running has ended",
            ),
        ),
        (
            {"unserved": {("trip", 2): 3, ("order", 1): 1}},
            Finding(
                "versions",
                Level.WARN,
                "no living worker serves order v1 (1 open), trip v2 (3 open)",
                "start a worker whose modules have them",
            ),
        ),
        ({"statuses": {"running": 2, "stuck": 0, "waiting": 1}}, Finding("open", Level.OK, "2 running, 1 waiting")),
        (
            {"oldest_end_ns": 86_400 * NS, "rows": {"runs": 4, "tombstones": 2}},
            Finding(
                "kept",
                Level.OK,
                "4 ended sagas are kept, the oldest since 1970-01-02; the ids of 2 purged ones stay refused",
            ),
        ),
        ({"rows": {"runs": 4, "tombstones": 2}}, Finding("rows", Level.OK, "runs 4, tombstones 2")),
    ],
)
def test_a_fact_is_told_with_what_to_do(facts: dict[str, Any], found: Finding):
    """One finding for each check; what is in order has no advice."""
    assert found in judged(attrs.evolve(HEALTHY, **facts), now_ns=0)
