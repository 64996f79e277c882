"""Registration: what cannot work is refused with file and line, what can work is accepted, the doubtful warned of."""

import inspect
import logging
import random
import time
import time as clock
import uuid
from collections.abc import Callable, Coroutine
from datetime import datetime
from time import sleep as doze
from typing import Any

import pytest

from sagas import DefinitionError, Orchestrator, Saga, SagaDef, lookup, pivot, retriable, saga, step


@step
async def reserve(about: str = "") -> int:
    return 1


@reserve.compensate
async def release(done: int) -> None: ...


@step
async def charge(about: str = "") -> int:
    return 1


@charge.compensate
async def refund(done: int) -> None: ...


@step
async def naked(about: str = "") -> int:
    return 1


@step(compensation=None, because="it changes nothing")
async def excused(about: str = "") -> int:
    return 1


@pivot
async def pay(about: str = "") -> int:
    return 1


@pivot
async def pay_later(about: str = "") -> int:
    return 1


@retriable
async def mail(about: str = "") -> int:
    return 1


@lookup
async def look(about: str = "") -> int:
    return 1


@step(name="reserve")
async def reserve_again(about: str = "") -> int:
    return 1


@reserve_again.compensate
async def release_again(done: int) -> None: ...


Body = Callable[..., Coroutine[Any, Any, Any]]
REFUSED: list[Any] = []
ACCEPTED: list[SagaDef[..., Any]] = []


def named(body: Body) -> SagaDef[..., Any]:
    """A saga with its body's name."""
    return saga(body.__name__.replace("_", "-"), version=1)(body)


def refused(*said: str) -> Callable[[Body], None]:
    """A saga that cannot work, and what its refusal says."""
    return lambda body: REFUSED.append(pytest.param(named(body), said, id=body.__name__))


def accepted(body: Body) -> SagaDef[..., Any]:
    """A saga that can work."""
    ACCEPTED.append(named(body))
    return ACCEPTED[-1]


# -- sagas that cannot work -------------------------------------------------------------------------------------------


@refused("'naked'", "no compensation", "@naked.compensate", "because")
async def lacks_a_compensation(s: Saga) -> None:
    await s.run(reserve)
    await s.run(naked)  # here


@refused("'naked'", "no compensation")
async def lacks_one_in_a_branch(s: Saga) -> None:
    async def branch(t: Saga) -> None:
        for _ in range(3):
            await t.run(naked)  # here

    async with s.parallel() as p:
        p.run(branch)


@refused("'naked'", "no compensation")
async def lacks_one_in_a_loops_head(s: Saga) -> None:
    for _ in range(await s.run(naked)):  # here
        await s.run(reserve)


@refused("'naked'", "no compensation")
async def lacks_one_in_a_condition(s: Saga) -> None:
    while await s.run(naked):  # here
        await s.run(reserve)


@refused("'naked'", "no compensation")
async def lacks_one_in_a_comprehension(s: Saga) -> list[int]:
    return [await s.run(naked) for _ in range(3)]  # here


@refused("'naked'", "no compensation")
async def lacks_one_in_a_map(s: Saga) -> list[int]:
    return await s.map(naked, ["a"])  # here


@refused("'charge'", "after the pivot")
async def undoable_after_the_pivot(s: Saga) -> None:
    await s.run(reserve)
    await s.run(pay)
    await s.run(mail)
    await s.run(charge)  # here


@refused("'charge'", "after the pivot")
async def undoable_after_the_pivot_in_a_try(s: Saga) -> None:
    await s.run(pay)
    try:
        await s.run(charge)  # here
    except ValueError:
        await s.run(look)


@refused("'charge'", "after the pivot")
async def undoable_after_a_pivot_on_either_way(s: Saga, way: bool) -> None:  # noqa: FBT001
    if way:
        await s.run(pay)
    else:
        await s.run(pay_later)
    await s.run(charge)  # here


@refused("'pay_later'", "second pivot")
async def two_pivots(s: Saga) -> None:
    await s.run(pay)
    await s.run(pay_later)  # here


@refused("'pay'", "second pivot")
async def the_same_pivot_twice(s: Saga) -> None:
    await s.run(pay)
    await s.run(look)
    await s.run(pay)  # here


@saga("reserving", version=1)
async def reserving(s: Saga) -> int:
    return await s.run(reserve)


@refused("'reserve'", "after the pivot")
async def an_undoable_child_after_the_pivot(s: Saga) -> None:
    await s.run(pay)
    await s.run(reserving)


@saga("paying", version=1)
async def paying(s: Saga) -> int:
    await s.run(reserve)
    return await s.run(pay)


@refused("'charge'", "after the pivot")
async def undoable_after_a_childs_pivot(s: Saga) -> None:
    await s.run(paying)
    await s.run(charge)  # here


@refused("'pay'", "second pivot")
async def a_childs_pivot_after_the_roots(s: Saga) -> None:
    await s.run(pay_later)
    await s.run(paying)


@refused("'pay'", "the pivot runs alone")
async def pivot_in_a_parallel_block(s: Saga) -> None:
    async with s.parallel() as p:
        p.run(reserve)
        p.run(pay)  # here


@refused("'pay'", "the pivot runs alone")
async def pivot_in_the_blocks_own_body(s: Saga) -> None:
    async with s.parallel() as p:
        p.run(reserve)
        await s.run(pay)  # here


@refused("'pay'", "the pivot runs alone")
async def pivot_in_a_savepoint(s: Saga) -> None:
    async with s.savepoint("block"):
        await s.run(reserve)
        await s.run(pay)  # here


@refused("'pay'", "the pivot runs alone")
async def pivot_in_a_map(s: Saga) -> list[int]:
    return await s.map(pay, ["a", "b"])  # here


@refused("'pay'", "the pivot runs alone")
async def pivot_in_a_branch(s: Saga) -> None:
    async def branch(t: Saga) -> None:
        await t.run(pay)

    async with s.parallel() as p:
        p.run(branch)


@refused("'pay'", "the pivot runs alone")
async def a_childs_pivot_in_a_block(s: Saga) -> None:
    async with s.parallel() as p:
        p.run(paying)


@refused("'reserve'", "name")
async def two_steps_of_one_name(s: Saga) -> None:
    await s.run(reserve)
    await s.run(reserve_again)  # here


@pytest.mark.parametrize(("definition", "said"), REFUSED)
def test_what_cannot_work_is_refused(definition: SagaDef[..., Any], said: tuple[str, ...]):
    """A definition that cannot work is refused before it runs, with the step, what is wrong, and file and line."""
    with pytest.raises(DefinitionError) as refused:
        Orchestrator("memory://", sagas=[definition])
    message = str(refused.value)
    assert repr(definition.name) in message
    assert all(part in message for part in said), message
    lines, first = inspect.getsourcelines(definition.body)
    here = [first + offset for offset, line in enumerate(lines) if line.rstrip().endswith("# here")]
    for line in here:
        assert f"{__file__}:{line}:" in message, message
    assert "test_registration.py:" in message


@saga("three-faults", version=1)
async def three_faults(s: Saga) -> None:
    await s.run(naked)
    async with s.savepoint("block"):
        await s.run(pay)
    await s.run(reserve)
    await s.run(reserve_again)


def test_every_fault_is_told_at_once():
    """All faults of one definition are in one message, so that they can be mended together."""
    with pytest.raises(DefinitionError) as refused:
        Orchestrator("memory://", sagas=[three_faults])
    for said in ("no compensation", "the pivot runs alone", "has the name of"):
        assert said in str(refused.value)


# -- sagas that can work ----------------------------------------------------------------------------------------------


@accepted
async def a_pivot_on_one_way(s: Saga, way: bool) -> int:  # noqa: FBT001
    if way:
        await s.run(pay)
        return await s.run(mail)
    await s.run(reserve)
    return await s.run(charge)


@accepted
async def a_pivot_before_a_raise(s: Saga, way: bool) -> int:  # noqa: FBT001
    if way:
        await s.run(pay)
        raise ValueError
    return await s.run(reserve)


@accepted
async def a_pivot_on_either_way(s: Saga, way: bool) -> int:  # noqa: FBT001
    await s.run(reserve)
    if way:
        await s.run(pay)
    else:
        await s.run(pay_later)
    return await s.run(mail)


@accepted
async def a_pivot_on_each_of_three_ways(s: Saga, way: int) -> int:
    if way == 1:
        await s.run(pay)
    elif way == 2:
        await s.run(pay_later)
    else:
        return await s.run(reserve)
    return await s.run(mail)


@accepted
async def perhaps_a_pivot_then_a_step(s: Saga, way: bool) -> int:  # noqa: FBT001
    if way:
        await s.run(pay)
    if not way:
        return await s.run(reserve)
    return 0


@accepted
async def a_pivot_in_each_case(s: Saga, way: str) -> int:
    await s.run(reserve)
    match way:
        case "now":
            await s.run(pay)
        case "later":
            await s.run(pay_later)
        case _:
            await s.run(charge)
    return 0


@accepted
async def a_pivot_in_an_expression(s: Saga, way: bool) -> int:  # noqa: FBT001
    return await (s.run(pay) if way else s.run(pay_later))


@accepted
async def a_pivot_behind_an_and(s: Saga, way: bool) -> int:  # noqa: FBT001
    return (way and await s.run(pay)) or 0


@accepted
async def a_loop_until_the_pivot(s: Saga) -> int:
    while True:
        await s.run(reserve)
        if await s.run(pay):
            break
    return await s.run(mail)


@accepted
async def a_pivot_tried_in_a_loop(s: Saga) -> int:
    for about in ("one", "two"):
        try:
            return await s.run(pay, about)
        except ValueError:
            await s.run(reserve, about)
    return await s.run(charge)


@accepted
async def a_loop_of_two_ways(s: Saga, ways: list[int]) -> int:
    for way in ways:
        if way:
            await s.run(pay)
            break
        await s.run(reserve)
    return 0


@accepted
async def a_step_where_the_pivot_failed(s: Saga) -> int:
    try:
        await s.run(pay)
    except ValueError:
        await s.run(reserve)
        return await s.run(charge)
    else:
        return await s.run(mail)


@accepted
async def another_pivot_where_the_first_failed(s: Saga) -> int:
    await s.run(reserve)
    try:
        return await s.run(pay)
    except ValueError:
        return await s.run(pay_later)
    finally:
        s.log.info("tried")


@accepted
async def a_step_where_the_pivot_failed_in_a_group(s: Saga) -> int:
    try:
        await s.run(pay)
    except* ValueError:
        await s.run(reserve)
    return 0


@accepted
async def a_pivot_in_a_child(s: Saga) -> int:
    await s.run(charge)
    await s.run(paying)
    return await s.run(mail)


@saga("perhaps-paying", version=1)
async def perhaps_paying(s: Saga, way: bool) -> int:  # noqa: FBT001
    if way:
        return 0
    return await s.run(pay)


@accepted
async def a_step_after_a_child_that_may_have_paid(s: Saga, way: bool) -> int:  # noqa: FBT001
    if not await s.run(perhaps_paying, way):
        await s.run(reserve)
    return 0


async def outside_helper(s: Saga) -> int:
    await s.run(reserve)
    return await s.run(pay)


@accepted
async def a_pivot_in_a_helper(s: Saga) -> int:
    await outside_helper(s)
    return await s.run(mail)


@accepted
async def a_pivot_in_a_nested_helper(s: Saga) -> int:
    async def finish(t: Saga) -> int:
        return await t.run(pay)

    await s.run(reserve)
    return await finish(s)


@accepted
async def branches_then_a_pivot(s: Saga) -> int:
    async def outer(t: Saga) -> None:
        async def inner(u: Saga) -> None:
            await u.run(charge)

        async with t.parallel() as q:
            q.run(inner)
            q.run(reserve)

    async with s.savepoint("all"):
        async with s.parallel() as p:
            p.run(outer)
        await s.map(charge, ["a"])
    return await s.run(pay)


@accepted
async def a_name_that_hides_a_step(s: Saga, naked: str) -> int:
    for pay in (reserve, charge):
        await s.run(pay, naked)
    async with s.parallel() as p:
        for pay_later in (reserve, charge):
            p.run(pay_later)
    return 0


@step(name="reserve")
async def childs_own_reserve(about: str = "") -> int:
    return 1


@childs_own_reserve.compensate
async def childs_own_release(done: int) -> None: ...


@saga("with-its-own-reserve", version=1)
async def with_its_own_reserve(s: Saga) -> int:
    return await s.run(childs_own_reserve)


@accepted
async def a_childs_step_of_the_same_name(s: Saga) -> int:
    await s.run(reserve)
    return await s.run(with_its_own_reserve)


@accepted
async def a_step_that_needs_no_undo(s: Saga) -> int:
    await s.run(excused)
    await s.run(look)
    return await s.run(reserve)


@accepted
async def the_same_step_again_and_again(s: Saga) -> int:
    for _ in range(3):
        await s.run(reserve)
    return await s.run(reserve)


@accepted
async def a_step_chosen_by_data(s: Saga, way: str) -> int:
    return await s.run({"reserve": reserve, "charge": charge}[way])


@accepted
async def a_name_bound_to_two_steps(s: Saga, way: bool) -> int:  # noqa: FBT001
    chosen = naked
    if way:
        chosen = reserve
    return await s.run(chosen)


@accepted
async def the_saga_under_another_name(s: Saga) -> int:
    me = s
    return await me.run(pay)


@accepted
async def a_saga_that_runs_itself(s: Saga, depth: int) -> int:
    await s.run(reserve)
    return await s.run(a_saga_that_runs_itself, depth - 1) if depth else 0


@pytest.mark.parametrize("definition", ACCEPTED, ids=lambda definition: definition.name)
def test_what_can_work_is_accepted(definition: SagaDef[..., Any], caplog: pytest.LogCaptureFixture):
    """A definition that works on some path is neither refused nor warned of; data is left to the run."""
    with caplog.at_level(logging.WARNING):
        Orchestrator("memory://", sagas=[definition])
    assert not caplog.records


def test_all_of_them_live_side_by_side():
    """Sagas that are fine alone are fine together: step names are unique within a saga, not within a process."""
    Orchestrator("memory://", sagas=ACCEPTED)


def test_a_body_without_source_is_accepted():
    """A body made at run time, whose source nobody has, is accepted; its first run will tell."""
    names: dict[str, Any] = {"Saga": Saga, "reserve": reserve}
    exec("async def made(s: Saga) -> int:\n    return await s.run(reserve)\n", names)
    Orchestrator("memory://", sagas=[saga("made", version=1)(names["made"])])


# -- what is doubtful -------------------------------------------------------------------------------------------------


@saga("impure", version=1)
async def impure(s: Saga) -> None:
    datetime.now()
    time.time()
    clock.monotonic()
    random.random()
    uuid.uuid4()
    time.sleep(0)  # noqa: ASYNC251
    doze(0)  # noqa: ASYNC251
    for _ in [random.randint(1, 2)]:
        await s.run(reserve)


def test_calls_that_answer_otherwise_on_replay_are_warned_of(caplog: pytest.LogCaptureFixture):
    """Clocks, chance and blocking calls are warned of with their line and what to use instead, under any name."""
    with caplog.at_level(logging.WARNING):
        Orchestrator("memory://", sagas=[impure])
    lines, first = inspect.getsourcelines(impure.body)
    for offset, line in enumerate(lines):
        called = line.strip().partition("  #")[0]
        if not called.endswith(")") or called.startswith(("@", "await")):
            continue
        told = [
            record.getMessage() for record in caplog.records if f"{__file__}:{first + offset}:" in record.getMessage()
        ]
        assert told, f"not warned of: {called}"
        assert "s." in told[0]


@saga("pure", version=1)
async def pure(s: Saga, text: str) -> list[str]:
    when = s.now()
    s.log.info("at %s", when)
    return sorted({text.upper(), str(s.random()), str(s.uuid()), repr(max(1, 2))})


def test_pure_calls_are_not_warned_of(caplog: pytest.LogCaptureFixture):
    """The saga's own time and chance, and plain functions, raise no warning."""
    with caplog.at_level(logging.WARNING):
        Orchestrator("memory://", sagas=[pure])
    assert not caplog.records
