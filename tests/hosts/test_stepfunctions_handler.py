"""The Lambda handler by itself: events in, results or named errors out."""

import asyncio
import gc
import threading
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagas import DefinitionError, Saga, SagaGraph, StepInfo, current, lookup, pivot, resource, saga, step
from sagas.hosts.stepfunctions import handler
from sagas.hosts.tasks import TaskFailed

EXECUTION = "arn:aws:states:eu-west-1:123456789012:execution:trips:trip-17"


class Refused(Exception):
    """A participant's own answer."""


@attrs.frozen
class Money:
    """A value with a form of its own."""

    amount: int


@attrs.define
class Bank:
    """A resource."""

    seen: list[Any] = attrs.field(factory=list[Any])
    raises: BaseException | None = None

    def asked(self, *what: Any) -> None:
        """Note a call, or refuse it."""
        self.seen.append((*what, current()))
        if self.raises is not None:
            raise self.raises


@step(rejects=(Refused,), retry=3)
async def charge(money: Money, *, bank: Bank = resource()) -> Money:
    bank.asked(money)
    return Money(money.amount + 1)


@charge.compensate
def refund(paid: Money, money: Money, *, bank: Bank = resource()) -> None:
    bank.asked(paid, money)


@charge.probe
async def find(money: Money, *, bank: Bank = resource()) -> Money | None:
    bank.asked(money)
    return money if money.amount else None


@pivot
async def many(money: Money) -> str:
    return "x" * money.amount


def graph() -> SagaGraph[[Money]]:
    """A graph with both."""
    made = SagaGraph("paying", version=2, input=Money)
    made.returns(made.pivot(many, made.step(charge, made.input)))
    return made


def event(role: str = "do", **changed: Any) -> dict[str, Any]:
    """What the state machine sends."""
    sent = {
        "saga": "paying",
        "version": 2,
        "step": "charge",
        "role": role,
        "execution": EXECUTION,
        "started": "2026-12-01T10:00:00Z",
        "attempt": 0,
        "arguments": {"money": {"amount": 5}},
    }
    return {**sent, **changed}


@pytest.fixture
def bank() -> Bank:
    """The resource of these tests."""
    return Bank()


def served(bank: Bank) -> Any:
    """The handler of the graph."""
    return handler(sagas=[graph()], resources=[bank])


def test_a_step_is_called_with_its_types_and_resources(bank: Bank):
    """Arguments come and results go by our codec; resources are filled."""
    assert served(bank)(event(), None) == {"value": {"amount": 6}}
    assert bank.seen[0][0] == Money(5)


def test_a_step_may_ask_about_itself(bank: Bank):
    """`sagas.current()` knows execution, saga, step and attempt."""
    served(bank)(event(attempt=2), None)
    info: StepInfo = bank.seen[0][-1]
    assert (info.saga_id, info.saga, info.version) == ("trip-17", "paying", 2)
    assert (info.step, info.attempt, info.compensating) == ("charge", 3, False)


def test_a_compensation_gets_result_and_arguments(bank: Bank):
    """And, where it takes them, the step's own arguments."""
    assert served(bank)(event("undo", result={"value": {"amount": 6}}), None) == {"value": None}
    assert bank.seen[0][:2] == (Money(6), Money(5))


def test_a_probe_says_whether_it_happened(bank: Bank):
    """And with which value."""
    serve = served(bank)
    assert serve(event("probe"), None) == {"happened": True, "value": {"amount": 5}}
    assert serve(event("probe", arguments={"money": {"amount": 0}}), None)["happened"] is False


def test_keys_depend_on_execution_and_step_alone(bank: Bank):
    """Each attempt in any process has one key; undo and probe have others; so has another execution of that name."""
    first, second = served(bank), served(bank)
    first(event(), None)
    second(event(attempt=1, doubt={"Cause": "attempt 1 of"}), None)
    first(event("undo", result={"value": {"amount": 6}}), None)
    first(event("probe"), None)
    first(event(started="2027-12-01T10:00:00Z"), None)
    keys = [seen[-1].idempotency_key for seen in bank.seen]
    assert keys[0] == keys[1]
    assert len({*keys}) == 4
    assert {seen[-1].forward_key for seen in bank.seen[2:4]} == {keys[0]}


@pytest.mark.parametrize(
    ("raised", "name"),
    [
        (Refused("no"), "Rejected"),
        (ConnectionRefusedError(), "Failed"),
        (RuntimeError("?"), "Unknown"),
        (TimeoutError(), "Unknown"),
    ],
)
def test_errors_have_the_names_that_the_machine_knows(bank: Bank, raised: Exception, name: str):
    """A rejection, a failure of which nothing came, and an unknown outcome; the text says which attempt it was."""
    bank.raises = raised
    with pytest.raises(Exception, match="attempt 2 of step 'charge' failed") as failed:
        served(bank)(event(attempt=1), None)
    assert type(failed.value).__name__ == name


def test_attempts_in_doubt_count_on(bank: Bank):
    """After an unknown outcome the attempts before it count too; the last one is not repeated, and stays in doubt."""
    bank.raises = ConnectionRefusedError()
    serve = served(bank)
    doubt = {"Error": "Unknown", "Cause": '{"errorMessage":"attempt 1 of step \'charge\' failed: lost"}'}
    for attempt, name in [(0, "Unknown"), (1, "UnknownForGood")]:
        with pytest.raises(Exception, match="failed") as failed:
            serve(event(attempt=attempt, doubt=doubt), None)
        assert type(failed.value).__name__ == name
    assert [seen[-1].attempt for seen in bank.seen] == [2, 3]


def test_a_lost_function_counts_as_one_attempt(bank: Bank):
    """An error that is none of ours does not say which attempt it was."""
    served(bank)(event(doubt={"Error": "States.Timeout"}), None)
    assert bank.seen[0][-1].attempt == 2


def test_a_result_that_the_service_does_not_pass_on_is_in_doubt(bank: Bank):
    """More than 256 KiB: the step has happened, and repeating it changes nothing."""
    with pytest.raises(Exception, match="262,144") as failed:
        served(bank)(event(step="many", arguments={"money": {"amount": 300_000}}), None)
    assert type(failed.value).__name__ == "Unknown"


def test_arguments_that_do_not_fit_are_a_failure(bank: Bank):
    """Nothing was called."""
    with pytest.raises(Exception, match="was not called") as failed:
        served(bank)(event(arguments={"money": "five"}), None)
    assert type(failed.value).__name__ == "FailedForGood"
    assert bank.seen == []


@pytest.mark.parametrize(
    "changed",
    [{"saga": "other"}, {"version": 1}, {"step": "other"}, {"step": "many", "role": "undo"}],
    ids=str,
)
def test_what_is_not_served_is_not_called(bank: Bank, changed: dict[str, Any]):
    """Another saga, version or step, or a step without that role: an error that is none of the named ones."""
    with pytest.raises(DefinitionError, match="not served"):
        served(bank)(event(**changed), None)
    assert bank.seen == []


RUBBISH = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize(
    "sent", [{}, {"version": "x"}, None, [], "x", 3, {**event(), "role": "redo"}, {**event(), "attempt": -1}], ids=repr
)
def test_what_no_machine_sends_is_refused(bank: Bank, sent: Any):
    """An event of another source says so."""
    with pytest.raises(DefinitionError, match="no task of an exported graph"):
        served(bank)(sent, None)
    assert bank.seen == []


@pytest.mark.parametrize("field", [*event(), "result", "doubt"])
def test_rubbish_in_a_field_has_an_answer(bank: Bank, field: str):
    """Whatever stands in one field: it is refused with a reason, or an error that the machine knows, or harmless."""
    serve = served(bank)

    @given(RUBBISH)
    def check(rubbish: Any) -> None:
        try:
            serve({**event(), field: rubbish}, None)
        except (DefinitionError, TaskFailed):
            assert field != "started" or not isinstance(rubbish, str)
        else:
            assert field in {"started", "execution", "attempt", "arguments", "result", "doubt"}

    check()


def test_only_graphs_with_all_resources_are_served():
    """At the start of the function, not at its first call."""

    @saga("coded", version=1)
    async def coded(s: Saga) -> None: ...

    unused = SagaGraph("unused", version=1, input=Money)
    unused.lookup(lookup(name="look")(_look), unused.input)
    with pytest.raises(DefinitionError, match="written as code"):
        handler(sagas=[coded])
    with pytest.raises(DefinitionError, match="is unused"):
        handler(sagas=[unused])
    with pytest.raises(DefinitionError, match="wants 'bank' of type Bank"):
        handler(sagas=[graph()])
    with pytest.raises(DefinitionError, match="Give each once"):
        handler(sagas=[graph(), graph()], resources=[Bank()])


async def _look(money: Money) -> bool:
    return bool(money.amount)


async def _loop(money: Money) -> int:
    return id(asyncio.get_running_loop())


def test_all_calls_share_a_loop():
    """So that clients which belong to an event loop can be resources; also for a caller with a loop of its own."""
    made = SagaGraph("looping", version=1, input=Money)
    made.returns(made.lookup(lookup(name="charge")(_loop), made.input))
    serve = handler(sagas=[made])
    sent = event(saga="looping", version=1)

    async def calling() -> Any:
        return serve(sent, None)

    first = serve(sent, None)
    assert first == serve(sent, None) == asyncio.run(calling())


def test_an_interrupt_reaches_the_caller_and_the_handler_goes_on(bank: Bank):
    """A step that raises KeyboardInterrupt has no outcome; the next call is served."""
    bank.raises = KeyboardInterrupt()
    serve = served(bank)
    with pytest.raises(KeyboardInterrupt):
        serve(event(), None)
    bank.raises = None
    assert serve(event(), None) == {"value": {"amount": 6}}


def test_a_handler_that_nobody_has_ends_its_thread(bank: Bank):
    """Its loop is closed, and no thread is left."""
    before = set(threading.enumerate())
    serve = served(bank)
    serve(event(), None)
    (mine,) = [thread for thread in set(threading.enumerate()) - before if thread.name == "sagas"]
    serve = None
    gc.collect()
    mine.join(30)
    assert not mine.is_alive()
