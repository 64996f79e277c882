"""`explore` finds all that can go wrong in a saga, and whoever is not ready for it."""

import asyncio
import re
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from sagas import DefinitionError, Retry, Saga, SagaInfo, lookup, resource, retriable, saga, step
from sagas.testing import ExploreFailed, Report, explore
from sagas.testing.cases import VERBS, Case, Event
from tests.behaviour.testing.trips import (
    Declined,
    Parties,
    broken,
    careless,
    check,
    graph,
    hasty,
    make_world,
    trip,
)


async def explored(saga: Any, world: Any = make_world, **options: Any) -> Report:
    """The trip to Rome, approved."""
    return await explore(saga, "Rome", resources=world, check=check, **{"answers": {"approval": True}, **options})


async def failures(saga: Any, world: Any = make_world, **options: Any) -> dict[str, str]:
    """The cases in which it fails, and how."""
    with pytest.raises(ExploreFailed) as failed:
        await explored(saga, world, **options)
    return {each.case: str(each.error) for each in failed.value.failures}


def verbs(report: Report) -> Counter[str]:
    """What went wrong last in each case."""
    return Counter(re.split(r" \+ ", name)[-1].split(" ")[0].split(":")[0] for name in report.names)


async def test_a_trip_is_explored():
    """Five steps, a pivot, a callback and a parallel block: every case is there, and each ends completed or undone.

    Forward: each of the five steps fails, crashes before and after, loses its answer before and after, is delivered
    twice and is cancelled; two have an answer of their own (reject). The callback is cancelled, not answered, refused
    and answered twice. Three compensations fail, crash twice, lose two answers and are delivered twice, each of them
    once where its step has happened and once where that is unknown; a probe crashes before it answers. Each distinct
    commit, forward and on the way back, is crashed before and after.
    """
    report = await explored(trip)
    assert report.cases == len(report.names) == len(set(report.names))
    assert set(report.ends) == {"completed", "compensated"}
    assert sum(report.ends.values()) == report.cases
    commits = {name.split(" + ")[-1].split(" ", 1)[1] for name in report.names if "_commit " in name}
    assert verbs(report) == {
        "nothing": 1,
        "reject": 2,
        "fail": 5 + 6,
        "unknown_before": 5 + 6,
        "unknown_after": 5 + 6,
        "crash_before": 5 + 6 + 1,
        "crash_after": 5 + 6,
        "twice": 5 + 6,
        "cancel_in": 5,
        "cancel_at": 1,
        "no_answer": 1,
        "fail_answer": 1,
        "answer_twice": 1,
        "crash_before_commit": len(commits),
        "crash_after_commit": len(commits),
    }
    done = {"hotel.started #1", "hotel.succeeded #1", "ask.succeeded #1", "pay.succeeded #1", "mail.succeeded #1"}
    undone = {"hotel~undo.succeeded #1", "flight~undo.succeeded #1", "ask~undo.succeeded #1", "pay.failed #1"}
    waited = {"approval.answered #1", "approval.fired #1"}
    assert done | undone | waited <= commits


async def test_two_explorations_have_the_same_cases():
    """One saga has one list of cases, in one order."""
    first, second = await explored(trip), await explored(trip)
    assert first == second


async def test_the_smallest_saga_counts_exactly():
    """One step without answers of its own has 26 cases.

    These are: undisturbed, 7 in the step, 2 at each of its 2 commits; and on the ways that it takes then 2 at each of 4
    further commits and 6 in its compensation.
    """

    @step(retry=1)
    async def book(*, parties: Parties = resource()) -> None:
        parties.do("book")

    @book.compensate
    async def unbook(_: None, *, parties: Parties = resource()) -> None:
        parties.undo("book")

    @saga("small", version=1)
    async def small(s: Saga) -> None:
        await s.run(book)

    report = await explore(small, resources=make_world, check=lambda world, info: None)
    assert report.names == (
        "nothing",
        "fail book #1",
        "crash_before book #1",
        "unknown_before book #1",
        "unknown_after book #1",
        "crash_after book #1",
        "twice book #1",
        "cancel_in book #1",
        "crash_before_commit book.started #1",
        "crash_after_commit book.started #1",
        "crash_before_commit book.succeeded #1",
        "crash_after_commit book.succeeded #1",
        "fail book #1 + crash_before_commit book.failed #1",
        "fail book #1 + crash_after_commit book.failed #1",
        "crash_before book #1 + crash_before_commit book.retried #1",
        "crash_before book #1 + crash_after_commit book.retried #1",
        "cancel_in book #1 + fail undo book #1",
        "cancel_in book #1 + crash_before undo book #1",
        "cancel_in book #1 + unknown_before undo book #1",
        "cancel_in book #1 + unknown_after undo book #1",
        "cancel_in book #1 + crash_after undo book #1",
        "cancel_in book #1 + twice undo book #1",
        "cancel_in book #1 + crash_before_commit cancel.signalled #1",
        "cancel_in book #1 + crash_after_commit cancel.signalled #1",
        "cancel_in book #1 + crash_before_commit book~undo.succeeded #1",
        "cancel_in book #1 + crash_after_commit book~undo.succeeded #1",
    )


async def test_a_graph_is_explored():
    """A saga as a graph is explored as one in code."""
    report = await explored(graph(), answers={})
    assert {"completed", "compensated"} == set(report.ends)
    assert verbs(report)["twice"] == 4 + 4, "each compensation, of a step that has happened and of one in doubt"
    assert "cancel_in hotel #1" in report.names


async def test_children_waits_and_plain_functions_are_explored():
    """A child's steps by their keys, a sleep, a function on a thread, a saga's own keyword arguments."""

    @lookup
    def price(about: str) -> int:
        return len(about)

    @step(rejects=(Declined,))
    def hold(about: str, *, parties: Parties = resource()) -> str:
        parties.do("hold")
        return about

    @hold.compensate
    def release(_: Any, *, parties: Parties = resource()) -> None:
        parties.undo("hold")

    @hold.probe
    def find(about: str, *, parties: Parties = resource()) -> str | None:
        return about if parties.known() else None

    @saga("part", version=1)
    async def part(s: Saga, about: str) -> str:
        await s.run(price, about)
        return await s.run(hold, about)

    @saga("whole", version=1)
    async def whole(s: Saga, *, about: str) -> str:
        await s.run(part, about)
        await s.sleep(timedelta(days=1))
        return await s.run(hold, about)

    def agree(world: list[Any], info: SagaInfo) -> None:
        kept = sorted(world[0].live.values())
        assert kept == (["hold", "hold"] if info.status == "completed" else []), (info.status, kept)

    report = await explore(whole, about="Rome", resources=make_world, check=agree)
    assert {"reject part/hold #1", "twice hold #1", "cancel_at sleep", "crash_after part/hold #1"} <= set(report.names)
    assert [name for name in report.names if name.endswith(" + twice undo part/hold #1")]
    assert not [name for name in report.names if name.startswith("unknown_after part/price")]


# -- seeded bugs -----------------------------------------------------------------------------------------------------


async def test_a_compensation_that_forgets_is_found():
    """What it left behind is found in every case that undoes it, and the shortest is the first."""
    found = await failures(trip, broken("forgets"))
    assert next(iter(found)) == "fail hotel #1" or next(iter(found)).startswith(
        ("unknown_after hotel", "cancel_in hotel")
    )
    assert all("left ['hotel']" in error for error in found.values())
    assert {"cancel_in hotel #1", "reject pay #1", "no_answer approval"} <= set(found)
    assert not any("+" in case for case in found), "nothing is built on a case that fails by itself"


async def test_a_compensation_that_is_not_idempotent_is_found():
    """It is found where its answer is lost, where it is delivered twice, and where the worker dies after it."""
    found = await failures(trip, broken("releases twice"))
    assert {case.split(" + ")[-1] for case in found} == {
        "unknown_after undo flight #1",
        "crash_after undo flight #1",
        "twice undo flight #1",
        "crash_before_commit flight~undo.succeeded #1",
    }


async def test_a_step_that_ignores_its_key_is_found():
    """A second attempt under the same key has a second effect: on a lost worker, and on a repeated delivery."""
    found = await failures(trip, broken("ignores keys"))
    assert {"crash_after flight #1", "twice flight #1"} <= set(found)
    assert all("flight" in error for error in found.values())


async def test_a_pivot_in_the_wrong_place_is_found():
    """After it nothing is undone, so a missing approval leaves the saga stuck."""
    found = await failures(hasty)
    assert {case for case in found if "+" not in case} == {"no_answer approval", "fail_answer approval"}
    assert all("stuck" in error for error in found.values())


async def test_a_body_that_swallows_exceptions_is_found():
    """It completes although one of its steps has failed."""
    found = await failures(careless)
    assert "fail flight #1" in found
    assert (
        found["fail flight #1"]
        == "completed with ['hotel', 'mail', 'pay'] instead of ['flight', 'hotel', 'mail', 'pay']"
    )


# -- failures --------------------------------------------------------------------------------------------------------


async def test_each_failure_is_a_line_that_runs_it_again():
    """The text of `only=` runs this case and no other, and fails in the same way."""
    with pytest.raises(ExploreFailed) as failed:
        await explored(hasty)
    lines = str(failed.value).splitlines()
    assert lines[0] == f"{len(lines) - 1} of {failed.value.cases} cases of saga 'hasty' failed:"
    assert lines[1].startswith('  explore(hasty, ..., only="no_answer approval")  # AssertionError: stuck: ')
    for line, each in zip(lines[1:], failed.value.failures, strict=True):
        only = re.search(r'only="(.*?)"\)', line)
        assert only is not None
        assert only[1] == each.case
        with pytest.raises(ExploreFailed) as again:
            await explored(hasty, only=only[1])
        assert [str(one) for one in again.value.failures] == [str(each)]


async def test_only_runs_one_case():
    """Also one that passes; without its number it is the first attempt."""
    assert (await explored(trip, only="crash_after pay")).names == ("crash_after pay #1",)
    assert (await explored(trip, only="nothing")).ends == {"completed": 1}


@pytest.mark.parametrize(
    ("only", "why"),
    [
        ("", "is no case"),
        ("explode pay #1", "is no case"),
        ("crash_after pay #1 and more +", "never came up"),
        ("crash_after pays #1", "never came up"),
        ("crash_after undo hotel #1", "never came up"),
        ("reject:NoSuch hotel #1", "NoSuch"),
    ],
)
async def test_a_case_that_there_is_not(only: str, why: str):
    """It is refused, instead of a run that proves nothing."""
    with pytest.raises(DefinitionError, match=why):
        await explored(trip, only=only)


async def test_a_check_that_fails_without_any_failure():
    """Then nothing else is run: the one case is called `nothing`."""

    async def wrong(world: list[Any], info: SagaInfo) -> None:
        await asyncio.sleep(0)
        raise LookupError("the check is wrong")

    with pytest.raises(ExploreFailed, match=r'1 of 1 .*\n.*only="nothing"\)  # LookupError: the check is wrong'):
        await explore(trip, "Rome", resources=make_world, check=wrong, answers={"approval": True})


async def test_a_callback_that_nobody_answers():
    """With a timeout that is its end; without one the message says what to give."""

    @saga("asking", version=1)
    async def asking(s: Saga) -> bool:
        return await (await s.callback("approval", bool)).result()

    with pytest.raises(
        ExploreFailed, match=r"waits for ever for callback 'approval': give answers=\{'approval': \.\.\.\}"
    ):
        await explore(asking, check=lambda world, info: None)
    report = await explore(asking, check=lambda world, info: None, answers={"approval": lambda world: not world})
    assert "no_answer approval" not in report.names
    report = await explored(trip, answers={}, only="nothing")
    assert report.ends == {"compensated": 1}


async def test_an_answer_that_refuses():
    """An exception as an answer is a refusal; `fail_answer` is no other case then."""
    report = await explored(trip, answers={"approval": Declined("no")}, only="nothing")
    assert report.ends == {"compensated": 1}


async def test_a_step_that_does_not_return(monkeypatch: pytest.MonkeyPatch):
    """It is named, once it has taken longer than a step in a test may."""
    monkeypatch.setattr("sagas.testing.stage.PATIENCE_S", 0.1)

    @retriable
    async def hang() -> None:
        await asyncio.Event().wait()

    @saga("hanging", version=1)
    async def hanging(s: Saga) -> None:
        await s.run(hang)

    with pytest.raises(ExploreFailed, match=r"has not returned for 0\.1 s: hang #1"):
        await explore(hanging, check=lambda world, info: None)


async def test_the_world_is_fresh_for_each_case():
    """Also where a coroutine function makes it; it is a list for the check."""
    worlds: list[list[object]] = []

    async def make() -> tuple[object, ...]:
        await asyncio.sleep(0)
        return (Parties(),)

    def keep(world: list[Any], info: SagaInfo) -> None:
        assert isinstance(world, list)
        worlds.append(world)

    report = await explore(trip, "Rome", resources=make, check=keep, answers={"approval": True})
    assert len({id(world[0]) for world in worlds}) == report.cases


async def test_a_saga_that_is_invalid_is_refused_at_once():
    """A missing resource is no failing case."""
    with pytest.raises(DefinitionError, match="Parties"):
        await explore(trip, "Rome", check=check)


async def test_a_policy_that_retries_for_ever():
    """A step that is retried for ever fails once; a retriable does too."""

    @step(retry=Retry.forever(first=1), compensation=None, because="a test")
    async def patient() -> None: ...

    @saga("patient", version=1)
    async def waiting(s: Saga) -> None:
        await s.run(patient)

    report = await explore(waiting, check=lambda world, info: None)
    assert report.ends["completed"] > 2


@pytest.mark.parametrize("verb", VERBS)
def test_one_case_has_one_text(verb: str):
    """What is read is what was written, whatever the names of steps are."""
    for target in ("charge", "undo leg/charge#2", "with space + more", "a #1 b", "twice"):
        event = Event(verb, target, error="Gone" if verb == "reject" else "")
        other = Event("twice", "undo charge", 3)
        for case in (Case((event,)), Case((event, other)), Case((other, event))):
            assert Case.parse(str(case)) == case
    assert Case.parse(str(Case())) == Case()


async def test_it_is_quiet(caplog: pytest.LogCaptureFixture):
    """What goes wrong on purpose is not logged; afterwards loggers log as before."""
    await explored(hasty, only="crash_after pay")
    assert caplog.records == []
