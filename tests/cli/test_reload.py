"""``sagas worker --reload``: a worker that begins anew when its code changes."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from sagas import Orchestrator
from sagas.cli.reload import folders_of
from tests import forked
from tests.cli.line import Line

SHOP = """
from sagas import Saga, saga, step

@step(compensation=None, because="a test")
def look(item: str) -> str:
    return item

@saga("find", version={version})
async def find(s: Saga, item: str) -> str:
    return await s.run(look, item)
"""


class Worker:
    """A worker that reloads, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.module = folder / "shop.py"
        self.url = f"sqlite:///{folder / 'sagas.db'}"
        self.write(SHOP.format(version=1))
        command = [sys.executable, "-m", "sagas", "worker", "--reload", "shop.py", "--store", self.url]
        self.process = forked.Process(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def write(self, text: str) -> None:
        """Change the module."""
        self.module.write_text(text)

    def until(self, words: str) -> str:
        """Read its output up to the line that has these words; returns the line."""
        output: IO[str] | None = self.process.stdout
        assert output is not None
        for line in output:
            if words in line:
                return line
        raise AssertionError(f"it ended without {words!r}")


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker, killed at the end with its child if they still run."""
    found = Worker(tmp_path)
    yield found
    with contextlib.suppress(ProcessLookupError):
        os.killpg(found.process.pid, signal.SIGKILL)
    found.process.communicate()


def test_a_change_starts_the_worker_again(worker: Worker):
    """A new version in the file is served after the worker has ended; SIGTERM ends both processes with code 0."""
    assert "find v1" in worker.until("is ready")
    worker.write(SHOP.format(version=2))
    assert "shop.py changed: starting the worker again" in worker.until("change")  # the one line about it
    assert "find v2" in worker.until("is ready")

    async def found() -> object:
        async with Orchestrator(worker.url, worker=False) as orchestrator:
            return await (await orchestrator.start("find", "teapot")).result()

    assert asyncio.run(found()) == "teapot"
    worker.process.terminate()
    worker.until("stopped")
    assert worker.process.wait() == 0


def test_a_change_within_the_same_second_is_seen(worker: Worker):
    """Bytecode is taken for that of any source of the same size and second: the next worker runs the new source."""
    assert "find v1" in worker.until("is ready")
    saved = worker.module.stat()
    worker.write(SHOP.format(version=2))
    os.utime(worker.module, ns=(saved.st_atime_ns, saved.st_mtime_ns))
    assert worker.module.stat().st_size == saved.st_size
    assert "find v2" in worker.until("is ready")


def test_code_that_cannot_be_imported_waits_for_the_next_change(worker: Worker):
    """A typing mistake is reported with its line, and the worker is back once it is repaired."""
    worker.until("is ready")
    worker.write("from sagas import nothing_of_this_name")
    assert "nothing_of_this_name" in worker.until("cannot be imported")
    worker.write(SHOP.format(version=1))
    worker.until("is ready")


def test_what_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The current directory, and the folder of each file that lies elsewhere, once."""
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "inner").mkdir(parents=True)
    there.mkdir()
    monkeypatch.chdir(here)
    modules = ["shop.orders", str(here / "inner" / "a.py"), str(there / "b.py"), str(there / "c.py")]
    assert folders_of(modules) == [here, there]


def test_without_watchfiles_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The extra is named, and nothing has begun."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    ended = Line(capsys).run("worker", "shop.py", "--reload", "--store", "sqlite:///sagas.db")
    assert ended.code == 2
    assert "pip install 'durable-sagas[reload]'" in ended.err
