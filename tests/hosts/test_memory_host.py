"""The host contract on the memory host."""

import asyncio
from functools import partial
from typing import Any

import pytest
from msgspec import Raw

from durable_core import Context, durable, step
from durable_core.hosts.hosted import HostedRun
from durable_core.model.calls import Done
from durable_core.model.codec import Codec
from durable_core.model.durable import Durable
from durable_core.model.run import RunStatus
from durable_core.testing.host_contract import HostContract, assert_derived_alike, function_of, steps
from durable_core.testing.memory_host import MemoryHost


class TestMemoryHost(HostContract):
    def host(self, body: Durable[..., Any], *args: Any) -> MemoryHost:
        codec = Codec()
        return MemoryHost(function_of(body, codec), codec, args)


@pytest.mark.parametrize("verb", [None, "kill"])
def test_a_result_that_the_code_no_longer_reads(verb: str | None):
    """The host keeps a result of another type: the run is stuck on it; of a killed run it is evidence only."""
    host = TestMemoryHost().host(steps, "a")

    async def main() -> HostedRun:
        run = await host.drive(until="book")
        if verb is not None:
            host.tell(verb)
        await host.drop_calls()
        host.kept.append(partial(HostedRun.returned, op="book", done=Done(at=host.now_ns, began=1, value=Raw(b"3"))))
        run = host.derive()
        assert [entry.kind for entry in run.journal].count("succeeded") == (verb is None)
        return run

    run = asyncio.run(main())
    if verb is None:
        assert "step 'book'" in (run.stuck or "")
    else:
        assert run.end is RunStatus.KILLED
    assert_derived_alike(host)


@step
def stops() -> int:
    raise StopIteration


@step
async def cancels_itself() -> int:
    raise asyncio.CancelledError


@durable("raises", version=1)
async def raises(ctx: Context, what: str) -> int:
    return await ctx.step(stops if what == "stops" else cancels_itself)


@pytest.mark.parametrize(("what", "error"), [("stops", "RuntimeError"), ("cancels_itself", "StepInterrupted")])
def test_what_a_task_cannot_carry_is_an_outcome_too(what: str, error: str):
    """As on our own engine: a plain function's StopIteration, and a cancellation that nobody asked for."""
    host = TestMemoryHost().host(raises, what)

    async def main() -> None:
        async with asyncio.timeout(30):
            run = await host.drive()
        assert run.end is RunStatus.FAILED
        assert error.encode() in (run.record.error or b"")

    asyncio.run(main())
