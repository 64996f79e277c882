"""Values of sagas: each comes back as it went, or is refused before anything has happened."""

from __future__ import annotations

import enum
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import attrs
import pytest
from pydantic import BaseModel, Field, SecretStr

from sagas import (
    DefinitionError,
    Orchestrator,
    PayloadError,
    Saga,
    SagaCompensated,
    SagaStuck,
    Unknown,
    codec,
    lookup,
    pivot,
    saga,
    step,
)
from tests import forked

if TYPE_CHECKING:
    from decimal import Decimal as Amount

WORLD: list[Any] = []


@pytest.fixture(autouse=True)
def world() -> list[Any]:
    WORLD.clear()
    return WORLD


@attrs.frozen
class Card:
    number: str


@attrs.frozen
class Gold(Card):
    limit: int = 0


@attrs.frozen
class Iban:
    number: str


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Scan(BaseModel):
    pages: list[bytes]
    checked: bool = Field(default=False, exclude=True)


class Rate(enum.Enum):
    NONE = None
    LOW = ("low", 1)


class Number(int):
    pass


class Words(str):
    __slots__ = ()


class Grid:
    """A type of another library."""

    def __init__(self, cells: list[int]) -> None:
        self.cells = cells


class FineGrid(Grid):
    pass


codec.register(Grid, encode=lambda grid: grid.cells, decode=Grid)


@step
async def pay(by: Card | Iban, rate: Rate, only: Literal[Rate.LOW] | None = None) -> Card | Iban:
    WORLD.append(("pay", by, rate, only))
    return by


@pay.compensate
async def refund(paid: Card | Iban, by: Card | Iban, rate: Rate, only: Literal[Rate.LOW] | None = None) -> None:
    WORLD.append(("refund", paid, by, rate, only))


@step
async def scan(pet: Pet, scans: Scan, grid: Grid) -> Scan:
    WORLD.append(("scan", pet, scans, grid.cells))
    return scans


@scan.compensate
async def forget(done: Scan, pet: Pet, scans: Scan, grid: Grid) -> None:
    WORLD.append(("forget", done, pet, scans, grid.cells))


SCAN = Scan(pages=[b"\xff\xfe", b""], checked=True)


@saga("everything", version=1)
async def everything(s: Saga, by: Card | Iban, pet: Pet, grid: Grid) -> None:
    assert await s.run(pay, by, Rate.NONE, Rate.LOW) == by
    assert await s.run(scan, pet, SCAN, grid) == SCAN
    raise ValueError("undo all")


async def test_step_and_undo_get_the_same_values(url: str) -> None:
    """Unions, discriminated ones, enums of any value, binary models and registered types, in a step and in its undo."""
    async with Orchestrator(url, sagas=[everything]) as orchestrator:
        handle = await orchestrator.start(everything, Iban("2"), Dog(), FineGrid([1, 2]))
        with pytest.raises(SagaCompensated) as end:
            await handle.result()
    assert str(end.value.__cause__) == "undo all"
    assert [
        ("pay", Iban("2"), Rate.NONE, Rate.LOW),
        ("scan", Dog(), SCAN, [1, 2]),
        ("forget", SCAN, Dog(), SCAN, [1, 2]),
        ("refund", Iban("2"), Iban("2"), Rate.NONE, Rate.LOW),
    ] == WORLD


GIVEN: dict[str, Any] = {}


@pivot
async def count() -> int:
    WORLD.append("count")
    return GIVEN["result"]


@lookup
async def say() -> str:
    return Words("word")


@lookup
async def weigh() -> float:
    return Number(3)


@saga("counts", version=1)
async def counts(s: Saga) -> tuple[str, float, int]:
    return await s.run(say), await s.run(weigh), await s.run(count)


@pytest.mark.parametrize("given", [Number(7), True], ids=["subclass", "bool"])
async def test_results_that_are_subclasses(given: int) -> None:
    """A subclass of str, int or float is stored as its base and ends no saga after its effect; so is True for int."""
    GIVEN["result"] = given
    async with Orchestrator("memory://", sagas=[counts]) as orchestrator:
        said, weighed, counted = await (await orchestrator.start(counts)).result()
    assert (said, weighed, counted) == ("word", 3.0, int(given))
    assert [type(each) for each in (said, weighed, counted)] == [str, float, int]


@step
async def hold(card: Card) -> Card:
    WORLD.append(("hold", card))
    return Gold("1", 5)


@hold.compensate
async def release(held: Card | Unknown) -> None:
    WORLD.append(("release", held if isinstance(held, Card) else "unknown"))


@saga("holds", version=1)
async def holds(s: Saga, card: Any) -> str:
    try:
        await s.run(hold, Gold("1", 2) if card == "gold" else Card("1"))
    except PayloadError as error:
        return str(error)
    return "held"


async def test_a_subclass_that_would_lose_fields() -> None:
    """As an argument it is refused before the effect; as a result it is a doubt, which is settled as any other."""
    async with Orchestrator("memory://", sagas=[holds]) as orchestrator:
        said = await (await orchestrator.start(holds, "gold")).result()
        assert "'hold'" in said
        assert "'limit' of" in said
        assert WORLD == []
        said = await (await orchestrator.start(holds, "plain")).result()
        assert "'limit' of" in said
    assert [("hold", Card("1")), ("release", "unknown")] == WORLD


@saga("takes", version=1)
async def takes(s: Saga, card: Card) -> Card:
    return Gold(card.number)


async def test_a_subclass_given_to_a_saga() -> None:
    """It is refused before the saga is started; a result of the body is the body's own mistake."""
    async with Orchestrator("memory://", sagas=[takes]) as orchestrator:
        with pytest.raises(PayloadError, match="'limit' of"):
            await orchestrator.start(takes, Gold("1", 2), id="t")
        assert await orchestrator.list() == []
        with pytest.raises(SagaCompensated) as end:
            await (await orchestrator.start(takes, Card("1"), id="t")).result()
        assert isinstance(end.value.__cause__, PayloadError)


class Login(BaseModel):
    password: SecretStr


@lookup
async def log_in(login: Login) -> int:
    return 1


@lookup
async def convert(amount: Amount) -> int:
    return 1


@saga("secrets", version=1)
async def secrets(s: Saga) -> int:
    return await s.run(log_in, Login(password=SecretStr("x")))


@saga("hints", version=1)
async def hints(s: Saga) -> int:
    return await s.run(convert, 1)  # type: ignore[arg-type]  # the test


@saga("own-hints", version=1)
async def own_hints(s: Saga, amount: Amount) -> int:
    return 1


@pytest.mark.parametrize(
    ("definition", "named"),
    [(secrets, "SecretStr"), (hints, "'Amount'.*TYPE_CHECKING"), (own_hints, "'Amount'.*TYPE_CHECKING")],
    ids=["secret", "step", "saga"],
)
def test_types_that_cannot_work_are_refused_at_registration(definition: Any, named: str) -> None:
    """A secret, and an annotation that is there for checkers only: the message names it, and what to do."""
    with pytest.raises(DefinitionError, match=named):
        Orchestrator("memory://", sagas=[definition])


def test_a_local_class_under_postponed_annotations_is_refused() -> None:
    """Nothing at run time leads from its name to the class, unless the function mentions it."""

    @attrs.frozen
    class Local:
        a: int

    @lookup
    async def look(given: Local) -> int:
        return 1

    @saga("local", version=1)
    async def local(s: Saga) -> int:
        return await s.run(look, Local(1))

    with pytest.raises(DefinitionError, match=r"'Local'.*top of the module"):
        Orchestrator("memory://", sagas=[local])


@saga("hidden", version=1)
async def hidden(s: Saga) -> int:
    steps = {"it": log_in}
    return await s.run(steps["it"], Login(password=SecretStr("x")))


async def test_a_type_that_registration_cannot_see() -> None:
    """A step that no source leads to is refused when it is run, before its effect, and the saga is stuck."""
    async with Orchestrator("memory://", sagas=[hidden]) as orchestrator:
        with pytest.raises(SagaStuck, match="SecretStr"):
            await (await orchestrator.start(hidden)).result()


@step
async def doubtful(by: Card | Iban) -> Card | Iban:
    WORLD.append("doubtful")
    raise TimeoutError


@doubtful.compensate
async def undo_doubtful(done: Card | Iban) -> None:
    WORLD.append(done)


@saga("doubts", version=1)
async def doubts(s: Saga) -> None:
    assert await s.run(doubtful, Card("1")) == Iban("2")
    raise ValueError("undo all")


async def test_a_result_given_by_an_operator() -> None:
    """It is stored by the step's declared type, as the step itself would have stored it."""
    async with Orchestrator("memory://", sagas=[doubts]) as orchestrator:
        handle = await orchestrator.start(doubts, id="d")
        with pytest.raises(SagaStuck):
            await handle.result()
        with pytest.raises(PayloadError, match="none of"):
            await orchestrator.resolve("d", "doubtful", happened=True, result=7)
        await orchestrator.resolve("d", "doubtful", happened=True, result=Iban("2"))
        with pytest.raises(SagaCompensated):
            await handle.result()
    assert ["doubtful", Iban("2")] == WORLD


# -- modules -----------------------------------------------------------------------------------------------------------


SHOP = """\
import asyncio, logging, sys
from sagas import Orchestrator, Saga, lookup, saga

class OutOfStock(Exception): ...

@lookup
async def look() -> None:
    raise OutOfStock("none")

@saga("shop", version=1)
async def shop(s: Saga) -> str:
    try:
        await s.run(look)
    except OutOfStock:
        answer = await s.callback("answer", str)
        return "matched " + await answer.result()
    return "not matched"

async def main(url, verb):
    async with Orchestrator(url, sagas=[shop]) as orchestrator:
        if verb == "begin":
            handle = await orchestrator.start(shop, id="s")
            while "answer" not in [step.key for step in (await handle.info()).steps]:
                await asyncio.sleep(0.01)
        else:
            await orchestrator.complete_callback(saga_id="s", name="answer", value="it")
            print(await (await orchestrator.get("s")).result(timeout=30))

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("script_begins", [True, False])
def test_a_script_and_its_module(tmp_path: Path, *, script_begins: bool) -> None:
    """A saga that a script began goes on in a program that imports the script, and the other way round."""
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    url = f"sqlite:///{tmp_path}/shop.db"
    as_script = [sys.executable, str(tmp_path / "shop.py"), url]
    as_module = [sys.executable, "-c", "import asyncio, sys, shop; asyncio.run(shop.main(*sys.argv[1:]))", url]
    first, second = (as_script, as_module) if script_begins else (as_module, as_script)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"}

    def run(command: list[str]) -> str:
        done = forked.run(command, check=False, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.strip()

    run([*first, "begin"])
    assert run([*second, "end"]) == "matched it"
