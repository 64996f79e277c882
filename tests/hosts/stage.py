"""Where scenes are played: on a host, and for comparison on our own engine; what is compared."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs

from durable_core.layer import whole_spans
from durable_core.testing import ManualClock
from sagas import Orchestrator, SagaDef, SagaInfo, SagaKilled
from sagas.model.spans import VOCABULARY
from tests.kit import End, World, end_of, orchestrator, within

LOADING = {"suspended", "resumed"}
"""Entries of our own engine, whose runs leave memory while they wait."""


@attrs.define
class Stage:
    """Where one scene is played."""

    client: Any
    """``Orchestrator``, or the client of a host."""
    world: World
    pass_time: Callable[[float], Coroutine[Any, Any, Any]]
    end: Callable[[Any], Coroutine[Any, Any, End]]
    env: Any = None

    async def outcome(self, handle: Any) -> "Outcome":
        """How a saga stands, in a form in which two engines can be compared."""
        info = await handle.info()
        history = [
            (str(entry.kind), entry.key, entry.attempt, entry.detail)
            for entry in await handle.history()
            if entry.kind not in LOADING
        ]
        return Outcome(list(self.world.log), _plain(info), history, await self._spans(handle.id))

    async def _spans(self, id: str) -> list[Any]:
        if isinstance(self.client, Orchestrator):
            record, _ = await self.client.client.find(id)
            entries = await self.client.engine.journal(record.num)
        else:
            snapshot = await self.client.snapshot(id)
            record, entries = snapshot.record, snapshot.entries
        spans = whole_spans(record, entries, now_ns=entries[-1].at_ns, vocabulary=VOCABULARY)
        names = {span.span_id: span.name for span in spans}
        return [(span.name, names.get(span.parent_id or 0), _timeless(span.attributes)) for span in spans]


@attrs.frozen
class Outcome:
    """What is compared."""

    log: list[str]
    info: Any
    history: list[Any]
    spans: list[Any]


def _plain(info: SagaInfo) -> Any:
    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shown(part) for key, part in value.items() if not key.endswith("_at")}
        if isinstance(value, list):
            return [shown(part) for part in value]
        return repr(value) if isinstance(value, BaseException) else value

    return shown(attrs.asdict(info))


def _timeless(attributes: Any) -> dict[str, Any]:
    """Without what is another one's on another engine: times, keys that derive from a run's identity, workers."""
    return {
        name: value
        for name, value in attributes.items()
        if not any(part in name for part in ("key", "time", "worker", "duration", "delay", "host", "pid", "_at"))
    }


async def ends(handle: Any) -> End:
    """How a saga ends, or what it is stuck on."""
    try:
        return await end_of(handle, None)  # type: ignore[arg-type]  # it only says how things stand if nothing happens
    except SagaKilled:
        return End("killed")


@asynccontextmanager
async def on_our_engine(*sagas: SagaDef[..., Any], **options: Any) -> AsyncGenerator[Stage]:
    """The same sagas on our own engine, in memory."""
    world, clock = World(), ManualClock()
    resources = [world, *options.pop("resources", [])]
    async with orchestrator("memory://", *sagas, resources=resources, clock=clock, **options) as running:

        async def end(handle: Any) -> End:
            jumping = asyncio.ensure_future(clock._jump())
            try:
                return await ends(handle)
            finally:
                jumping.cancel()

        yield Stage(running, world, clock.advance, end)
        for gate in world.gates.values():
            gate.open()


Scene = Callable[[Stage], Coroutine[Any, Any, Any]]


def played(on_host: AbstractAsyncContextManager[Stage], scene: Scene, *sagas: SagaDef[..., Any]) -> Outcome:
    """Play a scene on our engine and on a host: what it gives here must be the same there."""

    async def main() -> Outcome:
        async with on_our_engine(*sagas) as stage:
            expected = await within(scene(stage))
        async with on_host as stage:
            found = await within(scene(stage))
        assert found.log == expected.log
        assert found.info == expected.info
        assert found.history == expected.history
        assert found.spans == expected.spans
        return found

    return asyncio.run(main())
