"""An operator mends what is stuck: each kind of trouble, each verb that ends it, also in another process."""

import asyncio
import contextlib
from typing import Any

import pytest

from sagas import (
    PayloadError,
    Retry,
    Saga,
    SagaCompensated,
    SagaDef,
    SagaKilled,
    SagaStuck,
    WrongState,
    resource,
    saga,
)
from tests.behaviour.verbs.orders import after, before, held, plain, sell, sleeping
from tests.kit import BodyFailed, Place, World, end_of, entered, party, reaches, until


def order(name: str, settled_by: str) -> SagaDef[[], str]:
    """As ``plain``, with a step that settles its own unknown outcomes."""
    settled = party("held", settled_by=settled_by)

    @saga(name, version=1)
    async def body(s: Saga) -> str:
        await s.run(before, "b")
        await s.run(settled, "h")
        await s.run(after, "a")
        return "done"

    return body


fenced_one, probed_one = order("fenced", "undo"), order("probed", "probe")


# -- an unknown outcome ------------------------------------------------------------------------------------------------


async def test_retry_of_an_unknown_outcome_attempts_it_again(place: Place):
    """Retry attempts the step again under its own key; a party that keeps the key answers, and has done it once."""
    world = World().plan("held", "silent", "ok")
    async with place.orchestrator(plain, world=world) as running:
        handle = await running.start(plain, id="o")
        await reaches(handle, running, "stuck")
        await running.retry("o", "held", actor="mia")
        assert await handle.result() == "done"
    assert world.log == ["before", "held", "after"]
    assert len({info.idempotency_key for info in world.calls if info.what == "held"}) == 1
    assert world.count("held") == 2


@pytest.mark.parametrize("what", ["held", "undo held"])
async def test_retry_gives_a_fresh_policy(place: Place, what: str):
    """A step or compensation of two attempts that was given up has two more after retry; if these fail it is stuck."""
    twice = Retry(attempts=2, first=0, jitter=False)
    shaky = party("held", retry=twice, undo_retry=twice)

    @saga("shaky", version=1)
    async def body(s: Saga) -> None:
        await s.run(shaky, "h")
        if what == "undo held":
            raise BodyFailed

    world = World().plan(what, "lost", "lost", "lost", "lost", "lost", "ok")
    async with place.orchestrator(body, world=world) as running:
        handle = await running.start(body, id="o")
        for attempts in (2, 4):
            assert (await end_of(handle, running)).status == "stuck"
            assert world.count(what) == attempts
            await running.retry("o")
        assert (await end_of(handle, running)).status == ("completed" if what == "held" else "compensated")
    assert world.count(what) == 6


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize("ending", ["rolls back", "completes"])
async def test_resolve_settles_an_unknown(place: Place, ending: str, *, happened: bool):
    """`resolve`: the step has succeeded with that result, or never happened; a rollback after it is `resolved`."""

    @saga("lost", version=1)
    async def body(s: Saga) -> str:
        await s.run(before, "b")
        try:
            got = await s.run(held, "h")
        except TimeoutError:
            got = "lost"
        if ending == "rolls back":
            raise BodyFailed
        return got

    world = World().plan("held", "silent" if happened else "lost")
    async with place.orchestrator(body, world=world) as running:
        handle = await running.start(body, id="o")
        assert (await end_of(handle, running)).error[1] == ("held",)
        await running.resolve("o", "held", happened=happened, result="h" if happened else None, actor="ann")
        end = await end_of(handle, running)
    if ending == "completes":
        assert (end.status, end.value) == ("completed", "h" if happened else "lost")
    else:
        assert (end.status, end.undone) == ("resolved", ("held", "before") if happened else ("before",))
        assert world.live == {}


@saga("two-dead", version=1)
async def two_dead(s: Saga) -> None:
    await s.run(before, "b")
    await s.run(held, "h")
    await s.run(after, "a")
    raise BodyFailed("why")


async def test_two_dead_compensations_are_mended_one_by_one(place: Place):
    """`skip(id, step)` counts one as done, `retry(id, step)` tries another; then the saga is `resolved`."""
    world = World().plan("undo before", "broken", "ok").plan("undo after", "broken")
    async with place.orchestrator(two_dead, world=world) as running:
        handle = await running.start(two_dead, id="d")
        assert set((await end_of(handle, running)).error[1]) == {"after", "before"}
        await running.skip("d", "after", actor="ann", note="by hand")
        assert (await end_of(handle, running)).error[1] == ("before",)
        await running.retry("d", "before", actor="bob", note="mended")
        with pytest.raises(SagaCompensated) as caught:
            await handle.result()
        info = await handle.info()
        said = [(entry.actor, entry.note) for entry in await handle.history() if entry.actor]
    assert (caught.value.status, info.status, info.cause) == ("resolved", "resolved", "failed")
    assert caught.value.__cause__.args == ("why",)  # type: ignore[union-attr]
    assert (list(caught.value.skipped), set(caught.value.compensated)) == (["after"], {"held", "before"})
    assert {state.key: state.status for state in info.steps} == {
        "before": "compensated",
        "held": "compensated",
        "after": "skipped",
    }
    assert said == [("ann", "by hand"), ("bob", "mended")]
    assert world.log == ["before", "held", "after", "undo held", "undo before"]


async def test_a_retry_without_a_step_retries_all_it_is_stuck_on(place: Place):
    """`retry(id, step=None)`: whatever it is stuck on; nothing was skipped, so it ends `compensated`."""
    world = World().plan("undo before", "broken", "ok").plan("undo after", "broken", "ok")
    async with place.orchestrator(two_dead, world=world) as running:
        handle = await running.start(two_dead, id="d")
        assert (await end_of(handle, running)).status == "stuck"
        await running.retry("d")
        assert (await end_of(handle, running)).status == "compensated"
    assert world.live == {}


async def test_a_result_of_the_wrong_type_settles_nothing(place: Place):
    """A result that the step could not have returned is refused and leaves the saga stuck; a right one mends it."""
    world = World().plan("held", "silent")
    async with place.orchestrator(plain, world=world) as running:
        handle = await running.start(plain, id="o")
        await reaches(handle, running, "stuck")
        with contextlib.suppress(PayloadError):  # at once, where this process knows the step's type
            await running.resolve("o", "held", happened=True, result=["no", "text"])
        await reaches(handle, running, "stuck")
        assert "after" not in world.log
        await running.resolve("o", "held", happened=True, result="h")
        assert await handle.result() == "done"


@pytest.mark.parametrize("happened", [True, False])
async def test_a_probe_that_is_given_up_leaves_it_to_a_person(place: Place, happened: bool):  # noqa: FBT001
    """Where the probe itself fails the saga is stuck; retry asks the probe again, resolve settles without it."""
    dead = {"probe": True}
    blind = party("held")

    @blind.probe(retry=1)
    async def probe(about: str, *, world: World = resource()) -> str | None:
        if dead["probe"]:
            raise RuntimeError("the probe is down")
        return about if world.known() else None

    @saga("blind", version=1)
    async def body(s: Saga) -> str:
        await s.run(before, "b")
        return await s.run(blind, "h")

    world = World().plan("held", "silent" if happened else "lost")
    async with place.orchestrator(body, world=world) as running:
        for name, mend in (("asked again", "retry"), ("told", "resolve")):
            dead["probe"] = True
            handle = await running.start(body, id=name)
            with pytest.raises(SagaStuck, match="the probe is down") as stuck:
                await handle.result()
            assert stuck.value.steps == ("held",)
            dead["probe"] = False
            if mend == "retry":
                await running.retry(name)
            else:
                await running.resolve(name, "held", happened=happened, result="h")
            end = await end_of(handle, running)
            assert (end.status == "completed") is happened
    assert world.kept() == (["before", "before", "held", "held"] if happened else [])


# -- kill, and rollback after it ---------------------------------------------------------------------------------------


async def test_kill_undoes_nothing_and_fences_what_is_in_flight(place: Place):
    """A killed saga keeps its effects; what was in flight may still happen, and is kept as evidence only."""
    world = World()
    gate = world.gate("held")
    async with place.orchestrator(plain, world=world) as running:
        handle = await running.start(plain, id="o")
        await entered(gate, running)
        await running.kill("o", actor="mia", note="enough")
        with pytest.raises(SagaKilled):
            await handle.result()
        gate.opened.set()

        async def noted() -> bool:
            return any(entry.kind == "noted" and entry.key == "held" for entry in await handle.history())

        await until(noted, running)
        assert (await handle.info()).status == "killed"
    assert world.log == ["before", "held"]


@pytest.mark.parametrize("definition", [plain, fenced_one, probed_one], ids=lambda definition: definition.name)
@pytest.mark.parametrize("same_process", [True, False])
async def test_rollback_of_a_saga_killed_amid_a_step(
    place: Place,
    definition: SagaDef[[], str],
    same_process: bool,  # noqa: FBT001
):
    """What was in flight at the kill is settled first (by probe, by Unknown, by a person), then all is undone."""

    async def self_rollback(running: Any, world: World) -> None:
        handle = await running.get("o")
        await running.rollback("o", actor="mia")
        await running.rollback("o")
        if definition is plain:
            stuck = await end_of(handle, running)
            assert (stuck.status, stuck.error[1]) == ("stuck", ("held",))
            assert world.kept() == ["before", "held"]
            await running.resolve("o", "held", happened=True, result="h")
            assert (await end_of(handle, running)).status == "resolved"
        else:
            assert (await end_of(handle, running)).status in ("compensated", "resolved")

    world = World()
    gate = world.gate("held")
    async with place.orchestrator(definition, world=world) as running:
        await running.start(definition, id="o")
        await entered(gate, running)
        await running.kill("o")
        gate.opened.set()

        async def there() -> bool:
            return "held" in world.kept()

        await until(there, running)
        if same_process:
            await self_rollback(running, world)
    if not same_process:
        async with place.orchestrator(definition, world=world) as running:
            await self_rollback(running, world)
    assert world.live == {}
    assert "after" not in world.log


async def helper(s: Saga) -> None:
    await s.run(before, "b")
    await s.run({"held": held}["held"], "h")


@saga("helped", version=1)
async def helped(s: Saga) -> None:
    await helper(s)
    await s.sleep(3600)


@pytest.mark.parametrize(("definition", "undone"), [(sleeping, ("before",)), (helped, ("held", "before"))])
@pytest.mark.parametrize("restart", [True, False])
async def test_rollback_of_a_saga_killed_while_it_slept(
    place: Place, definition: SagaDef[[], object], undone: tuple[str, ...], *, restart: bool
):
    """A rollback undoes what a killed saga had completed, without its body, also in another process.

    It finds steps that the body names, that a helper runs, or that data choose.
    """
    world = World()
    async with place.orchestrator(definition, world=world) as running:
        handle = await running.start(definition, id="o")
        await reaches(handle, running, "waiting")
        await running.kill("o")
        if not restart:
            await running.rollback("o")
            assert (await end_of(handle, running)).undone == undone
    if restart:
        async with place.orchestrator(definition, world=world) as running:
            await running.rollback("o")
            assert (await end_of(await running.get("o"), running)).undone == undone
    assert world.live == {}


def shelf(what: str) -> SagaDef[[], None]:
    """A saga whose step is named as that of the other shelf is."""
    books = {what: party(f"{what} book")}
    books[what].name = "book"

    @saga(f"shelf-{what}", version=1)
    async def body(s: Saga) -> None:
        await s.run(books[what], what)
        await s.sleep(3600)

    return body


async def test_a_rollback_never_takes_another_sagas_compensation(place: Place):
    """Two sagas with steps of one name, known by data alone: each is undone by its own compensation, or not at all."""
    left, right = shelf("left"), shelf("right")

    world = World()
    async with place.orchestrator(left, right, world=world) as running:
        handles = [await running.start(definition, id=definition.name) for definition in (left, right)]
        for handle in handles:
            await reaches(handle, running, "waiting")
        await running.kill("shelf-right")
        await running.rollback("shelf-right")
        assert (await end_of(handles[1], running)).status == "compensated"
    assert world.log == ["left book", "right book", "undo right book"]


@pytest.mark.parametrize("verb", ["skip", "retry"])
async def test_a_step_that_the_code_no_longer_knows(place: Place, verb: str):
    """Where the code that ran a step is gone, its rollback is stuck and says so; skip ends it, retry does not."""

    @saga("shelf-left", version=1)
    async def without(s: Saga) -> None:
        await s.sleep(3600)

    world = World()
    old = shelf("left")
    async with place.orchestrator(old, world=world) as running:
        handle = await running.start(old, id="o")
        await reaches(handle, running, "waiting")
        await running.kill("o")
    async with place.orchestrator(without, world=world) as running:
        handle = await running.get("o")
        await running.rollback("o")
        stuck = await end_of(handle, running)
        assert (stuck.status, stuck.error[1]) == ("stuck", ("book",))
        assert world.kept() == ["left book"]
        if verb == "skip":
            await running.skip("o", "book")
            assert (await end_of(handle, running)).status == "resolved"
        else:
            await running.retry("o")
            assert (await end_of(handle, running)).status == "stuck"


async def test_a_rollback_after_a_kill_amid_a_rollback(place: Place):
    """A saga killed while it was being undone is undone to the end by rollback; nothing is undone twice."""
    world = World().plan("after", "refused").plan("undo before", "broken", "ok")
    async with place.orchestrator(plain, world=world) as running:
        handle = await running.start(plain, id="o")
        assert (await end_of(handle, running)).status == "stuck"
        await running.kill("o")
        with pytest.raises(SagaKilled):
            await handle.result()
        await running.rollback("o")
        assert (await end_of(handle, running)).status == "compensated"
    assert world.log == ["before", "held", "undo held", "undo before"]
    assert world.count("undo held") == 1


async def test_a_cancel_amid_an_operators_rollback_changes_nothing(place: Place):
    """A rollback after a kill that gets stuck takes a cancel as done already, and is mended by retry."""
    world = World().plan("undo before", "broken", "ok")
    async with place.orchestrator(sleeping, world=world) as running:
        handle = await running.start(sleeping, id="o")
        await reaches(handle, running, "waiting")
        await running.kill("o")
        await running.rollback("o")
        assert (await end_of(handle, running)).status == "stuck"
        await running.cancel("o")
        await running.retry("o", "before")
        assert (await end_of(handle, running)).status == "compensated"
    assert world.live == {}


@pytest.mark.parametrize("happened", [True, False])
async def test_a_saga_killed_amid_its_pivot(place: Place, happened: bool):  # noqa: FBT001
    """Rollback of a saga killed while its pivot was in flight never undoes what came before a pivot that happened."""

    @saga("selling", version=1)
    async def selling(s: Saga) -> None:
        await s.run(before, "b")
        await s.run(sell, "s")

    world = World().plan("sell", "ok" if happened else "broken")
    gate = world.gate("sell")
    async with place.orchestrator(selling, world=world) as running:
        handle = await running.start(selling, id="o")
        await entered(gate, running)
        await running.kill("o")
        gate.opened.set()

        async def ended() -> bool:
            return not world.under_way

        await until(ended, running)
        try:
            await running.rollback("o")
        except WrongState:
            assert (await handle.info()).status == "killed"
        else:
            stuck = await end_of(handle, running)
            assert stuck.status == "stuck"
            await running.resolve("o", "sell", happened=happened, result="s")
            end = await end_of(handle, running)
            assert end.status == ("stuck" if happened else "resolved")
            assert world.kept() == (["before", "sell"] if happened else [])
    assert ("before" in world.kept()) or not happened


# -- rollback of what is stuck -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("happened", [True, False])
async def test_rollback_of_a_saga_stuck_on_an_unknown_outcome(place: Place, restart: bool, happened: bool):  # noqa: FBT001
    """Rollback settles the unknown step first (a person says), then undoes everything; retry is no way forward then."""

    async def mend(running: Any, world: World) -> None:
        handle = await running.get("o")
        await running.rollback("o")
        assert (await end_of(handle, running)).status == "stuck"
        assert "before" in world.kept()
        await running.resolve("o", "held", happened=happened, result="h")
        end = await end_of(handle, running)
        assert end.status == "resolved"
        assert end.undone == (("held", "before") if happened else ("before",))

    world = World().plan("held", "silent" if happened else "lost")
    async with place.orchestrator(plain, world=world) as running:
        await reaches(await running.start(plain, id="o"), running, "stuck")
        if not restart:
            await mend(running, world)
    if restart:
        async with place.orchestrator(plain, world=world) as running:
            await mend(running, world)
    assert world.live == {}
    assert "after" not in world.log


async def test_rollback_of_a_saga_stuck_past_no_pivot_on_its_own_fault(place: Place):
    """A saga stuck because its body broke a rule is undone by rollback though its body can go nowhere."""

    @saga("breaking", version=1)
    async def breaking(s: Saga) -> None:
        await s.run(before, "b")
        await asyncio.sleep(0)

    world = World()
    async with place.orchestrator(breaking, world=world) as running:
        handle = await running.start(breaking, id="o")
        with pytest.raises(SagaStuck, match=r"s\.sleep"):
            await handle.result()
        await running.rollback("o")
        assert (await end_of(handle, running)).undone == ("before",)
    assert world.live == {}
