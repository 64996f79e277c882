"""A worker that lacks what its sagas' steps ask for says so on entry, before anything is claimed."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from sagas import (
    DefinitionError,
    Happened,
    Orchestrator,
    Saga,
    SagaDef,
    blocking,
    lookup,
    pivot,
    resource,
    retriable,
    saga,
    step,
)
from tests import forked
from tests.kit import Place, World, end_of, party

ROOT = Path(__file__).parents[3]


@attrs.define
class Bank:
    """What the steps ask for."""


seat = party("seat")


@step
async def charge(amount: int, *, bank: Bank = resource()) -> int:
    return amount


@charge.compensate
async def refund(amount: int) -> None: ...


@step
async def undone_by_it(amount: int) -> int:
    return amount


@undone_by_it.compensate
async def pay_back(amount: int, *, bank: Bank = resource()) -> None: ...


@pivot
async def probed_by_it(amount: int) -> int:
    return amount


@probed_by_it.probe
async def ask(amount: int, *, bank: Bank = resource()) -> Happened[int]:
    return Happened(amount)


@retriable
async def told_by_it(amount: int, *, bank: Bank = resource()) -> None: ...


@lookup
def looked_up(amount: int, *, bank: Bank = resource()) -> int:
    return amount


def saga_of(what: Any) -> SagaDef[[int], None]:
    """A saga with this one step or child."""

    @saga("order", version=1)
    async def order(s: Saga, amount: int) -> None:
        await s.run(what, amount)

    return order


@saga("kid", version=1)
async def kid(s: Saga, amount: int) -> None:
    await s.run(charge, amount)


@saga("grandchild", version=1)
async def grandchild(s: Saga, amount: int) -> None:
    await s.run(kid, amount)


@saga("branches", version=1)
async def branches(s: Saga, amount: int) -> None:
    async def branch(s: Saga) -> None:
        await s.run(charge, amount)

    async with s.parallel() as p:
        p.run(branch)


@saga("items", version=1)
async def items(s: Saga, amount: int) -> None:
    await s.map(charge, [amount])


LACKING = [
    pytest.param(saga_of(charge), "step 'charge'", id="a step"),
    pytest.param(saga_of(undone_by_it), "the compensation of step 'undone_by_it'", id="a compensation"),
    pytest.param(saga_of(probed_by_it), "the probe of pivot 'probed_by_it'", id="a probe"),
    pytest.param(saga_of(told_by_it), "retriable 'told_by_it'", id="a retriable"),
    pytest.param(saga_of(looked_up), "lookup 'looked_up'", id="a lookup"),
    pytest.param(saga_of(kid), "step 'charge'", id="a step of a child"),
    pytest.param(saga_of(grandchild), "step 'charge'", id="a step of its child"),
    pytest.param(branches, "step 'charge'", id="a step of a branch"),
    pytest.param(items, "step 'charge'", id="a step of a map"),
]


@pytest.mark.parametrize("resources", [(), (Bank(), Bank())], ids=["none", "two"])
@pytest.mark.parametrize(("definition", "who"), LACKING)
async def test_a_worker_that_lacks_a_resource_does_not_open(
    place: Place, definition: SagaDef[[int], None], who: str, resources: tuple[Bank, ...]
):
    """DefinitionError names saga, step, parameter, type and what to do; a saga that waits is not claimed.

    It is the same for steps, compensations and probes, of the saga itself and of its children, and for a type of which
    there are two objects. A process that only starts sagas needs none of them; a worker that has it runs what waits.
    """
    async with place.orchestrator(definition, world=World(), worker=False) as starting:
        await starting.start(definition, 1, id="o")
    with pytest.raises(DefinitionError) as refused:
        async with place.orchestrator(definition, world=World(), resources=resources):
            pytest.fail("it has opened")
    told = str(refused.value)
    wanted = [f"saga '{definition.name}' v1", who, "'bank'", "Bank", "resources=[...]"]
    assert [part for part in wanted if part not in told] == []
    async with place.orchestrator(definition, world=World(), worker=False) as looking:
        (record,) = await looking.engine.store.runs.find(["o"])
        assert (record.status, record.owner) == ("pending", None)
        assert [each for each in await looking.versions() if each.workers] == []
    async with place.orchestrator(definition, world=World(), resources=[Bank()]) as running:
        assert (await end_of(await running.get("o"), running)).status == "completed"


async def test_a_step_that_no_reading_can_tell_lacks_it_when_it_is_run(place: Place):
    """A step that is chosen by data: the saga is stuck before its effect, and goes on where the resource is there.

    The message names the step, the parameter, the type and where to give it.
    """
    hidden = [looked_up]

    @saga("hidden", version=1)
    async def choosing(s: Saga) -> int:
        return await s.run(hidden[0], 1)

    async with place.orchestrator(choosing, world=World()) as running:
        end = await end_of(await running.start(choosing, id="o"), running)
        assert end.status == "stuck"
        assert [part for part in ("looked_up", "bank", "Bank", "resources=") if part not in end.error[0]] == []
    async with place.orchestrator(choosing, world=World(), resources=[Bank()]) as running:
        await running.retry("o")
        assert (await end_of(await running.get("o"), running)).value == 1


def test_everything_that_is_missing_is_told_at_once():
    """All sagas and steps are named in one error, each once."""
    with pytest.raises(DefinitionError) as refused:
        asyncio.run(Orchestrator("memory://", sagas=[kid, branches, saga_of(told_by_it)]).__aenter__())
    told = str(refused.value)
    assert [told.count(f"saga {name!r} v1") for name in ("kid", "branches", "order")] == [1, 1, 1]


async def test_a_saga_that_comes_later_is_looked_at_too(place: Place):
    """Registered or started while the worker runs, it is refused before anything of it is written."""
    async with place.orchestrator(world=World()) as running:
        with pytest.raises(DefinitionError, match="bank"):
            running.register(kid)
        with pytest.raises(DefinitionError, match="bank"):
            await running.start(kid, 1, id="o")
        assert await running.count() == 0
        assert await running.versions() == []


def test_the_blocking_orchestrator_refuses_alike():
    """`with` raises it; the thread of its loop has ended."""
    with pytest.raises(DefinitionError, match="bank"), blocking.Orchestrator("memory://", sagas=[kid]):
        pytest.fail("it has opened")


MODULE = """
from sagas import Saga, resource, saga, step

class Bank: ...

@step(compensation=None, because="a test")
async def pay(*, bank: Bank = resource()) -> None: ...

@saga("order", version=1)
async def order(s: Saga) -> None:
    await s.run(pay)
"""


def test_the_command_worker_does_not_say_that_it_is_ready(tmp_path: Path):
    """`sagas worker` ends with exit code 2, and says on stderr what its modules' `resources` lack."""
    (tmp_path / "shop.py").write_text(MODULE, encoding="utf-8")
    ran = forked.run(
        [sys.executable, "-c", "from sagas.cli import main; main()", "worker", "shop.py", "--store", "sqlite:///s.db"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "saga 'order' v1: step 'pay'" in ran.stderr
    assert "`resources`" in ran.stderr
