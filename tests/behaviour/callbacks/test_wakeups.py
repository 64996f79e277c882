"""A process that waits for another one: how it is woken."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from durable_core.engine import callback_delivery, polling
from sagas import Orchestrator, Saga, SagaHandle, lookup, saga
from tests.kit import until, within
from tests.postgres_server import Server

NEVER_S = 600.0


@lookup
async def double(number: int) -> int:
    return 2 * number


@saga("doubling", version=1)
async def doubling(s: Saga, number: int) -> int:
    doubled = await s.run(double, number)
    asked = await s.callback("more", int)
    return doubled + await asked.result()


async def asks(handle: SagaHandle[int]) -> bool:
    """Whether it waits for its callback."""
    return "more" in [step.name for step in (await handle.info()).steps]


async def test_on_postgresql_everybody_is_told(server: Server, monkeypatch: pytest.MonkeyPatch):
    """A start, an answer and a result reach the process that waits for them, though nobody looks by himself."""
    monkeypatch.setattr(polling, "POLL_S", NEVER_S)
    monkeypatch.setattr(callback_delivery, "LOOK_S", NEVER_S)
    monkeypatch.setattr(callback_delivery, "KEPT_AFTER_S", NEVER_S)

    url = server.fresh()
    async with (
        Orchestrator(url, sagas=[doubling]),
        Orchestrator(url, worker=False) as starter,
        Orchestrator(url, worker=False) as observer,
    ):
        for number in range(5):
            handle = await starter.start("doubling", number, id=f"d{number}")
            waiting = asyncio.create_task((await observer.get(handle.id)).result())
            await until(partial(asks, handle), starter)
            await starter.complete_callback(saga_id=handle.id, name="more", value=1)
            assert await waiting == await handle.result() == 2 * number + 1


async def test_on_one_file_others_look_twenty_times_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What another process has committed is seen by the second look after it: within 100 ms on an idle machine."""
    assert 2 * polling.POLL_S <= 0.1

    url = f"sqlite:///{tmp_path / 'sagas.db'}"
    async with Orchestrator(url, sagas=[doubling]) as worker, Orchestrator(url, worker=False) as starter:
        store = worker.engine.store
        looks, right = list[bool](), store.changed

        async def changed() -> bool:
            looks.append(await right())
            return looks[-1]

        monkeypatch.setattr(store, "changed", changed)
        for number in range(5):
            before = len(looks)
            handle = await starter.start("doubling", number, id=f"d{number}")
            since = len(looks)
            await until(partial(asks, handle), starter)
            assert any(looks[before : since + 2])
            await starter.complete_callback(saga_id=handle.id, name="more", value=1)
            assert await handle.result() == 2 * number + 1


async def test_an_answer_waits_for_no_worker_where_none_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nobody can take it up, so it is stored and the call returns; the next worker takes it up."""
    monkeypatch.setattr(callback_delivery, "KEPT_AFTER_S", NEVER_S)
    url = f"sqlite:///{tmp_path / 'sagas.db'}"
    async with Orchestrator(url, sagas=[doubling]) as worker:
        await until(partial(asks, await worker.start(doubling, 2, id="d")), worker)
    async with Orchestrator(url, worker=False) as alone:
        await within(alone.complete_callback(saga_id="d", name="more", value=1), alone)
    async with Orchestrator(url, sagas=[doubling]) as worker:
        assert await (await worker.get("d")).result() == 5
