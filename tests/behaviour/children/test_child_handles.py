"""The handle of a child saga: how it stands and why it was undone, whoever undid it."""

from collections.abc import Sequence

import pytest

from sagas import Saga, SagaCompensated, SagaInfo, SagaStatus, saga
from tests.kit import BodyFailed, Broken, Gate, Place, Refused, World, end_of, entered, party

seat, meal, hotel = party("seat"), party("meal"), party("hotel")


@saga("seating", version=1)
async def seating(s: Saga, who: str) -> str:
    await s.run(seat, who)
    await s.run(meal, who)
    if who == "nobody":
        raise BodyFailed("there is nobody to seat")
    return who


@saga("flying", version=1)
async def flying(s: Saga, who: str) -> str:
    return await s.run(seating, who)


@saga("careful", version=1)
async def careful(s: Saga, who: str) -> str:
    """Goes on without the child that has failed."""
    try:
        return await s.run(flying, who)
    except SagaCompensated:
        return "went by train"


@saga("travel", version=1)
async def travel(s: Saga, who: str) -> str:
    await s.run(flying, who)
    return await s.run(hotel, who)


@saga("saved", version=1)
async def saved(s: Saga, who: str) -> str:
    """Undoes the child by a savepoint, and goes on."""
    try:
        async with s.savepoint("there"):
            await s.run(seating, who)
            await s.run(hotel, who)
    except (Broken, Refused):
        return "stayed at home"
    return who


async def outcome_of(place: Place, world: World, what: object, who: str, child: str) -> tuple[SagaInfo, Exception]:
    """Run the saga to its end: the child's info then, and what its handle's ``result()`` raises."""
    async with place.orchestrator(what, world=world) as running:  # type: ignore[arg-type]
        await end_of(await running.start(what, who, id="t"), running)  # type: ignore[call-overload]
        handle = await running.get(f"t/{child}")
        with pytest.raises(SagaCompensated) as raised:
            await handle.result()
        assert await handle.status() == SagaStatus.COMPENSATED
        return await handle.info(), raised.value


CASES = [
    pytest.param(careful, "ann", ("meal", "refused"), "flying/seating", Refused, ["seat"], id="its step was rejected"),
    pytest.param(careful, "ann", ("meal", "broken"), "flying/seating", Broken, ["seat"], id="its step failed"),
    pytest.param(careful, "nobody", None, "flying/seating", BodyFailed, ["meal", "seat"], id="its body raised"),
    pytest.param(travel, "ann", ("hotel", "refused"), "flying/seating", Refused, ["meal", "seat"], id="its root did"),
    pytest.param(saved, "ann", ("hotel", "broken"), "there/seating", Broken, ["meal", "seat"], id="a savepoint did"),
]


@pytest.mark.parametrize(("what", "who", "plan", "child", "error", "undone"), CASES)
async def test_a_childs_handle_tells_the_users_exception(
    place: Place,
    *,
    what: object,
    who: str,
    plan: tuple[str, str] | None,
    child: str,
    error: type[Exception],
    undone: Sequence[str],
):
    """`result()` raises SagaCompensated whose `__cause__` is the exception for which the child was undone.

    So it is whoever undid the child: itself, its root, or a savepoint around it. `info().error` is the same exception,
    and `compensated` holds the child's own step keys in the order in which they were undone.
    """
    world = World() if plan is None else World().plan(*plan)
    info, raised = await outcome_of(place, world, what, who, child)
    assert isinstance(raised, SagaCompensated)
    assert type(raised.__cause__) is error
    assert (type(info.error), info.status, info.cause) == (error, SagaStatus.COMPENSATED, "failed")
    assert raised.compensated == undone
    assert (raised.saga_id, raised.cause, raised.status) == (f"t/{child}", "failed", "compensated")
    assert error.__name__ in str(raised)


async def test_a_child_that_failed_with_its_own_child_tells_the_chain(place: Place):
    """What left the body of `flying` is the SagaCompensated of its child, whose `__cause__` is the step's exception."""
    info, raised = await outcome_of(place, World().plan("meal", "refused"), careful, "ann", "flying")
    assert isinstance(raised.__cause__, SagaCompensated)
    assert isinstance(raised.__cause__.__cause__, Refused)
    assert isinstance(info.error, SagaCompensated)
    state = next(state for state in info.steps if state.kind == "child")
    assert state.status == "compensated"
    assert "Refused" in (state.error or "")


async def test_a_child_that_was_cancelled_with_its_root_has_no_error(place: Place):
    """A cancel is no exception: `__cause__` and `info().error` are None, and the cause is `cancelled`."""
    world = World()
    gate: Gate = world.gate("hotel")
    async with place.orchestrator(travel, world=world) as running:
        root = await running.start(travel, "ann", id="t")
        await entered(gate, running)
        await root.cancel()
        gate.opened.set()
        await end_of(root, running)
        handle = await running.get("t/flying/seating")
        with pytest.raises(SagaCompensated) as raised:
            await handle.result()
        assert (raised.value.cause, raised.value.__cause__) == ("cancelled", None)
        assert (await handle.info()).error is None


async def test_a_child_that_is_being_undone_by_itself_is_compensating(place: Place):
    """While a child undoes what it did, its status is `compensating` and its error is known; its root still runs."""
    world = World().plan("meal", "refused")
    gate = world.gate("undo seat")
    async with place.orchestrator(careful, world=world) as running:
        root = await running.start(careful, "ann", id="t")
        await entered(gate, running)
        child = await running.get("t/flying/seating")
        assert await child.status() == SagaStatus.COMPENSATING
        info = await child.info()
        assert (info.status, type(info.error)) == (SagaStatus.COMPENSATING, Refused)
        assert await root.status() == SagaStatus.RUNNING
        gate.opened.set()
        assert (await end_of(root, running)).value == "went by train"


async def test_the_status_alone_is_that_of_the_whole_info(place: Place):
    """`status()` says what `info().status` says, of a root and of its children, before, within and after the run."""
    world = World()
    gate = world.gate("hotel")
    async with place.orchestrator(travel, world=world) as running:
        root = await running.start(travel, "ann", id="t")
        await entered(gate, running)
        seen: list[tuple[str, str]] = []
        for id in ("t", "t/flying", "t/flying/seating"):
            handle = await running.get(id)
            seen.append((id, await handle.status()))
            assert await handle.status() == (await handle.info()).status
        assert seen == [("t", "running"), ("t/flying", "completed"), ("t/flying/seating", "completed")]
        gate.opened.set()
        await root.result()
        assert await root.status() is SagaStatus.COMPLETED


async def test_the_status_of_a_root_costs_one_row(place: Place, monkeypatch: pytest.MonkeyPatch):
    """`status()` loads no journal, however long it is; `info()` does."""
    async with place.orchestrator(travel, world=World()) as running:
        root = await running.start(travel, "ann", id="t")
        await root.result()
        loaded: list[Sequence[int]] = []
        load = running.engine.store.journal.load

        async def counted(nums: Sequence[int]) -> object:
            loaded.append(nums)
            return await load(nums)

        monkeypatch.setattr(running.engine.store.journal, "load", counted)
        assert await root.status() is SagaStatus.COMPLETED
        assert loaded == []
        await root.info()
        assert len(loaded) == 1
