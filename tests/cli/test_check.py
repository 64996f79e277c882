"""`sagas check`: what cannot work is told with its place, before anything runs; and a worker tells the warnings."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sagas.cli.check import Finding
from tests.cli.line import Ended, Line

STEPS = """from sagas import Saga, pivot, saga, step
import time

@step(compensation=None, because="a test")
async def look() -> int: ...

@step
async def charge() -> None: ...

@pivot
async def ship() -> None: ...

"""
FIRST = STEPS.count("\n") + 1
"""The line after the steps."""

GOOD = """@saga("good", version=1)
async def good(s: Saga) -> None:
    await s.run(look)
    await s.run(ship)
"""
FAULTY = """@saga("faulty", version=3)
async def faulty(s: Saga) -> None:
    began = time.time()
    await s.run(charge)
    await s.run(ship)
    await s.run(ship)
"""
PARENT = """
@saga("parent", version=1)
async def parent(s: Saga) -> None:
    await s.run(faulty)
"""


class Bench(Line):
    """A directory in which modules are written and checked."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        super().__init__(capsys)
        self.path = directory / f"checked_{directory.name.replace('-', '_')}.py"

    def write(self, *parts: str) -> None:
        self.path.write_text(STEPS + "".join(parts), encoding="utf-8")

    def check(self, *parts: str) -> Ended:
        self.write(*parts)
        return self.run("check", self.path.name)


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench of its own for each test, which is the current directory; no store is known."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAGAS_STORE", raising=False)
    found = Bench(tmp_path, capsys)
    yield found
    sys.modules.pop(found.path.stem, None)


def test_a_clean_module_passes(bench: Bench):
    """No fault and no warning: exit code 0, one line that counts; nothing but the module is in the directory."""
    assert bench.check(GOOD) == (0, "good v1: 0 faults, 0 warnings\n", "")
    assert {path.name for path in bench.directory.iterdir()} <= {bench.path.name, "__pycache__"}


def test_every_fault_and_warning_is_told_with_its_place(bench: Bench):
    """Faults and warnings, each on one line that begins with file and line; a child's are told once; exit code 1."""
    ended = bench.check(FAULTY, PARENT, GOOD)
    assert (ended.code, ended.err) == (1, "")
    *found, last = ended.out.splitlines()
    places = [line.split(" ", 2)[:2] for line in found]
    assert places == [
        [f"{bench.path.name}:{FIRST + 3}:", "fault:"],
        [f"{bench.path.name}:{FIRST + 5}:", "fault:"],
        [f"{bench.path.name}:{FIRST + 2}:", "warning:"],
    ]
    assert "has no compensation" in found[0]
    assert "second pivot" in found[1]
    assert "time.time()" in found[2]
    assert last == "faulty v3, good v1, parent v1: 2 faults, 1 warning"


def test_warnings_alone_are_no_failure(bench: Bench):
    """A suspicious call is told, and the exit code is 0."""
    ended = bench.check(FAULTY.replace("charge", "look").replace("    await s.run(ship)\n", "", 1))
    assert ended.code == 0
    assert ": warning: the body calls time.time()" in ended.out
    assert ended.out.endswith("faulty v3: 0 faults, 1 warning\n")


def test_check_in_json(bench: Bench):
    """`--json`, before or behind the command: stable keys, and whole paths."""
    bench.write(FAULTY)
    for arguments in (["check", bench.path.name, "--json"], ["--json", "check", bench.path.name]):
        ended = bench.run(*arguments)
        document: dict[str, Any] = json.loads(ended.out)
        assert ended.code == 1
        assert document["sagas"] == [{"saga": "faulty", "version": 3}]
        assert [(found["file"], found["line"]) for found in document["faults"]] == [
            (str(bench.path), FIRST + 3),
            (str(bench.path), FIRST + 5),
        ]
        assert [set(found) for found in document["warnings"]] == [{"file", "line", "message"}]


def test_a_declaration_that_is_refused_is_told_at_the_users_line(bench: Bench):
    """A decorator that refuses its options is a fault at the line of the module, not at one of ours."""
    ended = bench.check(GOOD.replace('"good"', '"a/b"'))
    assert ended.code == 1
    assert ended.out.startswith(f"{bench.path.name}:{FIRST}: fault: ")


def test_what_registering_refuses_is_a_fault(bench: Bench):
    """Two sagas of one name and version: the second is told with its place."""
    ended = bench.check(GOOD, GOOD.replace("async def good", "async def other"))
    assert ended.code == 1
    assert ended.out.startswith(f"{bench.path.name}:{FIRST + 4}: fault: two different sagas are named 'good' version 1")
    assert "[DC" not in ended.out


def test_what_a_declaration_refuses_is_a_fault(bench: Bench):
    """A step that its own decorator refuses, so that the module cannot be imported: a fault too, with its place."""
    ended = bench.check(GOOD, "\n@step(compensation=None)\nasync def bad() -> None: ...\n")
    assert ended.code == 1
    assert ended.out.startswith(f"{bench.path.name}:{FIRST + 5}: fault: ")
    assert "because" in ended.out
    assert "[DC" not in ended.out


def test_a_step_that_the_body_calls_itself_is_a_fault(bench: Bench):
    """The fault stands at the line of the call, and says what to write in its place."""
    ended = bench.check(GOOD.replace("await s.run(look)", "await look()"))
    assert ended.code == 1
    said = "the body calls step 'look' itself, so it would not be recorded and not undone; write"
    told = f"{bench.path.name}:{FIRST + 2}: fault: {said} `await s.run(look, ...)`"
    assert " ".join(ended.out.split()).startswith(told)


def test_a_module_that_cannot_be_checked_is_an_error(bench: Bench):
    """No such module, one that raises, one without sagas: exit code 2."""
    assert bench.run("check", "no_such_module").code == 2
    ended = bench.check("\n1 / 0\n")
    assert (ended.code, ended.out) == (2, "")
    assert "ZeroDivisionError" in ended.err
    sys.modules.pop(bench.path.stem, None)
    ended = bench.check("nothing = 1\n")
    assert ended.code == 2


def test_a_worker_refuses_what_check_finds(bench: Bench):
    """A worker does not begin with a saga that has a fault: exit code 2, with the same words."""
    bench.write(FAULTY)
    ended = bench.run("worker", bench.path.name, "--store", f"sqlite:///{bench.directory}/x.db")
    assert ended.code == 2
    assert "saga 'faulty' cannot work" in ended.err
    assert f"{bench.path}:{FIRST + 3}: " in ended.err


def test_a_finding_without_a_place():
    """What was told without file and line keeps its words, and gets the place of its saga where that is known."""
    assert Finding.parse("no place") == Finding("", 0, "no place")
    assert Finding.parse("no place", "a.py:3") == Finding("a.py", 3, "no place")
    assert Finding.parse("C:\\x y.py:7: told: so") == Finding("C:\\x y.py", 7, "told: so")
