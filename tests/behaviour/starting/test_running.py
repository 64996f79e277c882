"""Starting, watching, replaying, payloads and callbacks."""

# ruff: noqa: ASYNC110

import asyncio
import dataclasses
import enum
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
import pydantic
import pytest
import sqlmodel

from sagas import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackFailed,
    CallbackNotFound,
    CallbackTimeout,
    Orchestrator,
    PayloadError,
    Saga,
    SagaCompensated,
    SagaExists,
    SagaNotFound,
    lookup,
    saga,
)
from sagas.testing import ManualClock
from tests.kit import act, settled, steps, until


class Broken(Exception): ...


class Level(enum.Enum):
    HIGH = "high"


@attrs.frozen
class Line:
    sku: str
    price: Decimal


@dataclasses.dataclass
class Box:
    lines: list[Line]
    level: Level = Level.HIGH


class Person(pydantic.BaseModel):
    name: str
    born: date


class Hero(sqlmodel.SQLModel):
    id: int | None = None
    name: str


VALUES: dict[str, tuple[Any, Any]] = {
    "attrs": (Line, Line("s", Decimal("1.10"))),
    "dataclass": (Box, Box([Line("s", Decimal("2.50"))])),
    "enum": (Level, Level.HIGH),
    "uuid": (UUID, UUID(int=7)),
    "datetime": (datetime, datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
    "date": (date, date(2030, 1, 2)),
    "timedelta": (timedelta, timedelta(days=1, microseconds=3)),
    "decimal": (Decimal, Decimal("0.10")),
    "bytes": (bytes, b"\x00\xff"),
    "tuple": (tuple[int, str], (1, "x")),
    "tuples": (tuple[int, ...], (1, 2, 3)),
    "set": (set[str], {"a", "b"}),
    "frozenset": (frozenset[int], frozenset({1})),
    "pydantic": (Person, Person(name="Ann", born=date(2000, 1, 1))),
    "sqlmodel": (Hero, Hero(id=3, name="H")),
    "optional": (Line | None, None),
    "dict": (dict[str, Decimal], {"a": Decimal("1.0")}),
    "keyed": (dict[int, Line], {1: Line("s", Decimal(1))}),
    "nested": (list[Box | None], [Box([]), None]),
    "large": (int, 2**70),
    "float": (float, 0.1),
}


@pytest.mark.parametrize("case", VALUES)
async def test_values_go_round(url: str, case: str):
    """Arguments and results: what is JSON-representable, plus the named types, decoded by annotation, nested or not."""
    kind, value = VALUES[case]
    seen: list[Any] = []  # by the step, and by the body however often it is played

    @lookup
    async def look(given: kind) -> kind:
        seen.append(given)
        return given

    @saga("values", version=1)
    async def body(s: Saga, given: kind) -> kind:
        seen.append(given)
        got = await s.run(look, given)
        seen.append(got)
        return got

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body, value, id="v")
        assert await handle.result() == value
        assert (await (await orchestrator.start(body, value, id="v")).result()) == value
        info = await handle.info()
    assert all(one == value and type(one) is type(value) for one in seen)
    assert len(seen) >= 3
    assert info.error is None


BAD = {"object": object(), "function": print, "nested": {1: object()}, "nan": float("nan"), "large": "x" * 2_000_000}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_an_argument_that_cannot_be_kept_is_refused(url: str, world: list[str], bad: Any):
    """What cannot be encoded is refused with `PayloadError` naming saga and step before the effect; the rest is undone.

    A saga with such an input is not started.
    """
    first = act(world, "first")

    @lookup
    async def look(given: Any) -> str:
        world.append("look")
        return repr(given)

    @saga("bad", version=1)
    async def body(s: Saga) -> str:
        await s.run(first)
        return await s.run(look, bad)

    @saga("takes", version=1)
    async def takes(s: Saga, given: Any) -> None: ...

    async with Orchestrator(url, sagas=[body, takes]) as orchestrator:
        with pytest.raises(SagaCompensated) as caught:
            await (await orchestrator.start(body, id="b")).result()
        assert isinstance(caught.value.__cause__, PayloadError)
        assert "b, step 'look'" in str(caught.value.__cause__)
        assert world == ["first", "undo first"]
        with pytest.raises(PayloadError, match="takes"):
            await orchestrator.start(takes, bad, id="t")
        with pytest.raises(SagaNotFound):
            await orchestrator.get("t")


async def test_a_first_run_equals_a_replay(url: str):
    """A step's caller always gets the value after its round trip.

    Also where its annotation says less than the value.
    """

    @lookup
    async def loose() -> Any:
        return (1, {2: "x"}, {"when": date(2030, 1, 1)})

    kept: dict[str, Any] = {"list": [1]}

    @lookup
    async def shares() -> dict[str, Any]:
        return kept

    @saga("loose", version=1)
    async def body(s: Saga) -> str:
        got = await s.run(shares)
        got["list"].append(2)
        return repr((await s.run(loose), await s.run(shares)))

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        said = await (await orchestrator.start(body)).result()
    assert "date(" not in said, "what is kept has no date in it, so nobody is shown one"
    assert kept == {"list": [1]}


async def test_one_id_is_one_run_of_fifty_starts(url: str, world: list[str]):
    """The same id with the same saga and input gives the existing run, also when fifty ask at once.

    An argument by position or by keyword is the same input. Else `SagaExists`, and nothing is disturbed.
    """
    a = act(world, "a")

    @saga("ids", version=1)
    async def body(s: Saga, n: int, m: int = 2) -> str:
        return await s.run(a, f"{n}")

    @saga("others", version=1)
    async def other(s: Saga, n: int, m: int = 2) -> None: ...

    async with Orchestrator(url, sagas=[body, other]) as orchestrator:
        handles = await asyncio.gather(*(orchestrator.start(body, 1, id="one") for _ in range(50)))
        assert {await handle.result() for handle in handles} == {"a done"}
        assert world == ["a 1"]
        again = await orchestrator.start(body, 1, id="one", deadline=5)
        assert await again.result() == "a done"
        assert await (await orchestrator.start("ids", 1, id="one")).result() == "a done"
        assert await (await orchestrator.start(body, n=1, id="one")).result() == "a done"
        for what, *given in ((body, 2), (body, 1, 3), (other, 1), ("others", 1)):
            with pytest.raises(SagaExists, match="one"):
                await orchestrator.start(what, *given, id="one")
        mixed = await asyncio.gather(
            *(orchestrator.start(body, n % 2, id="two") for n in range(50)), return_exceptions=True
        )
        assert sum(isinstance(one, SagaExists) for one in mixed) == 25
        assert await orchestrator.count() == 2
    assert len(world) == 2


async def test_info_and_list_and_count(url: str, world: list[str]):
    """`SagaInfo` has the fields of the contract.

    `list` and `count` filter by status, saga, version, since and limit.
    """
    clock = ManualClock()
    a = act(world, "a")

    @saga("waits", version=4)
    async def waits(s: Saga, n: int) -> str:
        s.set_status({"at": "a"})
        await s.run(a)
        await s.sleep(3600)
        return "woke"

    @saga("fails", version=1)
    async def fails(s: Saga) -> None:
        await s.run(a)
        raise Broken("it")

    async with Orchestrator(url, sagas=[waits, fails], clock=clock) as orchestrator:
        handle, failed = await orchestrator.start(waits, 5, id="w"), await orchestrator.start(fails, id="f")
        with pytest.raises(SagaCompensated):
            await failed.result()
        with pytest.raises(TimeoutError):
            await handle.result(timeout=0.01)
        info, other = await settled(handle, "waiting"), await failed.info()
        assert (info.id, info.saga, info.version, info.status, info.cause) == ("w", "waits", 4, "waiting", None)
        assert info.status_detail == {"at": "a"}
        assert info.input in ({"n": 5}, [5], (5,), 5, {"args": [5]})
        assert info.wake_at is not None
        assert info.wake_at.tzinfo is not None
        assert (info.result, info.error, info.ended_at, info.paused) == (None, None, None, False)
        first = info.steps[0]
        assert (first.key, first.kind, first.status) == ("a", "step", "succeeded")
        assert (first.attempts, first.result) == (1, "a done")
        assert info.steps[1].kind == "sleep"
        assert other.created_at <= other.ended_at
        assert "it" in str(other.error)
        assert other.steps[0].compensation.kind == "compensation"

        async def ids(**filters: Any) -> list[str]:
            found = await orchestrator.list(**filters)
            assert await orchestrator.count(**{k: v for k, v in filters.items() if k != "limit"}) >= len(found)
            return sorted(one.id for one in found)

        assert await ids() == ["f", "w"]
        assert await ids(status="waiting") == ["w"]
        assert await ids(status="compensated", saga="fails") == ["f"]
        assert await ids(saga="waits", version=4) == ["w"]
        assert await ids(version=9) == []
        assert len(await ids(limit=1)) == 1
        assert await ids(since=info.created_at - timedelta(days=1)) == ["f", "w"]
        assert await ids(since=datetime(2200, 1, 1, tzinfo=UTC)) == []
        entries = await failed.history()
        assert [entry.seq for entry in entries] == sorted({entry.seq for entry in entries})
        await clock.advance(3600)
        assert await handle.result() == "woke"
        assert (await handle.info()).result == "woke"


async def test_now_uuid_random_and_log_are_the_same_on_replay(file: str, caplog: pytest.LogCaptureFixture):
    """`s.now/uuid/random`: the same on replay; `s.log` is silent while replaying."""
    drawn: list[Any] = []

    @saga("draws", version=1)
    async def body(s: Saga) -> str:
        s.log.warning("hello from the body")
        first = [s.now(), s.uuid(), s.random(), s.uuid()]
        assert s.now().tzinfo is not None
        await (await s.callback("go", str)).result()
        drawn.append([*first, s.random(), s.uuid()])
        await (await s.callback("go", str)).result()
        drawn.append([*first, *drawn[-1][4:]])
        return "end"

    for name in ("go", "go#2"):
        async with Orchestrator(file, sagas=[body]) as orchestrator:
            if name == "go":
                await settled(await orchestrator.start(body, id="d"), "waiting")
            await orchestrator.complete_callback(saga_id="d", name=name, value="x")
            await settled(await orchestrator.get("d"), "waiting", "completed")
            await until(lambda: drawn)
    async with Orchestrator(file, sagas=[body]) as orchestrator:
        assert await (await orchestrator.get("d")).result() == "end"
    assert all(one[:4] == drawn[0][:4] for one in drawn)
    assert drawn[0] == drawn[1]
    assert drawn[0][1] != drawn[0][3]
    assert sum("hello from the body" in record.getMessage() for record in caplog.records) == 1


def listening(timeout: Any = None) -> Any:
    """A saga that waits for an answer, which is a Line."""

    @saga("listens", version=1)
    async def body(s: Saga) -> str:
        answer = await s.callback("approval", Line, timeout=timeout)
        s.set_status({"token": answer.token})
        try:
            got = await answer.result()
        except (CallbackTimeout, CallbackFailed) as error:
            return f"{type(error).__name__} {error}"
        await s.sleep(1000)
        return f"{got.sku} {got.price!r}"

    return body


async def test_a_callback_is_answered_once(url: str):
    """The first answer wins, repeating it is harmless; a different second one raises; a forged token is not found."""
    body, clock = listening(), ManualClock()
    async with Orchestrator(url, sagas=[body], clock=clock) as orchestrator:
        handle = await orchestrator.start(body, id="c")
        token = (await settled(handle, "waiting")).status_detail["token"]
        for forged in (token + "x", token[:-2] + "zz", "", "nonsense"):
            with pytest.raises(CallbackNotFound):
                await orchestrator.complete_callback(forged, Line("s", Decimal(1)))
        for wrong in ({"sku": "s"}, "text", None, 5):
            with pytest.raises(PayloadError):
                await orchestrator.complete_callback(token, wrong)
        with pytest.raises((CallbackNotFound, SagaNotFound), match="nobody"):
            await orchestrator.complete_callback(saga_id="nobody", name="approval", value=1)
        await orchestrator.complete_callback(token, Line("s", Decimal("1.10")))
        await orchestrator.complete_callback(token, Line("s", Decimal("1.10")))
        await orchestrator.complete_callback(saga_id="c", name="approval", value=Line("s", Decimal("1.10")))
        with pytest.raises(CallbackAlreadyAnswered, match="approval"):
            await orchestrator.complete_callback(token, Line("other", Decimal(1)))
        with pytest.raises(CallbackAlreadyAnswered):
            await orchestrator.fail_callback(token, "no")
        await clock.advance(1000)
        assert await handle.result() == "s Decimal('1.10')"


async def test_a_callback_fails_times_out_and_closes(url: str):
    """`fail_callback` raises `CallbackFailed` in the body; a timeout `CallbackTimeout`.

    An answer after it `CallbackClosed`.
    """
    body, clock = listening(60), ManualClock()
    async with Orchestrator(url, sagas=[body], clock=clock) as orchestrator:
        late, failed, stopped = [await orchestrator.start(body, id=f"c{n}") for n in range(3)]
        for one in (late, failed, stopped):
            await settled(one, "waiting")
        await orchestrator.fail_callback(saga_id="c1", name="approval", message="no way")
        assert "no way" in await failed.result()
        await stopped.cancel()
        with pytest.raises(SagaCompensated):
            await stopped.result()
        await clock.advance(60)
        assert (await late.result()).startswith("CallbackTimeout")
        for closed in ("c0", "c2"):
            with pytest.raises(CallbackClosed, match=closed):
                await orchestrator.complete_callback(saga_id=closed, name="approval", value=Line("s", Decimal(1)))


async def test_the_first_of_several_callbacks(url: str):
    """`s.first(a, b)`: of several callbacks, the one answered first; an answer before the saga waits is kept."""
    gate = asyncio.Event()

    @lookup
    async def hold() -> None:
        await gate.wait()

    @saga("first", version=1)
    async def body(s: Saga) -> str:
        yes, no = await s.callback("yes", str), await s.callback("no", str)
        await s.run(hold)
        won = await s.first(yes, no)
        return await won.result() if hasattr(won, "result") else str(won)

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body, id="f")
        while "hold" not in steps(await handle.info()):
            await asyncio.sleep(0.002)
        await orchestrator.complete_callback(saga_id="f", name="no", value="NO")
        gate.set()
        assert "NO" in await handle.result()


async def test_a_patch_is_true_for_runs_after_it(file: str):
    """`s.patched("name")`: true for runs that begin, or first reach it, after the change."""

    @saga("patch", version=1)
    async def before(s: Saga) -> str:
        await (await s.callback("one", str)).result()
        await (await s.callback("two", str)).result()
        return "old"

    @saga("patch", version=1)
    async def after(s: Saga) -> str:
        early = s.patched("early")
        await (await s.callback("one", str)).result()
        middle = s.patched("middle")
        await (await s.callback("two", str)).result()
        return f"{early} {middle} {s.patched('late')}"

    async with Orchestrator(file, sagas=[before]) as orchestrator:
        for name in ("a", "b"):
            await settled(await orchestrator.start(before, id=name), "waiting")
        await orchestrator.complete_callback(saga_id="a", name="one", value="x")
        while len((await (await orchestrator.get("a")).info()).steps) < 2:
            await asyncio.sleep(0.002)
    async with Orchestrator(file, sagas=[after]) as orchestrator:
        await orchestrator.start(after, id="c")
        for name in ("b", "c"):
            await orchestrator.complete_callback(saga_id=name, name="one", value="x")
        for name in ("a", "b", "c"):
            while len((await (await orchestrator.get(name)).info()).steps) < 2:
                await asyncio.sleep(0.002)
            await orchestrator.complete_callback(saga_id=name, name="two", value="x")
        said = [await (await orchestrator.get(name)).result() for name in ("a", "b", "c")]
    assert said == ["False False True", "False True True", "True True True"]
