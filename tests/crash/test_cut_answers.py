"""A process that only starts, answers and gives verbs is cut off anywhere: repeated, each happens once, and counts."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import product
from typing import Any, TypeVar

import attrs
import pytest

from durable_core import StoreError
from sagas import Orchestrator, Saga, SagaCompensated, SagaHandle, saga
from tests.crash.proxy import Direction, Proxy, proxy
from tests.crash.verbs_sagas import first, order, sell
from tests.kit import ONCE, World, reaches, until, watched, within
from tests.postgres_server import Server

pytestmark = pytest.mark.slow

T = TypeVar("T")

POSITIONS = range(0, 40, 3)
WAYS: tuple[Direction, ...] = ("to server", "to client")


@saga("asking", version=1)
async def asking(s: Saga, number: int) -> int:
    asked = await s.callback("more", int, timeout=timedelta(hours=1))
    return number + await asked.result()


async def repeated(call: Callable[[], Awaitable[T]]) -> T:
    """What it returns; called again while the error may pass or nobody knows what became of it."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await call()
            except StoreError as error:
                if not error.transient:
                    raise


async def play(at: Proxy, starter: Orchestrator, id: str, *, cancels: bool) -> None:
    """One saga, started, answered or cancelled, and asked for its end through the proxy."""
    handle = await repeated(lambda: starter.start(asking, 1, id=id))
    if cancels:
        await repeated(lambda: handle.cancel("no"))
        with pytest.raises(SagaCompensated):
            await repeated(handle.result)
    else:

        async def armed() -> bool:
            return "more" in [step.name for step in (await repeated(handle.info)).steps]

        await until(armed, starter)
        await repeated(lambda: starter.complete_callback(saga_id=id, name="more", value=2))
        assert await repeated(handle.result) == 3
    at.disarm()
    kinds = [entry.kind for entry in await repeated(handle.history)]
    assert kinds.count("answered") == (0 if cancels else 1)
    assert kinds.count("ended") == 1


@pytest.mark.parametrize("cancels", [False, True])
def test_each_happens_once_wherever_the_connection_is_cut(server: Server, *, cancels: bool):
    """Start, answer, cancel and result, with the connection cut at ever later messages both ways."""

    async def main() -> None:
        schema = server.fresh().rpartition("=")[2]
        async with proxy(server.port) as between, Orchestrator(server.url(schema=schema), sagas=[asking]) as worker:
            through = server.url(schema=schema, port=between.port)
            async with Orchestrator(through, sagas=[asking], worker=False) as starter:
                for after in POSITIONS:
                    for direction in WAYS:
                        between.cut(direction, after)
                        await play(between, starter, f"{direction} {after}", cancels=cancels)
                assert between.cuts > len(POSITIONS)
                assert await worker.count() == 2 * len(POSITIONS)

    asyncio.run(main())


# -- verbs -----------------------------------------------------------------------------------------------------------

doubtful = watched("doubtful", retry=ONCE)
MIDDLE = ("second", "doubtful")


@saga("in-doubt", version=1)
async def in_doubt(s: Saga) -> str:
    await s.run(first)
    await s.run(doubtful)
    await s.run(sell)
    return "done"


@attrs.frozen
class Verbs:
    """What is told to a saga, one after the other, and what it comes to."""

    given: tuple[str, ...]
    end: tuple[str, str | None]
    """Its status and the cause."""
    kept: tuple[str, ...] = ()
    """What is in force then."""
    stuck: bool = False
    """Whether they are about a saga that is stuck, in doubt of a step whose answer was lost."""
    about: dict[str, Any] = attrs.field(factory=dict[str, Any])
    """What the verb is given besides the saga."""


VERBS = {
    "cancel": Verbs(("cancel",), ("compensated", "cancelled")),
    "pause, resume": Verbs(("pause", "resume"), ("completed", None), ("first", "second", "sell")),
    "kill, rollback": Verbs(("kill", "rollback"), ("compensated", "failed")),
    "retry": Verbs(("retry",), ("completed", None), ("doubtful", "first", "sell"), stuck=True),
    "resolve": Verbs(
        ("resolve",),
        ("completed", None),
        ("first", "sell"),
        stuck=True,
        about={"step": "doubtful", "happened": True, "result": "by hand"},
    ),
}


@attrs.frozen
class Cut:
    """Where a process that only sends is cut: its connection, or the task that gives the verb."""

    at: Proxy
    direction: Direction
    after: int
    what: str

    async def tell(self, call: Callable[[], Awaitable[None]]) -> None:
        """Have it cut amid the verb, which is given again until it is known to be accepted."""
        giving = asyncio.ensure_future(call())
        instead = giving.cancel if self.what == "task" else None
        self.at.cut(self.direction, self.after, instead=instead)
        with suppress(asyncio.CancelledError, StoreError):
            await giving
        await repeated(call)
        self.at.disarm()


@attrs.frozen
class Desk:
    """Two processes that only send, one of them through a proxy; and the participants of the workers' sagas."""

    far: Orchestrator
    near: Orchestrator
    url: str
    verbs: Verbs
    watch: World = attrs.field(factory=World)

    def worker(self) -> Orchestrator:
        return Orchestrator(self.url, sagas=TOLD, resources=[self.watch], grace=1)

    async def started(self, id: str) -> SagaHandle[Any]:
        """A saga to be told something: by a worker that lives it is stuck in doubt where the verbs are about that."""
        return await self.near.start(in_doubt if self.verbs.stuck else order, id=id)

    async def tell(self, handle: SagaHandle[Any], cut: Cut) -> None:
        """Give the verbs, each of which is cut."""
        for verb in self.verbs.given:
            await cut.tell(partial(getattr(self.far, verb), handle.id, actor="mia", **self.verbs.about))

    async def ends(self, handle: SagaHandle[Any]) -> None:
        """It comes to the end that the verbs ask for, each of which the history has once."""
        info = await reaches(handle, self.near, "completed", "compensated", "resolved", "stuck")
        assert (info.status, info.cause, info.reason) == (*self.verbs.end, None), handle.id
        assert [entry.key for entry in await handle.history() if entry.actor] == list(self.verbs.given), handle.id
        kept = sorted(call.step for call in self.watch.live.values() if call.saga_id == handle.id)
        assert kept == list(self.verbs.kept), handle.id
        assert self.watch.beside == []


async def before_any_worker(desk: Desk, cuts: dict[str, Cut]) -> None:
    """All are told while no worker lives."""
    desk.watch.plan("doubtful", *["lost"] * len(cuts), "ok")
    handles = [await desk.started(id) for id in cuts]
    if desk.verbs.stuck:
        async with desk.worker():
            for handle in handles:
                await reaches(handle, desk.near, "stuck")
    begun = len(desk.watch.calls)
    for handle in handles:
        await desk.tell(handle, cuts[handle.id])
    async with desk.worker():
        for handle in handles:
            await desk.ends(handle)
    if desk.verbs.kept == ():
        assert [call.what for call in desk.watch.calls[begun:]] == [], "it began although that had been told before"


async def over_an_attempt(desk: Desk, cuts: dict[str, Cut]) -> None:
    """Each is told while an attempt of it is in flight, or begins by that verb; which ends after all was told."""
    async with desk.worker() as worker:
        for id, cut in cuts.items():
            desk.watch.plan("doubtful", "lost", "ok")
            desk.watch.gates.clear()
            if desk.verbs.stuck:
                handle = await desk.started(id)
                await reaches(handle, desk.near, "stuck")
            gates = [desk.watch.gate(what) for what in MIDDLE]
            if not desk.verbs.stuck:
                handle = await desk.started(id)
                await within(gates[0].entered.wait(), worker)
            await desk.tell(handle, cut)
            for gate in gates:
                gate.open()
            await desk.ends(handle)
            assert "sell" in desk.verbs.kept or "sell" not in [call.what for call in desk.watch.calls]


TOLD = (order, in_doubt)
WHEN = (before_any_worker, over_an_attempt)
WHAT = ("connection", "task")
SCENES = list(product(WHEN, WHAT))
"""Each verb is cut at every position in one of these; in a soak in all of them."""


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("verbs", VERBS)
def test_each_verb_counts_once_wherever_it_is_cut(
    server: Server, verbs: str, when: Callable[[Desk, dict[str, Cut]], Awaitable[None]], what: str
):
    """The connection is cut at ever later messages both ways, or the task that gives the verb is cancelled there."""

    async def main() -> None:
        schema = server.fresh().rpartition("=")[2]
        async with (
            proxy(server.port) as between,
            Orchestrator(server.url(schema=schema, port=between.port), sagas=TOLD, worker=False) as far,
            Orchestrator(server.url(schema=schema), sagas=TOLD, worker=False) as near,
        ):
            positions = (
                POSITIONS if "SAGAS_SOAK" in os.environ else POSITIONS[SCENES.index((when, what)) :: len(SCENES)]
            )
            cuts = {f"{way} {after}": Cut(between, way, after, what) for way in WAYS for after in positions}
            await when(Desk(far, near, server.url(schema=schema), VERBS[verbs]), cuts)
            assert between.cuts > len(positions)

    asyncio.run(main())
