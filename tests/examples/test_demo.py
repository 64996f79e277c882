"""The demo holds, by its own audit and by what it leaves behind: the first promise a newcomer puts to the test."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.participants.launcher import ROOT
from tests import forked
from tests.otlp import Collector, collector
from tests.postgres_server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
DEMO = [sys.executable, "-m", "examples.orders.demo"]
ENDS = {
    "order completes": ("completed", True),
    "card declined": ("compensated", False),
    "courier fails twice": ("completed", True),
    "kill -9 in mid-saga": ("completed", True),
    "kill -9 in rollback": ("compensated", False),
    "payment times out": ("completed", True),
    "customer cancels": ("compensated", False),
    "refund gets stuck": ("compensated", False),
    "manager approves": ("completed", True),
    "manager refuses": ("compensated", False),
}


def processes_of(directory: Path) -> list[str]:
    """The command lines of live processes that name ``directory``."""
    found: list[str] = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = line.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if str(directory) in command:
            found.append(command)
    return found


def test_the_demo_holds(tmp_path: Path) -> None:
    """Every scene ends as it should, by the participants' own books; the exit code says so; nothing runs on.

    Each order is one trace with a collector: the saga, the shop's calls, and the services that they reached.
    """
    report, kept = tmp_path / "audit.json", tmp_path / "kept"
    with collector() as found:
        demo = forked.run(
            [*DEMO, "--json", str(report), "--keep", str(kept)],
            cwd=ROOT,
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": found.url},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "The audit holds" in demo.stdout
    audit = json.loads(report.read_text())
    assert audit["holds"]
    assert not audit["strangers"]
    assert {order["scene"]: (order["status"], order["kept"]) for order in audit["orders"]} == ENDS
    for order in audit["orders"]:
        assert order["faults"] == [], order
        assert order["reserved"] == order["booked"] == order["asked"] == 0, order
        assert order["charges"] <= 1, order
        assert order["charged"] - order["refunded"] == (order["amount"] if order["kept"] else 0), order
        assert order["dispatched"] == (1 if order["kept"] else 0), order
    refused = audit["orders"][-1]
    assert (refused["taken"], refused["withdrawn"], refused["released"]) == (0, 1, 2)
    assert "Bearer" not in (kept / "web.log").read_text()
    sold = sum(order["sold"] for order in audit["orders"])
    assert all(shelf["balanced"] and shelf["reserved"] == 0 for shelf in audit["stock"])
    assert sold == sum(shelf["sold"] for shelf in audit["stock"]) == 2 * sum(kept for _, kept in ENDS.values())
    assert processes_of(kept) == []
    check_traces(found, kept / "traces")


def check_traces(found: Collector, files: Path) -> None:
    """What was sent of each saga is what the file of its order holds; calls lie between saga and service."""
    sent = {span.span_id: span for span in found.spans}
    for file in files.iterdir():
        (trace,) = json.loads(file.read_text())["data"]
        assert {span["spanID"] for span in trace["spans"]} <= sent.keys(), file.name
    assert len(list(files.iterdir())) == len(ENDS)
    served = [request for request in found.of("examples.participants") if request.parent_id]
    joined = [(request, sent[request.parent_id]) for request in served if request.parent_id in sent]
    alone = sorted(request.name for request in served if request.parent_id not in sent)
    assert alone == ["POST /charge", "POST /refund"], "a worker that is killed takes the call under way, and no other"
    for request, call in joined:
        assert (call.name, call.scope, call.trace_id) == (request.name, "examples.participants.calls", request.trace_id)
        assert sent[call.parent_id].scope == "sagas"


@pytest.mark.skipif("SAGAS_SOAK" not in os.environ, reason="half a minute more: `make soak` runs it")
def test_the_demo_holds_on_postgresql_with_three_workers(tmp_path: Path, server: Server) -> None:
    """The same books, where three workers share the orders and the one that runs an order is killed."""
    report, kept = tmp_path / "audit.json", tmp_path / "kept"
    demo = forked.run(
        [*DEMO, "--json", str(report), "--keep", str(kept), "--store", server.fresh(), "--workers", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    audit = json.loads(report.read_text())
    assert audit["holds"]
    assert {order["scene"]: (order["status"], order["kept"]) for order in audit["orders"]} == ENDS
    assert processes_of(kept) == []


@pytest.mark.parametrize(("asked", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_nothing_running(tmp_path: Path, asked: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM in the middle of a scene end every process, and the exit code is not 0."""
    kept = tmp_path / "kept"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*DEMO, "--keep", str(kept)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        output = ""
        for line in demo.stdout:
            output += line
            if line.startswith("3."):
                break
        assert len(processes_of(kept)) == 7, output  # the demo, four participants, the web application, a worker
        demo.send_signal(asked)
        output += demo.stdout.read()
        assert demo.wait(30) == code, output
    assert processes_of(kept) == []


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    """``--keep`` does not mix its files with others: the demo says so and starts nothing."""
    (tmp_path / "something").touch()
    demo = forked.run(
        [*DEMO, "--keep", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "400"},  # the message in one line, however long the name of the directory
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert demo.returncode == 2
    assert "is not empty" in demo.stderr
