"""The command line on PostgreSQL: workers that hand over, say how they fare, and end once their store is lost."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from durable_core.stores.postgres import schema as postgres_schema
from tests import forked
from tests.cli.test_worker import LONGEST_S, Place, until
from tests.postgres_server import GUARDED, PASSWORD, QUICK, Server, execute

pytestmark = pytest.mark.slow


@pytest.fixture
def shop(server: Server, tmp_path: Path) -> Iterator[Place]:
    """A place on PostgreSQL, whose workers do not outlive the test."""
    with placed(server, tmp_path) as found:
        yield found


@contextmanager
def placed(server: Server, directory: Path) -> Iterator[Place]:
    found = Place(directory)
    found.env["SAGAS_STORE"] = server.fresh()
    try:
        yield found
    finally:
        for worker in found.workers:
            worker.kill()
            worker.communicate()


def ready(worker: "subprocess.Popen[str]", first: str) -> dict[str, Any]:
    """What a worker says in JSON when it is ready."""
    assert worker.stdout is not None
    text = first
    while not text.endswith("}\n") or text.count("{") != text.count("}"):
        text += worker.stdout.readline()
    facts: dict[str, Any] = json.loads(text)
    return facts


def asked(port: int) -> tuple[int, dict[str, Any]]:
    """What the health endpoint answers: status and document."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=LONGEST_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def test_what_does_not_end_is_handed_over_at_once(shop: Place):
    """SIGTERM: after its grace, and long before its lease ends, another worker goes on with what it had."""
    leaving, _ = shop.work("shop", "--grace", "0.2", "--lease", "600")
    assert shop.run("start", "slow", "--id", "s-1", "--module", "shop").code == 0
    until(lambda: shop.has("lingering"))
    leaving.send_signal(signal.SIGTERM)
    assert leaving.wait(LONGEST_S) == 0
    shop.touch("let-go")
    shop.work("shop")
    until(lambda: shop.status("s-1") == "completed")


def test_three_workers_share_and_one_is_killed(shop: Place):
    """Sagas started by the command end as they should, also those of the one that is killed."""
    for _ in range(3):
        shop.work("shop", "--lease", "1")
    for number in range(3):
        assert shop.run("start", "order", str(number), "--id", f"o-{number}", "--module", "shop").code == 0
    assert shop.run("start", "slow", "--id", "s-1", "--module", "shop").code == 0
    until(lambda: shop.has("lingering"))
    owner = shop.run("history", "s-1", "--json")
    name = owner.document["entries"][0]["worker"]
    text = f"SELECT pid FROM {shop.env['SAGAS_STORE'].rpartition('=')[2]}.workers WHERE id = $1"
    ((pid,),) = execute(shop.env["SAGAS_STORE"].partition("?")[0], text, name)
    next(worker for worker in shop.workers if worker.pid == pid).kill()
    shop.touch("let-go")
    until(lambda: shop.status("s-1") == "completed")
    assert {shop.status(f"o-{number}") for number in range(3)} == {"completed"}
    assert shop.run("doctor").code == 0


def test_a_worker_says_how_it_fares_and_ends_once_its_store_is_lost(tmp_path: Path):
    """Well while the store answers, with the time of its last work; once it is gone not well, and then ended with 2."""
    with Server(**QUICK) as mortal, placed(mortal, tmp_path) as shop:
        worker, first = shop.work("shop", "--json", "--health", "0", "--store-limit", "3", "--grace", "0.1")
        port = ready(worker, first)["health"]
        status, before = asked(port)
        assert (status, before["well"], before["wrote_s"]) == (200, True, None)
        assert shop.run("start", "order", "7", "--id", "o-1", "--module", "shop", "--wait").code == 0
        until(lambda: asked(port)[1]["wrote_s"] is not None)
        status, after = asked(port)
        assert (status, after["trouble"], after["backlog"]) == (200, None, 0)
        assert after["silent_s"] < after["wrote_s"] + LONGEST_S
        mortal.stop(signal.SIGQUIT)
        until(lambda: worker.poll() is not None or asked_or_gone(port) > 1)
        assert worker.wait(LONGEST_S) == 2
        assert worker.stderr is not None
        lines = worker.stderr.read().splitlines()
        logged = [json.loads(line) for line in lines if line.startswith("{")]
        assert {"at", "level", "logger", "message"} <= set(logged[0])
        assert any("--store-limit" in line for line in lines)


def asked_or_gone(port: int) -> float:
    """For how long the store has been silent; for ever where the worker is gone."""
    try:
        return float(asked(port)[1]["silent_s"])
    except OSError:
        return float("inf")


IMPATIENT = """
from functools import partial
from sagas.cli import main, worker
worker.orchestrator_at = partial(worker.orchestrator_at, store_timeout=0.3)
main()
"""
"""The command line, whose workers wait for a store that cannot be reached for less than half a minute."""


def test_the_commands_refuse_with_two_and_no_password(shop: Place, server: Server, monkeypatch: pytest.MonkeyPatch):
    """Wrong addresses, passwords and stores that are not there: one message, exit code 2, and no password in it."""
    monkeypatch.setattr("sagas.cli.options.STORE_TIMEOUT_S", 0.3)
    execute(server.url(), f"DROP ROLE IF EXISTS {GUARDED}2")
    execute(server.url(), f"CREATE ROLE {GUARDED}2 LOGIN")
    url = server.url(user="sagas", password=PASSWORD, schema="nothing_here")
    for address, words in (
        (url, "there is no store in the schema"),
        (url + "&colour=red", "unknown options: colour"),
        (url.replace("postgresql:", "mysql:"), "cannot begin with 'mysql'"),
        (url.replace("/postgres?", "/nowhere?"), "no such database"),
        (url.replace(f":{server.port}/", ":1/"), "cannot be reached"),
    ):
        shop.env["SAGAS_STORE"] = address
        for command in (("list",), ("show", "o-1")) if address == url else (("list",),):
            done = shop.run(*command)
            assert done.code == 2, done
            assert words in done.err
            assert PASSWORD not in done.err + done.out
    assert execute(server.url(), "SELECT count(*) FROM pg_namespace WHERE nspname = 'nothing_here'") == [(0,)]
    shop.env["SAGAS_STORE"] = url.replace(f":{server.port}/", ":1/")
    command = [sys.executable, "-c", IMPATIENT, "worker", "shop"]
    assert forked.run(command, cwd=shop.directory, env=shop.env, timeout=LONGEST_S, check=False).returncode == 2


def test_migrate_makes_the_tables_once(shop: Place):
    """It says what it did; after it `list` works, and a second one changes nothing."""
    assert shop.run("list").code == 2
    done = shop.run("migrate", "--json")
    assert (done.code, done.document["before"], done.document["after"]) == (0, 0, len(postgres_schema.migrations()))
    assert "already" in shop.run("migrate").out
    assert shop.run("list").code == 0
    shop.env["SAGAS_STORE"] = "sqlite:///new.db"
    assert shop.run("migrate", "--json").document["after"] == 1
    assert shop.run("list").code == 0
