"""The body always sees the user's own exception, first time and on every replay."""

# ruff: noqa: FBT003

import dataclasses
import enum
from decimal import Decimal
from typing import Any, Self

import attrs
import pytest

from sagas import Orchestrator, RemoteError, Saga, SagaCompensated, saga
from tests.kit import act, settled, until


class Color(enum.Enum):
    RED = "red"


class Plain(Exception): ...


class Keyworded(Exception):
    def __init__(self, *, code: int, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint


class Swapped(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(second, first)
        self.pair = [first, second]


class NoSuper(Exception):
    def __init__(self, a: int, b: int) -> None:
        self.total = a + b


class Counting(Exception):
    made = 0

    def __init__(self, text: str) -> None:
        super().__init__(text)
        Counting.made += 1


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Stated(Exception):
    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order

    def __str__(self) -> str:
        return f"order {self.order} is broken"


class Stringy(Exception):
    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if not kwargs:
            raise TypeError("keywords only")
        return super().__new__(cls)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("stringy")
        self.kwargs = kwargs


@attrs.frozen
class Frozen(Exception):
    order: str
    amount: int = 3


@dataclasses.dataclass(frozen=True)
class FrozenData(Exception):
    """It refuses all assignment, that of its traceback too."""

    order: str


@attrs.define
class Defined(Exception):
    order: str


@dataclasses.dataclass
class Data(Exception):
    order: str
    amount: int = 3


def look(error: BaseException) -> str:
    """All that the contract promises of an exception."""
    if isinstance(error, BaseExceptionGroup):
        return f"{type(error).__name__} {error.message} [{', '.join(look(one) for one in error.exceptions)}]"
    extras = {name: value for name, value in error.__dict__.items() if name != "__notes__"}
    return f"{type(error).__module__}.{type(error).__qualname__} {error.args!r} {extras!r} {error}"


class Outer:
    class Inner(Exception): ...


CASES: dict[str, Any] = {
    "plain": lambda: Plain("no"),
    "several": lambda: Plain("a", 2, 3.5, None, True, ["x"], {"k": 1}),
    "none": Plain,
    "keyworded": lambda: Keyworded(code=7, hint="h"),
    "swapped": lambda: Swapped("a", "b"),
    "nosuper": lambda: NoSuper(1, 2),
    "stated": lambda: Stated("o-1"),
    "stringy": lambda: Stringy(a=1),
    "nested": lambda: Outer.Inner("in"),
    "slotted": lambda: Slotted(9),
    "attrs frozen": lambda: Frozen("x"),
    "attrs": lambda: Defined("x"),
    "frozen dataclass": lambda: FrozenData("x"),
    "dataclass": lambda: Data("x", amount=5),
    "keyerror": lambda: KeyError("k"),
    "oserror": lambda: OSError(2, "No such file", "f.txt"),
    "notfound": lambda: FileNotFoundError(2, "No such file", "f.txt"),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    "surrogate": lambda: Plain("\ud800"),
    "stop": lambda: StopAsyncIteration("s"),
    "group": lambda: ExceptionGroup(
        "g", [Plain("a", 1), ExceptionGroup("h", [Keyworded(code=1, hint="x"), ValueError("v")])]
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_an_exception_is_the_same_on_every_replay(file: str, world: list[str], case: str):
    """The user's own type, whatever its constructor looks like, with its `args` and `__dict__`.

    First time and on replay.
    """
    charge = act(world, "charge", CASES[case], unknown=())
    seen: list[str] = []

    @saga("replayed", version=1)
    async def body(s: Saga) -> str:
        try:
            await s.run(charge)
        except Exception as error:  # noqa: BLE001 - any of the cases
            seen.append(look(error))
        for _ in range(3):
            await (await s.callback("go on", str)).result()
        return "end"

    async with Orchestrator(file, sagas=[body]) as orchestrator:
        await settled(await orchestrator.start(body, id="r"), "waiting")
    for before, name in enumerate(("go on", "go on#2", "go on#3"), 1):
        async with Orchestrator(file, sagas=[body]) as orchestrator:
            await orchestrator.complete_callback(saga_id="r", name=name, value="go")
            await until(lambda before=before: len(seen) > before)
            await settled(await orchestrator.get("r"), "waiting", "completed")
    async with Orchestrator(file) as orchestrator:
        assert await (await orchestrator.get("r")).result() == "end"
    assert world == ["charge"]
    assert len(seen) >= 3
    if case != "surrogate":
        assert set(seen) == {look(CASES[case]())}


@pytest.mark.parametrize("case", CASES)
async def test_an_exception_is_the_cause_in_another_process(file: str, world: list[str], case: str):
    """`SagaCompensated.__cause__` = the user's original exception, also for one who asks later."""
    charge = act(world, "charge", CASES[case], unknown=())

    @saga("caused", version=1)
    async def body(s: Saga) -> None:
        await s.run(charge)

    async with Orchestrator(file, sagas=[body]) as orchestrator:
        with pytest.raises(SagaCompensated) as first:
            await (await orchestrator.start(body, id="r")).result()
    async with Orchestrator(file, worker=False) as orchestrator:
        with pytest.raises(SagaCompensated) as later:
            await (await orchestrator.get("r")).result()
    if case != "surrogate":
        assert look(first.value.__cause__) == look(later.value.__cause__) == look(CASES[case]())
    assert (first.value.status, first.value.cause, first.value.compensated) == ("compensated", "failed", [])


async def test_what_json_cannot_say_is_its_repr(url: str, world: list[str]):
    """`args` and `__dict__` as far as JSON allows, else their repr; so nothing is lost and nothing breaks."""
    thing = object()

    def make() -> Exception:
        error = Plain("x", thing, {1, 2}, Decimal("1.5"), Color.RED, b"\xff")
        error.thing = thing
        error.fine = 3
        return error

    charge = act(world, "charge", make)

    @saga("reprs", version=1)
    async def body(s: Saga) -> list[str]:
        try:
            await s.run(charge)
        except Plain as error:
            return [repr(error.args), repr(error.thing), repr(error.fine)]
        return []

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        args, kept, fine = await (await orchestrator.start(body)).result()
    assert args.startswith("('x', ")
    assert "object object at" in args
    assert "object object at" in kept
    assert fine == "3"


async def test_a_type_that_is_gone_is_a_remote_error(file: str, world: list[str]):
    """A type that is not imported on replay becomes `RemoteError`, which names it."""
    made = type("Vanished", (Exception,), {"__module__": "no_such_module_here"})
    charge = act(world, "charge", lambda: made("gone"))
    seen: list[BaseException] = []

    @saga("gone", version=1)
    async def body(s: Saga) -> str:
        try:
            await s.run(charge)
        except Exception as error:  # noqa: BLE001 - either type
            seen.append(error)
        answer = await s.callback("go on", str)
        return await answer.result()

    async with Orchestrator(file, sagas=[body]) as orchestrator:
        await settled(await orchestrator.start(body, id="r"), "waiting")
    async with Orchestrator(file, sagas=[body]) as orchestrator:
        await orchestrator.complete_callback(saga_id="r", name="go on", value="end")
        assert await (await orchestrator.get("r")).result() == "end"
    assert isinstance(seen[-1], RemoteError)
    assert "Vanished" in str(seen[-1])
    assert "gone" in str(seen[-1])


async def test_a_body_may_catch_by_type_after_a_restart(file: str, world: list[str]):
    """A body may catch a step's exception and go on: by its own type, also on replay, so the same way is taken."""
    charge, other, more = (
        act(world, "charge", lambda: Keyworded(code=7, hint="h")),
        act(world, "other"),
        act(world, "more"),
    )

    @saga("catches", version=1)
    async def body(s: Saga) -> str:
        try:
            await s.run(charge)
        except Keyworded as error:
            await s.run(other, f"{error.code} {error.hint}")
        answer = await s.callback("go on", str)
        said = await answer.result()
        return await s.run(more, said)

    async with Orchestrator(file, sagas=[body]) as orchestrator:
        await settled(await orchestrator.start(body, id="r"), "waiting")
    async with Orchestrator(file, sagas=[body]) as orchestrator:
        await orchestrator.complete_callback(saga_id="r", name="go on", value="end")
        await (await orchestrator.get("r")).result()
    assert world == ["charge", "other 7 h", "more end"]


@pytest.mark.parametrize("rejects", [False, True])
async def test_a_local_class_is_itself_where_it_was_raised(file: str, world: list[str], *, rejects: bool):
    """In the process that raised it, a class that no module holds is that very class, also where a step lists it.

    What was being handled as it was raised is told too.
    """

    class Local(Exception): ...

    def raises() -> None:
        try:
            raise KeyError("inner")  # noqa: TRY301 - the test
        except KeyError:
            raise Local("none left", 7)  # noqa: B904 - the test

    charge = act(world, "charge", raises, **({"rejects": (Local,)} if rejects else {}))

    @saga("local", version=1)
    async def body(s: Saga) -> None:
        try:
            await s.run(charge)
        except Local as error:
            world.append(repr(error.args))
            raise

    async with Orchestrator(file, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        for _ in range(2):
            with pytest.raises(SagaCompensated) as end:
                await handle.result()
            assert type(end.value.__cause__) is Local
            assert repr(end.value.__cause__.__context__) == "KeyError('inner')"
    assert world == ["charge", "('none left', 7)"]
