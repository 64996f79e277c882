"""The client: starting, tokens and answers, what is refused before anything starts, and what Temporal has itself."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from sagas import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackNotFound,
    DefinitionError,
    PayloadError,
    Retry,
    Saga,
    SagaCompensated,
    SagaExists,
    SagaNotFound,
    StoreError,
    Unsupported,
    lookup,
    resource,
    saga,
    step,
)
from tests.hosts import scenes
from tests.hosts.stage import Stage
from tests.hosts.temporal.stage import QUEUE, needs_temporal, on_temporal
from tests.kit import World, begun, reaches, until, within

pytestmark = needs_temporal
Scene = Callable[[Stage], Coroutine[Any, Any, None]]


def on_stage(folder: Path, scene: Scene, *sagas: Any, **options: Any) -> None:
    """Play a scene on Temporal."""

    async def main() -> None:
        async with on_temporal(folder, *sagas, **options) as stage:
            await within(scene(stage))

    asyncio.run(main())


def test_the_same_id_again(tmp_path: Path):
    """The same saga and input gives the one that is there, also after its end; other input is refused."""

    async def scene(stage: Stage) -> None:
        first = await stage.client.start(scenes.trip, "ann", id="one")
        again = await stage.client.start(scenes.trip, "ann", id="one")
        assert first.id == again.id == "one"
        await first.result()
        assert await (await stage.client.start("trip", "ann", id="one")).result() == ["ann"] * 4
        for other, who in ((scenes.trip, "bob"), (scenes.asks, "ann")):
            with pytest.raises(SagaExists):
                await stage.client.start(other, who, id="one")
        assert stage.world.log == ["car", "hotel", "bus", "flight"]

    on_stage(tmp_path, scene, scenes.trip, scenes.asks)


def test_what_is_refused_before_anything_starts(tmp_path: Path):
    """An id that cannot be used, arguments that do not fit or are too large, and a saga that nobody knows."""

    async def scene(stage: Stage) -> None:
        for id in ("", "a/b", "x" * 501, "a\nb"):
            with pytest.raises(DefinitionError):
                await stage.client.start(scenes.trip, "ann", id=id)
        with pytest.raises(DefinitionError):
            await stage.client.start(scenes.trip, id="one")
        with pytest.raises(PayloadError):
            await stage.client.start(scenes.trip, "a" * 2_100_000, id="one")
        with pytest.raises(DefinitionError):
            await stage.client.start(scenes.car, "ann", id="one")
        for call in (stage.client.get, stage.client.info, stage.client.cancel, stage.client.retry):
            for id in ("one", "one/trip", ""):
                with pytest.raises(SagaNotFound):
                    await call(id)

    on_stage(tmp_path, scene, scenes.trip)


def test_what_temporal_has_itself(tmp_path: Path):
    """A killed saga is not rolled back: ``Unsupported`` names Temporal's own means."""

    async def scene(stage: Stage) -> None:
        handle = await stage.client.start(scenes.asks, "ann", id="one")
        await begun(handle, None, "approval")  # type: ignore[arg-type]
        await stage.client.kill("one")
        await reaches(handle, None, "killed")
        with pytest.raises(Unsupported, match="reset"):
            await stage.client.rollback("one")

    on_stage(tmp_path, scene, scenes.asks)


def test_a_token(tmp_path: Path):
    """It answers its callback, once; one that is forged, cut or of another saga is refused."""

    async def scene(stage: Stage) -> None:
        handle = await stage.client.start(scenes.hands_out, "ann", id="one")
        other = await stage.client.start(scenes.hands_out, "ann", id="two")
        await until(lambda: len(stage.world.tokens) == 2)
        (mine,) = [token for token in stage.world.tokens if token.startswith("b25l.")]
        theirs = next(token for token in stage.world.tokens if token != mine)
        where, _, proof = mine.partition(".")
        for forged in ("", ".", mine[:-1], mine + "x", f"{where}.{theirs.partition('.')[2]}", f"{where}.", "é", proof):
            with pytest.raises(CallbackNotFound):
                await stage.client.complete_callback(forged, 3)
        with pytest.raises(DefinitionError):
            await stage.client.complete_callback(value=3)
        with pytest.raises(PayloadError):
            await stage.client.complete_callback(mine, "many")
        assert (await handle.info()).status == "waiting"
        await stage.client.complete_callback(mine, 3)
        assert await handle.result() == 3
        await stage.client.complete_callback(mine, 3)
        with pytest.raises(CallbackAlreadyAnswered):
            await stage.client.complete_callback(mine, 4)
        with pytest.raises(CallbackNotFound):
            await stage.client.complete_callback(saga_id="two", name="nothing", value=1)
        await other.cancel()
        await reaches(other, None, "compensated")
        with pytest.raises(CallbackClosed):
            await stage.client.complete_callback(theirs, 3)

    on_stage(tmp_path, scene, scenes.hands_out)


def test_answers_at_the_same_time(tmp_path: Path):
    """One of them counts, the others are told."""

    async def scene(stage: Stage) -> None:
        handle = await stage.client.start(scenes.asks, "ann", id="one")
        await begun(handle, None, "approval")  # type: ignore[arg-type]
        answers = [stage.client.complete_callback(saga_id="one", name="approval", value=value) for value in range(5)]
        told = await asyncio.gather(*answers, return_exceptions=True)
        assert [type(each) for each in told if each is not None] == [CallbackAlreadyAnswered] * 4
        assert await handle.result() == f"{told.index(None)} by ann"

    on_stage(tmp_path, scene, scenes.asks, max_cached_workflows=10)


def test_a_cancel_before_anything_has_run(tmp_path: Path):
    """It is accepted without a worker, and no step begins."""
    from sagas.hosts import temporal
    from tests.hosts.temporal.stage import environment

    async def main() -> None:
        world = World()
        async with environment(tmp_path) as env:
            client = temporal.Client(env.client, task_queue=QUEUE, sagas=[scenes.trip])
            handle = await client.start(scenes.trip, "ann", id="one")
            await env.client.get_workflow_handle("one").cancel()
            async with temporal.worker(env.client, task_queue=QUEUE, sagas=[scenes.trip], resources=[world]):
                info = await reaches(handle, None, "compensated")
        assert "hotel" not in world.log
        assert world.live == {}
        assert info.cause == "cancelled"

    asyncio.run(main())


def test_rubbish_from_elsewhere(tmp_path: Path):
    """Signals that are none of ours change nothing, and break nothing."""

    async def scene(stage: Stage) -> None:
        handle = await stage.client.start(scenes.asks, "ann", id="one")
        await begun(handle, None, "approval")  # type: ignore[arg-type]
        told = stage.env.client.get_workflow_handle("one")
        for payload in (None, 3, "x", {}, {"verb": "fly"}, {"verb": "retry", "step": 3}, {"verb": "skip"}, [1]):
            await told.signal("operator", payload)
            await told.signal("answer", payload)
        await told.signal("nothing_of_that_name", 1)
        await told.signal("operator", {"verb": "pause", "actor": "ann"})  # as a person does by Temporal's own tools
        assert (await handle.info()).paused
        await told.signal("operator", {"verb": "resume"})
        await told.signal("answer", {"key": "approval", "kind": "completed", "value": 3})
        assert await handle.result() == "3 by ann"
        shown = await told.query("info")
        assert shown["status"] == "completed"

    on_stage(tmp_path, scene, scenes.asks)


def test_arguments_from_elsewhere(tmp_path: Path):
    """Any client of Temporal starts a saga, with plain arguments; such that do not fit fail it before it begins."""

    async def scene(stage: Stage) -> None:
        start = stage.env.client.start_workflow
        await start("trip", "ann", id="one", task_queue=QUEUE)
        assert await (await stage.client.get("one")).result() == ["ann"] * 4
        await start("trip", args=["ann", 3], id="two", task_queue=QUEUE)
        with pytest.raises(PayloadError, match="was not begun"):
            await (await stage.client.get("two")).result()

    on_stage(tmp_path, scene, scenes.trip)


@lookup(name="large")
async def large(of: str, size: int) -> str:
    return "x" * size


@lookup(name="takes")
async def takes(one: str, two: str, three: str) -> int:
    return len(one) + len(two) + len(three)


@saga("heavy", version=1)
async def heavy(s: Saga) -> int:
    await s.run(scenes.car, "ann")
    parts = [await s.run(large, "a", 1_000_000) for _ in range(3)]
    return await s.run(takes, *parts)


def test_more_than_a_payload_holds(tmp_path: Path):
    """A step whose arguments Temporal would refuse is not called, and the saga is undone."""

    async def scene(stage: Stage) -> None:
        handle = await stage.client.start(heavy, id="heavy")
        with pytest.raises(SagaCompensated) as end:
            await handle.result()
        assert isinstance(end.value.__cause__, PayloadError)
        assert stage.world.log == ["car", "undo car"]

    on_stage(tmp_path, scene, heavy)


def test_a_history_that_grows_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No step begins whose undo the history might not hold; what was done is undone."""
    from sagas.hosts.temporal import limits

    monkeypatch.setattr(limits, "MOST_EVENTS", limits.SPARE_EVENTS + 30)

    async def scene(stage: Stage) -> None:
        handle = await stage.client.start(scenes.trip, "ann", id="one")
        with pytest.raises(SagaCompensated, match="history"):
            await handle.result()
        assert stage.world.undone == list(reversed(stage.world.log[: len(stage.world.undone)]))
        assert stage.world.live == {}

    on_stage(tmp_path, scene, scenes.trip)


@attrs.define
class Counter:
    """A resource of a type of its own."""

    count: int = 0


@step(name="counted", retry=Retry(attempts=2), compensation=None, because="it only counts")
def counted(*, counter: Counter = resource()) -> int:
    counter.count += 1
    return counter.count


@saga("counts", version=1)
async def counts(s: Saga) -> int:
    return await s.run(counted)


def test_a_worker_without_its_resources(tmp_path: Path):
    """It is refused before it polls; so are workflows and activities beside the sagas, and two sagas of one name."""
    from sagas.hosts import temporal

    async def scene(stage: Stage) -> None:
        for options in (
            {"sagas": [counts]},
            {"sagas": [scenes.trip, saga("trip", version=1)(scenes.asks.body)], "resources": [stage.world]},
            {"sagas": [], "workflows": [object]},
            {"sagas": [], "activities": [print]},
            {"sagas": [], "secret": "short"},
            {"sagas": ["trip"]},
        ):
            with pytest.raises(DefinitionError):
                temporal.worker(stage.env.client, task_queue="other", **options)
        assert await (await stage.client.start(counts, id="one")).result() == 1

    on_stage(tmp_path, scene, counts, resources=[Counter()])


def test_workflows_that_stay_in_memory(tmp_path: Path):
    """The same ends with Temporal's cache, from which waiting sagas are evicted now and then."""

    async def scene(stage: Stage) -> None:
        stage.world.plan("flight", "refused")
        handles = [await stage.client.start(scenes.trip, f"p{n}", id=f"trip-{n}") for n in range(6)]
        asking = [await stage.client.start(scenes.asks, f"p{n}", id=f"asks-{n}") for n in range(6)]
        for handle in asking:
            await begun(handle, None, "approval")  # type: ignore[arg-type]
        await asking[0].cancel()
        for place, handle in enumerate(asking[1:]):
            await stage.client.complete_callback(saga_id=handle.id, name="approval", value=place)
            assert await handle.result() == f"{place} by p{place + 1}"
        for handle in [*handles, asking[0]]:
            with pytest.raises(SagaCompensated):
                await handle.result()

    on_stage(tmp_path, scene, scenes.trip, scenes.asks, max_cached_workflows=2)


def test_no_worker(tmp_path: Path):
    """What needs one says so; the saga is there all the same."""
    from sagas.hosts import temporal
    from tests.hosts.temporal.stage import environment

    async def main() -> None:
        async with environment(tmp_path) as env:
            client = temporal.Client(env.client, task_queue=QUEUE, sagas=[scenes.trip])
            handle = await client.start(scenes.trip, "ann", id="one")
            with pytest.raises(StoreError, match="no worker answered"):
                await handle.info()
            with pytest.raises(TimeoutError):
                await handle.result(timeout=timedelta(seconds=0.1))
            await handle.cancel("no more")

    asyncio.run(main())


def test_a_step_that_the_worker_does_not_see(tmp_path: Path):
    """Its attempt is offered again until a worker has it that knows the step: nothing is taken for a crash."""
    known = {"car": scenes.car}

    @saga("hidden", version=1)
    async def hidden(s: Saga, name: str) -> str:
        return await s.run(known[name], "ann")

    async def scene(stage: Stage) -> None:
        handle = await stage.client.start(hidden, "car", id="one")
        assert await handle.result() == "ann"
        assert [each.attempts for each in (await handle.info()).steps] == [1]

    on_stage(tmp_path, scene, hidden)
