"""An order with a point of no return, a loop whose seventh item is refused, and a fallback path after a savepoint."""

import pytest

from sagas import Retry, Saga, SagaPastPivot, SagaStuck, resource, retriable, saga
from tests.kit import Broken, Place, Refused, World, begun, end_of, entered, party, play, point_of_no_return, reaches

reserve, charge = party("reserve"), party("charge")
sell = point_of_no_return("sell")
sell_probed = point_of_no_return("sell", probed=True)


@retriable(retry=Retry.forever(first=0, jitter=False))
async def ship(about: str, *, world: World = resource()) -> str:
    await world.act("ship", about)
    return about


@retriable(retry=Retry(attempts=2, first=0, jitter=False))
async def mail(about: str, *, world: World = resource()) -> str:
    await world.act("mail", about)
    return about


@saga("order", version=1)
async def order(s: Saga, what: str) -> list[str]:
    done = [await s.run(reserve, what), await s.run(charge, what)]
    done.append(await s.run(sell, what))
    return [*done, await s.run(ship, what), await s.run(mail, what)]


@saga("order-probed", version=1)
async def order_probed(s: Saga, what: str) -> list[str]:
    done = [await s.run(reserve, what), await s.run(charge, what)]
    done.append(await s.run(sell_probed, what))
    return [*done, await s.run(ship, what), await s.run(mail, what)]


ALL = ["reserve", "charge", "sell", "ship", "mail"]


def test_an_order_goes_through(place: Place):
    """Where nothing fails each party acts once, in order."""

    async def main() -> None:
        world = World()
        async with place.orchestrator(order, world=world) as running:
            assert await (await running.start(order, "tea")).result() == ["tea"] * 5
        assert world.log == ALL

    play(main)


@pytest.mark.parametrize(("what", "does"), [(what, does) for what in ALL[:3] for does in ("refused", "broken")])
def test_what_fails_up_to_the_pivot_leaves_nothing(place: Place, what: str, does: str):
    """A failure before the pivot, or of the pivot itself, undoes everything."""

    async def main() -> None:
        world = World().plan(what, does)
        async with place.orchestrator(order, world=world) as running:
            end = await end_of(await running.start(order, "tea"), running)
        assert end.status == "compensated"
        assert world.live == {}
        assert not {"ship", "mail"} & {call.what for call in world.calls}

    play(main)


@pytest.mark.parametrize("does", ["broken", "lost", "silent"])
def test_after_the_pivot_the_order_goes_forward(place: Place, does: str):
    """A retriable is tried until it succeeds; its effect is there once, and nothing is undone."""

    async def main() -> None:
        world = World().plan("ship", *[does] * 5, "ok")
        async with place.orchestrator(order, world=world) as running:
            end = await end_of(await running.start(order, "tea"), running)
        assert end.status == "completed"
        assert world.log == ALL
        assert world.count("ship") == 6

    play(main)


def test_a_retriable_that_is_given_up_is_stuck_and_retried(place: Place):
    """A retriable with an end of patience makes the order stuck; retry attempts it again, and cancel is too late."""

    async def main() -> None:
        world = World().plan("mail", "broken", "broken", "ok")
        async with place.orchestrator(order, world=world) as running:
            handle = await running.start(order, "tea", id="o")
            with pytest.raises(SagaStuck) as stuck:
                await handle.result()
            assert stuck.value.steps == ("mail",)
            for verb in (running.cancel, running.rollback):
                with pytest.raises(SagaPastPivot):
                    await verb("o")
            await running.retry("o", "mail")
            assert (await end_of(handle, running)).status == "completed"
        assert world.log == ALL
        assert world.count("ship") == 1

    play(main)


@pytest.mark.parametrize("does", ["lost", "silent"])
def test_a_probe_settles_the_pivot(place: Place, does: str):
    """Without an answer from the pivot the probe tells: forward where it happened, back where it did not."""

    async def main() -> None:
        world = World().plan("sell", does)
        async with place.orchestrator(order_probed, world=world) as running:
            end = await end_of(await running.start(order_probed, "tea"), running)
        assert end.status == ("completed" if does == "silent" else "compensated")
        assert world.kept() == (sorted(ALL) if does == "silent" else [])

    play(main)


@pytest.mark.parametrize(("does", "happened"), [("lost", False), ("silent", True)])
def test_a_person_settles_the_pivot(place: Place, does: str, happened: bool):  # noqa: FBT001
    """A pivot without a probe and without an answer is stuck; the person's word sends the order forward or back."""

    async def main() -> None:
        world = World().plan("sell", does)
        async with place.orchestrator(order, world=world) as running:
            handle = await running.start(order, "tea", id="o")
            await reaches(handle, running, "stuck")
            await running.resolve("o", "sell", happened=happened, result="tea")
            end = await end_of(handle, running)
        assert end.status == ("completed" if happened else "resolved")
        assert world.kept() == (sorted(ALL) if happened else [])

    play(main)


@pytest.mark.parametrize("what", ALL)
def test_an_order_outlives_a_crash_in_each_step(place: Place, what: str):
    """A process that dies in any step, also in the pivot and after it, is gone on with to the same end."""

    async def main() -> None:
        world = World()
        gate = world.gate(what)
        async with place.dying(order, world=world) as running:
            await running.start(order, "tea", id="o")
            await entered(gate, running)
        world.gates.clear()
        async with place.orchestrator(order, world=world) as running:
            end = await end_of(await running.get("o"), running)
        assert (end.status, end.value) == ("completed", ["tea"] * 5)
        assert world.log == ALL

    play(main)


# -- a loop -----------------------------------------------------------------------------------------------------------

pick = party("pick")


@saga("pick-all", version=1)
async def pick_all(s: Saga, items: list[str]) -> list[str]:
    return [await s.run(pick, item) for item in items]


ITEMS = [f"item {number}" for number in range(1, 11)]


def test_the_seventh_of_ten_items_is_refused(place: Place):
    """A loop whose seventh of ten items is refused takes back the six before it, each with its own element."""

    async def main() -> None:
        world = World().plan("pick", *["ok"] * 6, "refused", "ok")
        async with place.orchestrator(pick_all, world=world) as running:
            handle = await running.start(pick_all, ITEMS, id="p")
            end = await end_of(handle, running)
            states = {state.key: state.status for state in (await handle.info()).steps}
        assert end.status == "compensated"
        assert end.undone == ("pick#6", "pick#5", "pick#4", "pick#3", "pick#2", "pick")
        assert world.taken_back == ITEMS[5::-1]
        assert world.live == {}
        assert world.count("pick") == 7
        assert states == {
            "pick": "compensated",
            **{f"pick#{number}": "compensated" for number in range(2, 7)},
            "pick#7": "rejected",
        }

    play(main)


def test_ten_items_are_picked(place: Place):
    """Where none is refused all ten are picked, each under a key of its own."""

    async def main() -> None:
        world = World()
        async with place.orchestrator(pick_all, world=world) as running:
            assert await (await running.start(pick_all, ITEMS)).result() == ITEMS
        assert [effect.about for effect in world.live.values()] == ITEMS

    play(main)


# -- a fallback -------------------------------------------------------------------------------------------------------

pack, fast, slow = party("pack"), party("fast"), party("slow")
label_it = party("label")


@saga("deliver", version=1)
async def deliver(s: Saga, what: str) -> str:
    await s.run(pack, what)
    try:
        async with s.savepoint("courier"):
            await s.run(label_it, what)
            return await s.run(fast, what)
    except (Refused, Broken):
        return f"slow {await s.run(slow, what)}"


@pytest.mark.parametrize("does", ["refused", "broken"])
def test_the_fallback_is_taken_after_its_savepoint_is_undone(place: Place, does: str):
    """Where the first courier fails its label is undone, then the other is booked; the parcel stays packed."""

    async def main() -> None:
        world = World().plan("fast", does)
        async with place.orchestrator(deliver, world=world) as running:
            end = await end_of(await running.start(deliver, "tea"), running)
        assert (end.status, end.value) == ("completed", "slow tea")
        assert world.log == ["pack", "label", "undo label", "slow"]
        assert world.kept() == ["pack", "slow"]

    play(main)


def test_without_trouble_the_savepoint_stands(place: Place):
    """A savepoint that is left without an exception keeps what was done in it."""

    async def main() -> None:
        world = World()
        async with place.orchestrator(deliver, world=world) as running:
            end = await end_of(await running.start(deliver, "tea"), running)
        assert (end.status, end.value) == ("completed", "tea")
        assert world.kept() == ["fast", "label", "pack"]

    play(main)


def test_both_couriers_fail(place: Place):
    """Where the fallback fails as well everything is undone, and what the savepoint undid is not undone again."""

    async def main() -> None:
        world = World().plan("fast", "refused").plan("slow", "refused")
        async with place.orchestrator(deliver, world=world) as running:
            end = await end_of(await running.start(deliver, "tea"), running)
        assert end.status == "compensated"
        assert world.log == ["pack", "label", "undo label", "undo pack"]
        assert world.count("undo label") == 1

    play(main)


@pytest.mark.parametrize("verb", ["retry", "skip"])
def test_a_savepoint_whose_undo_is_given_up_is_stuck_there(place: Place, verb: str):
    """The body goes on only when the savepoint's undo is mended; then it takes the fallback."""

    async def main() -> None:
        world = World().plan("fast", "refused").plan("undo label", "broken", "ok")
        async with place.orchestrator(deliver, world=world) as running:
            handle = await running.start(deliver, "tea", id="d")
            stuck = await end_of(handle, running)
            assert (stuck.status, stuck.error[1]) == ("stuck", ("courier/label",))
            assert "slow" not in world.kept()
            await getattr(running, verb)("d", "courier/label", note="mended")
            end = await end_of(handle, running)
        assert (end.status, end.value) == ("completed", "slow tea")
        assert world.kept() == (["pack", "slow"] if verb == "retry" else ["label", "pack", "slow"])

    play(main)


def test_a_fallback_outlives_a_crash_in_the_savepoints_undo(place: Place):
    """A process that dies while the savepoint is undone is gone on with: undone once, then the fallback."""

    async def main() -> None:
        world = World().plan("fast", "refused")
        gate = world.gate("undo label")
        async with place.dying(deliver, world=world) as running:
            await running.start(deliver, "tea", id="d")
            await entered(gate, running)
        world.gates.clear()
        async with place.orchestrator(deliver, world=world) as running:
            end = await end_of(await running.get("d"), running)
        assert (end.status, end.value) == ("completed", "slow tea")
        assert world.log == ["pack", "label", "undo label", "slow"]
        assert world.count("fast") == 1

    play(main)


# -- compensations that fail -------------------------------------------------------------------------------------------

first, second, third = party("first"), party("second"), party("third")
never = party("never")


@saga("three", version=1)
async def three(s: Saga, what: str) -> str:
    for declared in (first, second, third, never):
        await s.run(declared, what)
    return what


@saga("three-halting", version=1, on_compensation_failure="halt")
async def three_halting(s: Saga, what: str) -> str:
    for declared in (first, second, third, never):
        await s.run(declared, what)
    return what


def doomed(*broken: str) -> World:
    """The last step is refused; these compensations fail once."""
    world = World().plan("never", "refused")
    for what in broken:
        world.plan(f"undo {what}", "broken", "ok")
    return world


@pytest.mark.parametrize("verbs", [("retry", "retry"), ("skip", "skip"), ("retry", "skip"), ("retry all",)])
def test_two_dead_compensations_are_both_named_and_mended(place: Place, verbs: tuple[str, ...]):
    """Two compensations given up leave the third running; both are named, and each is retried or skipped by itself."""

    async def main() -> None:
        world = doomed("first", "third")
        async with place.orchestrator(three, world=world) as running:
            handle = await running.start(three, "x", id="t")
            with pytest.raises(SagaStuck) as stuck:
                await handle.result()
            assert set(stuck.value.steps) == {"first", "third"}
            assert all(repr(name) in stuck.value.reason for name in ("first", "third"))
            assert world.kept() == ["first", "third"]
            assert [info.id for info in await running.list(attention=True)] == ["t"]
            if verbs == ("retry all",):
                await running.retry("t")
            else:
                await getattr(running, verbs[0])("t", "third")
                await reaches(handle, running, "stuck")
                await begun(handle, running, "third", "compensated", "skipped")
                with pytest.raises(SagaStuck) as still:
                    await handle.result()
                assert still.value.steps == ("first",)
                await getattr(running, verbs[1])("t", "first")
            end = await end_of(handle, running)
            info = await handle.info()
            assert await running.list(attention=True) == []
        skipped = {step for step, verb in zip(("third", "first"), verbs, strict=False) if verb == "skip"}
        assert set(world.kept()) == skipped
        assert end.status == ("resolved" if skipped else "compensated")
        assert {state.key for state in info.steps if state.status == "skipped"} == skipped
        assert world.count("undo second") == 1

    play(main)


def test_halt_stops_at_the_first_dead_compensation(place: Place):
    """With on_compensation_failure="halt" nothing further is undone until the dead one is mended."""

    async def main() -> None:
        world = doomed("third")
        async with place.orchestrator(three_halting, world=world) as running:
            handle = await running.start(three_halting, "x", id="t")
            assert (await end_of(handle, running)).error[1] == ("third",)
            assert world.kept() == ["first", "second", "third"]
            assert world.count("undo second") == 0
            await running.retry("t", "third")
            end = await end_of(handle, running)
        assert (end.status, end.undone) == ("compensated", ("third", "second", "first"))
        assert world.live == {}

    play(main)


def test_a_dead_compensation_outlives_a_restart(place: Place):
    """A saga stuck on a compensation is stuck after a restart too, runs nothing, and is mended by the new process."""

    async def main() -> None:
        world = doomed("second")
        async with place.orchestrator(three, world=world) as running:
            await end_of(await running.start(three, "x", id="t"), running)
        calls = len(world.calls)
        async with place.orchestrator(three, world=world) as running:
            handle = await running.get("t")
            assert (await end_of(handle, running)).status == "stuck"
            assert len(world.calls) == calls
            await running.retry("t")
            assert (await end_of(handle, running)).status == "compensated"
        assert world.live == {}

    play(main)


def test_a_compensation_is_retried_by_its_own_policy(place: Place):
    """A compensation that fails twice under a policy of three attempts is no trouble, and takes effect once."""
    patient = party("patient", undo_retry=Retry(attempts=3, first=0, jitter=False))

    @saga("patient", version=1)
    async def body(s: Saga, what: str) -> None:
        await s.run(patient, what)
        await s.run(never, what)

    async def main() -> None:
        world = World().plan("never", "refused").plan("undo patient", "broken", "broken", "ok")
        async with place.orchestrator(body, world=world) as running:
            assert (await end_of(await running.start(body, "x"), running)).status == "compensated"
        assert world.log == ["patient", "undo patient"]
        assert world.count("undo patient") == 3

    play(main)
