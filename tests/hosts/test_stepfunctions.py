"""Exported graphs on moto's interpreter with our handler: outcomes, undos, callbacks and children."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sagas import (
    DidNotHappen,
    Happened,
    Retry,
    SagaGraph,
    StepInfo,
    StillUnknown,
    Unknown,
    current,
    lookup,
    pivot,
    retriable,
    step,
)
from sagas.asl.export import machine_text
from sagas.hosts.stepfunctions import handler
from tests.hosts.moto_machine import Ended, Machines, machines

NOW = Retry(attempts=3, first=0, jitter=False)


class Refused(Exception):
    """A participant's own answer."""


class World:
    """What was called, and what each call does next."""

    def __init__(self) -> None:
        self.infos: list[StepInfo] = []
        self.log: list[str] = []
        self.plays: dict[str, list[Any]] = {}

    def does(self, name: str) -> Any:
        """Note the call; raise or return its next play."""
        self.infos.append(current())
        self.log.append(name)
        plays = self.plays.get(name, [])
        play = plays.pop(0) if plays else None
        if isinstance(play, BaseException):
            raise play
        return play


WORLD = World()


@pytest.fixture(autouse=True)
def _world() -> None:
    WORLD.__init__()


@pytest.fixture
def service() -> Iterator[Machines]:
    """Step Functions."""
    with machines() as found:
        yield found


def party(name: str, **options: Any) -> Any:
    """A step that books, and its compensation."""

    @step(name=name, rejects=(Refused,), **options)
    def book(*what: Any) -> str:
        return WORLD.does(name) or f"{name} booked"

    @book.compensate(retry=Retry(attempts=2, first=0))
    def free(booked: str) -> None:
        WORLD.does(f"undo {name} ({booked})")

    return book


car, hotel, patient = party("car"), party("hotel"), party("patient", retry=NOW)


@pivot(name="pay", rejects=(Refused,))
async def pay(*what: Any) -> str:
    return WORLD.does("pay") or "paid"


@retriable
async def confirm(*what: Any) -> str:
    return WORLD.does("confirm") or "confirmed"


@step(name="settled", rejects=(Refused,), retry=NOW)
async def settled(what: str) -> str:
    return WORLD.does("settled") or f"settled {what}"


@settled.compensate
async def undo_settled(result: str, what: str) -> None:
    WORLD.does(f"undo settled ({result}, {what})")


@settled.probe(retry=NOW)
async def find_settled(what: str) -> Any:
    return WORLD.does("probe settled")


@step(name="fenced", at_most_once=True)
async def fenced(what: str) -> str:
    return WORLD.does("fenced") or "fenced"


@fenced.compensate
async def undo_fenced(result: str | Unknown) -> None:
    WORLD.does(f"undo fenced ({result})")


def line(*steps: Any, name: str = "line", **options: Any) -> SagaGraph[[str]]:
    """A graph that runs these steps one after the other, and then nothing."""
    graph = SagaGraph(name, version=1, input=str, **options)
    last: list[Any] = []
    for each in steps:
        add = {"step": graph.step, "pivot": graph.pivot, "retriable": graph.retriable, "lookup": graph.lookup}[
            each.kind
        ]
        last = [add(each, graph.input, after=last)]
    graph.returns(last[0])
    return graph


def run(service: Machines, graph: Any, given: object = "rome") -> Ended:
    """Export a graph and run it to its end."""
    return service.run(machine_text(graph), given, handler(sagas=[graph]))


def test_a_graph_runs_to_its_result(service: Machines):
    """All steps are called, in the graph's order, and the output is the graph's."""
    ended = run(service, line(car, hotel, pay, confirm))
    assert (ended.status, ended.output) == ("SUCCEEDED", "confirmed")
    assert WORLD.log == ["car", "hotel", "pay", "confirm"]


def test_a_rejection_is_not_repeated_and_everything_is_undone(service: Machines):
    """A rejection goes to the undo chain at once, which runs against the graph's order; the end says why."""
    WORLD.plays["patient"] = [Refused("no cover")]
    ended = run(service, line(car, hotel, patient))
    assert (ended.status, ended.error) == ("FAILED", "Compensated")
    assert WORLD.log == ["car", "hotel", "patient", "undo hotel (hotel booked)", "undo car (car booked)"]
    assert "no cover" in str(ended.cause)


def test_a_failure_is_repeated_as_often_as_the_policy_says(service: Machines):
    """Attempts are those of the policy, each with its number; the last failure goes to the undo chain."""
    WORLD.plays["patient"] = [RuntimeError("1"), RuntimeError("2"), RuntimeError("3")]
    ended = run(service, line(car, patient))
    assert WORLD.log == ["car", "patient", "patient", "patient", "undo car (car booked)"]
    assert [info.attempt for info in WORLD.infos] == [1, 1, 2, 3, 1]
    assert ended.error == "Compensated"


def test_each_attempt_has_the_key_of_its_step(service: Machines):
    """Retries share one idempotency key; the compensation has its own, and names that of its step."""
    WORLD.plays["patient"] = [RuntimeError("1")]
    WORLD.plays["pay"] = [RuntimeError("no")]
    run(service, line(patient, pay))
    first, second, paid, undo = WORLD.infos
    assert first.idempotency_key == second.idempotency_key
    assert len({first.idempotency_key, paid.idempotency_key, undo.idempotency_key}) == 3
    assert (undo.forward_key, undo.compensating, undo.step) == (first.idempotency_key, True, "patient")
    assert (first.saga, first.version, first.forward_key) == ("line", 1, None)


def test_no_two_executions_share_a_key(service: Machines):
    """The same step of another execution has another idempotency key."""
    run(service, line(car))
    run(service, line(car))
    assert len({info.idempotency_key for info in WORLD.infos}) == 2


def test_a_policy_may_name_what_is_worth_another_attempt(service: Machines):
    """An exception that the policy does not name is not repeated."""
    picky = party("picky", retry=Retry(attempts=3, first=0, on=(ConnectionRefusedError,)))
    WORLD.plays["picky"] = [ConnectionRefusedError(), RuntimeError("no")]
    assert run(service, line(car, picky)).error == "Compensated"
    assert WORLD.log == ["car", "picky", "picky", "undo car (car booked)"]


def test_a_failed_undo_is_another_end(service: Machines):
    """A compensation that is given up leaves the others running, and the end is not a compensated one."""
    WORLD.plays["undo hotel (hotel booked)"] = [RuntimeError("1"), RuntimeError("2")]
    WORLD.plays["pay"] = [Refused("no")]
    ended = run(service, line(car, hotel, pay))
    assert (ended.status, ended.error) == ("FAILED", "UndoFailed")
    assert WORLD.log[3:] == ["undo hotel (hotel booked)"] * 2 + ["undo car (car booked)"]
    assert "step 'hotel'" in str(ended.cause)


def test_a_graph_may_halt_at_a_failed_undo(service: Machines):
    """With `on_compensation_failure="halt"` nothing is undone after it."""
    WORLD.plays["undo hotel (hotel booked)"] = [RuntimeError("1"), RuntimeError("2")]
    WORLD.plays["pay"] = [Refused("no")]
    ended = run(service, line(car, hotel, pay, on_compensation_failure="halt"))
    assert ended.error == "UndoFailed"
    assert WORLD.log[3:] == ["undo hotel (hotel booked)"] * 2


def test_after_the_pivot_nothing_is_undone(service: Machines):
    """A failure after the pivot is not caught: the execution fails at its task, where a redrive goes on."""
    given_up = retriable(name="given up", retry=1)(lambda what: WORLD.does("given up"))
    WORLD.plays["given up"] = [RuntimeError("down")]
    ended = run(service, line(car, pay, given_up))
    assert (ended.status, ended.error) == ("FAILED", "Failed")
    assert WORLD.log == ["car", "pay", "given up"]


# -- unknown outcomes --------------------------------------------------------------------------------------------------


def test_a_probe_finds_that_it_happened(service: Machines):
    """A given-up unknown outcome is settled by the probe, whose answer is the step's result."""
    WORLD.plays["settled"] = [TimeoutError("1"), TimeoutError("2"), TimeoutError("3")]
    WORLD.plays["probe settled"] = [StillUnknown(), Happened("found")]
    ended = run(service, line(settled, pay))
    assert (ended.status, ended.output) == ("SUCCEEDED", "paid")
    assert WORLD.log == ["settled"] * 3 + ["probe settled"] * 2 + ["pay"]
    assert WORLD.infos[3].forward_key == WORLD.infos[0].idempotency_key
    assert WORLD.infos[3].idempotency_key != WORLD.infos[0].idempotency_key


def test_what_a_probe_has_found_is_undone_with_its_value(service: Machines):
    """A step that has happened by its probe is undone like any other."""
    WORLD.plays["settled"] = [TimeoutError("1"), TimeoutError("2"), TimeoutError("3")]
    WORLD.plays["probe settled"] = [Happened("found")]
    WORLD.plays["pay"] = [Refused("no")]
    assert run(service, line(settled, pay)).error == "Compensated"
    assert WORLD.log[-1] == "undo settled (found, rome)"


def test_a_probe_finds_that_it_did_not_happen(service: Machines):
    """Then the step has failed, and only the others are undone."""
    WORLD.plays["settled"] = [TimeoutError("1"), TimeoutError("2"), TimeoutError("3")]
    WORLD.plays["probe settled"] = [DidNotHappen()]
    assert run(service, line(car, settled)).error == "Compensated"
    assert WORLD.log[-2:] == ["probe settled", "undo car (car booked)"]


def test_a_probe_that_is_given_up_leaves_the_execution_where_it_is(service: Machines):
    """Without an answer nothing is undone."""
    WORLD.plays["settled"] = [TimeoutError("1"), TimeoutError("2"), TimeoutError("3")]
    WORLD.plays["probe settled"] = [StillUnknown()] * 3
    ended = run(service, line(car, settled))
    assert (ended.status, ended.error) == ("FAILED", "Failed")
    assert WORLD.log[-3:] == ["probe settled"] * 3


def test_a_later_failure_does_not_clear_an_unknown_outcome(service: Machines):
    """Unknown is sticky: after it an ordinary failure is in doubt too, and attempts are counted together."""
    WORLD.plays["patient"] = [RuntimeError("1"), TimeoutError("2"), RuntimeError("3")]
    ended = run(service, line(car, patient))
    assert (ended.status, ended.error) == ("FAILED", "UnknownForGood")
    assert WORLD.log == ["car", "patient", "patient", "patient"]
    assert [info.attempt for info in WORLD.infos[1:]] == [1, 2, 3]


def test_a_success_and_a_rejection_clear_an_unknown_outcome(service: Machines):
    """A later success is the result; a later rejection says that nothing happened."""
    WORLD.plays["patient"] = [TimeoutError("1"), "late"]
    assert run(service, line(patient)).output == "late"
    WORLD.plays["patient"] = [TimeoutError("1"), Refused("never came")]
    assert run(service, line(car, patient)).error == "Compensated"
    assert WORLD.log[-1] == "undo car (car booked)"


def test_an_undo_that_admits_unknown_runs_at_once_and_once(service: Machines):
    """It is given `Unknown`, before the rest is undone, and not again."""
    WORLD.plays["fenced"] = [TimeoutError("lost")]
    assert run(service, line(car, fenced)).error == "Compensated"
    assert WORLD.log == ["car", "fenced", "undo fenced (Unknown())", "undo car (car booked)"]


def test_such_an_undo_that_fails_stops_the_rollback(service: Machines):
    """While an outcome is unknown nothing else is undone."""
    WORLD.plays["fenced"] = [TimeoutError("lost")]
    WORLD.plays["undo fenced (Unknown())"] = [RuntimeError("down")] * 10
    assert run(service, line(car, fenced)).error == "UndoFailed"
    assert WORLD.log == ["car", "fenced"] + ["undo fenced (Unknown())"] * 10


def test_an_unknown_outcome_that_nothing_settles_is_left_to_a_person(service: Machines):
    """The execution fails there and nothing is undone; a redrive attempts the step again, under the same key."""
    WORLD.plays["hotel"] = [TimeoutError("lost")]
    ended = run(service, line(car, hotel))
    assert (ended.status, ended.error) == ("FAILED", "Unknown")
    assert WORLD.log == ["car", "hotel"]


def test_a_lost_function_is_an_unknown_outcome(service: Machines):
    """An error that is none of ours says nothing about the effect."""
    graph = line(car, fenced)
    serve = handler(sagas=[graph])

    def dying(event: Any, context: object) -> Any:
        if (event["step"], event["role"]) == ("fenced", "do"):
            raise type("Runtime.ExitError", (Exception,), {})
        return serve(event, context)

    assert service.run(machine_text(graph), "rome", dying).error == "Compensated"
    assert WORLD.log == ["car", "undo fenced (Unknown())", "undo car (car booked)"]


# -- structure ---------------------------------------------------------------------------------------------------------


def test_branches_end_before_anything_is_undone(service: Machines):
    """A failure in a branch does not cut the branch beside it: what that one does is undone with the rest."""
    graph = SagaGraph("aside", version=1, input=str)
    first, second = graph.step(car, graph.input), graph.step(patient, graph.input)
    graph.returns(graph.step(hotel, first, after=[graph.step(party("tour"), second)]))
    WORLD.plays["car"] = [Refused("none left")]
    WORLD.plays["patient"] = [RuntimeError("1")]
    assert run(service, graph).error == "Compensated"
    assert sorted(WORLD.log[:4]) == ["car", "patient", "patient", "tour"]
    assert WORLD.log[4:] == ["undo tour (tour booked)", "undo patient (patient booked)"]


def test_a_graph_may_undo_side_by_side(service: Machines):
    """With `parallel_compensation` what ran side by side is undone so; an undo that fails there is told."""
    graph = SagaGraph("abreast", version=1, input=str, parallel_compensation=True)
    both = [graph.step(car, graph.input), graph.step(hotel, graph.input)]
    last = graph.step(patient, *both)
    graph.returns(graph.pivot(pay, last))
    WORLD.plays["pay"] = [Refused("no")]
    assert run(service, graph).error == "Compensated"
    assert WORLD.log[4] == "undo patient (patient booked)"
    assert sorted(WORLD.log[5:]) == ["undo car (car booked)", "undo hotel (hotel booked)"]
    WORLD.plays["pay"] = [Refused("no")]
    WORLD.plays["undo car (car booked)"] = [RuntimeError("1"), RuntimeError("2")]
    assert run(service, graph).error == "UndoFailed"


def test_a_condition_skips_a_node(service: Machines):
    """Where it is false the value is None, whoever takes it; what was skipped is not undone."""
    whether = lookup(name="whether")(_is_rome)
    graph = SagaGraph("choice", version=1, input=str)
    when = graph.lookup(whether, graph.input)
    booked = graph.step(car, graph.input, when=when)
    graph.returns(graph.pivot(pay, booked))
    assert run(service, graph).status == "SUCCEEDED"
    assert run(service, graph, "oslo").status == "SUCCEEDED"
    assert WORLD.log == ["car", "pay", "pay"]
    WORLD.plays["pay"] = [Refused("no")]
    assert run(service, graph, "oslo").error == "Compensated"
    assert WORLD.log[3:] == ["pay"]


async def _is_rome(place: str) -> bool:
    return place == "rome"


def test_of_two_pivots_one_may_run(service: Machines):
    """Pivots with conditions: where one has run nothing is undone; where none has, everything; two are one too many."""
    graph = SagaGraph("ways", version=1, input=list[bool])
    booked = graph.step(car, graph.input)
    flags = [graph.lookup(_flag(place), graph.input) for place in range(2)]
    ways = [graph.pivot(_way(place), booked, when=flag) for place, flag in enumerate(flags)]
    graph.returns(graph.lookup(_look, *ways))
    assert run(service, graph, [False, True]).output == "way 1"
    WORLD.plays["look"] = [RuntimeError("down")]
    assert run(service, graph, [True, False]).error == "Stuck"
    WORLD.plays["look"] = [RuntimeError("down")]
    assert run(service, graph, [False, False]).error == "Compensated"
    assert WORLD.log[-1] == "undo car (car booked)"
    assert run(service, graph, [True, True]).error == "Stuck"


def _flag(place: int) -> Any:
    @lookup(name=f"flag {place}")
    async def flag(flags: list[bool]) -> bool:
        return flags[place]

    return flag


def _way(place: int) -> Any:
    @pivot(name=f"way {place}")
    async def way(booked: str) -> str:
        return WORLD.does(f"way {place}") or f"way {place}"

    return way


@lookup(name="look")
async def _look(*ways: str | None) -> str | None:
    WORLD.does("look")
    return next(filter(None, ways), None)


def test_a_child_is_part_of_the_machine(service: Machines):
    """Its steps have the keys of our engine, and are undone with the rest; its value is its own output."""
    inner = SagaGraph("inner", version=1, input=str)
    inner.returns(inner.step(hotel, inner.input))
    graph = SagaGraph("outer", version=1, input=str)
    children = [graph.step(inner, graph.input), graph.step(inner, "oslo")]
    graph.returns(graph.pivot(pay, *children))
    WORLD.plays["pay"] = [Refused("no")]
    ended = run(service, graph)
    assert ended.error == "Compensated"
    assert [info.step for info in WORLD.infos[-2:]] == ["inner#2/hotel", "inner/hotel"]
    assert {"inner/hotel", "inner#2/hotel", "undo inner/hotel"} <= {*ended.entered}


def test_a_child_may_bring_the_pivot(service: Machines):
    """A failure in it before its pivot undoes all; after it nothing is undone."""
    inner = SagaGraph("inner", version=1, input=str)
    paid = inner.pivot(pay, inner.step(hotel, inner.input))
    inner.returns(inner.retriable(confirm, paid))
    graph = SagaGraph("outer", version=1, input=str)
    graph.returns(graph.pivot(inner, graph.input, after=[graph.step(car, graph.input)]))
    assert run(service, graph).output == "confirmed"
    WORLD.plays["pay"] = [Refused("no")]
    assert run(service, graph).error == "Compensated"
    assert WORLD.log[-2:] == ["undo hotel (hotel booked)", "undo car (car booked)"]


def test_a_sleep_is_a_wait(service: Machines):
    """Seconds are rounded up; what takes the sleep's value gets None."""
    graph = SagaGraph("slow", version=1)
    rest = graph.sleep(90.2)
    graph.returns(graph.lookup(_look, rest))
    ended = run(service, graph)
    assert (ended.status, service.waited) == ("SUCCEEDED", [91])
    assert json.loads(machine_text(graph))["States"]["look"]["Parameters"]["Payload"]["arguments"] == {"0": None}


def test_arguments_are_given_as_in_the_graph(service: Machines):
    """Plain values, keywords, defaults and any number of values arrive as they do on our engine."""
    seen: list[Any] = []

    @lookup
    def takes(first: str, /, *more: int, flag: bool, **rest: tuple[int, int]) -> str:
        seen.append((first, more, flag, rest))
        return first

    graph = SagaGraph("given", version=1, input=str)
    graph.returns(graph.lookup(takes, graph.input, 1, 2, flag=True, pair=(3, 4)))
    run(service, graph)
    assert seen == [("rome", (1, 2), True, {"pair": (3, 4)})]


def test_hostile_names_are_only_names(service: Machines):
    """Quotes, dollars, braces and other alphabets in names of sagas and steps do no harm."""
    odd = "\"$.x['y']\" ${z} {0} \\ 名前 ;--"
    graph = SagaGraph(odd, version=1, input=str)
    booked = graph.step(party(odd), graph.input)
    graph.returns(graph.pivot(pay, booked, graph.step(party("undo car"), booked, after=[graph.step(car, booked)])))
    WORLD.plays["pay"] = [Refused("no")]
    ended = run(service, graph)
    assert ended.error == "Compensated"
    assert WORLD.log[-1] == f"undo {odd} ({odd} booked)"


# -- callbacks ---------------------------------------------------------------------------------------------------------


@step(name="ask", compensation=None, because="a question needs no undoing")
async def ask(what: str, token: str) -> None:
    WORLD.plays["token"] = [token]
    WORLD.does("ask")


def asking(**options: Any) -> SagaGraph[[str]]:
    """A graph that books, asks, and pays with the answer."""
    graph = SagaGraph("asking", version=1, input=str)
    booked = graph.step(car, graph.input)
    approval = graph.callback("approval", bool, after=[booked], **options)
    asked = graph.step(ask, graph.input, approval.token)
    graph.returns(graph.pivot(pay, booked, approval, after=[asked]))
    return graph


def answer(service: Machines, graph: Any, **answers: Any) -> Ended:
    """Run a graph, and answer its callback when it has asked."""

    def told(event: Any) -> None:
        if event["step"] == "ask" and not WORLD.plays.get("ask"):
            token = WORLD.plays["token"][0]
            if "output" in answers:
                service.client.send_task_success(taskToken=token, output=answers["output"])
            else:
                service.client.send_task_failure(taskToken=token, **answers)

    service.after = told
    return run(service, graph)


def test_a_callback_is_answered_by_its_token(service: Machines):
    """The step that hands out the token runs in the state that waits; the answer is the callback's value."""
    assert answer(service, asking(), output="true").status == "SUCCEEDED"
    assert WORLD.log == ["car", "ask", "pay"]
    state = json.loads(machine_text(asking(timeout=60, heartbeat=20)))["States"]["ask"]
    assert state["Resource"].endswith("lambda:invoke.waitForTaskToken")
    assert (state["TimeoutSeconds"], state["HeartbeatSeconds"]) == (60, 20)


def test_a_callback_that_fails_undoes_the_saga(service: Machines):
    """A failure that is sent in place of an answer goes to the undo chain."""
    ended = answer(service, asking(), error="Declined", cause="too dear")
    assert ended.error == "Compensated"
    assert WORLD.log == ["car", "ask", "undo car (car booked)"]


def test_a_callback_that_nobody_answers_undoes_the_saga(service: Machines):
    """After its timeout the saga is undone."""
    assert run(service, asking(timeout=1)).error == "Compensated"
    assert WORLD.log == ["car", "ask", "undo car (car booked)"]


def test_a_callback_without_an_asker_waits_too(service: Machines):
    """Its token is in the payload of its task, and so in the execution's history."""
    graph = SagaGraph("quiet", version=1, input=str)
    graph.returns(graph.pivot(pay, graph.callback("approval", bool)))

    def told(event: Any) -> None:
        if event["role"] == "callback":
            service.client.send_task_success(taskToken=event["token"], output="true")

    service.after = told
    assert run(service, graph).status == "SUCCEEDED"
    assert WORLD.log == ["pay"]


def test_an_answer_of_another_type_is_a_failure(service: Machines):
    """The step that takes it is not called, and the saga is undone."""
    graph = SagaGraph("typed", version=1, input=str)
    approval = graph.callback("approval", bool, after=[graph.step(car, graph.input)])
    asked = graph.step(ask, graph.input, approval.token)
    graph.returns(graph.pivot(_typed, approval, after=[asked]))
    ended = answer(service, graph, output='"perhaps"')
    assert ended.error == "Compensated"
    assert WORLD.log == ["car", "ask", "undo car (car booked)"]


@pivot(name="typed")
async def _typed(approved: bool) -> str:  # noqa: FBT001 - as a graph gives it
    return WORLD.does("typed") or "typed"
