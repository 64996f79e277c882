"""`sagas worker` as a process of its own: ready, serving, and ending as it is asked to."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from durable_core.layer import Health
from sagas import Orchestrator
from sagas.cli.health import WELL_S, HealthEndpoint, answering, report
from sagas.cli.output import CommandError
from sagas.cli.worker import _leave
from tests import forked
from tests.cli.line import Ended, run_here

ROOT = Path(__file__).parents[2]
SAGAS = (sys.executable, "-c", "from sagas.cli import main; main()")
LONGEST_S = 60.0
"""How long a condition may take on a machine in trouble."""

SHOP = """
import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path

from sagas import Retry, Saga, resource, saga, step

print("imported")
HERE = Path(__file__).parent

class Bank:
    def __init__(self):
        self.is_open = True

@asynccontextmanager
async def resources():
    bank = Bank()
    yield [bank]
    (HERE / "bank-closed").touch()

@step(retry=Retry(attempts=1))
async def pay(amount: int, *, bank: Bank = resource()) -> str:
    assert bank.is_open
    return f"paid {amount}"

@pay.compensate(retry=Retry(attempts=1))
async def refund(paid: str) -> None:
    if not (HERE / "mended").exists():
        raise RuntimeError("the bank is on holiday")

@step(compensation=None, because="a test")
async def ask(amount: int) -> None:
    if amount > 40:
        raise ValueError("too much")

@step(compensation=None, because="a test")
async def linger() -> None:
    (HERE / "lingering").touch()
    while not (HERE / "let-go").exists():
        await asyncio.sleep(0.01)

@step(compensation=None, because="a test")
def hang() -> None:
    (HERE / "hanging").touch()
    time.sleep(600)

@saga("order", version=1)
async def order(s: Saga, amount: int) -> str:
    paid = await s.run(pay, amount)
    await s.run(ask, amount)
    return paid

@saga("slow", version=1)
async def slow(s: Saga) -> None:
    await s.run(linger)

@saga("hung", version=1)
async def hung(s: Saga) -> None:
    await s.run(hang)
"""


class Place:
    """A directory with a module, a store, and the processes on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "shop.py").write_text(SHOP, encoding="utf-8")
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "SAGAS_STORE": "sqlite:///orders.db"}
        self.workers: list[subprocess.Popen[str]] = []

    def run(self, *arguments: str) -> Ended:
        """Run a command to its end, in this process: one of its own would take longer to begin than to do its work."""
        return run_here(self.directory, self.env, *arguments)

    def work(self, *arguments: str) -> "tuple[subprocess.Popen[str], str]":
        """Start a worker; returns once it has said that it is ready, with what it said."""
        worker = forked.Process(
            [*SAGAS, "worker", *arguments],
            cwd=self.directory,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.workers.append(worker)
        assert worker.stdout is not None
        return worker, worker.stdout.readline()

    def status(self, saga_id: str) -> str:
        """Its status."""
        url = self.env["SAGAS_STORE"].replace("sqlite:///", f"sqlite:///{self.directory}/")

        async def asked() -> str:
            async with Orchestrator(url, worker=False) as observer:
                return (await (await observer.get(saga_id)).info()).status

        return asyncio.run(asked())

    def shown(self, saga_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.run("show", saga_id, "--json").document
        return found

    def touch(self, name: str) -> None:
        (self.directory / name).touch()

    def has(self, name: str) -> bool:
        return (self.directory / name).exists()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place whose workers do not outlive the test."""
    found = Place(tmp_path)
    yield found
    for worker in found.workers:
        worker.kill()
        worker.communicate()


def until(condition: Callable[[], bool]) -> None:
    """Return once ``condition`` holds."""
    give_up = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def logged(err: str) -> list[dict[str, Any]]:
    """The records of a log in JSON; what the module itself prints comes first."""
    printed, *lines = err.splitlines()
    assert printed == "imported"
    return [json.loads(line) for line in lines]


def test_a_worker_says_that_it_is_ready_and_ends_on_sigterm(place: Place):
    """One line on stdout tells worker, sagas and store; SIGTERM ends it with 0, and its resources are closed."""
    worker, ready = place.work("shop")
    assert f"(pid {worker.pid}) is ready: hung v1, order v1, slow v1 on sqlite:///orders.db" in ready
    worker.send_signal(signal.SIGTERM)
    out, err = worker.communicate(timeout=LONGEST_S)
    assert (worker.returncode, out) == (0, "")
    assert "stopped" in err
    assert place.has("bank-closed")


def test_a_stuck_saga_is_mended_from_the_command_line(place: Place):
    """A given-up compensation: `show` says so; after `retry` the worker that still runs undoes it."""
    place.work("shop")
    started = place.run("start", "order", "99", "--id", "o-1", "--module", "shop", "--wait")
    assert started.code == 1
    assert "stuck: " in started.err
    shown = place.run("show", "o-1")
    assert shown.code == 1
    assert "sagas retry o-1" in shown.out
    place.touch("mended")
    assert place.run("retry", "o-1", "--note", "the holiday is over").code == 0
    until(lambda: place.status("o-1") == "compensated")


def test_show_says_that_nobody_runs_what_a_dead_worker_has_left(place: Place):
    """After kill -9 of the only worker a saga is `running` still; `show` says that no worker runs it, and why."""
    worker, _ = place.work("shop")
    assert place.run("start", "slow", "--id", "s-1", "--module", "shop").code == 0
    until(lambda: place.has("lingering"))
    assert "RUNNING: running on a worker" in place.run("show", "s-1").out
    worker.kill()
    worker.wait(LONGEST_S)
    page = place.run("show", "s-1").out
    assert "RUNNING: started, but no worker serves its version" in page
    assert "which no worker serves" in page


def test_a_worker_in_json_says_what_needs_a_person(place: Place):
    """A saga that gets stuck is an error in the log of the worker that drove it: which, why, and what mends it.

    With `--json` its first line is a document, on one line too, for it has no end to wait for; modules print elsewhere.
    """
    worker, ready = place.work("shop.py", "--json")
    facts = json.loads(ready)
    assert facts["pid"] == worker.pid
    assert facts["sagas"] == [{"saga": name, "version": 1} for name in ("hung", "order", "slow")]
    assert place.run("start", "order", "99", "--id", "o-1", "--module", "shop", "--wait").code == 1
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=LONGEST_S)
    (told,) = [record for record in logged(err) if record["level"] == "error"]
    assert (told["logger"], told["saga_id"]) == ("sagas", "o-1")
    assert told["message"].startswith("saga 'o-1' (order v1) is stuck and needs a person: ")
    assert "the bank is on holiday" in told["message"]
    assert "sagas retry o-1" in told["message"]


def test_a_worker_purges_after_the_retention_that_it_was_given(place: Place):
    """A second after its end a saga is gone, and `show` says that it was purged."""
    place.work("shop", "--retention", "1s", "--id-retention", "forever")
    assert place.run("start", "order", "7", "--id", "o-1", "--module", "shop").code == 0
    until(lambda: "was purged at" in place.run("show", "o-1").err)


def test_a_worker_lets_attempts_end_on_sigterm(place: Place):
    """An attempt under way when SIGTERM comes may end within the grace, and is recorded."""
    place.run("start", "slow", "--id", "s-1", "--module", "shop")
    worker, _ = place.work("shop", "--grace", str(LONGEST_S))
    until(lambda: place.has("lingering"))
    worker.send_signal(signal.SIGTERM)
    assert worker.stderr is not None
    while "stopping" not in worker.stderr.readline():
        pass
    place.touch("let-go")
    worker.communicate(timeout=LONGEST_S)
    assert worker.returncode == 0
    steps = place.shown("s-1")["steps"]
    assert [(step["name"], step["status"], step["attempts"]) for step in steps] == [("linger", "succeeded", 1)]


def test_a_second_sigint_stops_at_once_and_loses_nothing(place: Place):
    """Ctrl-C twice ends the worker amid an attempt with 130; the next worker goes on."""
    place.run("start", "slow", "--id", "s-1", "--module", "shop")
    worker, _ = place.work("shop", "--grace", "600")
    until(lambda: place.has("lingering"))
    worker.send_signal(signal.SIGINT)
    assert worker.stderr is not None
    while "stopping" not in worker.stderr.readline():
        pass
    worker.send_signal(signal.SIGINT)
    worker.communicate(timeout=LONGEST_S)
    assert worker.returncode == 130
    place.touch("let-go")
    place.work("shop")
    until(lambda: place.status("s-1") == "completed")


def test_a_thread_that_hangs_does_not_hold_the_worker(place: Place):
    """A step on a thread that nothing can stop: the worker ends after its grace, and the saga is free for another.

    With `--json` each line on stderr is an object, also while it is asked to stop and has to cut a thread.
    """
    place.run("start", "hung", "--id", "h-1", "--module", "shop")
    worker, _ = place.work("shop", "--grace", "0", "--json")
    until(lambda: place.has("hanging"))
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=LONGEST_S)
    assert worker.returncode == 0
    messages = [record["message"] for record in logged(err)]
    for words in ("stopping", "stopped", "interrupted threads of steps"):
        assert any(words in message for message in messages), words
    assert place.status("h-1") in ("pending", "running", "waiting")


@pytest.mark.parametrize(("name", "said"), [("sagas-step_0", 1), ("store-writer_0", 0)])
def test_only_threads_of_steps_are_reported(name: str, said: int, monkeypatch: pytest.MonkeyPatch):
    """A worker ends although a thread is left; it speaks of one only if that is a step's, and not the store's own."""
    ended, messages, codes = threading.Event(), list[str](), list[int]()
    monkeypatch.setattr("os._exit", codes.append)
    monkeypatch.setattr("logging.shutdown", lambda: None)
    left = threading.Thread(target=ended.wait, name=name)
    left.start()
    try:
        _leave(messages.append)
    finally:
        ended.set()
        left.join()
    assert (len(messages), codes) == (said, [0])


def test_rich_is_loaded_only_to_show(place: Place):
    """Importing the command line, `--help` and `--json` load no rich."""
    code = (
        "import sys; from sagas.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "assert 'rich.console' not in sys.modules"
    )
    place.run("start", "order", "1", "--id", "o-1", "--module", "shop")
    for arguments in (["--help"], ["list", "--json"], ["show", "o-1", "--json"]):
        ended = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=place.directory,
            env=place.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_S,
        )
        assert (ended.returncode, ended.stderr) == (0, "")


def test_a_worker_tells_what_check_warns_of(place: Place):
    """A body that asks the clock itself: the worker serves it, and its log says so with file and line."""
    (place.directory / "hasty.py").write_text(
        "import time\nfrom sagas import Saga, saga\n\n"
        '@saga("hasty", version=1)\nasync def hasty(s: Saga) -> float:\n    return time.time()\n',
        encoding="utf-8",
    )
    worker, ready = place.work("hasty")
    assert "is ready: hasty v1" in ready
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=LONGEST_S)
    assert worker.returncode == 0
    assert "WARNING sagas: saga 'hasty': " in err
    assert "hasty.py:6: the body calls time.time()" in err


def test_two_modules_with_one_name_and_version_are_refused(place: Place):
    """Of two sagas that could not be told apart none is served: exit code 2, both named, and no store is made."""
    (place.directory / "shop2.py").write_text(SHOP, encoding="utf-8")
    worker, ready = place.work("shop", "shop2")
    _, err = worker.communicate(timeout=LONGEST_S)
    assert (worker.returncode, ready) == (2, "")
    for part in ("two different sagas are named 'order' version 1", "shop.py:", "shop2.py:"):
        assert part in err
    assert "Traceback" not in err
    assert not (place.directory / "orders.db").exists()


@pytest.mark.parametrize(
    ("silent_s", "limit_s", "well"),
    [(0.1, 300, True), (WELL_S - 1, 300, True), (WELL_S, 300, False), (3, 4, True), (4, 4, False)],
)
def test_a_worker_is_not_well_once_its_store_is_silent_for_as_long_as_it_may_be(
    silent_s: float, limit_s: float, *, well: bool
):
    """30 s, or the limit after which it ends where that is less: nobody is told that all is well by a dying worker."""
    pulse = Health(silent_s=silent_s, wrote_s=None, runs=0, under_way=0, backlog=0, trouble=None)
    assert report("w-1", pulse, limit_s=limit_s)["well"] is well


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1", "another process has the port. Give another one, or 0 for any free port"),
        ("203.0.113.1", "is no address of this machine"),
        ("no such host", "is no address of this machine"),
        ("a..b", "is no address of this machine"),
    ],
)
def test_a_health_endpoint_that_cannot_be_served_is_a_wrong_option(host: str, why: str):
    """A port in use, and a host that is not this machine, are told in words that say what to give instead."""

    async def serve(port: int) -> None:
        async with (
            Orchestrator("memory://", worker=False) as orchestrator,
            answering(HealthEndpoint(host, port), orchestrator.engine, 300),
        ):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError) as refused:
            asyncio.run(serve(port))
    assert f"--health {host}:{port} cannot be used: " in str(refused.value)
    assert why in str(refused.value)


def test_a_worker_whose_health_port_is_taken_exits_with_a_wrong_use(place: Place):
    """The whole command: exit code 2 and one line, and no talk of a bug."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        worker, ready = place.work("shop", "--health", str(taken.getsockname()[1]))
        _, err = worker.communicate(timeout=LONGEST_S)
    assert (worker.returncode, ready) == (2, "")
    assert "another process has the port" in err
    assert "bug" not in err
