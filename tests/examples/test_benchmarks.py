"""The benchmarks run, and what they start ends as it should; their figures are nobody's claim here."""

import asyncio
import time
from pathlib import Path

import pytest

from benchmarks.__main__ import TARGETS
from benchmarks.fleet import Load
from benchmarks.killed import STEPS, Line, Part, check, w5
from benchmarks.waiting import w6
from benchmarks.workloads import store_in
from durable_core import RunStatus
from durable_core.model.entry import Entry
from durable_core.model.run import RunRecord


@pytest.mark.slow
def test_waiting_sagas_at_a_small_scale(tmp_path: Path):
    """W6 with 300 sagas: those that fall due or are answered end, the rest wait on, and every figure is listed."""
    figures = asyncio.run(w6(store_in(tmp_path), waiting=300, due=30))
    assert {name for workload, name in TARGETS if workload == "W6"} == set(figures)
    assert all(figure > 0 for figure in figures.values())


def test_a_killed_process_at_a_small_scale(tmp_path: Path):
    """W5 with 40 sagas: at most half are left at the death, all end, a step was in flight; every figure is listed."""
    figures = asyncio.run(w5(store_in(tmp_path), sagas=40))
    assert {name for workload, name in TARGETS if workload == "W5"} == set(figures)
    assert 0 < figures["again"] <= figures["left"] <= 20
    assert 0 < figures["takeover_s"] < figures["all_ended_s"]


def died(*, before: list[str], after: list[str], written: list[tuple[str, str]]) -> tuple[Part, Part, list[Entry]]:
    """A death as W5 sees it: what two processes did for the saga ``a``, and what the first one has written."""
    first, second = (
        Part(0, worker, [Line(what, "a", time.time_ns()) for what in lines])
        for worker, lines in (("w-1", before), ("w-2", after))
    )
    rows = [
        Entry(1, seq, kind, key, 1, "", None, None, None, 0, None, "w-1") for seq, (kind, key) in enumerate(written, 1)
    ]
    return first, second, rows


A_RUN = RunRecord(
    num=1,
    id="a",
    uid=b"",
    name="four-steps-outside",
    version=1,
    status=RunStatus.COMPLETED,
    phase="",
    owner=None,
    wake_at_ns=None,
    deadline_at_ns=None,
    paused=False,
    input=b"",
    output=None,
    error=None,
    reason=None,
    detail=None,
    traceparent=None,
    created_at_ns=0,
    updated_at_ns=0,
    ended_at_ns=1,
)
RESERVED = [("started", "reserve"), ("succeeded", "reserve"), ("started", "charge")]


def test_a_death_that_broke_no_promise_passes():
    """A step in flight is run again, and nothing else."""
    before, after, rows = died(before=["started", "reserve", "charge"], after=[*STEPS[1:]], written=RESERVED)
    assert check(before, after, [A_RUN], {1: rows}, 1) == 1


@pytest.mark.parametrize(
    ("before", "after", "written", "told"),
    [
        (["started", "reserve"], list(STEPS), RESERVED, "a completed step was run again"),
        (["started", "reserve"], ["charge", "pack"], RESERVED, "a step was left out"),
        (["reserve"], [*STEPS[1:]], RESERVED, "a saga was lost"),
        (["started", "reserve", "ended"], [*STEPS[1:]], RESERVED, "an end that a caller knows of was lost"),
        (["started", "reserve", "pack"], [*STEPS[1:]], RESERVED, "was run twice that was not in flight"),
    ],
)
def test_a_death_that_broke_a_promise_is_told(
    before: list[str], after: list[str], written: list[tuple[str, str]], told: str
):
    """W5 fails where a saga, a step or an end was lost, or where a step was run again that had completed."""
    first, second, rows = died(before=before, after=after, written=written)
    with pytest.raises(AssertionError, match=told):
        check(first, second, [A_RUN], {1: rows}, 1)


def test_what_limits_a_fleet():
    """A full core of a worker's, else the machine, else the database; and no guess where the system does not tell."""
    assert Load(1, 1, 0.9, 0.95).limit() == "a worker's core"
    assert Load(1, 1, 0.4, 0.95).limit() == "all cores of this machine"
    assert Load(1, 1, 0.4, 0.5).limit() == "waiting for the database"
    assert Load(1, 1, 0.4, None).limit() == "not known here"
