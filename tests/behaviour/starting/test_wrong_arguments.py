"""What an operation of the body cannot take is a fault of the code: the saga is stuck, and nothing is undone."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from durable_core import Context, Engine, RunStuck, durable
from sagas import Orchestrator, PayloadError, Saga, SagaStuck, saga, step
from sagas.testing import ManualClock
from tests.kit import Place, World, party

Use = Callable[[Any], Awaitable[Any]]

NO_SPANS = (
    None,
    -5,
    -0.001,
    float("nan"),
    float("inf"),
    float("-inf"),
    True,
    "5",
    Decimal(5),
    1e300,
    10**400,
    10**5000,
)
NO_SPANS += (timedelta(days=-1), timedelta.max, date(2030, 1, 1), [])
NO_TIMEOUTS = (*NO_SPANS[1:], 0, 0.0, False, timedelta(0))
NO_MOMENTS = (None, 5, "2030-01-01", date(2030, 1, 2), timedelta(days=1), datetime(2030, 1, 2), datetime.max)
NO_MOMENTS += (datetime.max.replace(tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC), Decimal(5), True)
NO_NAMES = (None, "", 7, b"approval", "a/b", "a#2", "a~undo", "a\nb", "x" * 201, ["approval"])
NO_COUNTS = (0, -1, True, 1.0, 0.5, float("nan"), "2", Decimal(2))


class Foreign:
    """No payload."""


booked = party("booked")


@step(compensation=None, because="it has no effect")
async def look(number: int) -> int:
    return number


async def odd(s: Saga, number: int) -> int:
    return await s.run(look, number)


@saga("small", version=1)
async def small(s: Saga, number: int) -> int:
    return await s.run(look, number)


async def _savepoint(s: Saga, name: Any) -> None:
    async with s.savepoint(name):
        await s.run(look, 1)


async def _branch(s: Saga, *given: Any, **named: Any) -> None:
    async with s.parallel() as p:
        p.run(*given, **named)


async def _plain(made: Any) -> None:
    """For operations that are plain calls."""


def uses() -> dict[str, Use]:
    """Every wrong use of an operation that sagas and durable functions both have, by what it is called in a report."""
    found: dict[str, Use] = {}
    for span in NO_SPANS:
        found[f"sleep {kind(span)}"] = lambda s, span=span: s.sleep(span)
    for when in NO_MOMENTS:
        found[f"sleep_until {kind(when)}"] = lambda s, when=when: s.sleep_until(when)
    for span in NO_TIMEOUTS:
        found[f"timeout {kind(span)}"] = lambda s, span=span: s.callback("approval", str, timeout=span)
        found[f"heartbeat {kind(span)}"] = lambda s, span=span: s.callback("approval", str, heartbeat=span)
    for name in NO_NAMES:
        found[f"callback named {kind(name)}"] = lambda s, name=name: s.callback(name, str)
    for declared in (Foreign, dict[int, Foreign], complex, 7):
        found[f"callback of {declared}"] = lambda s, declared=declared: s.callback("approval", declared)
    for most in NO_COUNTS:
        found[f"max_concurrency {kind(most)}"] = lambda s, most=most: s.map(look, [1], max_concurrency=most)
    for items in (None, 7, object()):
        found[f"map over {kind(items)}"] = lambda s, items=items: s.map(look, items)
    for name in (None, "", 7):
        found[f"patched {kind(name)}"] = lambda s, name=name: _plain(s.patched(name))
    found["first of nothing"] = lambda s: s.first()
    found["first of a text"] = lambda s: s.first("approval")
    return found


def of_sagas() -> dict[str, Use]:
    """Wrong uses of what only sagas have."""
    found: dict[str, Use] = {}
    for name in NO_NAMES:
        found[f"savepoint named {kind(name)}"] = lambda s, name=name: _savepoint(s, name)
    for status in (None, "half", ["half"], {"what": object()}):
        found[f"set_status {kind(status)}"] = lambda s, status=status: _plain(s.set_status(status))
    found["step without its argument"] = lambda s: s.run(look)
    found["step with a keyword too many"] = lambda s: s.run(look, 1, loud=True)
    found["child without its argument"] = lambda s: s.run(small)
    for what in (print, "look", None, 7):
        found[f"no step {kind(what)}"] = lambda s, what=what: s.run(what)
    found["branch without its argument"] = lambda s: _branch(s, odd)
    found["branch with a keyword too many"] = lambda s: _branch(s, odd, 1, loud=True)
    found["no branch"] = lambda s: _branch(s, 7)
    return found


def kind(value: object) -> str:
    """A value for the name of a test."""
    if isinstance(value, int) and value > 10**400:
        return "huge"
    return f"{type(value).__name__} {value!s:.30}" if type(value) is not object else "object"


USES = {**uses(), **of_sagas()}
SAID = {"step without its argument": "look(number: int) -> int cannot be called with ()", "no step int 7": "@step"}


def groups(found: dict[str, Use]) -> list[str]:
    """The operations that are used wrongly."""
    return sorted({use.partition(" ")[0] for use in found})


@pytest.mark.parametrize("operation", groups(USES))
async def test_a_wrong_argument_leaves_the_saga_stuck(place: Place, operation: str):
    """No ``except`` of the body sees it, nothing is journalled and nothing undone; with mended code `retry` ends it."""
    world, mended = World(), False
    wrong_uses = [use for use in USES if use.partition(" ")[0] == operation]

    @saga("wrong", version=1)
    async def wrong(s: Saga, use: str) -> str:
        kept = await s.run(booked, use)
        try:
            if not mended:
                await USES[use](s)
        except Exception:  # noqa: BLE001 - this is what must not see it
            return "caught"
        return kept

    async with place.orchestrator(wrong, world=world) as running:
        handles = {use: await running.start(wrong, use) for use in wrong_uses}
        for use, handle in handles.items():
            (stuck,) = await asyncio.gather(handle.result(20), return_exceptions=True)
            assert isinstance(stuck, SagaStuck), use
            assert "then retry the saga" in stuck.reason or "then retry the run" in stuck.reason, use
            assert len(stuck.reason) < 700, use
            assert SAID.get(use, "") in stuck.reason, use
            assert [entry.kind for entry in await handle.history()] == ["started", "succeeded", "faulted"], use
        assert world.kept() == ["booked"] * len(wrong_uses)
        mended = True
        for use, handle in handles.items():
            await running.retry(handle.id)
            assert await handle.result(20) == use
        assert world.count("booked") == len(wrong_uses)


@pytest.mark.parametrize("operation", groups(uses()))
async def test_a_wrong_argument_leaves_a_run_of_the_core_stuck(operation: str):
    """The same for a durable function."""

    @durable("wrong", version=1)
    async def wrong(ctx: Context, use: str) -> str:
        try:
            await USES[use](Translated(ctx))
        except Exception:  # noqa: BLE001 - this is what must not see it
            return "caught"
        return "done"

    async with Engine("memory://", [wrong]) as engine:
        for use in [use for use in uses() if use.partition(" ")[0] == operation]:
            handle = await engine.start(wrong, use)
            (stuck,) = await asyncio.gather(handle.result(20), return_exceptions=True)
            assert isinstance(stuck, RunStuck), use
            assert "then retry the run" in stuck.reason, use
            assert [entry.kind for entry in await handle.history()] == ["faulted"], use


class Translated:
    """A context whose map takes a plain function, since the core knows nothing of sagas' steps."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    def map(self, _: object, items: Any, **options: Any) -> Any:
        return self._ctx.map(work, items, **options)


async def work(number: int) -> int:
    return number


PAST = (
    datetime.min.replace(tzinfo=UTC),
    datetime(1960, 1, 1, tzinfo=UTC),
    datetime(2029, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2030, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))),
)


@pytest.mark.parametrize("wait", ["zero", "zero span", *PAST], ids=str)
async def test_no_time_and_a_past_time_are_no_mistakes(place: Place, wait: Any):
    """``sleep(0)`` and ``sleep_until`` of a past time go on at once."""

    @saga("short", version=1)
    async def short(s: Saga) -> str:
        if isinstance(wait, datetime):
            await s.sleep_until(wait)
        else:
            await s.sleep(0 if wait == "zero" else timedelta(0))
        return "done"

    clock = ManualClock()
    async with place.orchestrator(short, world=World(), clock=clock) as running:
        began = clock.now()
        assert await (await running.start(short)).result(20) == "done"
        assert clock.now() == began


@saga("typed-order", version=1)
async def typed_order(s: Saga, item: str, amount: int, pieces: int = 1) -> None:
    """Takes numbers."""


@pytest.mark.parametrize("args", [("teapot", "3"), ("teapot", "3", 2)], ids=["some arguments", "all of them"])
async def test_a_value_of_another_type_is_told_by_its_parameter(args: tuple[Any, ...]):
    """The parameter, its type and what came, and that nothing was started; nothing of data of older releases."""
    async with Orchestrator("memory://", sagas=[typed_order]) as running:
        with pytest.raises(PayloadError) as caught:
            await running.start(typed_order, *args)  # type: ignore[arg-type]
    said = str(caught.value)
    assert said.startswith("starting typed-order: parameter 'amount' must be int, and got str. ")
    assert "Nothing was started" in said
    assert "older release" not in said
