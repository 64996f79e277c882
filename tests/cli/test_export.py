"""`sagas export asl`: writes a state machine, or says all reasons why it cannot."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sagas.cli import main

SHOP = """from sagas import Saga, SagaGraph, pivot, saga

@pivot
async def pay(amount: int) -> int:
    return amount

@pivot(timeout=5000)
async def slow(amount: int) -> int:
    return amount

@saga("coded", version=1)
async def coded(s: Saga, amount: int) -> int:
    return await s.run(pay, amount)

def graph(name, version, step):
    made = SagaGraph(name, version=version, input=int)
    made.returns(made.pivot(step, made.input))
    return made

paying, newer, waiting = graph("paying", 1, pay), graph("paying", 2, pay), graph("waiting", 1, slow)
"""


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module with graphs, in the current directory."""
    (tmp_path / "exported_shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("exported_shop", None)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command: its exit code, and what it wrote."""
    with pytest.raises(SystemExit) as ended:
        main(["export", "asl", *words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_it_writes_to_stdout(capsys: pytest.CaptureFixture[str]):
    """The graph is named by its variable; stdout is the machine and nothing else."""
    code, out, _ = run(capsys, "exported_shop:paying")
    machine = json.loads(out)
    assert code == 0
    assert machine["Comment"] == "Saga paying version 1"
    assert machine["States"]["pay"]["Type"] == "Task"


def test_it_writes_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """With `--output`; the function can be named. A saga's name stands for its newest version."""
    code, out, _ = run(capsys, "exported_shop.py:waiting", "--output", "machine.json")
    assert (code, out) == (2, "")
    code, out, _ = run(capsys, "exported_shop.py:newer", "-o", "machine.json", "--function", "arn:of:it")
    machine = json.loads((tmp_path / "machine.json").read_text())
    assert (code, machine["Comment"]) == (0, "Saga paying version 2")
    assert machine["States"]["pay"]["Parameters"]["FunctionName"] == "arn:of:it"
    assert out.startswith("Wrote ")
    _, out, _ = run(capsys, "exported_shop:paying", "-o", "machine.json", "--json")
    assert json.loads(out) == {"saga": "paying", "version": 1, "file": "machine.json"}


def test_a_name_stands_for_its_newest_version(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Where no variable has it."""
    (tmp_path / "exported_shop.py").write_text(SHOP.replace("paying, newer, waiting =", "one, two, three ="))
    assert json.loads(run(capsys, "exported_shop:paying")[1])["Comment"] == "Saga paying version 2"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["exported_shop:coded"], "only graphs can be exported"),
        (["exported_shop:waiting"], "exported_shop.py:17: pivot 'slow' has a timeout above 900 s"),
        (["exported_shop:nobody"], "has no saga 'nobody'; it has coded, paying"),
        (
            ["exported_shop:pay"],
            ":pay is no saga but a Pivot; the sagas of exported_shop are coded, paying",
        ),
        (["exported_shop"], "give MODULE:GRAPH"),
        (["nowhere:paying"], "there is no module 'nowhere'"),
        (["exported_shop:paying", "-o", "no/such/place.json"], "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_bad_usage(capsys: pytest.CaptureFixture[str], words: list[str], reason: str):
    """Exit code 2, nothing on stdout, the reasons with their places on stderr."""
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert reason in err
