"""Sagas as graphs: order follows from references, the pivot runs alone, and undo goes against the graph's order."""

import asyncio
from datetime import timedelta
from typing import Any

import attrs
import pytest

from sagas import (
    CallbackTimeout,
    Orchestrator,
    Ref,
    Retry,
    Saga,
    SagaCompensated,
    SagaGraph,
    SagaPastPivot,
    SagaStatus,
    SagaStuck,
    current,
    lookup,
    pivot,
    retriable,
    saga,
    step,
)
from sagas.check.scan import scan
from sagas.testing import ManualClock
from tests.counting import counted
from tests.kit import act, settled, steps, until


@attrs.frozen
class Order:
    """What the graphs of these tests are about."""

    item: str
    amount: int


def noted(world: list[str], name: str, *, at: Any = step, fails: bool = False, options: Any = None) -> Any:
    """A step that takes any notes, and writes that it began and ended; its undo writes so too."""

    async def doing(*notes: Any, **named: Any) -> str:
        world.append(f"{name}({', '.join([*map(str, notes), *(f'{key}={named[key]}' for key in named)])})")
        await asyncio.sleep(0)
        if fails:
            raise ValueError(name)
        world.append(f"{name} ended")
        return name

    made = at(name=name, **(options or {}))(doing)
    if at is step:

        @made.compensate(retry=1)
        async def undo(result: str) -> None:
            world.append(f"undo {name}")

    return made


async def sleeping(handle: Any) -> None:
    """Wait until the graph sleeps."""
    while "sleep" not in steps(await handle.info()):  # noqa: ASYNC110 - its journal says so, and nothing else
        await asyncio.sleep(0.002)


async def test_values_flow_along_references(url: str, world: list[str]):
    """Each node gets the values of its references: the input, results, plain values, by position and by name."""
    first, second = noted(world, "first"), noted(world, "second")
    g = SagaGraph("flow", version=1, input=Order)
    a = g.step(first, g.input, 7)
    b = g.step(second, a, order=g.input, flag=True)
    g.returns(b)
    async with Orchestrator(url, sagas=[g]) as orchestrator:
        handle = await orchestrator.start(g, Order("tea", 3), id="one")
        assert await handle.result() == "second"
    assert world[0] == "first(Order(item='tea', amount=3), 7)"
    assert world[2] == "second(first, order=Order(item='tea', amount=3), flag=True)"


async def test_independent_nodes_run_side_by_side(url: str, world: list[str]):
    """Nodes that do not depend on each other are under way together; what depends on both waits for both."""
    both = asyncio.Event()

    def meeting(name: str, other: str) -> Any:
        async def doing() -> str:
            world.append(name)
            if other in world:
                both.set()
            await both.wait()
            return name

        return step(name=name, compensation=None, because="a test")(doing)

    last = noted(world, "last")
    g = SagaGraph("beside", version=1)
    left, right = g.step(meeting("left", "right")), g.step(meeting("right", "left"))
    g.returns(g.step(last, left, right))
    async with Orchestrator(url, sagas=[g]) as orchestrator:
        handle = await orchestrator.start(g, id="one")
        assert await handle.result() == "last"
        assert list(steps(await handle.info())) == ["left", "right", "last"]
    assert world == ["left", "right", "last(left, right)", "last ended"]


@pytest.mark.parametrize("parallel", [False, True])
async def test_undo_goes_against_the_graphs_order(url: str, world: list[str], *, parallel: bool):
    """What a node depends on is undone after it, serially or side by side; the failed node is not undone."""
    names = "abcd"
    made = {name: noted(world, name) for name in names}
    bad = noted(world, "bad", fails=True)
    g = SagaGraph("back", version=1, parallel_compensation=parallel)
    a = g.step(made["a"])
    b, c = g.step(made["b"], a), g.step(made["c"], a)
    d = g.step(made["d"], b)
    g.returns(g.step(bad, c, d))
    async with Orchestrator(url, sagas=[g]) as orchestrator:
        handle = await orchestrator.start(g, id="one")
        with pytest.raises(SagaCompensated) as ended:
            await handle.result()
    undone = ended.value.compensated
    assert sorted(undone) == list(names)
    assert undone[-1] == "a"
    assert undone.index("d") < undone.index("b")
    assert [line for line in world if line.startswith("undo")] == [f"undo {name}" for name in undone]


async def test_independent_undos_run_side_by_side_when_asked(url: str, world: list[str]):
    """With ``parallel_compensation`` two undos that do not depend on each other are under way together."""
    both = asyncio.Event()

    def meeting(name: str) -> Any:
        @step(name=name)
        async def doing() -> str:
            return name

        @doing.compensate
        async def undo(result: str) -> None:
            world.append(name)
            if len(world) == 2:
                both.set()
            await both.wait()

        return doing

    g = SagaGraph("undos beside", version=1, parallel_compensation=True)
    left = g.step(meeting("left"))
    between = g.step(noted([], "between"), left)  # so that `left` and `right` do not run at the same time
    right = g.step(meeting("right"), after=[])
    g.returns(g.step(noted([], "bad", fails=True), between, right))
    async with Orchestrator(url, sagas=[g]) as orchestrator:
        handle = await orchestrator.start(g, id="one")
        with pytest.raises(SagaCompensated) as ended:
            await handle.result()
    assert sorted(ended.value.compensated) == ["between", "left", "right"]


@pytest.mark.parametrize("chosen", [True, False])
async def test_a_node_whose_condition_is_false_is_skipped(url: str, world: list[str], *, chosen: bool):
    """``when`` skips a node: it has no entry, its value is None, and what depends on it gets that None."""

    @lookup
    async def expensive(order: Order) -> bool:
        return order.amount > 10

    ask, book = noted(world, "ask"), noted(world, "book")
    g = SagaGraph("choice", version=1, input=Order)
    asked = g.step(ask, g.input, when=g.lookup(expensive, g.input))
    g.returns(g.step(book, asked))
    async with Orchestrator(url, sagas=[g]) as orchestrator:
        handle = await orchestrator.start(g, Order("tea", 11 if chosen else 9), id="one")
        assert await handle.result() == "book"
        assert list(steps(await handle.info())) == ["expensive", *(["ask"] if chosen else []), "book"]
    assert f"book({'ask' if chosen else None})" in world


@pytest.mark.parametrize("late", [False, True])
async def test_a_condition_that_turns_out_to_be_no_bool(file: str, world: list[str], *, late: bool):
    """The saga is stuck before that node; the message says what to load before the retry, and that goes on with it."""

    @lookup
    async def says(note: str) -> Any:
        return "yes"

    @lookup
    async def as_bool(said: Any) -> bool:
        return said == "yes"

    @pivot
    async def pay(note: str) -> str:
        return note

    def made(*, mended: bool) -> SagaGraph[[]]:
        g = SagaGraph("asking", version=1)
        first = g.step(noted(world, "hold"))
        before = g.pivot(pay, first) if late else first
        said = g.lookup(says, before)
        when = g.lookup(as_bool, said) if mended else said
        last = noted(world, "mail", at=retriable if late else step)
        g.returns(g.retriable(last, before, when=when) if late else g.step(last, before, when=when))
        return g

    async with Orchestrator(file, sagas=[made(mended=False)]) as orchestrator:
        for run in ("mended", "undone"):
            with pytest.raises(SagaStuck) as stuck:
                await (await orchestrator.start("asking", id=run)).result()
            assert "'mail' is lookup 'says', whose result is a str, not a bool" in stuck.value.reason
            assert f"`sagas retry {run}`" in stuck.value.reason
            assert (f"`sagas rollback {run}`" in stuck.value.reason) is not late
        await orchestrator.retry("mended", actor="ann")
        with pytest.raises(SagaStuck, match="not a bool"):
            await (await orchestrator.get("mended")).result()
        if late:
            with pytest.raises(SagaPastPivot):
                await orchestrator.rollback("undone", actor="ann")
        else:
            await orchestrator.rollback("undone", actor="ann")
            assert (await settled(await orchestrator.get("undone"))).status == SagaStatus.COMPENSATED
    assert not any(line.startswith("mail") for line in world)
    async with Orchestrator(file, sagas=[made(mended=True)]) as orchestrator:
        await orchestrator.retry("mended", actor="ann")
        assert await (await orchestrator.get("mended")).result() == "mail"


@pytest.mark.parametrize("form", ["graph", "code"])
async def test_a_retriable_before_the_pivot(url: str, world: list[str], form: str):
    """It may stand there, in a graph as in code: it is retried until it succeeds, and a rollback passes it over."""
    fails = iter([True, True, False])

    @retriable(retry=Retry.forever(first=0.001))
    async def tell() -> str:
        world.append("tell")
        if next(fails):
            raise ValueError("tell")
        return "told"

    hold, pay = noted(world, "hold"), noted(world, "pay", at=pivot, fails=True)

    @saga("telling", version=1)
    async def code(s: Saga) -> str:
        return await s.run(pay, await s.run(hold), await s.run(tell))

    g = SagaGraph("telling", version=1)
    held = g.step(hold)
    g.returns(g.pivot(pay, held, g.retriable(tell, after=[held])))
    given = g if form == "graph" else code
    assert not scan(given).faults
    async with Orchestrator(url, sagas=[given]) as orchestrator:
        with pytest.raises(SagaCompensated) as ended:
            await (await orchestrator.start(given, id="one")).result()
    assert ended.value.compensated == ["hold"]
    assert world == ["hold()", "hold ended", "tell", "tell", "tell", "pay(hold, told)", "undo hold"]


async def test_the_pivot_runs_alone(url: str, world: list[str]):
    """The pivot begins once all that does not depend on it has ended, and what depends on it begins after it."""
    slow = noted(world, "slow", at=lookup)
    pay, mail, note = noted(world, "pay", at=pivot), noted(world, "mail", at=retriable), noted(world, "note")
    g = SagaGraph("alone", version=1)
    held = g.step(note)
    seen = g.lookup(slow, after=[g.sleep(0.01)])
    paid = g.pivot(pay, held)
    g.returns(g.retriable(mail, paid, seen))
    async with Orchestrator(url, sagas=[g]) as orchestrator:
        assert await (await orchestrator.start(g, id="one")).result() == "mail"
    assert (
        world.index("slow ended") < world.index("pay(note)") < world.index("pay ended") < world.index("mail(pay, slow)")
    )


async def test_past_the_pivot_nothing_is_undone_and_retry_goes_on(url: str, world: list[str]):
    """A lookup that fails after the pivot leaves the saga stuck on it; ``retry`` attempts it again."""
    held = act(world, "held")
    pay = act(world, "pay", at=pivot)
    look = act(world, "look", ValueError("down"), "seen", at=lookup)
    g = SagaGraph("forward", version=1)
    paid = g.pivot(pay, after=[g.step(held)])
    g.returns(g.lookup(look, after=[paid]))
    async with Orchestrator(url, sagas=[g]) as orchestrator:
        handle = await orchestrator.start(g, id="one")
        with pytest.raises(SagaStuck, match="after the pivot"):
            await handle.result()
        await orchestrator.retry("one", actor="ann")
        assert await handle.result() == "seen"
    assert "undo held" not in world


async def test_exclusive_pivots(url: str, world: list[str]):
    """Two pivots may stand beside each other where each has a condition; both true is stuck, before either."""

    @lookup
    async def says(order: Order) -> bool:
        return order.amount > 0

    @lookup
    async def says_not(order: Order) -> bool:
        return order.amount % 2 == 0

    card, cash = act(world, "card", at=pivot), act(world, "cash", at=pivot)
    g = SagaGraph("either", version=1, input=Order)
    yes, no = g.lookup(says, g.input), g.lookup(says_not, g.input)
    g.returns(g.retriable(noted(world, "done", at=retriable), g.pivot(card, when=yes), g.pivot(cash, when=no)))
    async with Orchestrator(url, sagas=[g]) as orchestrator:
        assert await (await orchestrator.start(g, Order("tea", 1), id="card")).result() == "done"
        assert await (await orchestrator.start(g, Order("tea", 0), id="cash")).result() == "done"
        assert [line for line in world if line in {"card", "cash"}] == ["card", "cash"]
        handle = await orchestrator.start(g, Order("tea", 2), id="both")
        with pytest.raises(SagaStuck, match="are all true"):
            await handle.result()
        await orchestrator.rollback("both", actor="ann")
        assert (await settled(handle)).status == SagaStatus.COMPENSATED
        assert [line for line in world if line in {"card", "cash"}] == ["card", "cash"]


async def test_the_token_is_there_before_the_answer(url: str, world: list[str]):
    """A callback's token goes to the node that hands it out; what needs the answer waits for it."""
    tokens: list[str] = []

    @step(compensation=None, because="a mail cannot be called back")
    async def mail(order: Order, token: str) -> None:
        tokens.append(token)

    g = SagaGraph("ask", version=1, input=Order)
    approval = g.callback("approval", bool, timeout=timedelta(days=1))
    g.step(mail, g.input, approval.token)
    g.returns(g.step(noted(world, "book"), approval))
    async with Orchestrator(url, sagas=[g]) as orchestrator:
        handle = await orchestrator.start(g, Order("tea", 1), id="one")
        await until(lambda: tokens)
        assert world == []
        await orchestrator.complete_callback(tokens[0], value=True)
        assert await handle.result() == "book"
    assert world[0] == "book(True)"


async def test_a_callback_that_nobody_answers_rolls_back(url: str, world: list[str]):
    """A callback's timeout is the saga's failure: what was done is undone."""
    g = SagaGraph("late", version=1)
    held = g.step(noted(world, "hold"))
    g.returns(g.callback("approval", bool, timeout=60, after=[held]))
    async with Orchestrator(url, sagas=[g], clock=ManualClock(auto=True)) as orchestrator:
        with pytest.raises(SagaCompensated) as ended:
            await (await orchestrator.start(g, id="one")).result()
    assert isinstance(ended.value.__cause__, CallbackTimeout)
    assert ended.value.compensated == ["hold"]


async def test_a_child_is_undone_with_its_parent(url: str, world: list[str]):
    """Coded sagas and graphs run as nodes of a graph, and a graph in a coded saga; a later failure undoes them."""

    @saga("coded", version=1)
    async def coded(s: Saga, note: str) -> str:
        return await s.run(noted(world, "in code"), note)

    inner = SagaGraph("inner", version=1, input=str)
    inner.returns(inner.step(noted(world, "in graph"), inner.input))

    g = SagaGraph("outer", version=1)
    first = g.step(coded, "x")
    second = g.step(inner, "y")
    g.returns(g.step(noted(world, "bad", fails=True), first, second))

    @saga("around", version=1)
    async def around(s: Saga) -> None:
        await s.run(inner, "z")
        await s.run(g)

    async with Orchestrator(url, sagas=[around]) as orchestrator:
        handle = await orchestrator.start(around, id="one")
        with pytest.raises(SagaCompensated):
            await handle.result()
    undone = [line for line in world if line.startswith("undo")]
    assert sorted(undone) == ["undo in code", "undo in graph", "undo in graph"]
    assert undone[-1] == "undo in graph"


async def test_a_child_with_the_pivot_is_added_by_pivot(url: str, world: list[str]):
    """A child saga that has the pivot is the graph's pivot."""

    @saga("paying", version=1)
    async def paying(s: Saga, note: str) -> str:
        await s.run(noted(world, "check"), note)
        return await s.run(noted(world, "pay", at=pivot))

    g = SagaGraph("outer", version=1)
    paid = g.pivot(paying, g.step(noted(world, "hold")))
    g.returns(g.retriable(noted(world, "mail", at=retriable), paid))
    async with Orchestrator(url, sagas=[g]) as orchestrator:
        assert await (await orchestrator.start(g, id="one")).result() == "mail"


async def test_a_cancel_undoes_a_graph(url: str, world: list[str]):
    """A cancel ends waits at once, lets steps in flight end, and undoes everything."""
    g = SagaGraph("cancelled", version=1)
    held = g.step(noted(world, "hold"))
    g.returns(g.step(noted(world, "book"), after=[g.sleep(timedelta(days=1), after=[held])]))
    async with Orchestrator(url, sagas=[g]) as orchestrator:
        handle = await orchestrator.start(g, id="one")
        await sleeping(handle)
        await handle.cancel()
        info = await settled(handle, SagaStatus.COMPENSATED)
    assert info.cause == "cancelled"
    assert world[-1] == "undo hold"


async def test_a_graph_goes_on_in_another_process(file: str, world: list[str]):
    """A graph that waits goes on under another orchestrator: same keys, nothing is done twice."""
    keys: list[str] = []

    @step
    async def hold() -> str:
        keys.append(current().idempotency_key)
        return "held"

    @hold.compensate
    async def release(result: str) -> None:
        world.append(f"release {current().forward_key == keys[0]}")

    g = SagaGraph("later", version=1)
    held = g.step(hold)
    pause = g.sleep(timedelta(hours=1), after=[held])
    g.returns(g.step(noted(world, "bad", fails=True), held, after=[pause]))
    clock = ManualClock()
    async with Orchestrator(file, sagas=[g], clock=clock) as orchestrator:
        handle = await orchestrator.start(g, id="one")
        await sleeping(handle)
    async with Orchestrator(file, sagas=[g], clock=clock) as orchestrator:
        await clock.advance(timedelta(hours=1))
        with pytest.raises(SagaCompensated):
            await (await orchestrator.get("one")).result()
    assert len(keys) == 1
    assert world[-1] == "release True"


async def test_a_step_may_be_used_again(url: str, world: list[str]):
    """The second use of a step is ``name#2`` by the order of declaration, whichever of the two begins first."""
    hold = noted(world, "hold")
    g = SagaGraph("twice", version=1)
    late = g.step(hold, "late", after=[g.sleep(0.01)])
    early = g.step(hold, "early")
    g.returns(g.step(noted(world, "both"), late, early))
    async with Orchestrator(url, sagas=[g]) as orchestrator:
        handle = await orchestrator.start(g, id="one")
        await handle.result()
        assert list(steps(await handle.info())) == ["sleep", "hold#2", "hold", "both"]
    assert world[0] == "hold(early)"


async def test_a_rollback_under_other_code_says_what_is_missing(file: str, world: list[str]):
    """Steps that the loaded graph does not have leave the saga stuck on them; the others are undone."""

    def made(*names: str) -> SagaGraph[[]]:
        g = SagaGraph("changed", version=1, parallel_compensation=True)
        refs = [g.step(noted(world, name)) for name in names]
        g.returns(g.sleep(timedelta(days=1), after=refs))
        return g

    async with Orchestrator(file, sagas=[made("old", "kept")]) as orchestrator:
        handle = await orchestrator.start("changed", id="one")
        await sleeping(handle)
        await orchestrator.kill("one", actor="ann")
    async with Orchestrator(file, sagas=[made("new", "kept")]) as orchestrator:
        await orchestrator.rollback("one", actor="ann")
        with pytest.raises(SagaStuck, match="does not say how to undo step 'old'"):
            await (await orchestrator.get("one")).result()
        await orchestrator.skip("one", "old", actor="ann")
        info = await settled(await orchestrator.get("one"))
    assert info.status == SagaStatus.RESOLVED
    assert [line for line in world if line.startswith("undo")] == ["undo kept"]


async def test_a_saga_that_runs_itself_is_stuck(url: str):
    """Children without end are refused at a depth, instead of taking all memory."""
    g = SagaGraph("endless", version=1)

    @saga("between", version=1)
    async def between(s: Saga) -> None:
        await s.run(g)

    g.step(between)
    g.returns()
    async with Orchestrator(url, sagas=[g]) as orchestrator:
        with pytest.raises(SagaStuck, match="levels deep"):
            await (await orchestrator.start(g, id="one")).result()


@pytest.mark.parametrize("parallel", [False, True])
async def test_undoing_children_under_way_is_no_walk_through_the_graph_for_each(*, parallel: bool):
    """A failure beside many children undoes each by itself: twice as many are about twice the work."""

    async def work_of(children: int) -> int:
        world: list[str] = []
        child = SagaGraph("child", version=1)
        held = [child.step(noted(world, name)) for name in "ab"]
        child.returns(child.callback("answer", str, after=held))
        g = SagaGraph("many", version=1, parallel_compensation=parallel)
        for _ in range(children):
            g.step(child)
        bad = noted(world, "bad", fails=True)
        g.step(bad, after=[g.callback("go", str)])
        g.returns()
        async with Orchestrator("memory://", sagas=[g]) as orchestrator:
            handle = await orchestrator.start(g, id="one")
            await until(lambda: sum(line.endswith(" ended") for line in world) == 2 * children, orchestrator)
            with counted() as work:
                await orchestrator.complete_callback(saga_id="one", name="go", value="now")
                with pytest.raises(SagaCompensated):
                    await handle.result()
        assert sum(line.startswith("undo") for line in world) == 2 * children
        return work.calls

    await work_of(10)
    assert await work_of(120) < 2.2 * await work_of(60)


@pytest.mark.slow
async def test_ten_thousand_nodes(tmp_path: Any):
    """A graph of 10,000 nodes is declared, checked and run, wide and deep."""

    @lookup
    async def look(number: int) -> int:
        return number + 1

    @lookup
    async def total(*numbers: int) -> int:
        return sum(numbers)

    g = SagaGraph("large", version=1, input=int)
    ends: list[Ref[int]] = []
    for _ in range(100):
        ref = g.input
        for _ in range(100):
            ref = g.lookup(look, ref)
        ends.append(ref)
    g.returns(g.lookup(total, *ends))
    g.check()
    async with Orchestrator("memory://", sagas=[g]) as orchestrator:
        assert await (await orchestrator.start(g, 1, id="one")).result() == 100 * 101
