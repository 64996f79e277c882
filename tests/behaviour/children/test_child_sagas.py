"""A saga of sagas, three deep: a child can be undone until its root ends, and compensates itself where it fails."""

import pytest

from sagas import Saga, SagaCompensated, SagaNotFound, WrongState, saga
from tests.kit import Broken, Place, Refused, World, end_of, entered, party, point_of_no_return

seat, meal = party("seat"), party("meal")
flight_fee, hotel = party("fee"), party("hotel")
gift = party("gift")


@saga("seating", version=1)
async def seating(s: Saga, who: str) -> list[str]:
    return [await s.run(seat, who), await s.run(meal, who)]


@saga("flying", version=3)
async def flying(s: Saga, who: str) -> list[str]:
    fee = await s.run(flight_fee, who)
    return [fee, *await s.run(seating, who)]


@saga("travel", version=1)
async def travel(s: Saga, who: str) -> list[str]:
    flown = await s.run(flying, who)
    return [*flown, await s.run(hotel, who), await s.run(gift, who)]


async def test_three_levels_are_done(place: Place):
    """Where nothing fails the steps of all three levels are done once, and parents get their children's results."""
    world = World()
    async with place.orchestrator(travel, world=world) as running:
        handle = await running.start(travel, "ann", id="t")
        assert await handle.result() == ["ann"] * 5
        assert world.log == ["fee", "seat", "meal", "hotel", "gift"]
        info = await handle.info()
        assert [(state.key, state.kind, state.status) for state in info.steps] == [
            ("flying", "child", "succeeded"),
            ("hotel", "step", "succeeded"),
            ("gift", "step", "succeeded"),
        ]
        child = await (await running.get("t/flying")).info()
        assert (child.id, child.saga, child.version, child.status) == ("t/flying", "flying", 3, "completed")
        assert child.result == ["ann"] * 3
        assert [state.key for state in child.steps] == ["fee", "seating"]
        grandchild = await (await running.get("t/flying/seating")).info()
        assert [state.key for state in grandchild.steps] == ["seat", "meal"]
        assert grandchild.saga == "seating"


@pytest.mark.parametrize("what", ["hotel", "gift"])
async def test_a_completed_child_is_undone_when_its_root_fails(place: Place, what: str):
    """A root that fails after its children have completed undoes their steps too, in reverse order of completion."""
    world = World().plan(what, "refused")
    async with place.orchestrator(travel, world=world) as running:
        handle = await running.start(travel, "ann", id="t")
        end = await end_of(handle, running)
        child = await (await running.get("t/flying")).info()
        grandchild = await (await running.get("t/flying/seating")).info()
    before = ("hotel",) if what == "gift" else ()
    assert end.undone == (*before, "flying/seating/meal", "flying/seating/seat", "flying/fee")
    assert world.live == {}
    assert (child.status, grandchild.status) == ("compensated", "compensated")
    assert {state.status for state in grandchild.steps} == {"compensated"}


@saga("tolerant", version=1)
async def tolerant(s: Saga, who: str) -> list[str]:
    await s.run(hotel, who)
    try:
        await s.run(flying, who)
    except SagaCompensated as gone:
        await s.run(gift, who)
        return [str(gone.saga_id), *gone.compensated, type(gone.__cause__).__name__]
    return []


@pytest.mark.parametrize("what", ["fee", "seat", "meal"])
async def test_a_child_that_fails_compensates_itself(place: Place, what: str):
    """A child that fails is undone before its parent goes on, and raises SagaCompensated there with what was undone."""
    world = World().plan(what, "refused")
    async with place.orchestrator(tolerant, world=world) as running:
        handle = await running.start(tolerant, "ann", id="t")
        end = await end_of(handle, running)
        child = await (await running.get("t/flying")).info()
    undone = ["flying/seating/seat", "flying/fee"][["meal", "seat", "fee"].index(what) :]
    assert end.status == "completed"
    assert end.value[0] == "t/flying"
    assert set(end.value[1:-1]) <= set(undone)
    assert world.kept() == ["gift", "hotel"]
    assert child.status == "compensated"
    assert child.cause == "failed"


async def test_the_roots_error_tells_of_the_childs(place: Place):
    """Where nobody catches it the root's failure is the child's SagaCompensated, caused by the step's exception."""
    world = World().plan("meal", "refused")
    async with place.orchestrator(travel, world=world) as running:
        handle = await running.start(travel, "ann", id="t")
        with pytest.raises(SagaCompensated) as gone:
            await handle.result()
    assert isinstance(gone.value.__cause__, SagaCompensated)
    chain: list[type] = []
    link: BaseException | None = gone.value
    while link is not None:
        chain.append(type(link))
        link = link.__cause__
    assert chain[-1] is Refused
    assert world.live == {}


@pytest.mark.parametrize("verb", ["retry", "skip"])
async def test_a_root_with_a_stuck_grandchild_is_stuck(place: Place, verb: str):
    """A grandchild's compensation that is given up makes the root stuck, by its full key, and is mended there."""
    world = World().plan("meal", "refused").plan("undo seat", "broken", "ok")
    async with place.orchestrator(travel, world=world) as running:
        handle = await running.start(travel, "ann", id="t")
        stuck = await end_of(handle, running)
        assert (stuck.status, stuck.error[1]) == ("stuck", ("flying/seating/seat",))
        assert "flying/seating/seat" in stuck.error[0]
        assert (await (await running.get("t/flying/seating")).info()).status == "stuck"
        await getattr(running, verb)("t/flying/seating", "seat", actor="mia")
        end = await end_of(handle, running)
    assert end.status == {"retry": "compensated", "skip": "resolved"}[verb]
    assert world.kept() == ([] if verb == "retry" else ["seat"])


async def test_a_child_cannot_be_ended_by_itself(place: Place):
    """Verbs that end a saga are refused for a child: it ends with its root. An unknown child is not found."""
    world = World()
    gate = world.gate("meal")
    async with place.orchestrator(travel, world=world) as running:
        handle = await running.start(travel, "ann", id="t")
        await entered(gate, running)
        for verb in (running.cancel, running.kill, running.pause, running.rollback):
            with pytest.raises(WrongState, match="t"):
                await verb("t/flying")
        with pytest.raises(SagaNotFound):
            await running.info("t/nowhere")
        gate.opened.set()
        assert (await end_of(handle, running)).status == "completed"
    assert len(world.live) == 5


@pytest.mark.parametrize("what", ["fee", "seat", "meal", "hotel"])
async def test_a_crash_within_any_level_is_gone_on_with(place: Place, what: str):
    """A process that dies within the root or a child is gone on with, under the same keys."""
    world = World().plan("gift", "refused")
    gate = world.gate(what)
    async with place.dying(travel, world=world) as running:
        await running.start(travel, "ann", id="t")
        await entered(gate, running)
    world.gates.clear()
    async with place.orchestrator(travel, world=world) as running:
        end = await end_of(await running.get("t"), running)
    assert end.undone == ("hotel", "flying/seating/meal", "flying/seating/seat", "flying/fee")
    assert world.live == {}
    assert len({info.idempotency_key for info in world.calls if info.what == what}) == 1


async def test_two_children_of_one_saga_keep_apart(place: Place):
    """The same child run twice has two keys; each occurrence is undone with its own element."""

    @saga("twice", version=1)
    async def twice(s: Saga) -> None:
        await s.run(seating, "ann")
        await s.run(seating, "bob")
        await s.run(hotel, "both")

    world = World().plan("hotel", "broken")
    async with place.orchestrator(twice, world=world) as running:
        handle = await running.start(twice, id="t")
        end = await end_of(handle, running)
        second = await (await running.get("t/seating#2")).info()
    assert end.error[0] is Broken
    assert end.undone == ("seating#2/meal", "seating#2/seat", "seating/meal", "seating/seat")
    assert world.taken_back == ["bob", "bob", "ann", "ann"]
    assert second.input == {"who": "bob"} or list(second.input.values()) == ["bob"]


pay = point_of_no_return("pay")


@saga("paying", version=1)
async def paying(s: Saga, who: str) -> str:
    await s.run(meal, who)
    return await s.run(pay, who)


@saga("buying", version=1)
async def buying(s: Saga, who: str) -> str:
    await s.run(seat, who)
    return await s.run(paying, who)


@pytest.mark.parametrize("does", ["ok", "refused"])
async def test_a_pivot_in_a_child_is_the_pivot_of_the_tree(place: Place, does: str):
    """A pivot within a child takes the whole tree past its point of no return, or back where it is refused."""
    world = World().plan("pay", does)
    async with place.orchestrator(buying, world=world) as running:
        end = await end_of(await running.start(buying, "ann"), running)
    assert end.status == ("completed" if does == "ok" else "compensated")
    assert world.kept() == (["meal", "pay", "seat"] if does == "ok" else [])


async def test_children_in_parallel(place: Place):
    """Children run at the same time; where one fails both are undone, and each child's info tells so."""

    @saga("both", version=1)
    async def both(s: Saga) -> list[list[str]]:
        async with s.parallel() as p:
            one, other = p.run(seating, "ann"), p.run(flying, "bob")
        return [one.result(), other.result()]

    world = World()
    async with place.orchestrator(both, world=world) as running:
        assert await (await running.start(both)).result() == [["ann"] * 2, ["bob"] * 3]
        world.plan("fee", "refused")
        handle = await running.start(both, id="again")
        end = await end_of(handle, running)
        assert end.status == "compensated"
        assert len(world.live) == 5
        assert (await (await running.get("again/flying")).info()).status == "compensated"


@pytest.mark.parametrize("does", ["ok", "refused"])
async def test_a_childs_handle_gives_the_childs_result(place: Place, does: str):
    """A child's handle gives its own result once that is final, which it is when its root has ended."""
    async with place.orchestrator(travel, world=World().plan("gift", does)) as running:
        root = await running.start(travel, "ann", id="t")
        await end_of(root, running)
        handle = await running.get("t/flying/seating")
        assert handle.id == "t/flying/seating"
        keys = {entry.key for entry in await handle.history()}
        assert {"flying/seating/seat", "flying/seating/meal"} <= keys
        assert "hotel" not in keys
        if does == "ok":
            assert await handle.result(timeout=1) == ["ann", "ann"]
        else:
            with pytest.raises(SagaCompensated):
                await handle.result(timeout=1)
