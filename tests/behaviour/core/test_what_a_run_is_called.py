"""The engine's messages call a run what its layer calls it: a run in the core, a saga for the users of sagas."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from durable_core import Context, Engine, durable
from durable_core import step as core_step
from durable_core.testing import ManualClock
from sagas import Orchestrator, Saga, lookup, saga

Ask = Callable[..., Awaitable[Any]]


async def slow() -> None:
    await asyncio.Event().wait()


def unstorable() -> object:
    return object()


def misread() -> int:
    return "no number"  # type: ignore[return-value]


def takes(number: int) -> None: ...


def leaves() -> None:
    raise SystemExit(3)


def declared(layer: str, fn: Callable[..., Any]) -> Any:
    """The function as a step of this layer."""
    make: Any = lookup if layer == "saga" else core_step
    return make(timeout=0.01 if fn is slow else None)(fn)


def runs(fn: Callable[..., Any], *args: Any) -> Ask:
    """A body that runs this step."""

    async def body(s: Any, layer: str) -> None:
        run = s.run if layer == "saga" else s.step
        await run(declared(layer, fn), *args)

    return body


async def no_await(s: Any, layer: str) -> None:
    s.sleep(1)
    await s.sleep(0)


async def foreign(s: Any, layer: str) -> None:
    await asyncio.sleep(1)


async def bare_yield(s: Any, layer: str) -> None:
    class Bare:
        def __await__(self) -> Any:
            yield

    await Bare()


async def bad_sleep(s: Any, layer: str) -> None:
    await s.sleep(-5)


async def bad_map(s: Any, layer: str) -> None:
    await s.map(declared(layer, takes), [1], max_concurrency=0)


async def no_callbacks(s: Any, layer: str) -> None:
    await s.first()


async def unreadable_callback(s: Any, layer: str) -> None:
    await s.callback("approval", asyncio.Event)


async def late_callback(s: Any, layer: str) -> None:
    await (await s.callback("approval", str, timeout=1)).result()


async def silent_callback(s: Any, layer: str) -> None:
    await (await s.callback("approval", str, timeout=60, heartbeat=1)).result()


async def late_branch(s: Any, layer: str) -> None:
    async with s.parallel() as block:
        pass
    block.run(declared(layer, takes), 1)
    await s.sleep(0)


async def no_block(s: Any, layer: str) -> None:
    s.parallel().run(declared(layer, takes), 1)
    await s.sleep(0)


async def no_exception(s: Any, layer: str) -> None:
    raise GeneratorExit


async def unstorable_result(s: Any, layer: str) -> object:
    return object()


async def bad_patch(s: Any, layer: str) -> None:
    s.patched(5)


WRONG: dict[str, Ask] = {
    **{each.__name__: runs(each) for each in (slow, unstorable, misread, leaves)},
    "bad argument": runs(takes, "five"),
    **{each.__name__: each for each in (no_await, foreign, bare_yield, bad_sleep, bad_map, bad_patch, no_block)},
    **{each.__name__: each for each in (no_callbacks, unreadable_callback, late_callback, silent_callback)},
    **{each.__name__: each for each in (late_branch, no_exception, unstorable_result)},
}


def texts_of(error: BaseException | None) -> list[str]:
    """What an error and its causes say."""
    return [] if error is None else [str(error), *texts_of(error.__cause__)]


async def read(handle: Any) -> list[str]:
    """All that a user can read about how it went."""
    texts: list[str] = []
    try:
        async with asyncio.timeout(20):
            await handle.result()
    except Exception as end:  # noqa: BLE001 - whatever it is: what it says is looked at
        texts += texts_of(end)
    info = await handle.info()
    shown = [info.reason, info.error, *(step.error for step in info.steps)]
    texts += [str(each) for each in shown if each is not None]
    return texts + [str(entry.error) for entry in await handle.history() if entry.error]


def names(texts: list[str]) -> set[str]:
    """What the messages call it; calls such as ``s.run(...)``, commands and addresses are left out."""
    called = [re.sub(r"`[^`]*`|\S*\.run\b|https?://\S+|is run again|\S*[/\\]\S*", "", text) for text in texts]
    return {found for text in called for found in re.findall(r"\b(run|saga)s?\b", text)}


def said(name: str, layer: str) -> list[str]:
    """All texts that this goes wrong with, in this layer."""
    body = WRONG[name]

    @saga("tried", version=1)
    async def tried(s: Saga) -> Any:
        return await body(s, layer)

    @durable("tried", version=1)
    async def tried_alone(ctx: Context) -> Any:
        return await body(ctx, layer)

    async def main() -> list[str]:
        clock = ManualClock(auto=True)
        made: Any = (
            Orchestrator("memory://", sagas=[tried], clock=clock, grace=1)
            if layer == "saga"
            else Engine("memory://", [tried_alone], clock=clock, grace=1)
        )
        async with made as running:
            return await read(await running.start("tried", id="a"))

    return asyncio.run(main())


@pytest.mark.parametrize("name", WRONG)
def test_a_saga_is_never_called_a_run(name: str, caplog: pytest.LogCaptureFixture):
    """In what `result()` raises and its causes, the reason, the steps, the history and the log."""
    texts = said(name, "saga")
    assert texts
    assert names([*texts, *(record.getMessage() for record in caplog.records)]) == {"saga"}


@pytest.mark.parametrize("name", WRONG)
def test_the_core_alone_says_run(name: str, caplog: pytest.LogCaptureFixture):
    """The same mistakes in a durable function."""
    texts = said(name, "run")
    assert texts
    assert names([*texts, *(record.getMessage() for record in caplog.records)]) == {"run"}
