"""`sagas relay`: hands an outbox on once or for ever, and lists, retries and drops what was refused."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sagas import Orchestrator
from tests import forked
from tests.cli.line import Line
from tests.kit import until

ROOT = Path(__file__).parents[2]
SHOP = """
from sqlmodel import create_engine
from sagas import Saga, saga, step
from sagas.outbox import Outbox

engine = create_engine("sqlite:///shop.db")
outbox = Outbox(engine)
outbox.create_tables()

@step(compensation=None, because="a test")
async def note(what: str) -> str:
    return what

@saga("order", version=1)
async def order(s: Saga, what: str) -> str:
    return await s.run(note, what)
"""
FILL = """
from sqlmodel import Session
from {module} import engine, order, outbox
with Session(engine) as session:
    outbox.start(session, order, "tea", id="one")
    outbox.cancel(session, "nobody")
    session.commit()
"""


class Shop:
    """A folder with a module, whose outbox has an entry of each kind that matters here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.module = f"shop_{folder.name.replace('-', '_')}"
        (folder / f"{self.module}.py").write_text(SHOP, encoding="utf-8")
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.env = {**os.environ, "PYTHONPATH": paths, "SAGAS_STORE": "sqlite:///orders.db"}

    @property
    def target(self) -> str:
        return f"{self.module}:outbox"

    def fill(self) -> None:
        """Commit a start, and a cancel of a saga that is not there."""
        command = [sys.executable, "-c", FILL.format(module=self.module)]
        forked.run(command, cwd=self.folder, env=self.env, check=True, timeout=60)

    def process(self, *arguments: str) -> "subprocess.Popen[str]":
        """A command that goes on until it is stopped."""
        command = [sys.executable, "-c", "from sagas.cli import main; main()", *arguments]
        return forked.Process(
            command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    async def is_there(self, saga_id: str) -> bool:
        """Whether the saga was started."""
        path = self.folder / "orders.db"
        if not path.exists():
            return False
        async with Orchestrator(f"sqlite:///{path}", worker=False) as looking:
            return saga_id in [info.id for info in await looking.list()]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """It, as the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return Shop(tmp_path)


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Line:
    """The command line."""
    monkeypatch.setenv("SAGAS_STORE", "sqlite:///orders.db")
    return Line(capsys)


def test_once(shop: Shop, line: Line):
    """`--once` hands on what is committed, creates the store, sets aside what is refused, and ends with 0."""
    shop.fill()
    ended = line.run("relay", shop.target, "--once")
    assert (ended.code, ended.out) == (0, "Handed on: 1. Refused: 1.\n")
    assert line.run("relay", shop.target, "--once", "--json").document == {"handed_on": 0, "refused": 0}
    assert asyncio.run(shop.is_there("one"))


def test_refused_entries(shop: Shop, line: Line, monkeypatch: pytest.MonkeyPatch):
    """They are listed, handed on again and deleted, without a store."""
    shop.fill()
    shop.fill()
    assert line.run("relay", shop.target, "--once").code == 0
    monkeypatch.delenv("SAGAS_STORE")
    listed = line.run("relay", shop.target, "--refused", "--json").document
    assert [(entry["verb"], entry["saga_id"]) for entry in listed["refused"]] == [("cancel", "nobody")] * 2
    first, second = [entry["id"] for entry in listed["refused"]]
    shown = line.run("relay", shop.target, "--refused")
    assert "cancel  nobody" in shown.out
    assert "SG002" in shown.out
    ended = line.run("relay", shop.target, "--retry", str(first), "--drop", str(second), "--drop", "999", "--json")
    assert ended.document == {"retried": 1, "dropped": 1, "refused": []}
    assert line.run("relay", shop.target, "--refused").out == "No entry is refused.\n"
    assert "No refused entry has the number 99999." in line.run("relay", shop.target, "--drop", "99999").out
    no_store = line.run("relay", shop.target, "--once")
    assert no_store.code == 2
    assert "SAGAS_STORE" in no_store.err


@pytest.mark.parametrize(
    ("target", "words"),
    [("{module}", "MODULE:OUTBOX"), ("{module}:engine", "it has outbox"), ("no_such_module:outbox", "no module")],
)
def test_what_is_no_outbox(shop: Shop, line: Line, target: str, words: str):
    """Bad usage ends with 2, and says what to give."""
    ended = line.run("relay", target.format(module=shop.module), "--once")
    assert ended.code == 2
    assert words in ended.err


def test_a_database_that_cannot_be_asked(shop: Shop, line: Line):
    """An outbox without tables, or a file that is no database, ends `--once` and `--refused` with 2 and one message."""
    (shop.folder / f"{shop.module}.py").write_text(SHOP.replace("outbox.create_tables()", ""), encoding="utf-8")
    ended = line.run("relay", shop.target, "--once")
    assert ended.code == 2
    assert "create_tables" in ended.err
    (shop.folder / "shop.db").write_text("no database" * 100, encoding="utf-8")
    for option in ("--once", "--refused"):
        ended = line.run("relay", shop.target, option)
        assert ended.code == 2
        assert "cannot be asked" in ended.err
        assert "this is a bug" not in ended.err


@pytest.mark.slow
def test_for_ever(shop: Shop):
    """Without `--once` it says that it is ready, hands on what comes, and ends with 0 on SIGTERM."""
    with shop.process("relay", shop.target, "--json") as running:
        assert running.stdout is not None
        ready: dict[str, Any] = json.loads(running.stdout.readline())
        assert ready["outbox"] == "sqlite:///shop.db"
        shop.fill()
        asyncio.run(until(lambda: shop.is_there("one")))
        running.send_signal(signal.SIGTERM)
        _, log = running.communicate(timeout=60)
        assert running.returncode == 0
        assert "was refused and set aside" in log


@pytest.mark.slow
def test_a_worker_hands_on_the_outboxes_of_its_modules(shop: Shop):
    """`sagas worker MODULE` does the same for every outbox of the module, and names it."""
    with shop.process("worker", shop.module, "--json") as running:
        assert running.stdout is not None
        assert json.loads(running.stdout.readline())["outboxes"] == [shop.target]
        running.send_signal(signal.SIGTERM)
    with shop.process("worker", shop.module) as running:
        assert running.stdout is not None
        assert running.stdout.readline().endswith(f", hands on 1 outbox: {shop.target}\n")
        shop.fill()
        asyncio.run(until(lambda: shop.is_there("one")))
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)
        assert running.returncode == 0
