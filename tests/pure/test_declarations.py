"""Declarations: what cannot work is refused where it stands, with the function and what to write instead."""

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import pytest

import durable_core
from durable_core import DefinitionError, Retry
from durable_core.model.durable import Durable
from sagas import Saga, Unknown, lookup, pivot, resource, retriable, saga, step
from sagas.model.definition import admits_unknown
from sagas.model.resource import fill, lacks, resources_of


@step
async def reserve(item: str, pieces: int) -> str:
    return item


@step(compensation=None, because="a test")
async def note(item: str) -> None: ...


def fresh(fn: Callable[..., Any] | None = None) -> Any:
    """A step of its own, without a compensation or probe."""

    async def charge(order: str, amount: int) -> str:
        return order

    return step(fn or charge)


class Bank:
    def pay(self) -> None: ...


class Pays(Protocol):
    def pay(self) -> None: ...


@runtime_checkable
class Lends(Protocol):
    def lend(self) -> None: ...


# -- compensations and probes ------------------------------------------------------------------------------------------


async def nothing() -> None: ...


async def one(a: object) -> None: ...


async def two(a: object, b: object) -> None: ...


async def three(a: object, b: object, c: object) -> None: ...


async def four(a: object, b: object, c: object, d: object) -> None: ...


async def maybe_three(a: object, b: object, c: object = 0) -> None: ...


async def whatever(*args: object) -> None: ...


async def needs(a: object, *, bank: Bank) -> None: ...


async def needs_amount(a: object, b: object, c: object, *, amount: int) -> None: ...


@pytest.mark.parametrize(
    ("undo", "said"),
    [
        (nothing, "takes no parameter; it is called with the step's result, or with the result and order, amount"),
        (two, r"takes 2 positional parameters. Give it one \(the step's result\) or 3 \(the result, order, amount\)"),
        (four, "takes 4 positional parameters"),
        (needs, r"needs 'bank', which it is not given. Take it as .* `= resource\(\)`"),
    ],
)
def test_a_compensation_that_could_not_be_called_is_refused(undo: Callable[..., Any], said: str):
    """It is called with the step's result, or with that and the step's own arguments; the message says so."""
    with pytest.raises(DefinitionError, match=f"the compensation of step 'charge' .*{said}"):
        fresh().compensate(undo)


@pytest.mark.parametrize("undo", [one, three, whatever, needs_amount])
def test_a_compensation_takes_the_result_or_the_arguments_too(undo: Callable[..., Any]):
    """One parameter, one more than the step has, any number; and the step's own by keyword."""
    charge = fresh()
    assert charge.compensate(undo) is undo
    assert charge.compensating.fn is undo


@pytest.mark.parametrize("probe", [nothing, one, three])
def test_a_probe_takes_what_the_step_takes(probe: Callable[..., Any]):
    """Fewer parameters, or more that are required, are refused; the message names the step's own."""
    with pytest.raises(DefinitionError, match=r"the probe of step 'charge' .* Give it the step's own: order, amount"):
        fresh().probe(probe)


def test_a_probe_of_a_step_without_parameters_takes_none():
    """The message says so."""
    with pytest.raises(DefinitionError, match="Give it the step's own: none"):
        fresh(nothing).probe(one)


@pytest.mark.parametrize("probe", [two, maybe_three, whatever])
def test_a_probe_may_take_more_that_has_a_default(probe: Callable[..., Any]):
    """It is declared bare or with options."""
    charge = fresh()
    assert charge.probe(retry=3)(probe) is probe
    assert charge.settles
    assert charge.probing.retry == Retry.of(3, Retry())


def test_a_second_compensation_or_probe_is_refused():
    """The message names both places."""
    charge = fresh()
    charge.compensate(one)
    charge.probe(two)
    with pytest.raises(DefinitionError, match=rf"two compensations: .*:{line(one)}, .*:{line(three)}"):
        charge.compensate(three)
    with pytest.raises(DefinitionError, match=rf"two probes: .*:{line(two)} and .*:{line(maybe_three)}"):
        charge.probe(maybe_three)


def line(fn: Callable[..., Any]) -> int:
    return fn.__code__.co_firstlineno


def test_a_step_that_says_it_has_no_compensation_has_none():
    """``compensation=None`` and a compensation contradict each other."""
    with pytest.raises(DefinitionError, match=r"step 'note' .*says compensation=None and has a compensation"):
        note.compensate(one)


def test_which_kinds_of_steps_have_an_effect_and_settle_their_doubts():
    """A read and a retriable need no person; a pivot and a step do, unless a probe or compensation settles it."""

    @lookup
    async def price(item: str) -> int: ...

    @retriable
    async def tell(item: str) -> None: ...

    @pivot
    async def pay(item: str) -> None: ...

    assert [(each.effect, each.settles) for each in (price, tell, pay, fresh(), note)] == [
        (False, False),
        (False, False),
        (True, False),
        (True, False),
        (False, False),
    ]


async def admitting(done: "str | Unknown") -> None: ...


async def admitting_later(done: "Later | Unknown") -> None: ...  # noqa: F821 - a type that is not there


async def refusing_later(done: "Later") -> None: ...  # noqa: F821 - as above


async def bare(done: Unknown) -> None: ...


@pytest.mark.parametrize(
    ("undo", "admits"),
    [(admitting, True), (admitting_later, True), (refusing_later, False), (bare, True), (one, False), (nothing, False)],
)
def test_a_compensation_admits_unknown_by_its_annotation(undo: Callable[..., Any], *, admits: bool):
    """Also one that cannot be evaluated, where it says so in words."""
    assert admits_unknown(undo) is admits


# -- sagas and durable functions ---------------------------------------------------------------------------------------


async def body(s: Saga) -> None: ...


def plain(s: Saga) -> None: ...


@pytest.mark.parametrize(
    ("fn", "options", "said"),
    [
        (plain, {}, "the body must be an `async def` whose first parameter is the Saga"),
        (nothing, {}, "the body takes no parameter; the first one is the Saga"),
        (body, {"on_compensation_failure": "stop"}, "on_compensation_failure='stop'. Use 'continue' or 'halt'"),
        (body, {"on_failure": "stop"}, "on_failure='stop'. Use 'rollback' or 'stuck'"),
        (body, {"version": True}, "version=True. Give a whole number from 1"),
        (body, {"deadline": -1}, "deadline: -1 is no duration"),
    ],
)
def test_a_saga_that_could_not_run_is_refused(fn: Callable[..., Any], options: dict[str, Any], said: str):
    """The message names the saga, its place, and what to give."""
    with pytest.raises(DefinitionError, match=rf"the saga 'trip' \(.*:{line(fn)}\): {said}"):
        saga("trip", **{"version": 1, **options})(fn)


@pytest.mark.parametrize(
    ("fn", "version", "said"),
    [
        (plain, 1, "the body must be an `async def` whose first parameter is the Context"),
        (nothing, 1, "the body takes no parameter; the first one is the Context"),
        (body, 0, "version=0. Give a whole number from 1"),
    ],
)
def test_a_durable_function_that_could_not_run_is_refused(fn: Callable[..., Any], version: int, said: str):
    """The message names the function, its place, and what to give."""
    with pytest.raises(DefinitionError, match=rf"the durable function 'trip' \(.*:{line(fn)}\): {said}"):
        Durable(name="trip", version=version, body=fn)


def test_sagas_and_durable_functions_are_started_and_never_called():
    """A call says how to start one."""
    trip = saga("trip", version=1)(body)
    with pytest.raises(DefinitionError, match=r"the saga 'trip' was called .* `await orchestrator.start\(...\)`"):
        trip()
    with pytest.raises(DefinitionError, match=r"the durable function 'trip' was called .* `await engine.start\(...\)`"):
        Durable(name="trip", version=1, body=body)()


def test_a_step_decorates_a_function_of_any_make():
    """What is called but has no code is shown as it is; what cannot be called is refused."""
    fn = functools.partial(one, 1)
    assert repr(durable_core.step(name="charge")(fn)) == f"<step 'charge' ({fn!r})>"
    with pytest.raises(DefinitionError, match="@step decorates a function, not 7"):
        durable_core.step(name="charge")(7)


def test_a_step_called_by_itself_calls_its_function():
    """As a unit test wants it: nothing is journalled."""
    assert durable_core.step(name="double")(lambda n: 2 * n)(4) == 8


@pytest.mark.parametrize("rejects", [(7,), 7, (str,), [KeyError, "x"]])
def test_what_rejects_is_a_tuple_of_exceptions(rejects: Any):
    """Anything else is refused where it is declared."""
    with pytest.raises(DefinitionError, match=r"step 'one' .*: rejects: .* is not an exception class. Give a tuple"):
        durable_core.step(rejects=rejects)(one)


# -- resources ---------------------------------------------------------------------------------------------------------


def test_a_resource_without_its_object_explains_itself():
    """It has no attributes, says what to do when it is used, and can be copied and shown as any default."""
    marker = resource()
    assert repr(marker) == "resource()"
    assert not hasattr(marker, "__len__")
    with pytest.raises(
        DefinitionError, match=r"a resource was used \('pay'\) .* Outside a saga, pass the object by key"
    ):
        marker.pay()


async def by_position(bank: Bank = resource()) -> None: ...


async def without_type(*, bank=resource()) -> None: ...


@pytest.mark.parametrize("fn", [by_position, without_type])
def test_a_resource_is_keyword_only_and_has_a_type(fn: Callable[..., Any]):
    """Else it could be taken for an argument, or could not be found."""
    with pytest.raises(DefinitionError, match="the resource 'bank' must be keyword-only"):
        resources_of(fn)


def test_what_has_no_signature_cannot_be_a_step():
    """Some functions of C do not tell their parameters."""
    with pytest.raises(DefinitionError, match=r"has no signature that can be read. Decorate a plain function"):
        resources_of(dict.update)


async def by_class(*, bank: Bank = resource()) -> None: ...


async def by_text(*, bank: "Bank" = resource(), other: int = resource()) -> None: ...


async def by_unknown_text(*, bank: "there.Bank" = resource()) -> None: ...  # noqa: F821 - a type that is not there


async def by_protocol(*, bank: Pays = resource()) -> None: ...


async def by_checked_protocol(*, bank: Lends = resource()) -> None: ...


def test_a_resource_is_found_by_its_type():
    """By its class or a subclass, by the name of a type that is not there, and by what a protocol asks for."""
    bank = type("Savings", (Bank,), {})()
    assert resources_of(by_text) == {"bank": Bank, "other": int}
    for fn in (by_class, by_unknown_text, by_protocol):
        assert fill(resources_of(fn), [7, bank], what="step 'pay'") == {"bank": bank}
    exact = Bank()
    assert fill(resources_of(by_class), [bank, exact], what="step 'pay'") == {"bank": exact}


@pytest.mark.parametrize(
    ("fn", "given", "said"),
    [
        (by_class, [], r"of type Bank, and no resource of that type was given \(given: none\)"),
        (by_class, [7], r"of type Bank, and no resource of that type was given \(given: int\)"),
        (by_class, [Bank(), Bank()], r"of type Bank, and 2 resources of that type were given \(given: Bank, Bank\)"),
        (by_unknown_text, [7], "of type there.Bank, and no resource"),
        (by_protocol, [7], "of type Pays, and no resource"),
        (by_checked_protocol, [Bank()], "of type Lends, and no resource"),
    ],
)
def test_a_resource_that_lacks_or_is_there_twice_is_named(fn: Callable[..., Any], given: list[object], said: str):
    """The message says who wants it, what was given, and where to pass it."""
    wanted = resources_of(fn)
    assert len(lacks(wanted, given, what="step 'pay'")) == 1
    with pytest.raises(DefinitionError, match=rf"step 'pay' wants 'bank' {said}.*Orchestrator\(resources=\[...\]\)"):
        fill(wanted, given, what="step 'pay'")
