"""What is exported is valid, says what the graph says and keeps the service's limits; all else is refused."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
from statelint.linter import Linter
from tenacity import stop_after_attempt

from durable_core.layer import Codec
from sagas import DefinitionError, Retry, Saga, SagaGraph, Unknown, lookup, pivot, retriable, saga, step
from sagas.asl import limits
from sagas.asl.export import machine_text


@step(retry=Retry(attempts=4, first=2, factor=3, longest=60), timeout=timedelta(seconds=9.5))
async def reserve(what: str) -> str:
    return what


@reserve.compensate(retry=Retry(attempts=3, first=5, longest=5, jitter=False), timeout=20)
async def release(reserved: str) -> None: ...


@reserve.probe
async def find(what: str) -> str | None: ...


@step
async def book(what: str) -> str:
    return what


@book.compensate
async def unbook(booked: str | Unknown) -> None: ...


@pivot
async def pay(what: str) -> str:
    return what


@retriable
async def confirm(what: str) -> str:
    return what


@lookup
async def is_large(what: str) -> bool:
    return len(what) > 3


@step(compensation=None, because="a question")
async def ask(what: str, token: str) -> str:
    return token


def rich(**options: Any) -> SagaGraph[[str]]:
    """A graph with something of everything."""
    inner = SagaGraph("inner", version=1, input=str)
    inner.returns(inner.step(book, inner.step(reserve, inner.input)))
    graph = SagaGraph("rich", version=3, input=str, **options)
    large = graph.lookup(is_large, graph.input)
    parts = [
        graph.step(book, graph.input, when=large),
        graph.step(inner, graph.input),
        graph.step(reserve, graph.input),
    ]
    rest = graph.sleep(timedelta(hours=1), after=parts[1:])
    approval = graph.callback("approval", bool, timeout=600, heartbeat=60, after=[rest, parts[0]])
    asked = graph.step(ask, graph.input, approval.token)
    paid = graph.pivot(pay, graph.input, after=[asked, approval])
    ends = [graph.retriable(confirm, paid), graph.retriable(confirm, paid)]
    graph.returns(graph.lookup(is_large, paid, after=ends))
    return graph


def alone(what: Any, **options: Any) -> SagaGraph[[str]]:
    """A graph of one step."""
    graph = SagaGraph("alone", version=1, input=str, **options)
    add = {"step": graph.step, "pivot": graph.pivot, "retriable": graph.retriable, "lookup": graph.lookup}[what.kind]
    graph.returns(add(what, graph.input))
    return graph


def states(graph: Any) -> dict[str, dict[str, Any]]:
    """All states of an exported graph, by name."""
    return dict(limits.states_of(json.loads(machine_text(graph))))


@pytest.mark.parametrize(
    "options",
    [{}, {"parallel_compensation": True}, {"on_compensation_failure": "halt"}],
    ids=["plain", "abreast", "halt"],
)
def test_a_machine_is_valid(options: dict[str, Any]):
    """The linter of the Amazon States Language finds nothing in a graph with something of everything."""
    assert Linter.validate(json.loads(machine_text(rich(**options)))) == []


def test_no_two_states_have_one_name():
    """Names are unique in the whole machine, branches included, and at most 80 characters long."""
    names = [name for name, _ in limits.states_of(json.loads(machine_text(rich())))]
    assert len(names) == len(set(names))
    assert max(map(len, names)) <= 80


def test_a_task_is_named_by_its_step():
    """Each step has a Task state of its key; the name of its undo contains that key."""
    found = states(rich())
    tasks = {name for name, state in found.items() if state["Type"] == "Task"}
    keys = {
        "is_large",
        "book",
        "inner/book",
        "inner/reserve",
        "reserve",
        "ask",
        "pay",
        "confirm",
        "confirm#2",
        "is_large#2",
    }
    assert keys <= tasks
    assert {"undo book", "undo inner/book", "undo inner/reserve", "undo reserve"} <= tasks


def test_a_policy_is_said_in_the_terms_of_the_service():
    """Attempts, delays, factor, jitter and timeouts, in whole seconds rounded up."""
    found = states(alone(reserve))
    (retry,) = found["reserve"]["Retry"]
    assert (retry["IntervalSeconds"], retry["MaxAttempts"], retry["BackoffRate"]) == (2, 3, 3.0)
    assert (retry["MaxDelaySeconds"], retry["JitterStrategy"]) == (60, "FULL")
    assert "Rejected" not in retry["ErrorEquals"]
    assert found["reserve"]["TimeoutSeconds"] == 10
    (undo,) = found["undo reserve"]["Retry"]
    assert (undo["IntervalSeconds"], undo["MaxAttempts"], undo["BackoffRate"]) == (5, 2, 1.0)
    assert (undo.get("MaxDelaySeconds"), undo["JitterStrategy"]) == (None, "NONE")
    assert found["undo reserve"]["TimeoutSeconds"] == 20


def test_what_is_retried_for_ever_is_retried_as_long_as_an_execution_can():
    """A retriable gets the attempts for which the events of an execution last."""
    (retry,) = states(alone(confirm))["confirm"]["Retry"]
    assert 8000 < retry["MaxAttempts"] < limits.MOST_EVENTS / 3


def test_the_function_can_be_named():
    """By default the template fills it in."""
    assert '"FunctionName": "${SagasFunction}"' in machine_text(alone(pay))
    assert '"FunctionName": "arn:of:it"' in machine_text(alone(pay), "arn:of:it")


def test_the_text_is_the_same_each_time():
    """It can be kept under version control."""
    assert machine_text(rich()) == machine_text(rich())


# -- refusals ----------------------------------------------------------------------------------------------------------


@saga("coded", version=1)
async def coded(s: Saga, what: str) -> str:
    return await s.run(pay, what)


@lookup
async def guess(what: str) -> Any: ...


def declared(at: Any = step, **options: Any) -> Any:
    """A step with these options."""

    async def doing(what: str) -> str:
        return what

    if at is step:
        options |= {"compensation": None, "because": "a test"}
    return at(name="odd", **options)(doing)


def with_undo(**options: Any) -> Any:
    """A step whose compensation has these options."""

    @step(name="odd")
    async def doing(what: str) -> str:
        return what

    @doing.compensate(**options)
    async def undo(result: str) -> None: ...

    return doing


def with_callback(tell: Callable[[Any, Any], Any], **options: Any) -> SagaGraph[[str]]:
    """A graph with a callback, whose token is handed out by what ``tell`` adds."""
    graph = SagaGraph("told", version=1, input=str)
    answer = graph.callback("approval", bool, **options)
    graph.returns(graph.pivot(pay, graph.input, after=[answer, *tell(graph, answer)]))
    return graph


def conditional() -> SagaGraph[[str]]:
    """A graph with a condition of any type."""
    graph = SagaGraph("guessing", version=1, input=str)
    graph.returns(graph.pivot(pay, graph.input, when=graph.lookup(guess, graph.input)))
    return graph


def with_child() -> SagaGraph[[str]]:
    """A graph with a coded child."""
    graph = SagaGraph("with-child", version=1, input=str)
    graph.returns(graph.pivot(coded, graph.input))
    return graph


def given(value: Any) -> SagaGraph[[]]:
    """A graph whose step is given a plain value."""
    graph = SagaGraph("given", version=1)

    @lookup(name="takes")
    async def takes(what: Any) -> str: ...

    graph.returns(graph.lookup(takes, value))
    return graph


def asked_twice(graph: Any, answer: Any) -> list[Any]:
    """Two steps are given one token."""
    return [graph.step(ask, graph.input, answer.token), graph.step(ask, graph.input, answer.token)]


def asked_and_used(graph: Any, answer: Any) -> list[Any]:
    """The result of the step that asks is used."""
    return [graph.step(book, graph.step(ask, graph.input, answer.token))]


def asked_and_waited_for(graph: Any, answer: Any) -> list[Any]:
    """A step waits for the question and not for the answer."""
    return [graph.step(book, graph.input, after=[graph.step(ask, graph.input, answer.token)])]


def asked_by_a_booking(graph: Any, answer: Any) -> list[Any]:
    """The step that asks can be undone."""
    return [graph.step(book, answer.token)]


def asked_after_the_answer(graph: Any, answer: Any) -> list[Any]:
    """The step that asks waits for what the answer brings."""
    return [graph.step(ask, graph.step(book, graph.input, after=[answer]), answer.token)]


def asked_if(graph: Any, answer: Any) -> list[Any]:
    """The step that asks has a condition, and the callback has none."""
    return [graph.step(ask, graph.input, answer.token, when=graph.lookup(is_large, graph.input))]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a coded saga": (lambda: coded, "'coded' is written as code; only graphs"),
    "a coded child": (with_child, "only graphs can be exported"),
    "a deadline": (lambda: alone(pay, deadline=60), "has a deadline"),
    "a failure that waits": (lambda: alone(declared(on_failure="stuck")), "an execution cannot wait for an operator"),
    "failures that wait": (lambda: alone(pay, on_failure="stuck"), "an execution cannot wait for an operator"),
    "at most once with retries": (
        lambda: alone(declared(at_most_once=True, retry=2)),
        "is at_most_once and has retries",
    ),
    "retried for ever": (lambda: alone(declared(retry=Retry.forever())), "is retried for ever"),
    "retried within": (lambda: alone(declared(retry=Retry(5, within=60))), "`within` a time"),
    "tenacity's rules": (lambda: alone(declared(retry=Retry.from_tenacity(stop=stop_after_attempt(2)))), "tenacity"),
    "an undo retried within": (
        lambda: alone(with_undo(retry=Retry(5, within=60))),
        "its compensation is retried `within`",
    ),
    "too many attempts": (lambda: alone(declared(retry=10**8)), "more than 99999999 attempts"),
    "a long delay": (lambda: alone(declared(retry=Retry(2, longest=timedelta(days=400)))), "waits longer than"),
    "a long timeout": (lambda: alone(declared(timeout=901)), "a timeout above 900 s"),
    "a condition of any type": (conditional, "not declared as bool"),
    "a long heartbeat": (
        lambda: with_callback(lambda *_: [], timeout=9.5, heartbeat=9.2),
        "a heartbeat that is not shorter",
    ),
    "a token for two": (lambda: with_callback(asked_twice), "and so is another node"),
    "the result of who asks": (lambda: with_callback(asked_and_used), "uses its result"),
    "waiting for who asks": (lambda: with_callback(asked_and_waited_for), "not for the answer"),
    "an undo of who asks": (lambda: with_callback(asked_by_a_booking), "its own result is lost"),
    "asked after the answer": (lambda: with_callback(asked_after_the_answer), "waits for what comes after its answer"),
    "asked if": (lambda: with_callback(asked_if), "has another `when=`"),
    "a value like a path": (lambda: given({"x.$": 1}), "ends with '.$'"),
    "a large value": (lambda: given("x" * 300_000), "bytes of plain values"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_expressed_is_refused(what: str):
    """With the reason, and the place of what it is about."""
    make, reason = REFUSED[what]
    with pytest.raises(DefinitionError, match=re.escape(reason)) as refused:
        machine_text(make())
    assert what == "a large value" or "test_asl_export.py:" in str(refused.value)


def test_a_name_is_as_long_as_the_service_takes_it():
    """A step's key of 80 characters can be exported; where its undo would have more, it is refused."""
    name = "n" * 78
    assert name in states(alone(step(name=name, compensation=None, because="x")(declared().fn)))
    booking = step(name=name)(declared().fn)
    booking.compensate(lambda result: None)
    with pytest.raises(DefinitionError, match="longer than 80 characters: 'undo nnn"):
        machine_text(alone(booking))
    with pytest.raises(DefinitionError, match="longer than 80 characters: 'nnn"):
        machine_text(alone(lookup(name="n" * 81)(declared().fn)))


@attrs.frozen
class Priced:
    """A value with a form of its own."""

    at: timedelta
    tags: dict[str, str] = attrs.field(factory=dict[str, str])


def constant(kind: Any, value: Any) -> SagaGraph[[]]:
    """A graph whose child returns the plain value that it was given, and skips a step where that is not true."""
    child = SagaGraph("child", version=1, input=kind)
    child.step(declared(), "x", when=child.input if kind is bool else None)
    child.returns(child.input)
    graph = SagaGraph("constant", version=1)
    graph.returns(graph.step(child, value))
    return graph


def test_a_child_may_return_a_plain_value():
    """It stands in the machine as our engine stores it; one that the service would take for a path is refused."""
    found = states(constant(Priced, Priced(timedelta(minutes=1))))["result of child"]["Parameters"]
    assert found == {"value": json.loads(Codec().encode_ordered(Priced(timedelta(minutes=1)), what="a test"))}
    with pytest.raises(DefinitionError, match=r"child 'child' has a key that ends with '\.\$'"):
        machine_text(constant(Priced, Priced(timedelta(1), {"x.$": "$.secret"})))


@pytest.mark.parametrize("runs", [True, False])
def test_a_childs_constant_decides_when_the_machine_is_written(*, runs: bool):
    """A node whose condition is known is there or it is not, and so is what a failure would lead to."""
    graph = constant(bool, runs)
    assert Linter.validate(json.loads(machine_text(graph))) == []
    assert any(state["Type"] == "Task" and not name.startswith("undo") for name, state in states(graph).items()) is runs


def test_all_reasons_are_told_at_once():
    """One export names every node that cannot be expressed."""
    graph = SagaGraph("bad", version=1, input=str, deadline=timedelta(days=1))
    first = graph.step(declared(timeout=1000), graph.input)
    graph.returns(graph.pivot(pivot(name="pay", retry=Retry.forever())(declared().fn), first))
    with pytest.raises(DefinitionError) as refused:
        machine_text(graph)
    for reason in ("has a deadline", "a timeout above 900 s", "is retried for ever"):
        assert reason in str(refused.value)


def test_a_faulty_graph_is_refused_as_by_its_check():
    """A graph with faults of its own is not exported."""
    graph = SagaGraph("faulty", version=1, input=str)
    graph.lookup(is_large, graph.input)
    with pytest.raises(DefinitionError, match="is unused"):
        machine_text(graph)


@pytest.mark.parametrize(("count", "reason"), [(1500, "events"), (10_000, "10,000 nodes")])
def test_a_graph_that_one_execution_cannot_run_is_refused(count: int, reason: str):
    """More events than the service allows: it says how many, and takes no time over ten thousand nodes."""
    graph = SagaGraph("large", version=1, input=str)
    last: Any = graph.input
    for _ in range(count):
        last = graph.step(book, last)
    graph.returns(last)
    with pytest.raises(DefinitionError, match=reason):
        machine_text(graph)


def test_a_graph_of_many_nodes_is_exported():
    """200 steps side by side and in a row keep all limits."""
    graph = SagaGraph("wide", version=1, input=str)
    ends = [graph.step(book, graph.step(book, graph.input)) for _ in range(100)]
    graph.returns(graph.pivot(pay, graph.input, after=ends))
    text = machine_text(graph)
    assert len(text) < limits.LARGEST_DEFINITION
    assert Linter.validate(json.loads(text)) == []
