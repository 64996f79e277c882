"""`sagas plan` and `sagas check --plans`: a plan that changes under its version is found before it is deployed."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sagas.cli import main

STEPS = """from sagas import Saga, SagaGraph, lookup, pivot, retriable, saga, step

@step(compensation=None, because="a test")
async def look(what: str) -> int: ...

@lookup(on_failure="rollback")
async def holds(what: str) -> bool: ...

@retriable
async def mail(number: int) -> str: ...

"""
GRAPH = """g = SagaGraph("graph saga", version=2, input=str, on_failure="stuck")
a = g.step(look, g.input)
b = g.step(look, what="x", after=[a], when=g.lookup(holds, g.input))
g.returns(g.retriable(mail, a, after=[b, g.sleep(60, after=[a]), g.callback("ok", bool, after=[a])]))
"""
CODED = """@saga("coded:one", version=1)
async def coded(s: Saga, what: str) -> None:
    # a comment
    await s.run(look, what)
    await s.run(g, what)
"""
WRITTEN = """saga graph saga
version 2
on failure stuck
graph of str
step look(input) not undone
lookup holds(input) on failure rollback
step look#2(what="x") after look when holds not undone
sleep sleep() for 0:01:00 after look
callback ok() of bool after look
retriable mail(look) after look#2, sleep, ok
returns mail
"""


class Bench:
    """A module with sagas in the current directory, and a folder for plans."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.plans = directory / "plans"
        self.path = directory / f"planned_{directory.name.replace('-', '_')}.py"
        self.capsys = capsys
        self.write(GRAPH, CODED)

    def write(self, *parts: str) -> None:
        """Write the module, so that the next command loads it anew."""
        sys.modules.pop(self.path.stem, None)
        self.path.write_text("".join([STEPS, *parts]), encoding="utf-8")

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command: exit code, stdout and stderr."""
        with pytest.raises(SystemExit) as end:
            main([*arguments[:1], self.path.name, *arguments[1:]])
        out, err = self.capsys.readouterr()
        return int(end.value.code or 0), out, err


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench of its own for each test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    found = Bench(tmp_path, capsys)
    yield found
    sys.modules.pop(found.path.stem, None)


def test_a_plan_is_a_small_text(bench: Bench):
    """A graph's plan has each node with what it waits for; a coded saga's the steps that its body names."""
    code, out, _ = bench.run("plan")
    assert code == 0
    assert WRITTEN in out
    coded = out.partition("saga coded:one\nversion 1\n")[2].splitlines()
    assert coded[0].startswith("body ")
    assert coded[1:3] == ["step look not undone", "child graph saga version 2"]


def test_plans_are_kept_and_compared(bench: Bench):
    """Kept plans pass; a change under the same version is exit code 1 with the lines; a new version is only said."""
    assert bench.run("plan", "--write", "plans")[0] == 0
    assert sorted(path.name for path in bench.plans.iterdir()) == ["coded%3Aone.v1.plan", "graph saga.v2.plan"]
    assert bench.run("check", "--plans", "plans")[0] == 0
    bench.write(GRAPH.replace("after=[a], when", "when"), CODED)
    code, out, _ = bench.run("check", "--plans", "plans")
    assert code == 1
    assert "the plan of saga 'graph saga' has changed and its version is still 2" in out
    assert '-step look#2(what="x") after look when holds not undone' in out
    assert "sagas plan --write plans" in out
    bench.write(GRAPH.replace("after=[a], when", "when").replace("version=2", "version=3"), CODED)
    code, out, _ = bench.run("check", "--plans", "plans")
    assert "saga 'graph saga' version 3 has no plan here" in out
    assert code == 1, "the coded saga runs another version of its child"
    assert "saga 'coded:one' has changed" in out


def test_what_does_not_matter_changes_no_plan(bench: Bench):
    """Comments, the place in the file and policies are no part of a plan."""
    bench.run("plan", "--write", "plans")
    bench.write("\n# moved\n\n", GRAPH, CODED.replace("# a comment", "# another"))
    assert bench.run("check", "--plans", "plans")[0] == 0
    code, out, _ = bench.run("plan", "--write", "plans")
    assert code == 0
    assert out.count("unchanged") == 2


def test_a_changed_plan_is_kept_and_said(bench: Bench):
    """``plan --write`` keeps a changed plan, and says that its version is the same."""
    bench.run("plan", "--write", "plans")
    bench.write(GRAPH.replace("g.sleep(60", "g.sleep(90"), CODED)
    _, out, _ = bench.run("plan", "--write", "plans")
    assert "graph saga v2: changed under its version plans/graph saga.v2.plan" in out
    assert "+sleep sleep() for 0:01:30 after look" in out
    assert bench.run("check", "--plans", "plans")[0] == 0


def test_plans_in_json(bench: Bench):
    """``--json`` gives name, version, file and text of each plan."""
    plans = json.loads(bench.run("plan", "--json")[1])
    assert [(each["saga"], each["version"], each["file"]) for each in plans] == [
        ("coded:one", 1, "coded%3Aone.v1.plan"),
        ("graph saga", 2, "graph saga.v2.plan"),
    ]
    assert WRITTEN in plans[1]["text"]


def test_a_long_name_is_a_file_of_its_own(bench: Bench):
    """A name that no file system takes in full is cut, and ends with what tells it from another one."""
    name = "旅" * 150
    bench.write(
        GRAPH.replace("graph saga", f"{name}1"),
        GRAPH.replace("graph saga", f"{name}2").replace("g = ", "h = ").replace("g.", "h."),
    )
    assert bench.run("plan", "--write", str(bench.plans))[0] == 0
    assert len(list(bench.plans.iterdir())) == 2
    assert bench.run("check", "--plans", str(bench.plans))[0] == 0


@pytest.mark.parametrize("what", ["missing", "unreadable", "a file"])
def test_a_folder_that_cannot_be_used(bench: Bench, what: str):
    """A folder that is missing, or a plan that cannot be read, is exit code 2 with what to do."""
    if what == "unreadable":
        bench.plans.mkdir()
        (bench.plans / "graph saga.v2.plan").write_bytes(b"\xff")
    if what == "a file":
        bench.plans.write_text("")
        assert bench.run("plan", "--write", "plans")[0] == 2
    code, _, err = bench.run("check", "--plans", "plans")
    assert code == 2
    assert "sagas plan" in err or "cannot be read" in err
