"""What a graph refuses, and when: at the line that declares it, or with all other faults in ``check``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NewType

import attrs
import pytest

from sagas import DefinitionError, Orchestrator, Ref, Saga, SagaGraph, lookup, pivot, retriable, saga, step
from sagas.check.graph import lines_of
from sagas.check.plans import plan_of
from sagas.check.scan import scan
from tests.counting import counted


@attrs.frozen
class Trip:
    """An input."""

    city: str


@attrs.frozen
class Car:
    """A result."""

    plate: str


@step
async def reserve(trip: Trip) -> Car:
    """A step with an undo."""
    return Car(trip.city)


@reserve.compensate
async def release(car: Car) -> None:
    """Its undo."""


@step
async def bare(trip: Trip) -> str:
    """A step without an undo."""
    return trip.city


@pivot
async def pay(trip: Trip) -> str:
    """The point of no return."""
    return trip.city


@pivot(name="pay too")
async def pay_too(trip: Trip) -> str:
    """Another one."""
    return trip.city


@retriable
async def mail(note: str) -> str:
    """What comes after it."""
    return note


@lookup
async def read(trip: Trip) -> str:
    """A read that is no bool."""
    return trip.city


@lookup
async def holds(trip: Trip) -> bool:
    """A read that is one."""
    return bool(trip.city)


class Opaque:
    """Of no type that the store knows."""


@lookup
async def seats() -> Opaque:
    """A result of a type that cannot come back."""
    return Opaque()


def graph(**options: Any) -> SagaGraph[[Trip]]:
    """A graph that takes a trip."""
    return SagaGraph("trip", version=1, input=Trip, **options)


def faults(g: SagaGraph[...]) -> str:
    """What ``check`` says."""
    with pytest.raises(DefinitionError) as refused:
        g.check()
    return str(refused.value)


def test_a_sound_graph_passes():
    """A graph without a fault is accepted, by check and by an orchestrator."""
    g = graph()
    g.returns(g.retriable(mail, g.pivot(pay, g.input, after=[g.step(reserve, g.input)])))
    g.check()
    Orchestrator("memory://", sagas=[g], worker=False)


def test_all_faults_are_reported_at_once():
    """One message has every fault, each with file and line; registering refuses the graph in the same words."""
    g, other = graph(), graph()
    g.step(reserve, other.input)
    g.step(bare, g.input)
    g.lookup(read, g.input)
    paid = g.pivot(pay, g.input)
    g.step(reserve, g.input, after=[paid])
    said = faults(g)
    for words in (
        "of another graph",
        "step 'bare'",
        "lookup 'read' is unused",
        "step 'reserve#2' comes after the pivot",
        "step 'reserve' can be undone, and the pivot does not wait for it",
        "does not say what it returns",
    ):
        assert words in said
    assert said.count(f"{Path(__file__)}:") >= 6
    with pytest.raises(DefinitionError, match="does not say what it returns"):
        Orchestrator("memory://", sagas=[g], worker=False)


def test_a_cycle_by_after_is_named():
    """A list that is changed after it was given as ``after=`` can close a cycle: it is named, with what hangs on it."""
    g = graph()
    later: list[Ref[Any]] = []
    first = g.step(reserve, g.input, after=later)
    second = g.step(reserve, g.input, after=[first])
    later.append(second)
    third = g.lookup(holds, g.input, after=[second])
    g.returns(third)
    said = faults(g)
    assert "reserve waits for reserve#2 waits for reserve" in said
    assert "lookup 'holds' is never reached" in said


def test_an_empty_graph_is_refused():
    """A graph without a node does nothing."""
    assert "has no node" in faults(graph())


@pytest.mark.parametrize("certain", [True, False])
def test_two_pivots(*, certain: bool):
    """Two pivots on a path are refused, and two beside each other unless each has a condition."""
    g = graph()
    condition = None if certain else g.lookup(holds, g.input)
    first = g.pivot(pay, g.input)
    second = g.pivot(pay_too, g.input, after=[first]) if certain else g.pivot(pay_too, g.input, when=condition)
    g.returns(g.retriable(mail, second))
    assert ("on this path" if certain else "is never skipped") in faults(g)


def test_a_condition_is_a_bool():
    """``when`` takes a reference whose declared type is bool."""
    g = graph()
    g.returns(g.step(reserve, g.input, when=g.lookup(read, g.input)))
    assert "which is of type str" in faults(g)
    with pytest.raises(DefinitionError, match="reference to a bool"):
        graph().step(reserve, Trip("x"), when=True)


def test_arguments_are_compared_with_the_signature():
    """A missing argument, one too many, and one of another class are faults with the node's place."""
    g = graph()
    car = g.step(reserve, g.input)
    g.step(reserve)
    g.step(reserve, g.input, car)
    g.step(reserve, car)
    g.returns(car)
    said = faults(g)
    assert "missing a required argument: 'trip'" in said
    assert "too many positional arguments" in said
    assert "takes a Trip for 'trip' and is given step 'reserve', a Car" in said


def test_a_value_that_may_be_none_needs_a_parameter_that_admits_it():
    """The result of a node that may be skipped, and that of a sleep, are refused where None is not admitted."""

    @lookup
    async def plate(car: Car) -> str:
        return car.plate

    g = graph()
    maybe = g.step(reserve, g.input, when=g.lookup(holds, g.input))
    g.lookup(plate, maybe)
    g.returns(g.lookup(plate, g.sleep(1)))
    said = faults(g)
    assert "takes a Car for 'car' and is given step 'reserve', which is None where it is skipped" in said
    assert "is given sleep 'sleep', which is always None" in said


def test_what_cannot_be_stored_is_refused():
    """Types that cannot make the round trip through the store are faults."""
    g = graph()
    g.lookup(seats)
    g.returns(g.callback("answer", Opaque))
    said = faults(g)
    assert "seats" in said
    assert "callback 'answer' has answers that cannot be stored" in said


def test_a_deadline_that_cannot_be_kept():
    """Timeouts times attempts along the longest path, and sleeps, are compared with the deadline."""

    @step(timeout=40, retry=2, compensation=None, because="a test")
    async def slow(trip: Trip) -> str:
        return trip.city

    g = graph(deadline=100)
    first = g.step(slow, g.input)
    g.step(slow, g.input)
    g.returns(g.sleep(30, after=[first]))
    assert "may take 110 s together" in faults(g)


def test_a_hidden_pivot_is_refused():
    """A child saga with a pivot is added by ``g.pivot``."""

    @saga("paying", version=1)
    async def paying(s: Saga, trip: Trip) -> str:
        return await s.run(pay, trip)

    g = graph()
    g.returns(g.step(paying, g.input))
    assert "Add the child by g.pivot" in faults(g)
    good = graph()
    good.returns(good.pivot(paying, good.input))
    good.check()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda g: g.step(pay, g.input), "Add it by g.pivot"),
        (lambda g: g.lookup(reserve, g.input), "Add it by g.step"),
        (lambda g: g.step(Trip), "Give it a function decorated"),
        (lambda g: g.step(g, g.input), "would run itself"),
        (lambda g: g.sleep(-1), "g.sleep"),
        (lambda g: g.callback("a/b", bool), "a/b"),
        (lambda g: g.returns("x"), "g.returns was given"),
        (lambda g: bool(g.input), "neither true nor false"),
        (lambda g: f"hello {g.input}", "cannot be part of a text"),
        (lambda g: g.input == "Rome", "cannot be compared"),
        (lambda g: g.callback("ask", bool, when=True), "reference to a bool"),
        (lambda g: list(g.input), "cannot be iterated"),
        (lambda g: SagaGraph("none", version=1).input, "has no input"),  # type: ignore[misc]
    ],
)
def test_nonsense_is_refused_at_its_line(wrong: Any, words: str):
    """What cannot be represented is refused by the call that says it."""
    with pytest.raises(DefinitionError, match=words):
        wrong(graph())


def test_a_reference_has_no_attributes():
    """Reading from a reference says where to read instead."""
    with pytest.raises(AttributeError, match="read it in the step"):
        _ = graph().input.city  # type: ignore[attr-defined]


def test_a_graph_in_use_cannot_change():
    """Once registered, a graph takes no further node."""
    g = graph()
    g.returns(g.step(reserve, g.input))
    orchestrator = Orchestrator("memory://", worker=False)
    orchestrator.register(g)
    with pytest.raises(DefinitionError, match="is in use"):
        g.step(reserve, g.input)
    orchestrator.register(g)


def test_callbacks_that_nobody_could_end():
    """A token handed out only from the pivot on, and a timeout after it, would leave the saga waiting or stuck."""

    @pivot(name="tell")
    async def tell(trip: Trip, token: str) -> str:
        return token

    g = graph()
    g.returns(g.pivot(tell, g.input, g.callback("never", bool).token))
    assert "callback 'never' waits for ever" in faults(g)
    late = graph()
    late.returns(late.callback("late", bool, timeout=60, after=[late.pivot(pay, late.input)]))
    assert "callback 'late' comes after the pivot" in faults(late)


def test_conditions_make_values_of_any_kind_optional():
    """A conditional sleep, and the token of a conditional callback under the same condition, are no faults."""

    @step(compensation=None, because="a test")
    async def ask(token: str) -> None:
        """Hand out a token."""

    g = graph()
    where = g.lookup(holds, g.input)
    asked = g.callback("approval", bool, when=where)
    g.step(ask, asked.token, when=where)
    g.returns(g.sleep(1, when=where, after=[asked]))
    g.check()
    wrong = graph()
    wrong.step(ask, wrong.callback("approval", bool, when=wrong.lookup(holds, wrong.input)).token)
    wrong.returns()
    assert "is given the token of callback 'approval', which is None where it is skipped" in faults(wrong)


def test_plain_values_are_checked():
    """A plain value of another type, or of one that cannot be stored, is a fault."""
    g = graph()
    g.step(reserve, "Rome")
    g.lookup(holds, Opaque())
    g.returns()
    said = faults(g)
    assert said.count("the plain value for 'trip'") == 2


def test_a_list_of_references_is_kept_until_the_graph_is_in_use():
    """A list that is changed after registering has no effect; one that gets the node's own reference is explained."""
    g = graph()
    after: list[Ref[Any]] = []
    first = g.step(reserve, g.input, after=after)
    second = g.step(reserve, g.input, after=[first])
    g.returns(second)
    Orchestrator("memory://", sagas=[g], worker=False)
    after.append(second)
    assert [node.key for node in g.plan.order] == ["reserve", "reserve#2"]
    assert not dict(g.nodes[0].waits_for())
    own = graph()
    refs: list[Ref[Any]] = []
    refs.append(own.step(reserve, own.input, after=refs))
    own.returns()
    assert "waits for itself" in faults(own)
    with pytest.raises(DefinitionError, match="a list of references"):
        own.step(reserve, own.input, after=first)  # type: ignore[call-overload]


def test_a_child_that_is_used_twice_is_judged_twice():
    """Each use of a child that can be undone must be before the pivot."""

    @saga("kid", version=1)
    async def kid(s: Saga, trip: Trip) -> Car:
        return await s.run(reserve, trip)

    g = graph()
    first = g.step(kid, g.input)
    g.step(kid, g.input)
    g.returns(g.retriable(mail, g.pivot(pay, g.input, after=[first])))
    assert "child 'kid#2' can be undone, and the pivot does not wait for it" in faults(g)


def test_a_reference_in_a_collection_is_refused():
    """A list of references would be stored as it is; each is an argument of its own."""

    @lookup
    async def both(cars: list[Car]) -> int:
        return len(cars)

    g = graph()
    car = g.step(reserve, g.input)
    g.returns(g.lookup(both, [car, car]))
    assert "is given a list with a reference in it" in faults(g)


def test_a_child_that_another_child_runs_too_is_judged_as_well():
    """What a child has in it counts for each of its uses, also where a coded saga has run it before."""

    @saga("inner", version=1)
    async def inner(s: Saga, trip: Trip) -> Car:
        return await s.run(reserve, trip)

    @saga("outer", version=1)
    async def outer(s: Saga, trip: Trip) -> Car:
        return await s.run(inner, trip)

    g = graph()
    first = g.step(outer, g.input)
    g.step(inner, g.input)
    g.returns(g.retriable(mail, g.pivot(pay, g.input, after=[first])))
    assert "child 'inner' can be undone, and the pivot does not wait for it" in faults(g)


@pytest.mark.parametrize("what", ["check", "plan", "mermaid"])
def test_a_child_is_read_once_however_often_it_is_used(what: str):
    """What a further use costs does not depend on the size of the child: what is in it is not looked at again."""

    def of(uses: int, size: int) -> SagaGraph[[Trip]]:
        child = SagaGraph("child", version=1, input=Trip)
        for _ in range(size):
            child.lookup(holds, child.input)
        child.returns(child.lookup(holds, child.input, after=[Ref(child.draft, node) for node in child.nodes]))
        g = SagaGraph("many", version=1, input=Trip)
        refs = [g.step(child, g.input) for _ in range(uses)]
        g.returns(g.pivot(pay, g.input, after=refs))
        return g

    acts = {"check": SagaGraph.check, "plan": lambda g: plan_of(g, scan(g)), "mermaid": SagaGraph.diagram}

    def work_of(uses: int, size: int) -> int:
        g = of(uses, size)
        with counted() as work:
            acts[what](g)
        return work.calls

    def of_forty_more(size: int) -> int:
        work_of(1, size)  # what is kept for next time is there by now
        return work_of(80, size) - work_of(40, size)

    small, large = of_forty_more(3), of_forty_more(300)
    assert small > 0
    assert large < 2 * small


def test_types_of_one_name_differ_in_a_plan():
    """A type of another module has its module's name before its own; one of the graph's module and a builtin do not."""
    other = type("Trip", (), {"__module__": "shop.trips"})

    def plan(input_type: Any, answer: Any) -> list[str]:
        g = SagaGraph("planned", version=1, input=input_type)
        g.callback("ok", answer)
        g.returns()
        return list(lines_of(g))[:2]

    assert plan(Trip, bool) == ["graph of Trip", "callback ok() of bool"]
    assert plan(other, Trip) == ["graph of shop.trips.Trip", "callback ok() of Trip"]
    assert plan(list[other], dict[str, Trip | None]) == [
        "graph of list[shop.trips.Trip]",
        "callback ok() of dict[str, Trip | None]",
    ]
    assert plan(Any, "Trip") == ["graph of typing.Any", "callback ok() of Trip"]


def test_types_of_one_name_are_told_apart_in_a_fault():
    """Where the wanted and the given type have the same name, the message has their modules."""
    alike = attrs.make_class("Car", {"plate": attrs.field(type=str)})
    alike.__module__ = "shop.cars"

    @lookup
    async def drive(car: alike) -> bool: ...  # type: ignore[valid-type]

    g = graph()
    g.returns(g.lookup(drive, g.step(reserve, g.input)))
    said = faults(g)
    assert f"whose type is {__name__}.Car and not shop.cars.Car" in said


def test_what_a_node_waits_for_is_a_list_of_references():
    """Anything else in `after=` is shown."""
    g = graph()
    g.returns(g.lookup(holds, g.input, after=[7]))  # type: ignore[list-item]
    assert "lookup 'holds' has after=7. Give `after=` a list of references" in faults(g)


@attrs.frozen
class Pair:
    """Something that holds others."""

    left: Any
    right: Any = None


@pytest.mark.parametrize(
    "wrap",
    [lambda ref: {"a": ref}, lambda ref: Pair(1, ref), lambda ref: [Pair(({"a": ref},))]],
    ids=["dict", "Pair", "deep"],
)
def test_a_reference_within_a_value_is_refused(wrap: Any):
    """As deep as one is likely to be written; each reference is an argument of its own."""

    @lookup
    async def weigh(what: Any) -> int:
        return 1

    g = graph()
    g.returns(g.lookup(weigh, wrap(g.input)))
    assert "with a reference in it. Give each reference as an argument of its own" in faults(g)


Sure = NewType("Sure", bool)


@lookup
async def sure(trip: Trip) -> Annotated[Sure, "by law"]:
    """A bool by another name."""
    return Sure(bool(trip.city))


def test_a_condition_may_be_a_bool_by_another_name():
    """`NewType` and `Annotated` are what they stand for."""
    g = graph()
    g.returns(g.lookup(holds, g.input, when=g.lookup(sure, g.input)))
    g.check()


@lookup
async def take(it: Opaque) -> None:
    """Takes what cannot be stored."""


@lookup
async def later(it: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821 - a type that is not there
    """Its annotation cannot be read."""


def test_a_type_that_cannot_be_used_is_a_fault_of_its_own():
    """The argument for it is not blamed: the one fault names the type."""
    for declared, name in ((take, "Opaque"), (later, "Nowhere")):
        g = graph()
        g.returns(g.lookup(declared, 7))
        said = faults(g)
        assert name in said
        assert "the plain value" not in said


@lookup
async def either(car: int | Car | None) -> bool:
    """Takes a value that may be missing."""
    return car is not None


@lookup
async def listed(car: list[Car]) -> bool:
    """Takes a list."""
    return bool(car)


@lookup
async def alias(car: "tuple[Car, ...] | Sequence[Car]") -> bool:
    """Takes none of the types that are compared."""
    return bool(car)


def test_a_value_that_may_be_none_is_compared_with_every_kind_of_parameter():
    """A union with None takes it, a union or a collection without does not; what is not compared may take anything."""

    def given(declared: Any) -> SagaGraph[[Trip]]:
        g = graph()
        car = g.lookup(fetch, g.input, when=g.lookup(holds, g.input))
        g.returns(g.lookup(declared, car))
        return g

    given(either).check()
    given(alias).check()
    assert "which is None where it is skipped. Let the parameter admit None" in faults(given(listed))


@lookup
async def fetch(trip: Trip) -> Car:
    """A read that gives a car."""
    return Car(trip.city)


def test_a_child_graph_by_g_pivot_has_a_pivot():
    """One without is a step."""
    child = SagaGraph("child", version=1, input=Trip)
    child.returns(child.lookup(holds, child.input))
    g = graph()
    g.returns(g.pivot(child, g.input))
    assert "child 'child' has no pivot. Add the child by g.step" in faults(g)


def test_a_child_after_the_pivot_is_judged_by_its_steps():
    """The step within that can be undone is named, and not the child beside it."""
    child = SagaGraph("child", version=1, input=Trip)
    child.returns(child.step(reserve, child.input))
    g = graph()
    paid = g.pivot(pay, g.input)
    g.returns(g.step(child, g.input, after=[paid]))
    said = faults(g)
    assert "child 'child' comes after the pivot" not in said
    assert "'reserve'" in said


def test_a_graph_returns_once_and_its_own():
    """Two calls of g.returns, and a reference of another graph, are faults."""
    g, other = graph(), graph()
    ok = g.lookup(holds, g.input)
    g.returns(ok)
    g.returns(other.input)
    said = faults(g)
    assert "calls g.returns 2 times. Call it once" in said
    assert "g.returns was given the input of another graph. Take one of this graph" in said


@step(timeout=40, compensation=None, because="a test")
async def slow(trip: Trip) -> str:
    """Takes its time."""
    return trip.city


@retriable(timeout=4000)
async def slow_mail(note: str) -> str:
    """After the pivot."""
    return note


def test_a_deadline_counts_children_and_stops_at_the_pivot():
    """A child graph takes as long as its own nodes, each time; a callback, a coded child and what is late, nothing."""

    @saga("coded", version=1)
    async def code(s: Saga, trip: Trip) -> str:
        return await s.run(slow, trip)

    child = SagaGraph("child", version=1, input=Trip)
    child.returns(child.step(slow, child.input))

    def of(deadline: float) -> SagaGraph[[Trip]]:
        g = graph(deadline=deadline)
        first = g.step(child, g.input)
        second = g.step(child, g.input, after=[first])
        third = g.step(code, g.input, after=[second, g.callback("ok", bool)])
        paid = g.pivot(pay, g.input, after=[third])
        g.returns(g.retriable(slow_mail, paid))
        return g

    of(81).check()
    assert "may take 80 s together and keep their timeouts, and its deadline is 79 s" in faults(of(79))


def test_a_plan_has_a_line_for_a_value_that_cannot_be_stored():
    """Its class stands for it: a repr would differ from run to run."""
    g = graph()
    g.lookup(take, Opaque())
    g.returns()
    assert list(lines_of(g))[1] == "lookup take(a Opaque)"


def test_a_reference_is_itself_and_no_value():
    """It says what it stands for, and equals no other reference."""
    g = graph()
    answer = g.callback("ok", bool)
    assert [repr(each) for each in (g.input, answer, answer.token)] == [
        "<reference to the input>",
        "<reference to callback 'ok'>",
        "<reference to the token of callback 'ok'>",
    ]
    again = answer
    assert answer == again
    assert answer != g.input


def test_a_graph_knows_the_graphs_that_it_runs():
    """Each once, however often it is run and by whom."""
    inner = SagaGraph("inner", version=1, input=Trip)
    inner.returns(inner.lookup(holds, inner.input))
    outer = SagaGraph("outer", version=1, input=Trip)
    outer.returns(outer.step(inner, outer.input))
    g = graph()
    g.step(inner, g.input)
    g.step(inner, g.input)
    g.returns(g.step(outer, g.input))
    assert g.within() == {g, outer, inner}


@lookup
async def lost(trip: Trip) -> "Nowhere":  # type: ignore[name-defined]  # noqa: F821 - a type that is not there
    """Its result's type cannot be read."""


def test_a_result_whose_type_cannot_be_read_is_compared_with_nothing():
    """That is a fault of its own; who takes the result is not blamed."""
    g = graph()
    g.returns(g.lookup(either, g.lookup(lost, g.input)))
    said = faults(g)
    assert "Nowhere" in said
    assert "takes a" not in said
