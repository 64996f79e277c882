"""``sagas top``: a store at a glance, once or for as long as one watches."""

import asyncio
import os
import pty
import sys
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen

import attrs
import pytest

from sagas import Orchestrator, Saga, SagaStatus, SagaStuck, saga, step
from sagas.cli.output import plain
from sagas.cli.overview import Overview, lines_of
from sagas.model.versions import VersionInfo, VersionVerdict
from tests.cli.line import Line


@step
def hold(item: str) -> str:
    return item


@hold.compensate(retry=1)
def release(held: str) -> None:
    raise RuntimeError(f"{held} is stuck in the door")


@saga("hold-item", version=1)
async def hold_item(s: Saga, item: str) -> str:
    held = await s.run(hold, item)
    if item == "piano":
        raise ValueError("too heavy")
    return held


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store in which one saga has completed and another is stuck."""
    url = f"sqlite:///{tmp_path / 'sagas.db'}"

    async def fill() -> None:
        async with Orchestrator(url, sagas=[hold_item]) as orchestrator:
            await (await orchestrator.start(hold_item, "cup", id="cup-1")).result()
            await orchestrator.start(hold_item, "piano", id="piano-1")
            with pytest.raises(SagaStuck):
                await (await orchestrator.get("piano-1")).result()

    asyncio.run(fill())
    return url


def version(worker: str = "w-1", **open_: int) -> VersionInfo:
    """A version of one saga with so many open ones by status, and ten that have ended."""
    counts = {SagaStatus(name): count for name, count in open_.items()}
    return VersionInfo(
        saga="s",
        version=1,
        verdict=VersionVerdict.IN_USE,
        newest=True,
        open=counts,
        ended=10,
        workers=(worker,),
        fingerprint="",
        announced_at=None,
    )


def seen(*versions: VersionInfo, second: int = 0) -> Overview:
    """An overview without sagas."""
    now_ns = int(datetime(2026, 12, 1, 12, 0, second, tzinfo=UTC).timestamp()) * 10**9
    return Overview(versions=versions, attention=(), needing=0, newest=(), now_ns=now_ns)


def test_versions_are_added_up():
    """Open sagas of all versions count by status, with zeros; a worker of two versions counts once."""
    overview = seen(version(running=2, stuck=1), version(running=3))
    assert overview.open == {"pending": 0, "running": 5, "waiting": 0, "compensating": 0, "stuck": 1}
    assert (overview.ended, overview.workers) == (20, ["w-1"])


def test_rates_are_of_the_time_between_two_looks():
    """Starts are what is open or ended now and was not before; a purge in between gives no negative rate."""
    before, after = seen(version(running=2)), seen(attrs.evolve(version(running=6), ended=16), second=2)
    assert after.rates_since(before) == (5.0, 3.0)
    assert before.rates_since(after) == (0.0, 0.0)


def test_a_screen_says_what_is_stuck_and_what_is_newest(store: str, capsys: pytest.CaptureFixture[str]):
    """Once: the tally, the stuck saga with its reason, the newest sagas, and no way to move the cursor."""
    ended = Line(capsys).run("top", "--once", "--store", store)
    assert (ended.code, ended.err) == (0, "")
    assert "stuck 1   ended 1\n" in ended.out
    assert "needs attention (1)\n" in ended.out
    assert ended.out.count("\npiano-1 ") == 2
    assert ended.out.count("\ncup-1 ") == 1
    assert "\x1b" not in ended.out


def test_the_same_as_json(store: str, capsys: pytest.CaptureFixture[str]):
    """With ``--json`` the same is one document."""
    document = Line(capsys).run("top", "--json", "--store", store).document
    assert document["open"]["stuck"] == 1
    assert document["ended"] == 1
    assert [each["id"] for each in document["newest"]] == ["piano-1", "cup-1"]
    assert [each["id"] for each in document["attention"]["sagas"]] == ["piano-1"]


def test_an_empty_store_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """No sagas yet is a screen too; no store is an error that names it."""
    path = tmp_path / "empty.db"
    line = Line(capsys)
    assert line.run("migrate", "--store", f"sqlite:///{path}").code == 0
    assert "no sagas yet" in line.run("top", "--store", f"sqlite:///{path}").out
    missing = line.run("top", "--store", f"sqlite:///{tmp_path / 'none.db'}")
    assert (missing.code, missing.out) == (2, "")
    assert "there is no store at" in missing.err


def test_what_needs_attention_leaves_half_of_a_low_screen(store: str):
    """However many sagas need attention, the newest stay in sight, and the cut says how to see the rest."""

    async def look() -> Overview:
        async with Orchestrator(store, worker=False) as orchestrator:
            (stuck,) = await orchestrator.list(status="stuck")
            return attrs.evolve(seen(), attention=[stuck] * 30, needing=30, newest=[stuck])

    drawn = plain(lines_of(asyncio.run(look()), store=store, width=80, height=25))
    assert len(drawn.splitlines()) <= 25
    assert "sagas list --attention" in drawn
    assert "newest" in drawn


def test_a_terminal_is_drawn_on_until_ctrl_c(store: str):
    """On a terminal it draws in the alternate screen; Ctrl-C ends it with code 0 and brings back what stood there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sagas", "top", "--store", store]
    process = Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env={**os.environ, "TERM": "xterm"}
    )
    os.close(theirs)
    try:
        text = b""
        while b"Ctrl-C ends" not in text:
            text += os.read(ours, 4096)
        assert b"\x1b[?1049h" in text
        assert b"piano-1" in text
        process.send_signal(2)
        while b"\x1b[?1049l" not in text:
            text += os.read(ours, 4096)
        assert process.wait() == 0
        assert b"Traceback" not in text
    finally:
        process.kill()
        process.wait()
        os.close(ours)
