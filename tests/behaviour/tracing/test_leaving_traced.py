"""The end of a traced process: a collector that is down does not hold it up, and what it owes is sent by the next."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from durable_core.engine import process
from durable_core.stores.sqlite import database
from durable_core.stores.sqlite.store import SqliteStore
from durable_core.tracing import delivery
from durable_core.tracing.journal_tail import JournalTail
from sagas import Saga, saga
from tests.collecting import Collector, collecting, expected, export_directly
from tests.kit import Place, World, end_of, party, until
from tests.otlp import collector

ROOT = Path(__file__).parents[3]
HOUR_S = 3600.0
seat = party("seat")


@saga("trip", version=1)
async def trip(s: Saga, who: str) -> str:
    return await s.run(seat, who)


async def test_a_follower_ends_though_a_commit_absorbs_its_cancellation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A program that cancels all its tasks, and waits for their ends, does not wait for ever for a slow disk's sake."""
    monkeypatch.setattr(database, "QUICK_S", -1.0)
    store, before = SqliteStore(str(tmp_path / "x.db")), asyncio.all_tasks()
    await store.open(worker="w1")
    await store.spans.start("w1")
    noted: list[bool] = []

    async def note(_: bool) -> None:  # noqa: FBT001
        asyncio.get_running_loop().call_soon(task.cancel)
        await store.spans.advance("w1", 1)
        noted.append(True)

    async def nothing() -> float:
        return HOUR_S

    JournalTail(what="spans", progress=lambda: 1, catch_up=note, besides=nothing)
    (task,) = asyncio.all_tasks() - before
    await until(task.done)
    assert (noted, task.cancelled()) == ([True], True)
    await store.close()


@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_leaving_gives_up_a_collector_that_takes_nothing(place: Place, how: str, monkeypatch: pytest.MonkeyPatch):
    """However long it would wait for one that works, leaving ends soon; the next process sends what is owed."""
    monkeypatch.setattr(process, "SPANS_S", HOUR_S)
    monkeypatch.setattr(delivery, "SILENT_S", 0.3)
    monkeypatch.setattr(delivery, "TROUBLED_S", 0.3)

    provider, found = collecting()
    found.refusals = 1_000_000
    if how == "hangs":
        found.hanging = threading.Event()
    async with place.orchestrator(trip, world=World(), tracer_provider=provider) as running:
        await end_of(await running.start(trip, "ann", id="trip"), running)
        want = await expected(running, "trip")
    exporter = running.engine.exporter
    assert exporter is not None
    assert exporter.tally.owing
    if found.hanging is not None:
        found.hanging.set()
    up = Collector()
    export_directly(provider, up)
    async with place.orchestrator(trip, world=World(), tracer_provider=provider) as running:
        while set(up.ids()) != {span.span_id for span in want}:  # noqa: ASYNC110 - it is another thread that takes them
            await asyncio.sleep(0.01)
    assert len(up.taken) == len(want), "each of them once"
    assert not found.taken


async def test_leaving_offers_at_once_what_waits_to_be_offered_again(place: Place, monkeypatch: pytest.MonkeyPatch):
    """A collector that is back gets its spans when the process leaves, also where the next offer was an hour away."""
    monkeypatch.setattr(delivery, "FIRST_DELAY_S", HOUR_S)
    monkeypatch.setattr(delivery, "LONGEST_DELAY_S", HOUR_S)

    provider, found = collecting()
    found.refusals = 1
    async with place.orchestrator(trip, world=World(), tracer_provider=provider) as running:
        await end_of(await running.start(trip, "ann", id="trip"), running)
        while not found.offered:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        want = await expected(running, "trip")
    assert set(found.ids()) == {span.span_id for span in want}


# -- the end of the interpreter ----------------------------------------------------------------------------------------


def python(program: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end; one that does not end in a minute fails the test."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


HELD = """
import os, sys, threading
from durable_core.layer import AtExit

def shut_down():
    print("asked", flush=True)
    threading.Event().wait()

AtExit(shut_down, within_s=0.05)
if sys.argv[1] == "fork":
    child = os.fork()
    if child:
        os.waitpid(child, 0)
"""
QUICK = """
from durable_core.layer import AtExit

def shut_down():
    print("done", flush=True)

ending = AtExit(shut_down, within_s=3600)
ending()
"""


@pytest.mark.parametrize("where", ["here", "fork"])
def test_the_process_ends_although_what_it_shuts_down_does_not(where: str):
    """What hangs at the end is waited for only so long, on every Python, and in a fork too."""
    ran = python(HELD, where)
    assert (ran.returncode, ran.stdout) == (0, "asked\n" * (2 if where == "fork" else 1)), ran.stderr


def test_what_ends_in_time_is_waited_for_once():
    """What was shut down before the end of the process is not shut down again."""
    assert python(QUICK).stdout == "done\n"


WITH_SPANS = """
import sys
from opentelemetry import trace
from opentelemetry.sdk._shared_internal import BatchProcessor
from sagas import tracing

BatchProcessor.shutdown.__defaults__ = (3_600_000,)  # the library itself would wait for so long
tracing.configure(sys.argv[1])
with trace.get_tracer("mine").start_as_current_span("inside"):
    pass
"""


@pytest.mark.parametrize("how", ["takes", "hangs"])
def test_a_collector_that_hangs_does_not_hold_the_process(how: str):
    """Spans of steps' own instrumentation are sent at the end; a collector that does not answer is given up."""
    with collector() as found:
        if how == "hangs":
            found.hold.clear()
        try:
            ran = python(WITH_SPANS, found.url, OTEL_EXPORTER_OTLP_TIMEOUT="3600")
        finally:
            found.hold.set()
        assert ran.returncode == 0, ran.stderr
        if how == "takes":
            assert [span.name for span in found.spans] == ["inside"]


FLUSHED = """
import os, sys
from opentelemetry import trace
from sagas import tracing

tracing.configure(sys.argv[1])
with trace.get_tracer("mine").start_as_current_span("inside"):
    pass
print(tracing.flush(float(sys.argv[2])), flush=True)
os._exit(0)  # as if it were killed
"""


@pytest.mark.parametrize(("how", "within_s", "told"), [("takes", "60", "True\n"), ("hangs", "0.1", "False\n")])
def test_a_flush_tells_whether_it_was_done_in_time(how: str, within_s: str, told: str):
    """What is sent by then outlives a process that is killed next; a collector that does not answer is given up."""
    with collector() as found:
        if how == "hangs":
            found.hold.clear()
        hour = {"OTEL_BSP_SCHEDULE_DELAY": "3600000", "OTEL_EXPORTER_OTLP_TIMEOUT": "3600"}
        try:
            ran = python(FLUSHED, found.url, within_s, **hour)
            arrived = [span.name for span in found.spans]
        finally:
            found.hold.set()
        assert (ran.returncode, ran.stdout) == (0, told), ran.stderr
        assert arrived == (["inside"] if how == "takes" else [])


# -- configure, again --------------------------------------------------------------------------------------------------

AGAIN = """
import os
from sagas import DefinitionError, tracing

first = tracing.configure("http://localhost:4318", "shop")
for arguments in [("http://localhost:4318", "shop"), ("http://localhost:4318/", "shop"), (None, "shop")]:
    assert tracing.configure(*arguments) is first
os.environ["OTEL_SERVICE_NAME"] = "shop"
assert tracing.configure(service_name="another, but the variable goes before it") is first
for arguments, named in [
    (dict(endpoint="http://user:hush@other:4318/?key=hush"), ["http://other:4318/v1/traces", "http://localhost:4318/v1/traces"]),
    (dict(failures=True), ["failures=True", "False"]),
]:
    try:
        tracing.configure(**arguments)
    except DefinitionError as refused:
        told = str(refused)
        assert all(name in told for name in named), told
        assert "Restart" in told and "hush" not in told, told
    else:
        raise AssertionError(arguments)
assert tracing.configure() is first
"""


def test_the_same_settings_again_change_nothing_and_others_are_refused():
    """As when a notebook's cell is run again. What was asked for, what is in use and what to do is told."""
    ran = python(AGAIN)
    assert ran.returncode == 0, ran.stderr


OWN = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from sagas import Saga, saga
{setting}

@saga("order", version=1)
async def order(s: Saga) -> None: ...
"""
SETTINGS = {
    "its own": "trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))",
    "another endpoint": "from sagas.tracing import configure; configure('http://localhost:9')",
}
WORKER = """
import os, signal
from sagas.cli import main, worker

worker._ready = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
main(["worker", "shop.py"])
"""


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_worker_uses_the_provider_that_its_modules_have_set(setting: str, tmp_path: Path):
    """A module may set tracing up by itself although the environment names a collector: it is used as it is."""
    (tmp_path / "shop.py").write_text(OWN.format(setting=SETTINGS[setting]), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-c", WORKER],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SAGAS_STORE": "sqlite:///sagas.db",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
