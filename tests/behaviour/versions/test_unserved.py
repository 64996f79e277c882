"""Runs that wait for a version that no worker serves: who hears of them, and what `versions` says of it."""

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest

from sagas import Orchestrator, Saga, SagaDef, SagaInfo, VersionVerdict, saga
from sagas.testing import ManualClock
from tests.kit import End, Place, World, begun, end_of, entered, party, reaches, until

first, second = party("first"), party("second")


@saga("order", version=1)
async def order_1(s: Saga, about: str) -> str:
    await s.run(first, about)
    await s.sleep(timedelta(days=30))
    await s.run(second, about)
    return "done"


@saga("order", version=2)
async def order_2(s: Saga, about: str) -> str:
    return "new"


@saga("hurried", version=1, deadline=timedelta(hours=1))
async def hurried(s: Saga, about: str) -> str:
    await s.run(first, about)
    await s.sleep(timedelta(days=30))
    return "late"


@attrs.define
class Pager:
    """Whom `on_attention` has told of, and why."""

    told: list[SagaInfo] = attrs.field(factory=list[SagaInfo])

    async def __call__(self, info: SagaInfo) -> None:
        self.told.append(info)

    @property
    def ids(self) -> list[str]:
        return [info.id for info in self.told]

    async def has(self, count: int, running: Orchestrator, clock: ManualClock) -> None:
        """Let time pass until it was called so often: when a worker notices what another process did is its own."""

        async def there() -> bool:
            await clock.advance(1)
            return len(self.told) >= count

        await until(there, running)


async def sleeping(place: Place, world: World, clock: ManualClock, definition: SagaDef[..., Any], *ids: str) -> None:
    """Have sagas fall asleep in a process that ends."""
    async with place.orchestrator(definition, world=world, clock=clock) as running:
        for id_ in ids:
            await begun(await running.start(definition, "tea", id=id_), running, "sleep")
            await reaches(await running.get(id_), running, "waiting")


async def test_a_run_that_waits_in_vain_is_told_of_once_a_grace_has_passed(place: Place):
    """Not while it sleeps, not in the first seconds, then once; list(attention=True) has it, until a worker comes."""
    world, clock, pager = World(), ManualClock(), Pager()
    await sleeping(place, world, clock, order_1, "a", "b")
    async with place.orchestrator(order_2, world=world, clock=clock, on_attention=pager) as running:
        assert await end_of(await running.start("order", "tea", id="fine"), running) == End("completed", "new")
        await clock.advance(timedelta(days=29))
        assert await running.list(attention=True) == []
        await clock.advance(timedelta(days=1))
        listed = await running.list(attention=True)
        assert [info.id for info in listed] == ["b", "a"]
        assert await running.count(attention=True) == 2
        assert await running.count(attention=True, version=2) == 0
        reason = (await running.info("a")).reason or ""
        assert "waits for version 1 of 'order', which no worker serves; start a worker" in reason
        await clock.advance(29)
        assert pager.ids == []
        await clock.advance(1)
        await pager.has(2, running, clock)
        assert sorted(pager.ids) == ["a", "b"]
        assert all("which no worker serves" in (info.reason or "") for info in pager.told)
        await clock.advance(timedelta(days=1))
        assert len(pager.told) == 2
        async with place.orchestrator(order_1, world=world, clock=clock) as other:
            assert await end_of(await other.get("a"), other) == End("completed", "done")
            assert await end_of(await other.get("b"), other) == End("completed", "done")
        assert await running.list(attention=True) == []
        assert (await running.info("a")).reason is None


async def test_a_rolling_deploy_wakes_nobody(place: Place):
    """Old workers go a little before the new ones come: the runs that fell due meanwhile are nobody's business."""
    world, clock, pager = World(), ManualClock(), Pager()
    await sleeping(place, world, clock, order_1, "a")
    async with place.orchestrator(order_2, world=world, clock=clock, on_attention=pager):
        await clock.advance(timedelta(days=30, seconds=20))
        async with place.orchestrator(order_1, order_2, world=world, clock=clock) as other:
            assert await end_of(await other.get("a"), other) == End("completed", "done")
        await clock.advance(60)
        await clock.advance(60)
        assert pager.ids == []


async def test_a_start_that_nobody_can_run_is_told_of(place: Place):
    """A saga started from where no worker has it is unserved at once, also one that was started by this process."""
    world, clock, pager = World(), ManualClock(), Pager()
    async with place.orchestrator(order_1, world=world, clock=clock):
        pass  # announced once, and gone
    async with place.orchestrator(order_2, world=world, clock=clock, on_attention=pager) as running:
        async with place.orchestrator(world=world, clock=clock, worker=False) as client:
            await client.start("order", "tea", id="other", version=1)
        await pager.has(1, running, clock)
        assert pager.ids == ["other"]
        assert await running.start("order", "tea", id="own", version=1)
        await pager.has(2, running, clock)
        assert pager.ids == ["other", "own"]


async def test_a_signal_for_a_version_that_nobody_serves_waits_with_its_run(place: Place):
    """A cancel of a sleeping saga is durable and taken up by the next worker that can; until then it needs one."""
    world, clock, pager = World(), ManualClock(), Pager()
    await sleeping(place, world, clock, order_1, "a")
    async with place.orchestrator(order_2, world=world, clock=clock, on_attention=pager) as running:
        await running.cancel("a", actor="ann")
        assert [info.id for info in await running.list(attention=True)] == ["a"]
        await pager.has(1, running, clock)
    async with place.orchestrator(order_1, world=world, clock=clock) as running:
        assert (await end_of(await running.get("a"), running)).status == "compensated"
    assert world.kept() == []


async def test_a_paused_run_waits_for_its_operator_and_not_for_a_worker(place: Place):
    """A paused saga needs nobody until somebody resumes it; then it needs a worker."""
    world, clock = World(), ManualClock()
    await sleeping(place, world, clock, order_1, "a")
    async with place.orchestrator(order_1, world=world, clock=clock) as running:
        await running.pause("a")
    async with place.orchestrator(order_2, world=world, clock=clock) as running:
        await clock.advance(timedelta(days=31))
        assert await running.list(attention=True) == []
        info = await running.info("a")
        assert (info.unserved, (info.reason or "").partition(" until ")[0]) == (False, "waits for sleep 'sleep'")
        await running.resume("a")
        (info,) = await running.list(attention=True)
        assert info.reason == (await running.info("a")).reason
        assert "which no worker serves" in (info.reason or "")


async def test_a_deadline_that_nobody_can_keep_is_named(place: Place):
    """A run past its deadline whose version nobody serves cannot be undone yet, and its reason says so."""
    world, clock = World(), ManualClock()
    await sleeping(place, world, clock, hurried, "a")
    async with place.orchestrator(order_2, world=world, clock=clock) as running:
        await clock.advance(timedelta(hours=2))
        (info,) = await running.list(attention=True)
        assert "Its deadline has passed" in (info.reason or "")
    async with place.orchestrator(hurried, world=world, clock=clock) as running:
        end = await end_of(await running.get("a"), running)
        assert (end.status, world.kept()) == ("compensated", [])


async def test_the_dead_serve_nothing(place: Place):
    """A version whose only worker was killed is unserved, also for a process that only looks."""
    world = World()
    gate = world.gate("first")
    async with place.orchestrator(world=world, worker=False) as watching:
        async with place.dying(order_1, world=world) as running:
            await running.start(order_1, "tea", id="a")
            await entered(gate, running)
            assert await watching.list(attention=True) == []
            (before,) = await watching.versions()
            assert before.verdict is VersionVerdict.IN_USE
        assert [info.id for info in await watching.list(attention=True)] == ["a"]
        (after,) = await watching.versions()
        assert (after.verdict, after.workers) == (VersionVerdict.UNSERVED, ())


# -- versions --------------------------------------------------------------------------------------------------------


async def test_versions_tell_what_is_open_and_served(place: Place):
    """Open sagas by status, ended ones, living workers, the newest, and what that comes to; narrowed to one saga."""
    world, clock = World(), ManualClock()
    await sleeping(place, world, clock, order_1, "a", "b")
    async with place.orchestrator(order_2, hurried, world=world, clock=clock) as running:
        (two, one) = await running.versions("order")
        (late,) = await running.versions("hurried")
        assert [info.saga for info in await running.versions()] == ["hurried", "order", "order"]
        assert await running.versions("none") == []
        name = running.engine.name
        assert (two.version, two.newest, two.verdict, two.workers) == (2, True, VersionVerdict.NEW, (name,))
        assert (one.version, one.newest, one.open) == (1, False, {"waiting": 2})
        assert (one.verdict, one.workers, one.ended) == (VersionVerdict.UNSERVED, (), 0)
        assert late.verdict is VersionVerdict.NEW
        assert one.announced_at is not None
        assert one.fingerprint
        assert one.fingerprint != two.fingerprint
        await end_of(await running.start("order", "tea"), running)
        async with place.orchestrator(order_1, world=world, clock=clock) as other:
            assert (await other.versions("order"))[1].verdict is VersionVerdict.IN_USE
            await other.cancel("a")
            await other.cancel("b")
            for id_ in ("a", "b"):
                await end_of(await other.get(id_), other)
        (two, one) = await running.versions("order")
        assert (two.verdict, two.ended) == (VersionVerdict.IN_USE, 1)
        assert (one.verdict, one.open, one.ended) == (VersionVerdict.CAN_BE_RETIRED, {}, 2)


# -- fingerprints ----------------------------------------------------------------------------------------------------


def changed(definition: SagaDef[..., Any], body: Callable[..., Any]) -> SagaDef[..., Any]:
    """The same name and version with another body."""
    return attrs.evolve(definition, body=body)


async def other_body(s: Saga, about: str) -> str:
    await s.run(first, about)
    await s.sleep(timedelta(days=30))
    return "shorter"


async def test_a_body_changed_under_its_version_is_warned_of_once(place: Place, caplog: pytest.LogCaptureFixture):
    """Where sagas of that version are open, the log names the saga, the version, how many, and what to do; once."""
    world, clock = World(), ManualClock()
    new = changed(order_1, other_body)
    with caplog.at_level(logging.WARNING):
        await sleeping(place, world, clock, order_1, "a", "b")
        async with place.orchestrator(order_1, world=world, clock=clock):
            pass
        assert caplog.messages == []
        async with place.orchestrator(new, world=world, clock=clock):
            pass
        (record,) = caplog.records
        assert record.name == "sagas"
        for part in ("'order' v1", "2 sagas", "a new version", "s.patched("):
            assert part in record.getMessage()
        async with place.orchestrator(new, world=world, clock=clock) as running:
            assert len(caplog.records) == 1
            for id_ in ("a", "b"):
                await running.cancel(id_)
                await end_of(await running.get(id_), running)
        async with place.orchestrator(order_1, world=world, clock=clock):
            assert len(caplog.records) == 1  # nobody can be hurt any more


async def test_a_body_changed_while_running_is_warned_of_too(place: Place, caplog: pytest.LogCaptureFixture):
    """A saga that is registered on a running orchestrator is compared as those that it began with."""
    world, clock = World(), ManualClock()
    await sleeping(place, world, clock, order_1, "a")
    async with place.orchestrator(order_2, world=world, clock=clock) as running:
        with caplog.at_level(logging.WARNING):
            running.register(changed(order_1, other_body))

            async def warned() -> bool:
                return any("'order' v1" in message for message in caplog.messages)

            await until(warned, running)
