"""Operators' verbs from the command line, on sagas that really stand so; and the page that tells of them."""

import asyncio
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sagas import Orchestrator, PayloadError
from sagas.cli.modules import load, sagas_of
from sagas.model.phases import SagaStatus
from sagas.model.verbs import VERBS
from tests.cli.line import Line
from tools.operators_page import ACTS, HARMLESS, cell, render

PAGE = Path(__file__).parents[2] / "docs/reference/operators.md"
LONGEST_S = 30
OFFERED = re.compile(r"^\S.{8}(sagas \w.*)$", re.MULTILINE)
"""A command that `show` offers."""

TRIPS = """
from datetime import timedelta
from pathlib import Path

from sagas import Retry, Saga, pivot, saga, step

HERE = Path(__file__).parent

@step(retry=1)
async def book(hotel: str) -> str:
    return f"room at {hotel}"

@book.compensate(retry=Retry(attempts=1))
async def unbook(room: str) -> None:
    if (HERE / "closed").exists():
        raise RuntimeError("the hotel is closed")

@step(retry=1)
async def pay(amount: int) -> int:
    if (HERE / "silent").exists():
        raise TimeoutError("no answer")
    if amount > 40:
        raise ValueError("too much")
    return amount

@pay.compensate(retry=1)
async def refund(paid: int) -> None: ...

@pivot(retry=1)
async def board() -> None: ...

@saga("stay", version=2)
async def stay(s: Saga, hotel: str, amount: int) -> int:
    await s.run(book, hotel)
    return await s.run(pay, amount)

@saga("trip", version=1)
async def trip(s: Saga, amount: int) -> int:
    return await s.run(stay, "Ritz", amount)

@saga("nap", version=1)
async def nap(s: Saga) -> None:
    await s.run(book, "Ritz")
    await s.sleep(timedelta(days=1))

@saga("flight", version=1)
async def flight(s: Saga) -> None:
    await s.run(board)
    raise RuntimeError("no fuel")
"""


class Desk(Line):
    """An operator's desk: the command line on a store with trips."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        super().__init__(capsys)
        self.path = directory / f"trips_{directory.name.replace('-', '_')}.py"
        self.path.write_text(TRIPS, encoding="utf-8")
        self.url = f"sqlite:///{directory}/trips.db"

    def ok(self, *arguments: str) -> Any:
        """Run a command that must be accepted; its document."""
        ended = self.run(*arguments, "--json")
        assert (ended.code, ended.err) == (0, "")
        return ended.document

    def begin(self, name: str, saga_id: str, *arguments: str, work: str = "") -> None:
        """Start a saga, and let a worker bring it to one of these statuses."""
        self.ok("start", name, *arguments, "--id", saga_id, "--module", str(self.path))
        if work:
            self.work(saga_id, *work.split())

    def work(self, saga_id: str, *statuses: str) -> None:
        """Have a worker in this process drive the saga until it stands so."""
        asyncio.run(asyncio.wait_for(self._work(saga_id, statuses), LONGEST_S))

    async def _work(self, saga_id: str, statuses: tuple[str, ...]) -> None:
        async with Orchestrator(self.url, sagas=sagas_of([load(str(self.path))])) as orchestrator:
            while (await orchestrator.info(saga_id)).status not in statuses:  # noqa: ASYNC110 - it gives no other sign
                await asyncio.sleep(0.005)

    def shown(self, saga_id: str) -> Any:
        return self.run("show", saga_id, "--json").document

    def mends(self, saga_id: str) -> list[list[str]]:
        """The commands that `show` offers."""
        return [shlex.split(each)[1:] for each in OFFERED.findall(self.run("show", saga_id).out)]

    def there(self, name: str) -> Path:
        path = self.directory / name
        path.touch()
        return path


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk of its own for each test, whose store is in SAGAS_STORE."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    found = Desk(tmp_path, capsys)
    monkeypatch.setenv("SAGAS_STORE", found.url)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LOGNAME", "grace")
    yield found
    sys.modules.pop(found.path.stem, None)


def test_a_verb_takes_filters(desk: Desk):
    """All sagas that match get it, each under the actor's name; a dry run only counts; what refused it is listed."""
    closed = desk.there("closed")
    for number in range(3):
        desk.begin("stay", f"s-{number}", '"Ritz"', "50", "--tag", f"odd={number % 2}", work="stuck")
    desk.begin("nap", "n-1", work="waiting")
    counted = desk.run("retry", "--status", "stuck", "--saga", "stay", "--tag", "odd=0", "--dry-run")
    assert (counted.code, "2 sagas found" in counted.out, "dry run" in counted.out) == (0, True, True)
    found = desk.ok("retry", "--status", "stuck", "--saga", "stay", "--tag", "odd=0", "--note", "open again")
    assert (found["matched"], found["done"], found["refused"], found["actor"]) == (2, 2, {}, "grace")
    refused = desk.run("skip", "book", "--since", "1h")
    assert (refused.code, "n-1 refused it" in refused.out) == (1, True)
    closed.unlink()
    for number in range(3):
        desk.work(f"s-{number}", "compensated", "resolved")
    assert desk.run("restart", "--status", "compensated", "--tag", "odd=0").code == 0
    assert desk.shown("s-2~restarted")["restarted_from"] == "s-2"
    assert "No sagas found" in desk.run("cancel", "--saga", "nobody").out


def test_a_verb_takes_several_ids(desk: Desk):
    """Each is told; one that refuses, or is not there, does not keep the others from it."""
    for number in range(2):
        desk.begin("nap", f"n-{number}", work="waiting")
    ended = desk.run("pause", "n-0", "n-1", "nobody", "--json")
    assert (ended.code, ended.document["done"], list(ended.document["refused"])) == (1, 2, ["nobody"])
    assert desk.ok("pause", "n-1")["repeated"] is True


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["retry"], "name sagas by their ids, or use filters"),
        (["retry", "n-1", "--saga", "nap"], "not both"),
        (["kill", "n-1", "--dry-run"], "--dry-run counts"),
        (["skip", "n-1"], "STEP"),
        (["restart", "--status", "killed", "--new-id", "x"], "for one saga"),
        (["restart", "n-1", "--status", "killed"], "not both"),
        (["resolve", "book", "--happened", "--result", "1", "--saga", "stay"], "--result is for"),
        (["retry", "--status", "stcuk"], "no status"),
    ],
)
def test_what_cannot_be_meant_exits_with_2(desk: Desk, command: list[str], told: str):
    """Neither ids nor filters, both, or what only fits one saga: nothing is changed."""
    desk.begin("nap", "n-1", work="waiting")
    ended = desk.run(*command)
    assert (ended.code, told in ended.err) == (2, True)


def test_restart_begins_an_ended_saga_again(desk: Desk):
    """With corrected arguments and under the id given; each names the other in `show`; an open saga is refused."""
    desk.begin("stay", "s-1", '"Ritz"', "50", work="compensated")
    found = desk.ok("restart", "s-1", "--new-id", "s-2", "--input", '{"1": 40}', "--note", "a typing error")
    assert {name: found[name] for name in ("id", "restarted_from", "note")} == {
        "id": "s-2", "restarted_from": "s-1", "note": "a typing error",
    }  # fmt: skip
    assert desk.run("restart", "s-2").code == 2
    desk.work("s-2", "completed")
    assert "s-1" in desk.run("show", "s-2").out
    assert "s-2" in desk.run("show", "s-1").out
    assert "s-2 " in desk.run("restart", "s-1", "--new-id", "s-2", "--input", '{"1": 40}').out


def test_resolve_settles_a_doubt_with_its_result(desk: Desk):
    """A payment without an answer: `show` offers `resolve`, and with `--result` the saga goes on from there."""
    desk.there("silent")
    desk.begin("stay", "o-1", '"Ritz"', "7", work="stuck")
    assert ["resolve", "o-1", "pay", "--happened"] in desk.mends("o-1")
    given = desk.ok("resolve", "o-1", "pay", "--happened", "--result", "7", "--note", "it is on the bill")
    assert (given["step"], given["happened"], given["repeated"]) == ("pay", True, False)
    desk.work("o-1", "completed")
    assert desk.run("show", "o-1", "--json", "--payloads").document["result"] == 7
    text = desk.run("history", "o-1").out
    assert "by grace: it is on the bill" in text
    assert "pay happened" in text


def test_a_result_that_does_not_fit_its_step_is_refused_where_the_type_is_known(desk: Desk):
    """The command knows no types and says that a worker checks it; the saga stays stuck, and its reason says why."""
    desk.there("silent")
    desk.begin("stay", "o-1", '"Ritz"', "7", work="stuck")
    told = " ".join(desk.run("resolve", "o-1", "pay", "--happened", "--result", '"seven"').out.split())
    assert "if the result is one of the step's type; else the saga stays stuck" in told
    waits = " ".join(desk.run("show", "o-1").out.split())
    assert "recorded resolve of pay by grace: a worker that serves stay v2 takes it up" in waits

    async def refused(orchestrator: Orchestrator) -> str:
        while "refused" not in ((await orchestrator.info("o-1")).reason or ""):  # noqa: ASYNC110 - it gives no other sign
            await asyncio.sleep(0.005)
        before = await orchestrator.engine.journal((await orchestrator.engine.find("o-1")).num)
        with pytest.raises(PayloadError, match="given to resolve") as misfit:  # here the type is known, so at once
            await orchestrator.resolve("o-1", "pay", happened=True, result="eight")
        assert await orchestrator.engine.journal((await orchestrator.engine.find("o-1")).num) == before
        return str(misfit.value)

    async def work() -> str:
        async with Orchestrator(desk.url, sagas=sagas_of([load(str(desk.path))])) as orchestrator:
            return await asyncio.wait_for(refused(orchestrator), LONGEST_S)

    assert "step 'pay'" in asyncio.run(work())
    shown = desk.shown("o-1")
    assert shown["status"] == "stuck"
    assert "the result given to resolve was refused" in shown["reason"]
    assert desk.run("show", "o-1").out.count("recorded") == 0


def test_resolve_says_that_it_did_not_happen(desk: Desk):
    """`--did-not-happen` has the body see the exception, and the rest is undone: the saga ends `resolved`."""
    desk.there("silent")
    desk.begin("stay", "o-1", '"Ritz"', "7", work="stuck")
    assert desk.run("resolve", "o-1", "book", "--happened").code == 2
    desk.ok("resolve", "o-1", "pay", "--did-not-happen")
    desk.work("o-1", "resolved")
    assert desk.run("show", "o-1").code == 1


def test_skip_counts_a_compensation_as_done(desk: Desk):
    """A compensation that was given up: `show` offers `skip`, and the saga ends `resolved`; again, it is harmless."""
    desk.there("closed")
    desk.begin("stay", "o-1", '"Ritz"', "99", work="stuck")
    (skip,) = [words for words in desk.mends("o-1") if words[0] == "skip"]
    assert skip == ["skip", "o-1", "book"]
    assert desk.run("skip", "o-1", "pay").code == 2
    desk.ok(*skip)
    desk.work("o-1", "resolved")
    assert [step["status"] for step in desk.shown("o-1")["steps"]] == ["skipped", "failed"]
    before = desk.run("history", "o-1", "--json").out
    assert desk.ok(*skip)["repeated"] is True
    assert "Nothing was changed" in desk.run(*skip).out
    assert desk.run("history", "o-1", "--json").out == before


@pytest.mark.parametrize("ends", [False, True])
def test_a_verb_that_repeats_the_last_one_is_not_called_recorded(desk: Desk, *, ends: bool):
    """A second `retry`, before a worker has taken up the first or after the saga has ended, says what is true."""
    closed = desk.there("closed")
    desk.begin("stay", "o-1", '"Ritz"', "99", work="stuck")
    assert desk.ok("retry", "o-1")["repeated"] is False
    if ends:
        closed.unlink()
        desk.work("o-1", "compensated")
    before = desk.run("history", "o-1", "--json").out
    assert desk.ok("retry", "o-1")["repeated"] is True
    assert "Nothing was changed: o-1 was already retried so" in desk.run("retry", "o-1").out
    assert desk.run("history", "o-1", "--json").out == before


def test_a_resolve_that_repeats_the_last_one_is_not_called_recorded(desk: Desk):
    """The same outcome twice is one; another one is refused."""
    desk.there("silent")
    desk.begin("stay", "o-1", '"Ritz"', "7", work="stuck")
    given = ("resolve", "o-1", "pay", "--happened", "--result", "7")
    assert desk.ok(*given)["repeated"] is False
    desk.work("o-1", "completed")
    assert desk.ok(*given)["repeated"] is True
    assert "was already given this outcome" in desk.run(*given).out
    assert desk.run("resolve", "o-1", "pay", "--did-not-happen").code == 2


def test_rollback_of_a_stuck_saga(desk: Desk):
    """`rollback` of a saga with a doubt: the doubt is still to be settled, and then what was done is undone."""
    desk.there("silent")
    desk.begin("stay", "o-1", '"Ritz"', "7", work="stuck")
    assert desk.mends("o-1")[-1] == ["rollback", "o-1"]
    desk.ok("rollback", "o-1")
    desk.work("o-1", "compensating", "stuck")
    desk.ok("resolve", "o-1", "pay", "--did-not-happen")
    desk.work("o-1", "resolved")
    assert [step["status"] for step in desk.shown("o-1")["steps"]] == ["compensated", "failed"]
    assert desk.ok("rollback", "o-1")["repeated"] is True


def test_kill_ends_and_rollback_undoes_it_after_all(desk: Desk):
    """A killed saga leaves what it did, and says how to undo it; once that is done nothing is offered."""
    desk.begin("nap", "n-1", work="waiting")
    assert desk.ok("kill", "n-1")["status_before"] == "waiting"
    desk.work("n-1", "killed")
    assert desk.run("show", "n-1").code == 1
    assert desk.ok("kill", "n-1")["repeated"] is True
    assert desk.mends("n-1") == [["rollback", "n-1"]]
    desk.ok("rollback", "n-1")
    desk.work("n-1", "compensated")
    assert desk.mends("n-1") == []


def test_pause_holds_a_saga_and_resume_lets_it_go(desk: Desk):
    """A paused saga says so wherever it is shown, and goes on after `resume`; doing either twice changes nothing."""
    desk.begin("stay", "o-1", '"Ritz"', "7")
    assert desk.ok("pause", "o-1")["repeated"] is False
    desk.begin("nap", "n-1", work="waiting")  # a worker has been there meanwhile
    shown = desk.shown("o-1")
    assert shown["paused"] is True
    assert [step for step in shown["steps"] if step["status"] == "succeeded"] == []
    assert desk.mends("o-1") == [["resume", "o-1"]]
    assert ", paused" in desk.run("list").out
    assert "continue sagas resume o-1" in desk.run("show", "o-1").out
    assert desk.ok("pause", "o-1")["repeated"] is True
    desk.ok("resume", "o-1")
    desk.work("o-1", "completed")


def test_after_the_pivot_nothing_is_undone(desk: Desk):
    """A saga stuck after its pivot: `cancel` and `rollback` are refused with the reason; only `retry` is offered."""
    desk.begin("flight", "f-1", work="stuck")
    assert desk.mends("f-1") == [["retry", "f-1"]]
    for verb in ("cancel", "rollback"):
        ended = desk.run(verb, "f-1")
        assert (ended.code, ended.out) == (2, "")
        assert "has passed its pivot" in ended.err


def test_a_child_is_shown_with_its_steps(desk: Desk):
    """A child saga is one step of its parent with its own steps beneath it, and can be shown by itself."""
    desk.begin("trip", "t-1", "7", work="completed")
    assert [(step["key"], step["kind"], step["status"]) for step in desk.shown("t-1")["steps"]] == [
        ("stay", "child", "succeeded")
    ]
    text = desk.run("show", "t-1").out
    assert "✓ stay " in text
    assert "  └ ✓ book " in text
    child = desk.run("show", "t-1/stay")
    assert child.code == 0
    assert "part of  t-1  trip v1" in child.out
    assert "saga     t-1/stay  stay v2" in child.out
    assert [step["key"] for step in desk.shown("t-1/stay")["steps"]] == ["book", "pay"]
    assert desk.run("history", "t-1/stay", "--json").document["entries"]
    assert [saga["id"] for saga in desk.ok("list")["sagas"]] == ["t-1"]


def test_what_a_child_is_stuck_on_is_mended(desk: Desk):
    """A doubt in a child: what parent and child offer names the step by its whole key; its own id does as well."""
    desk.there("silent")
    for saga_id in ("t-1", "t-2"):
        desk.begin("trip", saga_id, "7", work="stuck")
    assert desk.mends("t-1") == desk.mends("t-1/stay")
    assert desk.shown("t-1")["stuck_on"] == ["stay/pay"]
    assert desk.mends("t-1")[0] == ["resolve", "t-1", "stay/pay", "--happened"]
    assert "TimeoutError: no answer" in desk.run("show", "t-1/stay").out
    desk.ok(*desk.mends("t-1")[0], "--result", "7")
    desk.ok("resolve", "t-2/stay", "pay", "--happened", "--result", "7")
    for saga_id in ("t-1", "t-2"):
        desk.work(saga_id, "completed")
        assert desk.run("show", saga_id, "--payloads", "--json").document["result"] == 7


@pytest.mark.parametrize("verb", ["retry", "cancel", "rollback", "kill", "pause", "resume"])
def test_a_verb_about_a_whole_saga_is_refused_for_a_child(desk: Desk, verb: str):
    """Nobody kills a whole saga by naming a part of it: exit code 2, and the message has the command that would."""
    desk.there("silent")
    desk.begin("trip", "t-1", "7", work="stuck")
    before = desk.run("history", "t-1", "--json").out
    ended = desk.run(verb, "t-1/stay")
    assert (ended.code, ended.out) == (2, "")
    assert f"use `sagas {verb} t-1`" in ended.err
    assert desk.run("history", "t-1", "--json").out == before


def test_a_sleep_says_until_when(desk: Desk):
    """A saga that sleeps shows the sleep as a step that waits, and until when."""
    desk.begin("nap", "n-1", work="waiting")
    (_, sleep) = desk.shown("n-1")["steps"]
    assert (sleep["kind"], sleep["status"]) == ("sleep", "running")
    text = desk.run("show", "n-1").out
    assert "▶ sleep" in text
    assert "waiting" in text
    assert "until 20" in text


def test_list_attention_tells_who_needs_a_person(desk: Desk):
    """`list --attention` has the stuck sagas alone, each with its reason."""
    desk.begin("flight", "f-1", work="stuck")
    desk.begin("stay", "o-1", '"Ritz"', "7", work="completed")
    listed = desk.ok("list", "--attention")
    assert ([saga["id"] for saga in listed["sagas"]], listed["count"]) == (["f-1"], 1)
    assert "RuntimeError: no fuel" in desk.run("list", "--attention").out
    assert "no fuel" not in desk.run("list").out
    assert desk.ok("list", "--attention", "--saga", "stay")["count"] == 0


def test_versions_tells_what_can_go_and_what_is_missed(desk: Desk):
    """`versions` has every version with its verdict; `list --attention` those that wait for one, with the reason."""
    desk.begin("stay", "o-1", '"Ritz"', "7", work="completed")
    desk.begin("flight", "f-1")
    listed = desk.ok("versions")["versions"]
    assert {(each["saga"], each["version"], each["verdict"]) for each in listed} == {
        ("flight", 1, "unserved"),
        ("nap", 1, "new"),
        ("stay", 2, "in use"),
        ("trip", 1, "new"),
    }
    (flight,) = desk.ok("versions", "--saga", "flight")["versions"]
    assert (flight["open"], flight["ended"], flight["workers"], flight["newest"]) == ({"pending": 1}, 0, [], True)
    assert len(flight["fingerprint"]) == 16
    assert re.search(r"^flight v1 +unserved +1 ", desk.run("versions").out, re.MULTILINE)
    assert "No versions" in desk.run("versions", "--saga", "none").out
    (waiting,) = desk.ok("list", "--attention")["sagas"]
    assert waiting["id"] == "f-1"
    assert "which no worker serves" in waiting["reason"]
    assert "start a worker that has this version" in " ".join(desk.run("list", "--attention").out.split())
    assert "waits for version 1 of 'flight'" in " ".join(desk.run("show", "f-1").out.split())


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_page_has_the_tables_that_the_verbs_make():
    """docs/reference/operators.md holds what `python -m tools.operators_page` prints."""
    tables = render()
    assert tables in PAGE.read_text(encoding="utf-8"), f"put this into {PAGE.name}:\n{tables}"
    assert all(f"`{status}`" in tables for status in SagaStatus)
    assert all(verb.does in tables for verb in VERBS.values())


def test_a_cell_tells_what_a_verb_comes_to():
    """Acting, harmless and refused are told apart."""
    assert cell(VERBS["cancel"], SagaStatus.RUNNING) == ACTS
    assert cell(VERBS["cancel"], SagaStatus.COMPENSATED) == HARMLESS
    assert cell(VERBS["cancel"], SagaStatus.COMPLETED) == ""


def test_the_page_names_no_verb_that_is_not_there():
    """Every command in the page's prose is one of the program."""
    named = set(re.findall(r"`sagas (\w+)", PAGE.read_text(encoding="utf-8")))
    assert named <= {*VERBS, "show"}
