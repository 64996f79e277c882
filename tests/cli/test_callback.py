"""``sagas callback``: beside a worker and without one, and never with a token in its output."""

import asyncio
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sagas import Orchestrator, Saga, SagaCompensated, lookup, saga
from tests import forked
from tests.cli.line import Ended, Line, run_here
from tests.cli.test_worker import until

ROOT = Path(__file__).parents[2]
TOKENS: list[str] = []

MODULE = """
import attrs
from pathlib import Path
from sagas import Saga, lookup, saga

HERE = Path(__file__).parent

@attrs.frozen
class Approval:
    ok: bool
    by: str

@lookup
def hand_out(token: str) -> None:
    (HERE / "token").write_text(token)

@saga("ask", version=1)
async def ask(s: Saga) -> str:
    callback = await s.callback("approval", Approval, timeout=86400, heartbeat=3600)
    await s.run(hand_out, callback.token)
    return (await callback.result()).by
"""


@lookup
async def hand_out(token: str) -> None:
    TOKENS.append(token)


@saga("numbers", version=1)
async def numbers(s: Saga) -> list[int]:
    callback = await s.callback("approval", list[int], timeout=86400)
    await s.run(hand_out, callback.token)
    return await callback.result()


class Counter(Line):
    """The command line on a store in which a saga waits, with no worker."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = url
        super().__init__(capsys)
        TOKENS.clear()
        asyncio.run(self._wait())
        (self.token,) = TOKENS

    async def _wait(self) -> None:
        async with Orchestrator(self.url, sagas=[numbers], grace=1) as orchestrator:
            await orchestrator.start(numbers, id="n")
            while not TOKENS:  # noqa: ASYNC110 - a step's own turn
                await asyncio.sleep(0.001)

    def result(self) -> Any:
        """What the saga comes to once a worker runs."""

        async def work() -> Any:
            async with Orchestrator(self.url, sagas=[numbers], grace=1) as orchestrator:
                return await (await orchestrator.get("n")).result(timeout=20)

        return asyncio.run(work())

    def give(self, *arguments: str) -> Ended:
        ended = self.run("callback", *arguments)
        assert self.token not in ended.out + ended.err
        return ended


@pytest.fixture
def counter(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Counter:
    """A counter whose store is in SAGAS_STORE."""
    url = f"sqlite:///{tmp_path}/c.db"
    monkeypatch.setenv("SAGAS_STORE", url)
    monkeypatch.delenv("SAGAS_TOKEN", raising=False)
    monkeypatch.setattr("durable_core.engine.callback_delivery.KEPT_AFTER_S", 0.1)
    return Counter(url, capsys)


@pytest.mark.parametrize("way", ["option", "environment", "stdin", "name"])
def test_without_a_worker_an_answer_is_kept_and_the_sender_is_told(
    counter: Counter, way: str, monkeypatch: pytest.MonkeyPatch
):
    """By each way to name the callback; the next worker takes it up."""
    options = {
        "option": ["--token", counter.token],
        "stdin": ["--token", "-"],
        "name": ["--saga", "n", "--name", "approval"],
    }
    if way == "environment":
        monkeypatch.setenv("SAGAS_TOKEN", counter.token)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{counter.token}\n"))
    ended = counter.give("complete", "[1, 2]", *options.get(way, []))
    assert ended.code == 0, ended.err
    assert ended.out.startswith("Kept ")
    shown = " ".join(counter.run("show", "n").out.split())
    assert "recorded an answer to callback approval by" in shown
    assert counter.result() == [1, 2]


def test_json_says_what_became_of_it(counter: Counter):
    """The document has the saga, the callback, the kind and whether it is kept."""
    ended = counter.give("fail", "not today", "--token", counter.token, "--json")
    assert ended.document == {"id": "n", "callback": "approval", "kind": "failed", "taken": "kept"}
    beat = counter.give("heartbeat", "--token", counter.token, "--json")
    assert beat.document["taken"] == "accepted"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["complete", "[1"], "not JSON"),
        (["complete", "yes", "--saga", "n", "--name", "approval"], "its own quotes"),
        (["complete", "[1]"], "no callback given"),
        (["complete", "[1]", "--saga", "n"], "both --saga and --name"),
        (["complete", "[1]", "--name", "approval"], "both --saga and --name"),
        (["complete", "[1]", "--token", "x", "--saga", "n", "--name", "approval"], "both --saga and --name"),
        (["complete", "[1]", "--token", "x"], "DC044"),
        (["complete", "[1]", "--token", "\udcff-\udcff"], "DC044"),
        (["complete", "[1]", "--saga", "n", "--name", "hand_out"], "DC044"),
        (["heartbeat", "--saga", "zz", "--name", "approval"], "SG002"),
        (["complete", "--token", "x"], "Missing argument"),
        (["complete", "[1]", "--token", "x", "--store", "sqlite:////nowhere/c.db"], "DC011"),
    ],
)
def test_what_makes_no_sense_is_refused(counter: Counter, arguments: list[str], told: str):
    """One message that says what to do, exit code 2, and nothing has changed."""
    ended = counter.give(*arguments)
    assert ended.code == 2
    assert told in ended.err
    assert counter.give("complete", "[7]", "--token", counter.token).code == 0
    assert counter.result() == [7]


def test_a_second_different_answer_is_refused(counter: Counter):
    """Repeating the same one is harmless, whatever its layout."""
    assert counter.give("complete", "[1,2]", "--token", counter.token).code == 0
    assert counter.give("complete", "[ 1, 2 ]", "--token", counter.token).code == 0
    ended = counter.give("complete", "[3]", "--token", counter.token)
    assert (ended.code, "DC045" in ended.err) == (2, True)
    assert counter.result() == [1, 2]


@pytest.mark.parametrize("kind", ["complete", "fail"])
@pytest.mark.parametrize("actor", ["ann", None])
def test_who_answers_and_why_is_in_the_history(
    counter: Counter, kind: str, actor: str | None, monkeypatch: pytest.MonkeyPatch
):
    """``--actor`` and ``--note``, as with the operators' verbs: without the former it is the system's user."""
    monkeypatch.setattr("getpass.getuser", lambda: "login")
    given = [] if actor is None else ["--actor", actor]
    ended = counter.give(kind, "[1]", "--token", counter.token, "--note", "the count is in", *given)
    assert ended.code == 0, ended.err
    if kind == "complete":
        counter.result()
    else:
        with pytest.raises(SagaCompensated):
            counter.result()
    assert f"by {actor or 'login'}: the count is in" in counter.run("history", "n").out
    entries = counter.run("history", "n", "--json").document["entries"]
    told = [(entry["actor"], entry["note"]) for entry in entries if entry["kind"] == "answered"]
    assert told == [(actor or "login", "the count is in")]


def test_a_note_that_is_no_text_is_refused(counter: Counter):
    """What the shell passes that is not UTF-8 is refused, with exit code 2, and no answer is kept."""
    ended = counter.give("complete", "[1]", "--token", counter.token, "--note", "\udcff")
    assert (ended.code, "note=" in ended.err) == (2, True)
    assert counter.give("complete", "[7]", "--token", counter.token).code == 0
    assert counter.result() == [7]


@pytest.mark.slow
def test_beside_a_running_worker(tmp_path: Path):
    """The command is not run by the worker: a wrong type is refused to it at once, a right one is taken."""
    (tmp_path / "asking.py").write_text(MODULE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SAGAS_STORE": f"sqlite:///{tmp_path}/c.db"}
    program = [sys.executable, "-c", "from sagas.cli import main; main()"]

    def run(*arguments: str, token: str = "") -> Ended:
        return run_here(tmp_path, {**environment, "SAGAS_TOKEN": token}, *arguments)

    with forked.Process(
        [*program, "worker", "asking", "--json"], cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE
    ) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline().startswith("{")
            started = run("start", "ask", "--module", "asking", "--id", "a", "--wait", "--timeout", "0.5")
            assert started.code == 2, "it waits for an answer"
            until(lambda: (tmp_path / "token").exists() and (tmp_path / "token").read_text() != "")
            token = (tmp_path / "token").read_text()
            wrong = run("callback", "complete", '{"ok": 1}', token=token)
            assert (wrong.code, "DC002" in wrong.err) == (2, True)
            assert "has your heartbeat" in run("callback", "heartbeat", token=token).out
            right = run("callback", "complete", '{"ok": true, "by": "bob"}', "--json", token=token)
            assert right.document["taken"] == "accepted"
            assert "bob" in run("start", "ask", "--module", "asking", "--id", "a", "--wait").out
            assert token not in wrong.out + wrong.err + right.out + right.err
        finally:
            worker.terminate()
            worker.communicate(timeout=20)
