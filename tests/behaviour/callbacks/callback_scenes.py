"""Sagas that wait for somebody, and the stage to play them on: one clock, one store of each kind."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import attrs

from sagas import Orchestrator, Saga, SagaHandle, SagaStatus, lookup, saga, step
from sagas.testing import ManualClock
from tests.kit import World

SPAN = timedelta(minutes=1)


@attrs.frozen
class Approval:
    ok: bool
    by: str


WORLD = World()


@lookup
async def hand_out(token: str) -> None:
    WORLD.tokens.append(token)


@lookup
async def hold() -> None:
    await WORLD.act("hold")


@step
async def reserve(what: str) -> str:
    await WORLD.act(what)
    return what


@reserve.compensate
async def release(what: str) -> None:
    await WORLD.act(what)


@saga("watched", version=1)
async def watched(s: Saga, timeout_s: float | None) -> str:
    """Waits for an approval whose asker must show signs of life."""
    callback = await s.callback("approval", Approval, timeout=timeout_s, heartbeat=SPAN)
    await s.run(hand_out, callback.token)
    return (await callback.result()).by


@saga("plain", version=1)
async def plain(s: Saga) -> str:
    callback = await s.callback("approval", Approval, timeout=timedelta(days=2))
    await s.run(hand_out, callback.token)
    return (await callback.result()).by


@saga("busy", version=1)
async def busy(s: Saga) -> str:
    """Has a callback, and a step under way before it waits for that."""
    callback = await s.callback("approval", Approval, timeout=timedelta(days=2))
    await s.run(hand_out, callback.token)
    await s.run(hold)
    return (await callback.result()).by


SAGAS = (watched, plain, busy)


@asynccontextmanager
async def on_stage(
    url: str, clock: ManualClock | None = None, **options: Any
) -> AsyncGenerator[tuple[Orchestrator, ManualClock]]:
    """An orchestrator whose clock stands still, and that clock; the world is new."""
    global WORLD  # noqa: PLW0603 - the events belong to this scene's loop
    WORLD = World()
    WORLD.gate("hold")
    hand = clock or ManualClock()
    options.setdefault("sagas", SAGAS)
    async with asyncio.timeout(60), Orchestrator(url, clock=hand, grace=1, **options) as orchestrator:
        yield orchestrator, hand


async def waiting(
    orchestrator: Orchestrator, clock: ManualClock, definition: Any, *args: Any, id: str = "a"
) -> tuple[SagaHandle[str], str]:
    """A saga that waits, evicted, and the token that it has handed out."""
    handle = await orchestrator.start(definition, *args, id=id)
    await clock.idle()
    assert (await handle.info()).status is SagaStatus.WAITING
    return handle, WORLD.tokens[-1]


async def kinds(handle: SagaHandle[Any], kind: str) -> int:
    """How many entries of a kind its journal has."""
    return sum(entry.kind == kind for entry in await handle.history())
