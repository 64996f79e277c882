"""Ended sagas that are begun again: from the first step, under another id, linked both ways."""

from datetime import timedelta
from typing import Any

import attrs
import pytest

from sagas import (
    DefinitionError,
    Orchestrator,
    PayloadError,
    Saga,
    SagaCompensated,
    SagaExists,
    SagaNotFound,
    WrongState,
    lookup,
    saga,
)
from tests.kit import Broken, Place, orchestrator, until


@attrs.frozen
class Address:
    street: str


@lookup
async def look(to: Address, amount: int) -> str:
    if to.street == "nowhere":
        raise Broken("no such street")
    return f"{amount} to {to.street}"


@saga("part", version=1)
async def part(s: Saga, to: Address, amount: int) -> str:
    return await s.run(look, to, amount)


@saga("ship", version=1, deadline=timedelta(hours=1))
async def ship(s: Saga, to: Address, amount: int = 1) -> str:
    s.tag("amount", str(amount))
    return await s.run(part, to, amount)


@saga("ship", version=2)
async def ship_2(s: Saga, to: Address, amount: int = 1) -> str:
    return "v2: " + await s.run(look, to, amount)


NOWHERE, SOMEWHERE = Address("nowhere"), Address("somewhere")


async def failed(running: Orchestrator, **options: Any) -> None:
    """A saga named ``a`` that was rolled back."""
    with pytest.raises(SagaCompensated):
        await (await running.start(ship, NOWHERE, 5, id="a", **options)).result()


async def test_an_ended_saga_begins_again_with_corrected_input(place: Place):
    """Arguments that are given replace the ended one's; each names the other; the new journal begins with who asked."""
    async with orchestrator(place.store, ship) as running:
        await failed(running, tags={"customer": "42"})
        handle = await running.restart("a", "b", input={"to": SOMEWHERE}, actor="ada", note="it was a typing error")
        assert handle.id == "b"
        assert await handle.result() == "5 to somewhere"
        new, old = await running.info("b"), await running.info("a")
        assert (new.restarted_from, new.restarted_as, old.restarted_from, old.restarted_as) == ("a", (), None, ("b",))
        assert new.tags == {"customer": "42", "amount": "5"}
        assert {each.id: (each.restarted_from, each.restarted_as) for each in await running.list()} == {
            "a": (None, ("b",)),
            "b": ("a", ()),
        }
        first = (await handle.history())[0]
        assert (first.kind, first.key, first.actor, first.note) == ("noted", "a", "ada", "it was a typing error")
        assert (await running.info("b/part")).restarted_from is None
        drawn = await running.restart("b")
        assert await drawn.result() == "5 to somewhere"
        assert (await running.info("b")).restarted_as == (drawn.id,)


async def test_it_is_journalled_and_driven_by_whoever_serves_it(place: Place):
    """A process that executes nothing restarts too; a worker takes it up, and a replay of it is the same."""
    async with orchestrator(place.store, ship) as running:
        await failed(running)
    async with place.orchestrator(worker=False) as observer:
        await observer.restart("a", "b", input={"0": {"street": "somewhere"}})
        assert [entry.key for entry in await (await observer.get("b")).history()] == ["a"]
        assert await observer.engine.store.runs.unbegun_since_ns() is not None
    async with place.orchestrator(ship) as running:
        assert await (await running.get("b")).result() == "5 to somewhere"


async def test_a_repeated_restart_is_harmless(place: Place):
    """The same new id with the same input gives the one that is there; another saga's id is taken."""
    async with orchestrator(place.store, ship) as running:
        await failed(running)
        again = [await running.restart("a", "b", input={"to": SOMEWHERE}) for _ in range(2)]
        assert await again[1].result() == "5 to somewhere"
        assert await running.count() == 2
        for taken in ("a", "b"):
            with pytest.raises(SagaExists):
                await running.restart("a", taken)
        await (await running.start(ship, SOMEWHERE, 5, id="c")).result()
        with pytest.raises(SagaExists, match="does not begin 'a' again"):
            await running.restart("a", "c", input={"to": SOMEWHERE})


async def test_it_may_begin_with_another_version():
    """That of the ended one, unless another is asked for that somebody has announced."""
    async with orchestrator("memory://", ship, ship_2) as running:
        await failed(running)
        assert (await (await running.restart("a", "b")).info()).version == 1
        handle = await running.restart("a", "c", version=2, input={"to": SOMEWHERE, "amount": 7})
        assert await handle.result() == "v2: 7 to somewhere"
        with pytest.raises(DefinitionError):
            await running.restart("a", version=3)


async def test_its_own_deadline_counts_anew():
    """As long as that of the ended one, from the new beginning."""
    async with orchestrator("memory://", ship) as running:
        await failed(running, deadline=7200)
        await running.restart("a", "b")
        rows = await running.engine.store.runs.find(["a", "b"])
        assert {(row.deadline_at_ns or 0) - row.created_at_ns for row in rows} == {7200 * 10**9}


async def test_what_cannot_begin_again_is_refused():
    """What has not ended, a part of a saga, and arguments that do not fit; nothing is started."""
    async with orchestrator("memory://", ship) as running:
        await failed(running)
        await (await running.start(ship, SOMEWHERE, id="fine")).result()
        before = await running.count()
        for input, told in (({"street": "x"}, "no parameter 'street'"), ({"amount": "x"}, "amount"), ([1], "a dict")):
            with pytest.raises(PayloadError, match=told):
                await running.restart("a", input=input)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(WrongState, match="part of 'fine'"):
            await running.restart("fine/part")
        with pytest.raises(SagaNotFound):
            await running.restart("nobody")
        with pytest.raises(DefinitionError):
            await running.restart("a", "b/c")
        assert await running.count() == before


async def test_an_open_saga_is_not_restarted():
    """Also a killed one that is being rolled back has not ended."""

    @saga("waiting", version=1)
    async def waiting(s: Saga) -> None:
        await s.sleep(3600)

    async with orchestrator("memory://", waiting) as running:
        await running.start(waiting, id="w")
        await until(lambda: _waits(running), running)
        with pytest.raises(WrongState, match="has not ended; it is waiting"):
            await running.restart("w")
        await running.kill("w")
        assert (await (await running.restart("w", "again")).info()).restarted_from == "w"


async def _waits(running: Orchestrator) -> bool:
    return await running.count(status="waiting") == 1
