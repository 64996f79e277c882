"""Another code is deployed: what does not fit its history is parked without an effect, and goes on once it fits."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sagas import Saga, SagaDef, SagaStuck, saga
from tests.hosts import scenes
from tests.hosts.temporal.stage import QUEUE, environment, needs_temporal, replays
from tests.kit import World, begun, entered, reaches, until, within

pytestmark = needs_temporal


@asynccontextmanager
async def serving(env: Any, world: World, *sagas: SagaDef[..., Any], **options: Any) -> AsyncGenerator[Any]:
    """A worker with this code, which keeps nothing in memory."""
    from sagas.hosts import temporal

    options = {"max_cached_workflows": 0, "graceful_shutdown_timeout": timedelta(0), **options}
    worker = temporal.worker(env.client, task_queue=QUEUE, sagas=sagas, resources=[world], **options)
    async with worker:
        yield worker


def client_of(env: Any) -> Any:
    from sagas.hosts import temporal

    return temporal.Client(env.client, task_queue=QUEUE)


def version_1(body: Any) -> SagaDef[..., Any]:
    """A saga of one name and version, whichever its body."""
    return saga("trip", version=1)(body)


@version_1
async def as_begun(s: Saga) -> list[str]:
    return [await s.run(scenes.car, "ann"), await s.run(scenes.hotel, "ann"), await s.run(scenes.bus, "ann")]


@version_1
async def another_step(s: Saga) -> list[str]:
    return [await s.run(scenes.car, "ann"), await s.run(scenes.flight, "ann"), await s.run(scenes.bus, "ann")]


@version_1
async def other_arguments(s: Saga) -> list[str]:
    return [await s.run(scenes.car, "bob"), await s.run(scenes.hotel, "ann"), await s.run(scenes.bus, "ann")]


@version_1
async def fewer_steps(s: Saga) -> str:
    return await s.run(scenes.car, "ann")


@pytest.mark.parametrize("changed", [another_step, other_arguments, fewer_steps])
def test_code_that_does_not_fit(tmp_path: Path, changed: SagaDef[..., Any]):
    """Nothing is called and nothing is undone; whoever waits is told. With the old code it goes on by itself."""

    async def main() -> None:
        world = World()
        async with environment(tmp_path) as env:
            client = client_of(env)
            async with serving(env, world, as_begun):
                gate = world.gate("bus")
                handle = await client.start("trip", id="one", version=1)
                await entered(gate, None)  # type: ignore[arg-type]
                del world.gates["bus"]
            before = list(world.log)
            async with serving(env, world, changed):
                with pytest.raises(SagaStuck, match="does not fit"):
                    await within(handle.result())
                assert world.log == before == ["car", "hotel"]
            async with serving(env, world, as_begun) as worker:
                assert await within(handle.result()) == ["ann"] * 3
                await replays(env, worker, ["one"])
            assert world.gone == []

    asyncio.run(main())


@version_1
async def awaits_asyncio(s: Saga) -> str:
    await s.run(scenes.car, "ann")
    await asyncio.sleep(0)
    return await s.run(scenes.hotel, "ann")


@version_1
async def mended(s: Saga) -> str:
    await s.run(scenes.car, "ann")
    return await s.run(scenes.hotel, "ann")


@pytest.mark.parametrize("verb", ["retry", "cancel", "kill"])
def test_code_that_breaks_a_rule(tmp_path: Path, verb: str):
    """It is stuck before any effect. Mended code waits at that place for a verb, and history and code still fit."""

    async def main() -> None:
        world = World()
        async with environment(tmp_path) as env:
            client = client_of(env)
            async with serving(env, world, awaits_asyncio):
                handle = await client.start("trip", id="one", version=1)
                with pytest.raises(SagaStuck, match="only its own operations"):
                    await within(handle.result())
                await client.retry("one")
                await until_stuck_again(client)
            async with serving(env, world, mended) as worker:
                assert world.log == ["car"]
                assert (await handle.info()).status == "stuck"
                if verb == "cancel":
                    await client.cancel("one")
                    await client.retry("one")
                else:
                    await getattr(client, verb)("one")
                info = await reaches(handle, None, "completed", "compensated", "killed")
                await replays(env, worker, ["one"])
        assert (info.status, world.log) == {
            "retry": ("completed", ["car", "hotel"]),
            "cancel": ("compensated", ["car", "undo car"]),
            "kill": ("killed", ["car"]),
        }[verb]

    async def until_stuck_again(client: Any) -> None:
        async def twice() -> bool:
            snapshot = await client.snapshot("one")
            return [entry.kind for entry in snapshot.entries].count("faulted") >= 2

        await until(twice)

    asyncio.run(main())


def test_a_version_that_nobody_serves(tmp_path: Path):
    """It waits for a worker that does; a saga is begun on the newest version that is served, and stays on it."""
    newer = saga("trip", version=2)(another_step.body)

    async def main() -> None:
        world = World()
        async with environment(tmp_path) as env:
            client = client_of(env)
            async with serving(env, world, newer):
                handle = await client.start("trip", id="one", version=1)
                with pytest.raises(SagaStuck, match="version"):
                    await within(handle.result())
            assert world.log == []
            async with serving(env, world, as_begun):
                world.gate("hotel")
                # As any other client of Temporal starts it: nothing says which version.
                await env.client.start_workflow("trip", id="two", task_queue=QUEUE)
                await begun(await client.get("two"), None, "hotel")  # type: ignore[arg-type]
            del world.gates["hotel"]
            async with serving(env, world, as_begun, newer) as worker:
                await within(handle.result())
                assert (await reaches(await client.get("two"), None, "completed")).version == 1
                await env.client.start_workflow("trip", id="three", task_queue=QUEUE)
                assert (await reaches(await client.get("three"), None, "completed")).version == 2
                await replays(env, worker, ["one", "two", "three"])

    asyncio.run(main())
