"""What a declaration means, before anything goes wrong."""

# ruff: noqa: FBT001, FBT003

import asyncio
import functools
import itertools
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
import tenacity

from durable_core import durable
from sagas import (
    DefinitionError,
    Happened,
    Orchestrator,
    Retry,
    Saga,
    SagaCompensated,
    SagaStuck,
    StepInfo,
    current,
    lookup,
    pivot,
    resource,
    retriable,
    saga,
    step,
)
from sagas.testing import ManualClock
from tests.kit import act, settled


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


GIVEN: list[tuple[Any, ...]] = []


@step
async def paid(
    order: str, currency: str = "EUR", *, memo: str = "none", quick: bool = False, bank: Bank = resource()
) -> int:
    return 7


@paid.compensate
async def pay_back(done: int, order: str, currency: str, *, memo: str = "other", bank: Bank = resource()) -> None:
    GIVEN.append(("pay back", done, order, currency, memo, bank))


@step
async def doubt(order: str, currency: str = "EUR", *, memo: str = "none") -> int:
    GIVEN.append((current().idempotency_key, current().forward_key))
    raise TimeoutError


@doubt.compensate
def undo_doubt(done: int, *given: str, **named: str) -> None:
    GIVEN.append(("undo", done, *given, named))


@doubt.probe
def find(order: str, currency: str = "?", *, bank: Bank = resource(), **named: str) -> int | None:
    GIVEN.append(("find", order, currency, named, bank))
    GIVEN.append((current().idempotency_key, current().forward_key, current().attempt, current().compensating))
    return 8


@saga("defaults", version=1)
async def defaults(s: Saga) -> None:
    await s.run(paid, "a")
    await s.run(paid, "b", "USD", memo="given", quick=True)
    await s.run(paid, order="c", currency="CHF")
    await s.run(doubt, "d")
    raise Broken


@pytest.mark.parametrize("restart", [False, True])
async def test_compensation_and_probe_are_given_the_steps_own_arguments(url: str, restart: bool):
    """`(result, *the step's own arguments and resources)`, and a probe the same without the result.

    As given or by the step's defaults, however they were passed; keywords that the other does not take are left. A
    probe has a key of its own, and knows its step's as `forward_key`.
    """
    GIVEN.clear()
    bank = Bank()
    async with Orchestrator(url, sagas=[defaults], resources=[bank], worker=not restart) as starting:
        handle = await starting.start(defaults, id="one")
        if not restart:
            await settled(handle, "compensated")
    async with Orchestrator(url, sagas=[defaults], resources=[bank]) as orchestrator:
        await settled(await orchestrator.get("one"), "compensated")
    step_keys, found, probe_keys, *undone = GIVEN
    assert found == ("find", "d", "EUR", {"memo": "none"}, bank)
    assert step_keys[1] is None
    assert probe_keys[1:] == (step_keys[0], 1, False)
    assert probe_keys[0] != step_keys[0]
    assert undone == [
        ("undo", 8, "d", "EUR", {"memo": "none"}),
        ("pay back", 7, "c", "CHF", "none", bank),
        ("pay back", 7, "b", "USD", "given", bank),
        ("pay back", 7, "a", "EUR", "none", bank),
    ]


async def noted(order: str, *, memo: str = "") -> int:
    return 1


async def needs_currency(done: int, order: str, *, currency: str) -> None: ...


async def needs_memo(done: int, *, memo: str) -> None: ...


async def needs_why(order: str, *, why: str) -> int | None: ...


async def fits(done: int, order: str, *, memo: str, bank: Bank = resource()) -> None: ...


@pytest.mark.parametrize(
    ("declares", "told"),
    [
        (lambda: step(compensation=None)(noted), "because"),
        (lambda: step(compensation=None, because="")(noted), "because"),
        (lambda: step(because="it cannot be undone")(noted), "because= is for compensation=None"),
        (lambda: retriable(rejects=(Broken,))(noted), "retriable"),
        (lambda: pivot(noted).compensate(fits), "compensate"),
        (lambda: retriable(noted).compensate(fits), "compensate"),
        (lambda: lookup(noted).compensate(fits), "compensate"),
        (lambda: step(noted).compensate(needs_currency), "needs 'currency', which it is not given"),
        (lambda: step(noted).compensate(needs_memo), "needs 'memo'"),
        (lambda: step(noted).probe(needs_why), "needs 'why'"),
    ],
)
def test_what_cannot_be_declared_is_refused_where_it_stands(declares: Callable[[], Any], told: str):
    """A step needs a compensation, or none and a reason; a pivot, a retriable and a lookup have none.

    A retriable is simply retried, so it has no `rejects`. A compensation or probe needs no more than it is given.
    """
    step(noted).compensate(retry=Retry(attempts=2))(fits)
    with pytest.raises((DefinitionError, AttributeError), match=told):
        declares()


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


def test_a_decorator_without_a_name_or_a_version_says_what_to_write():
    """Bare, empty or half filled in: an error of ours that names what is missing, and the body where it has one."""

    async def body(s: Saga) -> None: ...

    forgetful: Any = saga
    for forget, words in (
        (lambda: forgetful(body), r"test_declaring\.py:\d+ has no name and no version"),
        (forgetful, "no name and no version"),
        (lambda: forgetful("order"), "no version"),
    ):
        with pytest.raises(DefinitionError, match=words) as caught:
            forget()
        assert '@saga("place-order", version=1)' in caught.value.advice
    bare_durable: Any = durable
    with pytest.raises(DefinitionError, match="has no name"):
        bare_durable(body)
