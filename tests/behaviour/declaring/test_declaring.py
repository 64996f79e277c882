"""Section 1 of the contract: what a declaration means, before anything goes wrong."""

# ruff: noqa: FBT001, FBT003

import asyncio
import functools
import itertools
import threading
from datetime import timedelta
from typing import Any

import attrs
import pytest
import tenacity

from sagas import (
    DefinitionError,
    Happened,
    Orchestrator,
    Retry,
    Saga,
    SagaCompensated,
    SagaStuck,
    StepInfo,
    Unknown,
    current,
    lookup,
    pivot,
    resource,
    retriable,
    saga,
    step,
)
from sagas.testing import ManualClock
from tests.kit import act, settled, steps


@attrs.frozen
class Order:
    id: str
    amount: int = 1


@attrs.frozen
class Payment:
    id: str
    amount: int


class Bank:
    """A participant that is handed in as a resource."""

    def __init__(self) -> None:
        self.book: list[str] = []


class TestBank(Bank):
    __test__ = False


class Broken(Exception): ...


@step
async def bare(order: Order) -> Payment:
    return Payment(order.id, order.amount)


@bare.compensate
async def unbare(payment: Payment) -> None: ...


@step(name="charge it")
async def charge(order: Order, currency: str = "EUR", *, tip: int = 0, bank: Bank = resource()) -> Payment:
    bank.book.append(f"charge {order.id} {currency} {tip}")
    return Payment(f"p-{order.id}", order.amount + tip)


@charge.compensate
async def refund(
    payment: Payment, order: Order, currency: str = "EUR", *, tip: int = 0, bank: Bank = resource()
) -> None:
    bank.book.append(f"refund {payment.id} {payment.amount} {order.id} {currency} {tip}")


@charge.probe
async def find_charge(order: Order, currency: str = "EUR", *, tip: int = 0, bank: Bank = resource()) -> Payment | None:
    bank.book.append(f"probe {order.id}")
    return None


async def test_a_declared_step_is_still_its_function():
    """Calling the object outside a saga just calls the function, with its name and docstring."""
    assert await bare(Order("o")) == Payment("o", 1)
    bank = Bank()
    assert await charge(Order("o"), tip=2, bank=bank) == Payment("p-o", 3)
    assert bank.book == ["charge o EUR 2"]
    assert (bare.name, charge.name) == ("bare", "charge it")


async def test_compensation_and_probe_stay_plain_functions():
    """The decorated compensation and probe stay plain functions."""
    bank = Bank()
    assert await find_charge(Order("o"), bank=bank) is None
    await refund(Payment("p", 1), Order("o"), bank=bank)
    assert bank.book == ["probe o", "refund p 1 o EUR 0"]
    assert type(refund) is type(find_charge) is type(lambda: None)


@pytest.mark.parametrize("kind", [pivot, retriable, lookup])
async def test_every_kind_works_bare_and_with_options(url: str, kind: Any):
    """`@step`, `@pivot`, `@retriable`, `@lookup` work bare or with keyword options.

    `name=` defaults to the function's.
    """

    @kind
    async def plain(n: int) -> int:
        return n + 1

    @kind(name="named", timeout=5)
    def on_a_thread(n: int) -> int:
        return n * 2

    @saga("kinds", version=1)
    async def one(s: Saga, first: bool) -> int:
        return await s.run(plain, 1) if first else await s.run(on_a_thread, 4)

    async with Orchestrator(url, sagas=[one]) as orchestrator:
        first, second = await orchestrator.start(one, True), await orchestrator.start(one, False)
        assert (await first.result(), await second.result()) == (2, 8)
        assert [(x.name, x.kind) for x in (await first.info()).steps] == [("plain", kind.__name__)]
        assert [(x.name, x.kind) for x in (await second.info()).steps] == [("named", kind.__name__)]


async def test_a_def_runs_on_a_thread_and_an_async_def_on_the_loop(url: str):
    """`async def`, or `def` (run on a thread): compensations and probes too."""
    threads: dict[str, int] = {}

    def note(what: str) -> None:
        threads[what] = threading.get_ident()

    @step
    def blocking(n: int) -> int:
        note("step")
        raise Broken

    @blocking.probe
    def find(n: int) -> Happened[int]:
        note("probe")
        return Happened(n)

    @blocking.compensate
    def undo(n: int) -> None:
        note(f"undo {n}")

    @step(compensation=None, because="only looks at its thread")
    async def on_loop() -> None:
        note("loop")

    @saga("threads", version=1)
    async def body(s: Saga) -> None:
        await s.run(blocking, 3)
        await s.run(on_loop)
        raise Broken

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        with pytest.raises(SagaCompensated):
            await (await orchestrator.start(body)).result()
    here = threading.get_ident()
    assert threads["loop"] == here
    assert all(threads[what] != here for what in ("step", "probe", "undo 3"))


async def test_current_is_there_on_a_thread(url: str):
    """Inside a step or compensation `sagas.current()` gives `StepInfo`, also for a plain `def`."""
    seen: list[StepInfo] = []

    @step
    def act_on_thread() -> None:
        seen.append(current())

    @act_on_thread.compensate
    def undo(_: None) -> None:
        seen.append(current())

    @saga("threads", version=3)
    async def body(s: Saga) -> None:
        await s.run(act_on_thread)
        raise Broken

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        with pytest.raises(SagaCompensated):
            await (await orchestrator.start(body, id="t")).result()
    done, undone = seen
    assert (done.saga_id, done.saga, done.version, done.step, done.attempt) == ("t", "threads", 3, "act_on_thread", 1)
    assert (done.compensating, undone.compensating, done.forward_key) == (False, True, None)
    assert undone.forward_key == done.idempotency_key != undone.idempotency_key


def test_current_outside_a_step_says_so():
    """`current()` is for the inside of a step: elsewhere it cannot give anything, and says so."""
    with pytest.raises(Exception, match="step"):
        current()


async def test_a_step_that_is_no_plain_function(url: str, world: list[str]):
    """The contract wants an async def or a def: a partial and a bound method are callables of that kind too."""

    class Shop:
        async def reserve(self, sku: str) -> str:
            world.append(f"reserve {sku}")
            return sku

        def release(self, sku: str) -> None:
            world.append(f"release {sku}")

    async def lend(shelf: str, sku: str) -> str:
        world.append(f"lend {shelf} {sku}")
        return sku

    shop = Shop()
    reserve = step(shop.reserve)
    reserve.compensate(shop.release)
    lending = step(name="lend", compensation=None, because="it comes back by itself")(functools.partial(lend, "top"))

    @saga("methods", version=1)
    async def body(s: Saga) -> None:
        await s.run(lending, "drill")
        await s.run(reserve, "saw")
        raise Broken

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        with pytest.raises(SagaCompensated):
            await (await orchestrator.start(body)).result()
    assert world == ["lend top drill", "reserve saw", "release saw"]


@pytest.mark.parametrize("given", [Bank, TestBank])
async def test_resources_fill_step_compensation_and_probe(url: str, given: Any):
    """A keyword-only parameter with `resource()` is filled with the object of that annotated type, a subclass's too."""

    @saga("resources", version=1)
    async def body(s: Saga) -> None:
        await s.run(charge, Order("o", 5), tip=2)
        raise Broken

    bank = given()
    async with Orchestrator(url, sagas=[body], resources=[bank]) as orchestrator:
        handle = await orchestrator.start(body)
        with pytest.raises(SagaCompensated):
            await handle.result()
        said = [repr(entry) for entry in await handle.history()]
    assert bank.book == ["charge o EUR 2", "refund p-o 7 o EUR 2"]
    assert not any("Bank" in line for line in said), "a resource is not part of the journal"


@pytest.mark.parametrize(
    ("positional", "named", "heard"),
    [
        ((Order("o"),), {}, "EUR 0"),
        ((Order("o"), "USD"), {}, "USD 0"),
        ((), {"order": Order("o"), "currency": "CHF", "tip": 4}, "CHF 4"),
        ((Order("o"),), {"tip": 1}, "EUR 1"),
    ],
)
async def test_arguments_reach_step_and_compensation(url: str, positional: Any, named: Any, heard: str):
    """`(result, *the step's own arguments and resources)`.

    As given or by the step's defaults, however they were passed.
    """

    @saga("arguments", version=1)
    async def body(s: Saga) -> None:
        await s.run(charge, *positional, **named)
        raise Broken

    bank = Bank()
    async with Orchestrator(url, sagas=[body], resources=[bank]) as orchestrator:
        with pytest.raises(SagaCompensated):
            await (await orchestrator.start(body)).result()
    tip = int(heard.split()[1])
    assert bank.book == [f"charge o {heard}", f"refund p-o {1 + tip} o {heard}"]


async def test_a_probe_is_given_arguments_and_resources(url: str):
    """`probe(the step's arguments)`; `None` = it did not happen, so the body sees the exception."""

    class Slow(Bank):
        pass

    @step
    async def slow(order: Order, tip: int = 3, *, bank: Bank = resource()) -> Payment:
        bank.book.append("slow")
        raise TimeoutError

    @slow.compensate
    async def undo(payment: Payment) -> None:
        raise AssertionError

    @slow.probe
    async def find(order: Order, tip: int = 3, *, bank: Bank = resource()) -> Payment | None:
        bank.book.append(f"probe {order.id} {tip} {current().attempt} {current().compensating}")

    @saga("probes", version=1)
    async def body(s: Saga) -> str:
        try:
            await s.run(slow, order=Order("x"))
        except TimeoutError:
            return "seen"
        return "not seen"

    bank = Slow()
    async with Orchestrator(url, sagas=[body], resources=[bank]) as orchestrator:
        assert await (await orchestrator.start(body)).result() == "seen"
    assert bank.book == ["slow", "probe x 3 1 False"]


async def test_a_missing_resource_is_told_before_any_effect(url: str, world: list[str]):
    """A saga whose step needs a resource that nobody gave starts no effect, and the message names the type."""

    @saga("poor", version=1)
    async def body(s: Saga) -> None:
        await s.run(charge, Order("o"))

    with pytest.raises((DefinitionError, SagaStuck), match="Bank"):
        async with Orchestrator(url, sagas=[body]) as orchestrator:
            await (await orchestrator.start(body)).result()


@step
async def without(order: Order) -> None:
    raise AssertionError


@step(name="without")
async def its_namesake(order: Order) -> None:
    raise AssertionError


@its_namesake.compensate
async def undo_namesake(_: None) -> None: ...


@step(name="namesake")
async def namesake_one() -> int:
    return 1


@namesake_one.compensate
async def undo_one(_: int) -> None: ...


@step(name="namesake")
async def namesake_two() -> int:
    return 2


@namesake_two.compensate
async def undo_two(_: int) -> None: ...


async def test_a_step_without_compensation_is_refused_at_registration(url: str):
    """A saga that uses a step with neither compensation nor reason is refused at registration."""

    @saga("careless", version=1)
    async def careless(s: Saga) -> None:
        await s.run(without, Order("o"))

    with pytest.raises(DefinitionError, match="without"):
        async with Orchestrator(url, sagas=[careless]):
            pass


async def test_a_hidden_step_without_compensation_is_refused_at_the_call(url: str, world: list[str]):
    """Where no AST pass can see it, the `s.run` call is refused before that step's effect.

    And then the saga is stuck.
    """
    hidden = {"step": without}
    first = act(world, "first")

    @saga("careless", version=1)
    async def careless(s: Saga) -> None:
        await s.run(first)
        try:
            await s.run(hidden["step"], Order("o"))
        except Exception:  # noqa: BLE001 - it must not be seen here
            world.append("seen")

    async with Orchestrator(url, sagas=[careless]) as orchestrator:
        handle = await orchestrator.start(careless)
        with pytest.raises(SagaStuck, match="without"):
            await handle.result()
    assert world == ["first"]


@pytest.mark.parametrize("options", [{"compensation": None}, {"compensation": None, "because": ""}])
def test_no_compensation_needs_its_reason(options: Any):
    """A `@step` needs a compensation, or says `compensation=None` with `because="..."`."""
    with pytest.raises(DefinitionError):

        @step(**options)
        async def odd() -> None: ...


async def test_step_names_are_unique_within_a_saga(url: str):
    """Two steps of one name in one saga are refused, at registration or before the second's effect."""

    @saga("twins", version=1)
    async def twins(s: Saga) -> int:
        return await s.run(namesake_one) + await s.run(namesake_two)

    with pytest.raises((DefinitionError, SagaStuck), match="namesake"):
        async with Orchestrator(url, sagas=[twins]) as orchestrator:
            await (await orchestrator.start(twins)).result()


async def test_step_names_need_not_be_unique_in_a_process(url: str):
    """Step names are unique within a saga, not within a process."""

    @saga("one", version=1)
    async def one(s: Saga) -> int:
        return await s.run(namesake_one)

    @saga("two", version=1)
    async def two(s: Saga) -> int:
        return await s.run(namesake_two)

    async with Orchestrator(url, sagas=[one, two]) as orchestrator:
        handles = [await orchestrator.start(one), await orchestrator.start(two)]
        assert [await handle.result() for handle in handles] == [1, 2]


def test_a_second_compensation_or_pivot_compensation_is_refused():
    """A pivot, a retriable and a lookup have no compensation."""
    for kind in (pivot, retriable, lookup):

        @kind
        async def thing() -> None: ...

        with pytest.raises((DefinitionError, AttributeError)):
            thing.compensate(lambda _: None)


def test_a_retriable_has_no_rejects():
    """A `@retriable` is simply retried: its `rejects` is a `DefinitionError`."""
    with pytest.raises(DefinitionError):
        retriable(rejects=(Broken,))(lambda: None)


@pytest.mark.parametrize("unit", [lambda seconds: seconds, lambda seconds: timedelta(seconds=seconds)])
async def test_durations_are_seconds_or_timedelta(url: str, world: list[str], unit: Any):
    """Durations are `timedelta` or seconds as a number, everywhere."""
    clock = ManualClock()
    slow = act(
        world,
        "slow",
        Broken(),
        retry=Retry(3, first=unit(40), longest=unit(50), jitter=False, within=unit(500)),
        timeout=unit(5),
    )

    @saga("spans", version=1, deadline=unit(5000))
    async def body(s: Saga) -> None:
        await s.sleep(unit(10))
        await s.callback("never", str, timeout=unit(10))
        await s.run(slow)

    async with Orchestrator(
        url, sagas=[body], clock=clock, lease=unit(15), grace=unit(10), store_timeout=unit(30)
    ) as orchestrator:
        handle = await orchestrator.start(body, deadline=unit(4000))
        await clock.advance(timedelta(seconds=9.9))
        assert world == []
        await clock.advance(timedelta(seconds=0.1))
        assert world == ["slow"]
        await clock.advance(timedelta(seconds=40))
        assert world == ["slow"] * 2
        await clock.advance(timedelta(seconds=49))
        assert world == ["slow"] * 2
        await clock.advance(timedelta(seconds=1))
        assert world == ["slow"] * 3
        with pytest.raises(SagaCompensated):
            await handle.result(timeout=unit(30))


@pytest.mark.parametrize("kind", [step, lookup, pivot])
async def test_by_default_nothing_forward_is_retried(url: str, world: list[str], kind: Any):
    """Default: steps and lookups do not retry (`attempts=1`); `retry=` an int is that many attempts."""
    once = act(world, "once", Broken("no"), at=kind)
    thrice = act(world, "thrice", Broken(), Broken(), "third", at=kind, retry=3)

    @saga("defaults", version=1)
    async def body(s: Saga) -> str:
        try:
            await s.run(once)
        except Broken:
            return await s.run(thrice)
        return "?"

    async with Orchestrator(url, sagas=[body], clock=ManualClock(auto=True)) as orchestrator:
        handle = await orchestrator.start(body)
        assert await handle.result() == "third"
        assert [(x.key, x.attempts) for x in (await handle.info()).steps] == [("once", 1), ("thrice", 3)]
    assert world == ["once", "thrice", "thrice", "thrice"]


async def test_compensations_are_tried_ten_times_and_retriables_for_ever(url: str, world: list[str]):
    """Default: compensations `Retry(attempts=10)`, retriables for ever."""
    undos: list[int] = []

    @step
    async def first() -> None: ...

    @first.compensate
    async def undo(_: None) -> None:
        undos.append(current().attempt)
        raise Broken

    tries = 37
    confirm = act(world, "confirm", *[Broken()] * tries, "sent", at=retriable)

    @saga("undoes", version=1)
    async def undoes(s: Saga) -> None:
        await s.run(first)
        raise Broken

    @saga("confirms", version=1)
    async def confirms(s: Saga) -> str:
        return await s.run(confirm)

    async with Orchestrator(url, sagas=[undoes, confirms], clock=ManualClock(auto=True)) as orchestrator:
        a, b = await orchestrator.start(undoes), await orchestrator.start(confirms)
        with pytest.raises(SagaStuck):
            await a.result()
        assert await b.result() == "sent"
    assert undos == list(range(1, 11))
    assert len(world) == tries + 1


async def test_retry_on_and_within_and_tenacity(url: str, world: list[str]):
    """`Retry(on=)` retries those types only; `within=` ends it in time; `from_tenacity` takes stop, wait and retry."""
    picky = act(world, "picky", Broken(), KeyError("x"), retry=Retry(attempts=9, on=(Broken,)))
    brief = act(world, "brief", Broken(), retry=Retry(attempts=99, first=10, factor=1, jitter=False, within=15))
    tenacious = act(
        world,
        "tenacious",
        Broken(),
        retry=Retry.from_tenacity(
            stop=tenacity.stop_after_attempt(4),
            wait=tenacity.wait_fixed(2),
            retry=tenacity.retry_if_exception_type(Broken),
        ),
    )

    @saga("policies", version=1)
    async def body(s: Saga) -> None:
        for one in (picky, brief, tenacious):
            try:
                await s.run(one)
            except (Broken, KeyError):
                continue

    async with Orchestrator(url, sagas=[body], clock=ManualClock(auto=True)) as orchestrator:
        await (await orchestrator.start(body)).result()
    assert [world.count(x) for x in ("picky", "brief", "tenacious")] == [2, 2, 4]


async def test_delays_grow_by_factor_up_to_longest(url: str):
    """`Retry(first=, factor=, longest=, jitter=False)`: the delays are first, first*factor, ..., at most longest."""
    seconds: list[float] = []
    clock = ManualClock(auto=True)

    @step(compensation=None, because="does nothing", retry=Retry(6, first=0.5, factor=3, longest=10, jitter=False))
    async def grows() -> None:
        seconds.append(clock.now().timestamp())
        raise Broken

    @saga("grows", version=1)
    async def body(s: Saga) -> None:
        await s.run(grows)

    async with Orchestrator(url, sagas=[body], clock=clock) as orchestrator:
        with pytest.raises(SagaCompensated):
            await (await orchestrator.start(body)).result()
    gaps = [round(b - a, 3) for a, b in itertools.pairwise(seconds)]
    assert gaps == [0.5, 1.5, 4.5, 10, 10]


async def test_a_drawn_delay_is_never_drawn_again(file: str, world: list[str]):
    """The drawn delay is checkpointed and never drawn again: after a restart the saga wakes when it was to wake."""
    clock = ManualClock()
    late = act(world, "late", Broken(), "done", retry=Retry(2, first=1000, jitter=True))

    @saga("late", version=1)
    async def body(s: Saga) -> str:
        return await s.run(late)

    async with Orchestrator(file, sagas=[body], clock=clock) as orchestrator:
        handle = await orchestrator.start(body, id="x")
        await clock.advance(timedelta(0))
        wakes = (await handle.info()).wake_at
        assert wakes is not None
    for _ in range(3):
        async with Orchestrator(file, sagas=[body], clock=clock) as orchestrator:
            await clock.advance(timedelta(seconds=1))
            handle = await orchestrator.get("x")
            assert (await handle.info()).wake_at == wakes
            assert world == ["late"]
    async with Orchestrator(file, sagas=[body], clock=clock) as orchestrator:
        await clock.advance(wakes - clock.now() + timedelta(milliseconds=1))
        assert await (await orchestrator.get("x")).result() == "done"


async def test_a_key_is_of_one_step_of_one_run(url: str):
    """`idempotency_key` is the same for each attempt and each replay of one step.

    And never that of another run or step.
    """
    keys: list[tuple[str, str]] = []

    @step(retry=Retry(3, first=0))
    async def pay(n: int) -> None:
        keys.append((f"{current().saga_id} {current().step}", current().idempotency_key))
        if current().attempt < 3:
            raise Broken

    @pay.compensate(retry=Retry(3, first=0))
    async def unpay(_: None) -> None:
        keys.append((f"undo {current().saga_id} {current().step}", current().idempotency_key))
        if current().attempt < 3:
            raise Broken

    @saga("keys", version=1)
    async def body(s: Saga) -> None:
        await s.run(pay, 1)
        await s.run(pay, 1)
        raise Broken

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        for name in ("a", "b"):
            with pytest.raises(SagaCompensated):
                await (await orchestrator.start(body, id=name)).result()
    assert len(keys) == 24
    assert len(set(keys)) == 8, "one key for all attempts of a step"
    assert len({key for _, key in keys}) == 8, "and another for each step, compensation and run"


async def test_the_undo_of_an_unknown_takes_the_arguments_too(url: str):
    """A compensation whose first parameter admits `Unknown` is run with `Unknown`.

    Here with the arguments behind it.
    """
    seen: list[Any] = []

    @step
    async def pay(order: Order, *, bank: Bank = resource()) -> Payment:
        raise TimeoutError

    @pay.compensate
    async def unpay(payment: Payment | Unknown, order: Order, *, bank: Bank = resource()) -> None:
        seen.append((isinstance(payment, Unknown) or payment is Unknown, order, bank.book))

    @saga("unknowns", version=1)
    async def body(s: Saga) -> None:
        await s.run(pay, Order("u"))

    async with Orchestrator(url, sagas=[body], resources=[Bank()]) as orchestrator:
        handle = await orchestrator.start(body)
        with pytest.raises(SagaCompensated):
            await handle.result()
        info = await settled(handle)
    assert seen == [(True, Order("u"), [])]
    assert steps(info)["pay"] in {"compensated", "unknown", "failed"}


async def test_bodies_that_run_at_once_do_not_mix_their_current(url: str):
    """`current()` is that of the step that asks, also when a hundred run at once."""
    wrong: list[str] = []

    @step(compensation=None, because="only looks")
    async def look(name: str) -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if current().saga_id != name:
            wrong.append(name)
        return name

    @saga("looks", version=1)
    async def body(s: Saga) -> str:
        return await s.run(look, s.id)

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handles = [await orchestrator.start(body, id=f"n{n}") for n in range(100)]
        assert [await handle.result() for handle in handles] == [f"n{n}" for n in range(100)]
    assert wrong == []
