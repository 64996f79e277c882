"""What a SIGKILL leaves and what the next worker makes of it; the operators' command line on the same file."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sagas import Orchestrator, SagaCompensated
from tests import forked
from tests.behaviour.outcomes import victims

ROOT = Path(__file__).parents[3]
SERVE = """
import asyncio, sys
from sagas import Orchestrator, SagasError
from tests.behaviour.outcomes import victims

async def main():
    served = [victims.goes, victims.undoes, victims.cut, victims.poisoned]
    async with Orchestrator(sys.argv[1], sagas=served) as orchestrator:
        handle = await orchestrator.start(getattr(victims, sys.argv[2]), "o", id="k")
        try:
            print(await handle.result())
        except SagasError as error:
            print(type(error).__name__)

asyncio.run(main())
"""


class Home:
    """A store and a world in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.world = folder / "world"
        self.world.touch()
        self.url = f"sqlite:///{folder}/sagas.db"
        self.env = {**os.environ, "WORLD": str(self.world), "SAGAS_STORE": self.url, "NO_COLOR": "1", "COLUMNS": "200"}

    def serve(self, what: str) -> subprocess.CompletedProcess[str]:
        """Serve the saga in a process of its own until it ends or dies."""
        command = [sys.executable, "-c", SERVE, self.url, what]
        return forked.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=30, check=False)

    def until_it_lives(self, what: str) -> tuple[int, str]:
        """Serve again and again: how often it died, and what it said in the end."""
        for died in range(20):
            done = self.serve(what)
            if done.returncode != -signal.SIGKILL:
                assert done.returncode == 0, done.stderr
                return died, done.stdout.strip()
        raise AssertionError("it dies for ever")

    def told(self) -> list[str]:
        """What has happened."""
        return self.world.read_text(encoding="utf-8").splitlines()

    def sagas(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command line."""
        command = [Path(sys.executable).with_name("sagas"), *words]
        return forked.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home."""
    return Home(tmp_path)


def test_a_killed_saga_goes_on_under_the_same_keys(home: Home):
    """A step that was running when the process died is run again under the same key.

    What was done is not done again.
    """
    assert home.until_it_lives("goes") == (3, "confirmed")
    told = home.told()
    assert [line.split()[0] for line in told] == [
        "reserve",
        "charge",
        "charge",
        "capture",
        "capture",
        "confirm",
        "confirm",
    ]
    assert len(set(told[1:])) == 3, "each pair has one key"


async def test_a_killed_rollback_goes_on(home: Home, monkeypatch: pytest.MonkeyPatch):
    """A compensation that was running when the process died is run again under the same key, then the rest.

    Crashes count in `attempt`, not against `Retry.attempts`: a step with one attempt survives its crash.
    """
    assert home.until_it_lives("undoes") == (2, "SagaCompensated")
    told = home.told()
    assert [line.split()[0] for line in told] == ["reserve", "charge", "charge", "refund", "refund", "release"]
    assert told[3] == told[4]
    monkeypatch.setenv("WORLD", str(home.world))
    async with Orchestrator(home.url, worker=False) as orchestrator:
        handle = await orchestrator.get("k")
        info = await handle.info()
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
    found: dict[str, Any] = {state.key: state for state in info.steps}
    assert (found["charge"].attempts, found["charge"].compensation.attempts) == (2, 2)
    assert isinstance(caught.value.__cause__, victims.Broken)


def test_a_cut_at_most_once_step_is_not_run_again(home: Home):
    """After a crash the body of an `at_most_once` step sees `StepInterrupted`, once the doubt is settled."""
    assert home.until_it_lives("cut") == (1, "cut StepInterrupted")
    assert [line.split()[0] for line in home.told()] == ["once", "unonce"]
    assert home.told()[1] == "unonce True"


def test_a_step_that_kills_is_given_up_after_five_crashes(home: Home):
    """After 5 crashes in one step the saga is stuck; the command line shows it, and `rollback` is left to a worker."""
    assert home.until_it_lives("poisoned") == (5, "SagaStuck")
    assert sum(line.startswith("poison") for line in home.told()) == 5
    shown = json.loads(home.sagas("--json", "show", "k").stdout)
    assert shown["status"] == "stuck"
    assert "poison" in json.dumps(shown)
    refused = home.sagas("skip", "k", "reserve")
    assert refused.returncode == 2
    assert "reserve" in refused.stderr
    assert home.sagas("rollback", "k", "--actor", "ann", "--note", "enough").returncode == 0
    assert home.serve("poisoned").stdout.strip() in {"SagaCompensated", "SagaStuck"}
    history = home.sagas("history", "k", "--json").stdout
    assert "ann" in history
    assert "enough" in history
