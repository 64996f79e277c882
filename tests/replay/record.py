"""Records journals that are not there yet: ``python -m tests.replay.record``. The tests never run it.

Invariant: a journal that is there is never written again. Time stands still but for the clock's own moves, and ids
are counted, so that two recordings differ in nothing but the order in which tasks happened to run.
"""

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from hashlib import blake2b
from typing import Any

import attrs
from opentelemetry.sdk.trace import TracerProvider

from durable_core.ports import Batch
from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from durable_core.tracing.otel import OtelContext
from sagas import Orchestrator, Saga, SagaDef, saga
from sagas.testing import ManualClock
from tests.replay.definitions import SAGAS, Participants, car, hotel
from tests.replay.journal import FOLDER, ID, SECRET, process, save

DAY = timedelta(days=1)


class CountedIds:
    """Ids that are the same in every recording."""

    def __init__(self) -> None:
        self._count = 0

    def uid(self) -> bytes:
        self._count += 1
        return blake2b(b"%d" % self._count, digest_size=16).digest()

    def name(self) -> str:
        return self.uid().hex()[:8]

    def draw(self) -> float:
        return 0.5


class HeldStore(MemoryStore):
    """A store whose commits wait while they are told to."""

    def __init__(self, data: MemoryData) -> None:
        super().__init__(data)
        self.open_ = asyncio.Event()
        self.open_.set()
        self._write = self.journal.commit
        self.journal.commit = self._commit  # type: ignore[method-assign]

    async def _commit(self, batch: Batch) -> frozenset[int]:
        await self.open_.wait()
        return await self._write(batch)


@attrs.define
class Scene:
    """One recording."""

    world: Participants = attrs.field(factory=Participants)
    data: MemoryData = attrs.field(factory=lambda: MemoryData(secret=SECRET))
    clock: ManualClock = attrs.field(factory=ManualClock)
    ids: CountedIds = attrs.field(factory=CountedIds)
    workers: int = 0
    traced: bool = False
    """Whether steps have a span that they can say something on."""

    @asynccontextmanager
    async def process(self, *sagas: SagaDef[..., Any], dies: bool = False) -> AsyncGenerator[Orchestrator]:
        """A process on these sagas; ``dies`` at the end of the block as if it were killed."""
        before = asyncio.all_tasks()
        running = process(HeldStore(self.data), self.clock, self.world, *sagas)
        running.engine.ids = self.ids
        if self.traced:
            running.engine.context = OtelContext(TracerProvider(shutdown_on_exit=False))
        self.workers += 1
        running.engine.name = f"w-{self.workers}"
        await running.__aenter__()
        try:
            yield running
            if not dies:
                await running.__aexit__(None, None, None)
        finally:
            if dies:
                running.engine.store.crash()  # type: ignore[attr-defined]
                left = asyncio.all_tasks() - before
                for task in left:
                    task.cancel()
                await asyncio.gather(*left, return_exceptions=True)
                self.clock._engines.clear()

    def hold(self, name: str) -> asyncio.Event:
        """Hold a participant up; set what this returns to let it go on."""
        self.world.entered[name] = asyncio.Event()
        return self.world.gates.setdefault(name, asyncio.Event())

    async def entered(self, name: str) -> None:
        """Return once the participant that is held up has been called."""
        await asyncio.wait_for(self.world.entered[name].wait(), 10)

    def free(self, name: str) -> None:
        """Do not hold it up any more; for after a crash."""
        del self.world.gates[name]


async def plain(scene: Scene, name: str, *spans: timedelta | float, about: str = "tea", **plan: list[str]) -> None:
    """A saga that needs nobody."""
    scene.world.plan |= {key.replace("_", " "): does for key, does in plan.items()}
    async with scene.process(SAGAS[name]) as running:
        await running.start(SAGAS[name], about, id=ID)
        for span in spans or (DAY,):
            await scene.clock.advance(span)


async def trip(scene: Scene) -> None:
    """Retries, a lookup, sleeps, a pivot, a retriable: completed."""
    await plain(scene, "trip", 5 * DAY, hotel=["broken", "ok"], mail=["broken", "lost", "ok"])


async def refused_pivot(scene: Scene) -> None:
    """The pivot is refused: compensated."""
    await plain(scene, "trip", 5 * DAY, pay=["refused"])


async def savepoint(scene: Scene) -> None:
    """A block is undone and the body goes on; then the rest is undone, one compensation at its second attempt."""
    await plain(scene, "undone", flight=["refused"], pay=["refused"], undo_car=["broken", "ok"])


async def doubts(scene: Scene) -> None:
    """Unknown outcomes that a probe and a compensation settle."""
    lost = ["lost"]
    await plain(scene, "doubts", probed=lost, probe_probed=["broken", "ok"], fenced=lost)


async def blocks(scene: Scene) -> None:
    """Branches, children, a map, and a failure beside a sleep: compensated."""
    await plain(scene, "blocks", DAY / 2, fenced=["broken"])


async def deadline(scene: Scene) -> None:
    """Nobody comes before the deadline: compensated."""
    await plain(scene, "waits", 10 * DAY)


async def answers(scene: Scene) -> None:
    """Callbacks that are answered, refused, timed out, and the first of two."""
    async with scene.process(SAGAS["answers"]) as running:
        await running.start(SAGAS["answers"], "tea", id=ID)
        await scene.clock.advance(1)
        await running.complete_callback(saga_id=ID, name="approval", value="yes")
        await scene.clock.advance(1)
        await running.fail_callback(saga_id=ID, name="approval#2", message="no")
        await scene.clock.advance(1)
        await running.complete_callback(saga_id=ID, name="one", value=7)
        await scene.clock.advance(DAY)


async def answered_by(scene: Scene) -> None:
    """As ``answers``, with who answered and why; one answer names nobody."""
    async with scene.process(SAGAS["answers"]) as running:
        await running.start(SAGAS["answers"], "tea", id=ID)
        await scene.clock.advance(1)
        await running.complete_callback(saga_id=ID, name="approval", value="yes", actor="ann", note="she was asked")
        await scene.clock.advance(1)
        await running.fail_callback(saga_id=ID, name="approval#2", message="no", actor="bob")
        await scene.clock.advance(1)
        await running.complete_callback(saga_id=ID, name="one", value=7)
        await scene.clock.advance(DAY)


async def heartbeats(scene: Scene) -> None:
    """Heartbeats that keep a callback waiting, an answer, and one where none comes."""
    hour = DAY / 24
    async with scene.process(SAGAS["heartbeats"]) as running:
        await running.start(SAGAS["heartbeats"], "tea", id=ID)
        for _ in range(3):
            await scene.clock.advance(hour * 0.75)
            await running.heartbeat_callback(saga_id=ID, name="approval")
        await scene.clock.advance(hour * 0.75)
        await running.complete_callback(saga_id=ID, name="approval", value="yes")
        await scene.clock.advance(hour / 2)
        await running.heartbeat_callback(saga_id=ID, name="silent")
        await scene.clock.advance(hour * 2)


async def cancelled_delay(scene: Scene) -> None:
    """A cancel ends a retry delay."""
    scene.world.plan["hotel"] = ["broken"]
    async with scene.process(SAGAS["waits"]) as running:
        await running.start(SAGAS["waits"], "tea", id=ID)
        await scene.clock.advance(1)
        await running.cancel(ID, reason="changed their mind", actor="ann")
        await scene.clock.advance(1)


async def cancelled_sleep(scene: Scene) -> None:
    """A cancel ends a sleep, in another process than the one that it began in."""
    async with scene.process(SAGAS["waits"]) as running:
        await running.start(SAGAS["waits"], "tea", id=ID)
        await scene.clock.advance(60)
    async with scene.process(SAGAS["waits"]) as running:
        await running.cancel(ID, actor="ann")
        await scene.clock.advance(1)


async def skipped(scene: Scene) -> None:
    """A compensation is given up, attempted again without success, and skipped: resolved."""
    scene.world.plan |= {"flight": ["refused"], "undo hotel": ["broken"]}
    async with scene.process(SAGAS["mended"]) as running:
        await running.start(SAGAS["mended"], "tea", id=ID)
        await scene.clock.advance(60)
        await running.retry(ID, actor="ann")
        await scene.clock.advance(60)
        await running.skip(ID, "hotel", actor="ann", note="by phone")
        await scene.clock.advance(60)


async def resolved(scene: Scene) -> None:
    """A person settles a doubt: it happened, and the saga completes."""
    scene.world.plan["doubtful"] = ["lost"]
    async with scene.process(SAGAS["person"]) as running:
        await running.start(SAGAS["person"], "tea", id=ID)
        await scene.clock.advance(60)
        await running.resolve(ID, "doubtful", happened=True, result="found", actor="ann")
        await scene.clock.advance(60)


async def retried_doubt(scene: Scene) -> None:
    """A doubt is attempted again because a person asked, and succeeds."""
    scene.world.plan["doubtful"] = ["lost", "ok"]
    async with scene.process(SAGAS["person"]) as running:
        await running.start(SAGAS["person"], "tea", id=ID)
        await scene.clock.advance(60)
        await running.retry(ID, actor="ann")
        await scene.clock.advance(60)


async def past_pivot(scene: Scene) -> None:
    """A retriable is given up after the pivot, and attempted again because a person asked."""
    scene.world.plan["mail"] = ["broken", "broken", "broken", "ok"]
    async with scene.process(SAGAS["forward"]) as running:
        await running.start(SAGAS["forward"], "tea", id=ID)
        await scene.clock.advance(DAY)
        await running.retry(ID, actor="ann", note="the post office is open again")
        await scene.clock.advance(DAY)


async def paused(scene: Scene) -> None:
    """Paused amid a step, and resumed."""
    gate = scene.hold("flight")
    async with scene.process(SAGAS["chain"]) as running:
        await running.start(SAGAS["chain"], "tea", id=ID)
        await scene.entered("flight")
        await running.pause(ID, actor="ann")
        gate.set()
        await scene.clock.advance(60)
    async with scene.process(SAGAS["chain"]) as running:
        await running.resume(ID, actor="ann")
        await scene.clock.advance(60)


async def patched(scene: Scene) -> None:
    """Two patches, each reached by the first round of a loop."""
    await plain(scene, "loops")


async def crashed(scene: Scene) -> None:
    """The process dies in a step, which is called again, and in one that must not be: settled by a person."""
    for name in ("flight", "once"):
        scene.hold(name)
        async with scene.process(SAGAS["crashes"], dies=True) as running:
            if name == "flight":
                await running.start(SAGAS["crashes"], "tea", id=ID)
            await scene.entered(name)
        scene.free(name)
    async with scene.process(SAGAS["crashes"]) as running:
        await scene.clock.advance(60)
        await running.resolve(ID, "once", happened=False, actor="ann")
        await scene.clock.advance(60)


async def left(scene: Scene) -> None:
    """A worker leaves while two steps are in flight; the next one goes on."""
    gates = [scene.hold("flight"), scene.hold("car")]
    async with scene.process(SAGAS["pair"]) as running:
        await running.start(SAGAS["pair"], "tea", id=ID)
        await scene.entered("flight")
        await scene.entered("car")
        leaving = asyncio.get_running_loop().create_task(running.engine._process.worker.close(grace_s=5))  # type: ignore[union-attr]
        await asyncio.sleep(0)
        for gate in gates:
            gate.set()
        await leaving
    async with scene.process(SAGAS["pair"]):
        await scene.clock.advance(60)


async def withheld(scene: Scene) -> None:
    """A worker leaves between a step's intent and its call, while another step is in flight."""
    gates = [scene.hold("hotel"), scene.hold("car")]
    async with scene.process(SAGAS["blocks"]) as running:
        store = running.engine.store
        assert isinstance(store, HeldStore)
        await running.start(SAGAS["blocks"], "tea", id=ID)
        await scene.entered("hotel")
        await scene.entered("car")
        store.open_.clear()
        gates[0].set()
        for _ in range(10):
            await asyncio.sleep(0)
        leaving = asyncio.get_running_loop().create_task(running.engine._process.worker.close(grace_s=5))  # type: ignore[union-attr]
        await asyncio.sleep(0)
        store.open_.set()
        for _ in range(10):
            await asyncio.sleep(0)
        gates[1].set()
        await leaving
    async with scene.process(SAGAS["blocks"]):
        await scene.clock.advance(2 * DAY)


async def overrun(scene: Scene) -> None:
    """A thread passes its timeout, and its late result counts."""
    scene.world.threads["slow"] = threading.Event()
    async with scene.process(SAGAS["overrun"]) as running:
        await running.start(SAGAS["overrun"], "tea", id=ID)
        await scene.clock.advance(10)
        scene.world.threads["slow"].set()
        await (await running.get(ID)).result(timeout=10)


async def killed(scene: Scene) -> None:
    """Killed amid a step, whose late end is only noted."""
    gate = scene.hold("car")
    async with scene.process(SAGAS["chain"]) as running:
        await running.start(SAGAS["chain"], "tea", id=ID)
        await scene.entered("car")
        await running.kill(ID, actor="ann")
        gate.set()
        await scene.clock.advance(60)


async def rolled_back(scene: Scene) -> None:
    """Killed, and undone after all."""
    scene.hold("car")
    async with scene.process(SAGAS["chain"], dies=True) as running:
        await running.start(SAGAS["chain"], "tea", id=ID)
        await scene.entered("car")
        await running.kill(ID, actor="ann")
    scene.free("car")
    async with scene.process(SAGAS["chain"]) as running:
        await running.rollback(ID, actor="ann")
        await scene.clock.advance(60)
        await running.resolve(ID, "car", happened=False, actor="ann")
        await scene.clock.advance(60)


async def held(scene: Scene) -> None:
    """A cancel comes while the run is stuck on other code, and is delivered once the code is back."""

    @saga("waits", version=1)
    async def other(s: Saga, about: str) -> None:
        await s.run(hotel, about)
        await s.run(car, about)

    async with scene.process(SAGAS["waits"]) as running:
        await running.start(SAGAS["waits"], "tea", id=ID)
        await scene.clock.advance(60)
    async with scene.process(other) as running:
        await running.cancel(ID, actor="ann")
        await scene.clock.advance(60)
    async with scene.process(SAGAS["waits"]) as running:
        await running.retry(ID, actor="ann")
        await scene.clock.advance(60)


async def said(scene: Scene) -> None:
    """A step says something on its span, in an attempt that fails and in two that do not: completed."""
    scene.traced = True
    await plain(scene, "spoken", talk=["broken", "ok"])


async def graph(scene: Scene) -> None:
    """A graph, with an answer and without a fault: completed."""
    async with scene.process(SAGAS["drawn"]) as running:
        await running.start(SAGAS["drawn"], "champagne", id=ID)
        await scene.clock.advance(1)
        await running.complete_callback(saga_id=ID, name="approval", value=True)
        await scene.clock.advance(DAY)


async def graph_undone(scene: Scene) -> None:
    """A graph whose pivot is refused: what does not depend on each other is undone side by side."""
    await plain(scene, "drawn", DAY, about="tea", pay=["refused"], undo_car=["broken", "ok"])


async def tags(scene: Scene) -> None:
    """A body tags its saga, twice with one key, and so does a child; then a refusal: all is undone."""
    await plain(scene, "tagger", DAY, hotel=["refused"])


SCENES: tuple[Callable[[Scene], Awaitable[None]], ...] = (
    trip, refused_pivot, savepoint, doubts, blocks, deadline, answers, answered_by, heartbeats, cancelled_delay,
    cancelled_sleep, skipped, resolved, retried_doubt, past_pivot, paused, patched, crashed, left, withheld, overrun,
    killed, rolled_back, held, said, graph, graph_undone, tags,
)  # fmt: skip


def main() -> None:
    """Record what is not there yet."""
    for record in SCENES:
        path = FOLDER / f"{record.__name__}.jsonl"
        if path.exists():
            continue
        scene = Scene()
        asyncio.run(record(scene))  # type: ignore[arg-type]
        save(path, scene.data, scene.world.plan)
        sys.stdout.write(f"{path.name}: {len(scene.data.journals[1])} entries\n")


if __name__ == "__main__":
    main()
