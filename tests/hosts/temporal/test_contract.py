"""The host contract on Temporal: each task derives the run anew; each prefix of its inputs is derived here."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

from durable_core.context import Binder
from durable_core.layer import Codec, DurableFunction, StepCall, StepSpec
from durable_core.model.callback import COMPLETED, FAILED, Answer
from durable_core.model.durable import Durable
from durable_core.runs import RunFace
from durable_core.testing import host_contract
from durable_core.testing.host_contract import HostContract, function_of
from tests.hosts.temporal.stage import QUEUE, environment, needs_temporal, replays

pytestmark = needs_temporal
STEPS = {step.name: step for step in (host_contract.book, host_contract.flaky, host_contract.once)}


def servable(function: DurableFunction, codec: Codec) -> DurableFunction:
    """With its steps by name, as a layer above tells them."""
    binder = Binder(codec)

    def locate(call: StepCall) -> tuple[StepSpec, tuple[Any, ...], dict[str, Any]]:
        spec = binder.spec(STEPS[call.key.rpartition("/")[2].partition("#")[0]])
        return spec, *spec.shape.decode(bytes(call.args), what=call.key)

    return attrs.evolve(function, locate=locate)


class TemporalHost:
    """One run on a server and a worker of its own. A call is held up before its function until a later drive."""

    def __init__(self, function: DurableFunction, codec: Codec, arguments: tuple[Any, ...], folder: Path) -> None:
        from sagas.hosts.shared import Registry

        self.registry = Registry(serving=False)
        self.registry.codec = codec
        self.registry.face = RunFace()
        self.registry.functions[function.name, function.version] = function
        self.function = function
        self.arguments = arguments
        self.folder = folder
        self.stack = AsyncExitStack()
        self.env: Any = None
        self.began: list[Any] = []
        self.seen: Any = None
        self.held = ""
        self.lost: set[str] = set()
        self.gate = asyncio.Condition()
        self.told: list[Any] = []
        self.calls = 0

    # -- the process -----------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        from sagas.hosts.temporal.serving import serve

        self.env = await self.stack.enter_async_context(environment(self.folder))
        worker = serve(
            self.env.client,
            self.registry,
            task_queue=QUEUE,
            max_cached_workflows=0,
            graceful_shutdown_timeout=timedelta(0),
            interceptors=[_holding(self)],
        )
        kind = worker.config()["workflows"][0]

        def begin(execution: Any) -> None:
            super(kind, execution).__init__()
            self.began.append(execution)

        kind.__init__ = begin
        self.worker = await self.stack.enter_async_context(worker)
        await self.env.client.start_workflow(self.function.name, args=self.arguments, id="one", task_queue=QUEUE)

    async def wait_for_turn(self, op: str) -> None:
        """Hold a call up."""
        self.calls += 1
        try:
            async with self.gate:
                await self.gate.wait_for(lambda: self.held != op)
            if op in self.lost:
                raise RuntimeError("the process is dead")  # Temporal gets no envelope of ours
        finally:
            self.calls -= 1

    # -- as the suite plays it -------------------------------------------------------------------------------------

    async def drive(self, until: str | None = None) -> Any:
        """See ``Host``."""
        self.held = until or ""
        if self.env is None:
            await self._open()
        async with self.gate:
            self.gate.notify_all()
        handle = self.env.client.get_workflow_handle("one")
        for told in self.told:
            await handle.signal(*told)
        self.told = []
        for patience in itertools.count():
            await self._look(handle)
            run = self.derive()
            wants = run.wants()
            if run.end is not None or (until is not None and until in wants):
                break
            due = [want.due_ns for want in wants.values() if getattr(want, "due_ns", None) is not None]
            if due and not self.calls:
                await self.env.sleep(timedelta(seconds=0.5 if patience < 5 else 61))
            elif not wants and not self.calls:
                break
            await asyncio.sleep(0.02)
        if run.end is not None:
            await replays(self.env, self.worker, ["one"])
            await self.stack.aclose()
        return run

    async def _look(self, handle: Any) -> None:
        """What the worker has fed, and what it has derived from that."""
        from temporalio.common import RawValue

        from sagas.hosts.shared import Snapshot

        found = await handle.query("journal", result_type=RawValue)
        snapshot = msgspec.json.decode(found.payload.data, type=Snapshot)
        # That which has answered, or a later one that has come as far: each was derived from the history alone.
        self.seen = next(
            each
            for each in reversed(self.began)
            if each._run is not None and len(each._run.journal) >= len(snapshot.entries)
        )
        assert [entry[:7] for entry in self.derive().journal[: len(snapshot.entries)]] == [
            entry[:7] for entry in snapshot.entries
        ]

    def derive(self, inputs: int | None = None) -> Any:
        """See ``Host``."""
        run = self.seen._new()
        for one in self.kept[:inputs]:
            one.feed(run)
        return run

    @property
    def kept(self) -> Sequence[Any]:
        """See ``Host``."""
        return list(self.seen._fed)

    def tell(self, verb: str, **payload: Any) -> None:
        """See ``Host``."""
        self.told.append(("operator", {"verb": verb, **payload}))

    def answer(self, key: str, value: Any, *, failed: bool = False) -> None:
        """See ``Host``."""
        answer = Answer(key, FAILED if failed else COMPLETED, msgspec.Raw(msgspec.json.encode(value)))
        self.told.append(("answer", msgspec.json.decode(msgspec.json.encode(answer))))

    async def lose(self, op: str) -> None:
        """See ``Host``."""
        self.lost.add(op)


def _holding(host: TemporalHost) -> Any:
    from temporalio import activity
    from temporalio.worker import ActivityInboundInterceptor, Interceptor

    class Calls(ActivityInboundInterceptor):
        async def execute_activity(self, input: Any) -> Any:
            await host.wait_for_turn(activity.info().activity_type)
            return await super().execute_activity(input)

    class Holding(Interceptor):
        def intercept_activity(self, next: Any) -> Any:  # noqa: A002 - the library's name
            return Calls(next)

    return Holding()


class TestTemporal(HostContract):
    @pytest.fixture(autouse=True)
    def _in_a_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def host(self, body: Durable[..., Any], *args: Any) -> Any:
        codec = Codec()
        return TemporalHost(servable(function_of(body, codec), codec), codec, args, self.folder)
