"""Real processes on one SQLite file die by `os._exit` and SIGKILL; effects are counted in a file of their own."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sagas import Orchestrator
from tests import forked
from tests.crash.victim import DIED, WAITING, Outside, ends, opened, order, poisoned
from tests.kit import End, end_of, within

ROOT = Path(__file__).parents[2]
EXPECTED = {"forward": "21", "back": "charge,reserve"}

pytestmark = pytest.mark.slow


def victim(directory: Path, role: str, point: str = "", **options: Any) -> "subprocess.Popen[str]":
    return forked.Process(
        [sys.executable, "-m", "tests.crash.victim", str(directory), role, point],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        **options,
    )


def audit(outside: Outside) -> None:
    """Forward everything is there, rolled back nothing; each step has one key; undo is in reverse."""
    assert outside.live("forward") == Counter(["reserve", "charge", "ship"])
    assert outside.live("back") == Counter()
    calls = outside.calls()
    keys: dict[tuple[str, str, bool], set[str]] = {}
    for call in calls:
        keys.setdefault((call.saga, call.step, call.undoes), set()).add(call.key)
    assert all(len(found) == 1 for found in keys.values())
    undone = list(dict.fromkeys(call.step for call in calls if call.undoes))
    assert undone == ["charge", "reserve"]


async def recovered(outside: Outside) -> dict[str, str]:
    async with opened(outside) as running:
        found: dict[str, str] = await within(ends(running), running, deadline_s=20)
        return found


POINTS = [
    f"{side}:{name}"
    for side in ("before", "after")
    for name in ("reserve", "charge", "ship", "charge~undo", "reserve~undo")
]


@pytest.mark.parametrize("point", [*POINTS, *(f"commit:{number}" for number in (1, 2, 3, 5))])
def test_a_process_that_dies_at_a_point_is_recovered_from(point: str, tmp_path: Path):
    """At each step and undo, before and after its effect, and after a commit: the next process ends both orders."""
    with victim(tmp_path, "orders", point) as process:
        assert process.wait(60) == DIED
    outside = Outside(tmp_path)
    before = outside.calls()
    assert asyncio.run(recovered(outside)) == EXPECTED
    audit(outside)
    again = Counter((call.saga, call.step, call.undoes) for call in outside.calls())
    for call in before:
        assert again[call.saga, call.step, call.undoes] <= 2
    if not point.startswith("commit"):
        assert sum(count - 1 for count in again.values()) <= len(EXPECTED), "more was called again than was in flight"


def test_nothing_is_called_twice_where_nothing_dies(tmp_path: Path):
    """Undisturbed, each step is called once."""
    outside = Outside(tmp_path)
    assert asyncio.run(recovered(outside)) == EXPECTED
    assert max(Counter((call.saga, call.step, call.undoes) for call in outside.calls()).values()) == 1
    audit(outside)


def test_two_orchestrators_on_one_file_share_sixty_sagas(tmp_path: Path):
    """Started from both, some from both at once under one id: each saga runs once, and no step is called twice."""
    outside = Outside(tmp_path)

    async def start(running: Orchestrator, numbers: range) -> list[Any]:
        return [await running.start(order, number, id=f"o{number}") for number in numbers]

    async def main() -> None:
        async with opened(outside) as first, opened(outside) as second:
            some, others = await asyncio.gather(start(first, range(1, 36)), start(second, range(26, 61)))
            for handle, running in [*((handle, first) for handle in some), *((handle, second) for handle in others)]:
                assert await end_of(handle, running, deadline_s=20) == End("completed", 3 * int(handle.id[1:]))
            assert await first.count() == 60
            assert await second.count(status="completed") == 60

    asyncio.run(main())
    calls = Counter((call.saga, call.step) for call in outside.calls())
    assert len(calls) == 180
    assert set(calls.values()) == {1}


def test_sagas_of_a_killed_process_are_taken_over_by_one_that_lives(tmp_path: Path):
    """SIGKILL: the living worker takes over what was in flight, under the same keys; what had ended is not repeated."""
    outside = Outside(tmp_path)

    async def main(process: "subprocess.Popen[str]") -> None:
        async with opened(outside) as running:
            mine = [await running.start(order, number, id=f"o{number}") for number in range(1, 11)]
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == "serving\n"
            assert {call.pid for call in outside.calls() if call.step == "wait"} == {process.pid}
            (tmp_path / "go").touch()
            os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
            for number in range(WAITING):
                handle = await running.get(f"w{number}")
                assert await end_of(handle, running, deadline_s=20) == End("completed", 2 * number)
            for handle in mine:
                assert (await end_of(handle, running, deadline_s=20)).status == "completed"

    with victim(tmp_path, "serve") as process:
        try:
            asyncio.run(main(process))
        finally:
            process.kill()
    calls = outside.calls()
    assert set(Counter((call.saga, call.step) for call in calls if call.step != "wait").values()) == {1}
    waits = [call for call in calls if call.step == "wait"]
    assert len({call.key for call in waits}) == WAITING
    assert all(count <= 2 for count in Counter(call.saga for call in waits).values())


def test_a_step_that_kills_its_process_five_times_leaves_its_saga_stuck_and_the_others_run(tmp_path: Path):
    """The sixth process finds it stuck, runs the others, and a retry of the cured step completes it."""
    outside = Outside(tmp_path)
    for _ in range(5):
        with victim(tmp_path, "poison") as process:
            assert process.wait(60) == DIED

    async def main() -> None:
        async with opened(outside) as running:
            handle = await running.start(poisoned, id="poisoned")
            end = await end_of(handle, running, deadline_s=20)
            assert (end.status, end.error[1]) == ("stuck", ("poison",))
            assert await within(ends(running), running, deadline_s=20) == EXPECTED
            (tmp_path / "cured").touch()
            await running.retry("poisoned")
            assert await end_of(handle, running, deadline_s=20) == End("completed", 7)

    asyncio.run(main())
    poison = [call for call in outside.calls() if call.step == "poison"]
    assert [call.attempt for call in poison] == [1, 2, 3, 4, 5, 6]
    assert len({call.key for call in poison}) == 1
