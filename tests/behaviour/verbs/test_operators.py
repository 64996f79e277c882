"""An operator mends what is stuck: each kind of trouble, each verb that ends it, also in another process."""

import asyncio
import contextlib
from typing import Any

import pytest

from sagas import (
    PayloadError,
    Retry,
    Saga,
    SagaDef,
    SagaKilled,
    SagaPastPivot,
    SagaStuck,
    WrongState,
    lookup,
    resource,
    saga,
)
from tests.kit import Place, World, end_of, entered, party, play, point_of_no_return, reaches, until

before, held, after = party("before"), party("held"), party("after")
fenced = party("held", settled_by="undo")
probed = party("held", settled_by="probe")
patient = party("held", retry=Retry(attempts=2, first=0, jitter=False))
sell = point_of_no_return("sell")


@lookup
async def number() -> int:
    return 1


@saga("plain", version=1)
async def plain(s: Saga) -> str:
    await s.run(before, "b")
    await s.run(held, "h")
    await s.run(after, "a")
    return "done"


@saga("fenced", version=1)
async def fenced_one(s: Saga) -> str:
    await s.run(before, "b")
    await s.run(fenced, "h")
    await s.run(after, "a")
    return "done"


@saga("probed", version=1)
async def probed_one(s: Saga) -> str:
    await s.run(before, "b")
    await s.run(probed, "h")
    await s.run(after, "a")
    return "done"


@saga("sleeping", version=1)
async def sleeping(s: Saga) -> str:
    await s.run(before, "b")
    await s.sleep(3600)
    await s.run(after, "a")
    return "done"


# -- an unknown outcome ------------------------------------------------------------------------------------------------


def test_retry_of_an_unknown_outcome_attempts_it_again(place: Place):
    """Retry attempts the step again under its own key; a party that keeps the key answers, and has done it once."""

    async def main() -> None:
        world = World().plan("held", "silent", "ok")
        async with place.orchestrator(plain, world=world) as running:
            handle = await running.start(plain, id="o")
            await reaches(handle, running, "stuck")
            await running.retry("o", "held", actor="mia")
            assert await handle.result() == "done"
        assert world.log == ["before", "held", "after"]
        assert len({info.idempotency_key for info in world.calls if info.what == "held"}) == 1
        assert world.count("held") == 2

    play(main)


def test_retry_gives_a_fresh_policy(place: Place):
    """A step of two attempts that was given up has two more after retry; if these fail it is stuck again."""
    shaky = party("held", retry=Retry(attempts=2, first=0, jitter=False))

    @saga("shaky", version=1)
    async def body(s: Saga) -> None:
        await s.run(shaky, "h")

    async def main() -> None:
        world = World().plan("held", "lost", "lost", "lost", "lost", "lost", "ok")
        async with place.orchestrator(body, world=world) as running:
            handle = await running.start(body, id="o")
            for attempts in (2, 4):
                assert (await end_of(handle, running)).status == "stuck"
                assert world.count("held") == attempts
                await running.retry("o")
            assert (await end_of(handle, running)).status == "completed"
        assert world.count("held") == 6

    play(main)


def test_a_result_of_the_wrong_type_settles_nothing(place: Place):
    """A result that the step could not have returned is refused and leaves the saga stuck; a right one mends it."""

    async def main() -> None:
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

    play(main)


@pytest.mark.parametrize("happened", [True, False])
def test_a_probe_that_is_given_up_leaves_it_to_a_person(place: Place, happened: bool):  # noqa: FBT001
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

    async def main() -> None:
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

    play(main)


# -- kill, and rollback after it ---------------------------------------------------------------------------------------


def test_kill_undoes_nothing_and_fences_what_is_in_flight(place: Place):
    """A killed saga keeps its effects; what was in flight may still happen, and is kept as evidence only."""

    async def main() -> None:
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

    play(main)


@pytest.mark.parametrize("definition", [plain, fenced_one, probed_one], ids=lambda definition: definition.name)
@pytest.mark.parametrize("same_process", [True, False])
def test_rollback_of_a_saga_killed_amid_a_step(
    place: Place,
    definition: SagaDef[[], str],
    same_process: bool,  # noqa: FBT001
):
    """What was in flight at the kill is settled first (by probe, by Unknown, by a person), then all is undone."""

    async def main() -> None:
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

    play(main)


@pytest.mark.parametrize("restart", [True, False])
def test_rollback_of_a_saga_killed_while_it_slept(place: Place, restart: bool):  # noqa: FBT001
    """A rollback undoes what a killed saga had completed, without its body, also in another process."""

    async def main() -> None:
        world = World()
        async with place.orchestrator(sleeping, world=world) as running:
            handle = await running.start(sleeping, id="o")
            await reaches(handle, running, "waiting")
            await running.kill("o")
            if not restart:
                await running.rollback("o")
                assert (await end_of(handle, running)).undone == ("before",)
        if restart:
            async with place.orchestrator(sleeping, world=world) as running:
                await running.rollback("o")
                assert (await end_of(await running.get("o"), running)).undone == ("before",)
        assert world.live == {}

    play(main)


async def helper(s: Saga) -> None:
    await s.run(before, "b")
    await s.run({"held": held}["held"], "h")


@saga("helped", version=1)
async def helped(s: Saga) -> None:
    await helper(s)
    await s.sleep(3600)


@pytest.mark.parametrize("restart", [False, True])
def test_rollback_where_the_steps_are_named_elsewhere(place: Place, restart: bool):  # noqa: FBT001
    """A rollback after a kill finds steps that a helper runs or that data choose, also in another process."""

    async def main() -> None:
        world = World()
        async with place.orchestrator(helped, world=world) as running:
            handle = await running.start(helped, id="o")
            await reaches(handle, running, "waiting")
            await running.kill("o")
            if not restart:
                await running.rollback("o")
                assert (await end_of(handle, running)).undone == ("held", "before")
        if restart:
            async with place.orchestrator(helped, world=world) as running:
                await running.rollback("o")
                assert (await end_of(await running.get("o"), running)).undone == ("held", "before")
        assert world.live == {}

    play(main)


def shelf(what: str) -> SagaDef[[], None]:
    """A saga whose step is named as that of the other shelf is."""
    books = {what: party(f"{what} book")}
    books[what].name = "book"

    @saga(f"shelf-{what}", version=1)
    async def body(s: Saga) -> None:
        await s.run(books[what], what)
        await s.sleep(3600)

    return body


def test_a_rollback_never_takes_another_sagas_compensation(place: Place):
    """Two sagas with steps of one name, known by data alone: each is undone by its own compensation, or not at all."""
    left, right = shelf("left"), shelf("right")

    async def main() -> None:
        world = World()
        async with place.orchestrator(left, right, world=world) as running:
            handles = [await running.start(definition, id=definition.name) for definition in (left, right)]
            for handle in handles:
                await reaches(handle, running, "waiting")
            await running.kill("shelf-right")
            await running.rollback("shelf-right")
            assert (await end_of(handles[1], running)).status == "compensated"
        assert world.log == ["left book", "right book", "undo right book"]

    play(main)


@pytest.mark.parametrize("verb", ["skip", "retry"])
def test_a_step_that_the_code_no_longer_knows(place: Place, verb: str):
    """Where the code that ran a step is gone, its rollback is stuck and says so; skip ends it, retry does not."""

    @saga("shelf-left", version=1)
    async def without(s: Saga) -> None:
        await s.sleep(3600)

    async def main() -> None:
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

    play(main)


def test_a_rollback_after_a_kill_amid_a_rollback(place: Place):
    """A saga killed while it was being undone is undone to the end by rollback; nothing is undone twice."""

    async def main() -> None:
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

    play(main)


def test_a_cancel_amid_an_operators_rollback_changes_nothing(place: Place):
    """A rollback after a kill that gets stuck takes a cancel as done already, and is mended by retry."""

    async def main() -> None:
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

    play(main)


def test_a_killed_order_past_its_pivot_is_not_undone(place: Place):
    """Rollback of a saga that was killed after its pivot raises SagaPastPivot; its effects stay."""

    @saga("sold", version=1)
    async def sold(s: Saga) -> None:
        await s.run(before, "b")
        await s.run(sell, "s")
        await s.sleep(3600)

    async def main() -> None:
        world = World()
        async with place.orchestrator(sold, world=world) as running:
            handle = await running.start(sold, id="o")
            await reaches(handle, running, "waiting")
            await running.kill("o")
            with pytest.raises(SagaPastPivot):
                await running.rollback("o")
        assert world.kept() == ["before", "sell"]

    play(main)


@pytest.mark.parametrize("happened", [True, False])
def test_a_saga_killed_amid_its_pivot(place: Place, happened: bool):  # noqa: FBT001
    """Rollback of a saga killed while its pivot was in flight never undoes what came before a pivot that happened."""

    @saga("selling", version=1)
    async def selling(s: Saga) -> None:
        await s.run(before, "b")
        await s.run(sell, "s")

    async def main() -> None:
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

    play(main)


# -- rollback of what is stuck -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("happened", [True, False])
def test_rollback_of_a_saga_stuck_on_an_unknown_outcome(place: Place, restart: bool, happened: bool):  # noqa: FBT001
    """Rollback settles the unknown step first (a person says), then undoes everything; retry is no way forward then."""

    async def main() -> None:
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

    async def mend(running: Any, world: World) -> None:
        handle = await running.get("o")
        await running.rollback("o")
        assert (await end_of(handle, running)).status == "stuck"
        assert "before" in world.kept()
        await running.resolve("o", "held", happened=happened, result="h")
        end = await end_of(handle, running)
        assert end.status == "resolved"
        assert end.undone == (("held", "before") if happened else ("before",))

    play(main)


def test_rollback_of_a_saga_stuck_past_no_pivot_on_its_own_fault(place: Place):
    """A saga stuck because its body broke a rule is undone by rollback though its body can go nowhere."""

    @saga("breaking", version=1)
    async def breaking(s: Saga) -> None:
        await s.run(before, "b")
        await asyncio.sleep(0)

    async def main() -> None:
        world = World()
        async with place.orchestrator(breaking, world=world) as running:
            handle = await running.start(breaking, id="o")
            with pytest.raises(SagaStuck, match=r"s\.sleep"):
                await handle.result()
            await running.rollback("o")
            assert (await end_of(handle, running)).undone == ("before",)
        assert world.live == {}

    play(main)
