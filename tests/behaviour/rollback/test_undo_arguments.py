"""What a compensation and a probe are given: the step's own arguments, complete, whatever it was called with."""

import asyncio
from typing import Any

import pytest

from sagas import DefinitionError, Retry, Saga, resource, saga, step
from tests.kit import Place, World, end_of

given_to: list[tuple[Any, ...]] = []


@step
async def charge(
    order: str, currency: str = "EUR", *, memo: str = "none", quick: bool = False, world: World = resource()
) -> int:
    return 7


@charge.compensate
async def refund(paid: int, order: str, currency: str, *, memo: str = "other", world: World = resource()) -> None:
    given_to.append(("refund", paid, order, currency, memo, world))


@step
async def doubt(order: str, currency: str = "EUR", *, memo: str = "none") -> int:
    raise TimeoutError


@doubt.compensate
def undo_doubt(paid: int, *given: str, **named: str) -> None:
    given_to.append(("undo", paid, *given, named))


@doubt.probe
def find(order: str, currency: str = "?", **named: str) -> int | None:
    given_to.append(("find", order, currency, named))
    return 8


@saga("defaults", version=1)
async def defaults(s: Saga) -> None:
    await s.run(charge, "a")
    await s.run(charge, "b", "USD", memo="given", quick=True)
    await s.run(charge, order="c", currency="CHF")
    await s.run(doubt, "d")
    raise ValueError


@pytest.mark.parametrize("restart", [False, True])
def test_the_steps_defaults_are_given_on(place: Place, restart: bool):  # noqa: FBT001
    """What the step was called without comes from its own signature; keywords that the other does not take are left."""
    given_to.clear()
    world = World()

    async def main() -> None:
        async with place.orchestrator(defaults, world=world, worker=not restart) as running:
            handle = await running.start(defaults, id="one")
            if not restart:
                assert (await end_of(handle, running)).status == "compensated"
                return
        async with place.orchestrator(defaults, world=world) as running:
            assert (await end_of(await running.get("one"), running)).status == "compensated"

    asyncio.run(main())
    assert given_to == [
        ("find", "d", "EUR", {"memo": "none"}),
        ("undo", 8, "d", "EUR", {"memo": "none"}),
        ("refund", 7, "c", "CHF", "none", world),
        ("refund", 7, "b", "USD", "given", world),
        ("refund", 7, "a", "EUR", "none", world),
    ]


def test_a_keyword_that_nobody_gives_is_refused():
    """A compensation or probe that needs more than it is given is refused where it is declared."""

    @step
    async def act(order: str, *, memo: str = "") -> int:
        return 1

    with pytest.raises(DefinitionError, match="needs 'currency', which it is not given"):

        @act.compensate
        async def undo(done: int, order: str, *, currency: str) -> None: ...

    with pytest.raises(DefinitionError, match="needs 'memo'"):

        @act.compensate
        async def undo_by_result(done: int, *, memo: str) -> None: ...

    with pytest.raises(DefinitionError, match="needs 'why'"):

        @act.probe
        async def find(order: str, *, why: str) -> int | None: ...

    @act.compensate(retry=Retry(attempts=2))
    async def undo_well(done: int, order: str, *, memo: str, world: World = resource()) -> None: ...


def test_a_reason_without_its_option_is_refused():
    """`because=` alone says nothing: it is the reason of `compensation=None`."""
    with pytest.raises(DefinitionError, match="because= is for compensation=None"):

        @step(because="it cannot be undone")
        async def act() -> None: ...
