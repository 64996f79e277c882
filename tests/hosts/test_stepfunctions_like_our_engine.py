"""An exported graph runs on Step Functions as on our engine: the same steps, and the same undos in the same order."""

import asyncio
import itertools
import json
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from statelint.linter import Linter

from sagas import CallbackClosed, CallbackNotFound, Retry, SagaGraph, WrongState, lookup, pivot, retriable, step
from sagas.asl.export import machine_text
from sagas.current import current
from sagas.hosts.stepfunctions import handler
from sagas.model.graph import Plan
from tests.hosts.moto_machine import Ended, Machines, machines
from tests.kit import End, end_of, orchestrator, until

ATTEMPTS = 3
EXAMPLES = int(os.environ.get("SAGAS_SOAK", "0")) // 10 or 5
"""Each takes seconds: moto's interpreter parses slowly."""


class Refused(Exception):
    """A participant's own answer."""


@attrs.frozen
class Spot:
    """A node of a random graph."""

    name: str
    after: tuple[str, ...]
    kind: str
    fails: type[Exception] | None = None
    flaky: int = 0
    """How many of its attempts fail before one does not."""
    skipped: bool | None = None
    """It has a condition, which is true or not; None: it has none."""
    loose: bool = False
    """It waits by ``after=`` alone, without the values."""
    rests: bool = False
    """A sleep stands before it."""
    asks: bool = False
    """A callback stands before it, which is answered."""
    child: bool = False
    """It is the only step of a child."""
    stays: bool = False
    """Its undo fails."""


@attrs.define
class World:
    """What is called, and who may return when."""

    spots: Mapping[str, Spot]
    calls: list[tuple[str, str]] = attrs.field(factory=list[tuple[str, str]])
    undone: list[str] = attrs.field(factory=list[str])
    turns: Sequence[str] = ()
    """The order in which the steps return; empty: as they come."""
    wanted: Collection[str] = ()
    """What has begun before the step that fails returns."""
    changed: asyncio.Event = attrs.field(factory=asyncio.Event)
    begun: list[str] = attrs.field(factory=list[str])
    returned: int = 0

    async def does(self, name: str) -> str:
        """Play the part of a step."""
        spot = self.spots[name]
        self.calls.append(("do", name))
        if current().attempt <= spot.flaky:
            raise RuntimeError(f"{name} is flaky")
        if spot.fails is RuntimeError and current().attempt < ATTEMPTS:
            raise spot.fails(name)  # it is tried again: its turn is that of its last attempt
        if self.turns:
            await self.turn(spot)
        if spot.fails is not None:
            raise spot.fails(name)
        return name

    async def turn(self, spot: Spot) -> None:
        """Return once it is this step's turn."""
        self.begun.append(spot.name)
        self.change()
        while self.turns[self.returned] != spot.name or (spot.fails and not {*self.wanted} <= {*self.begun}):
            await self.changed.wait()
        self.returned += 1
        self.change()

    def change(self) -> None:
        """Let everybody look again."""
        self.changed.set()
        self.changed = asyncio.Event()


@st.composite
def spots(draw: st.DrawFn) -> list[Spot]:
    """A random graph: steps in a random order, perhaps a pivot after all of them and what follows it; one may fail."""
    count = draw(st.integers(1, 6))
    names = [f"s{number}" for number in range(count)]
    found = [
        Spot(
            name,
            tuple(sorted(draw(st.sets(st.sampled_from(names[:place]), max_size=3)))) if place else (),
            "step",
            flaky=draw(st.sampled_from([0, 0, 0, 1, 2])),
            skipped=draw(st.sampled_from([None, None, None, None, False, True])),
            loose=draw(st.booleans()),
            rests=draw(st.sampled_from([False, False, True])),
            asks=draw(st.sampled_from([False, False, True])),
            child=draw(st.sampled_from([False, False, True])),
            stays=draw(st.sampled_from([False, False, False, True])),
        )
        for place, name in enumerate(names)
    ]
    if draw(st.booleans()):
        found.append(Spot("pay", tuple(names), "pivot"))
        found += [Spot(f"r{number}", ("pay",), "retriable") for number in range(draw(st.integers(0, 2)))]
    failing = draw(st.sampled_from([None, *(spot for spot in found if spot.kind != "retriable" and not spot.skipped)]))
    if failing is not None:
        fails = draw(st.sampled_from([Refused, RuntimeError]))
        found[found.index(failing)] = attrs.evolve(failing, fails=fails, flaky=0)
    return found


NUMBERS = itertools.count(1)
WITHIN = "child of "


def graph_of(world: World, **options: Any) -> SagaGraph[[int]]:
    """The graph of these spots, whose steps play their parts in ``world``."""
    graph = SagaGraph(f"random-{next(NUMBERS)}", version=1, input=int, **options)
    refs: dict[str, Any] = {}
    for spot in world.spots.values():
        when = None if spot.skipped is None else graph.lookup(condition(spot), graph.input)
        add = {"step": graph.step, "pivot": graph.pivot, "retriable": graph.retriable}[spot.kind]
        before = [refs[name] for name in spot.after]
        rest: list[Any] = [graph.sleep(0.001, after=before)] if spot.rests else []
        rest += [graph.callback(f"ask {spot.name}", str, after=before)] if spot.asks else []
        if spot.child:
            refs[spot.name] = add(child(world, spot), graph.input, after=[*before, *rest], when=when)
        elif spot.loose:
            refs[spot.name] = add(declared(world, spot), after=[*before, *rest], when=when)
        else:
            refs[spot.name] = add(declared(world, spot), *before, after=rest, when=when)
    graph.returns(refs[spot.name])
    return graph


def child(world: World, spot: Spot) -> SagaGraph[[int]]:
    """A graph of this spot's step alone."""
    graph = SagaGraph(f"{WITHIN}{spot.name}", version=1, input=int)
    graph.returns(graph.step(declared(world, spot), graph.input))
    return graph


def condition(spot: Spot) -> Any:
    """A lookup that says whether the spot's step runs."""

    @lookup(name=f"whether {spot.name}")
    async def whether(number: int) -> bool:
        return not spot.skipped

    return whether


def declared(world: World, spot: Spot) -> Any:
    """The step of a spot, with its compensation."""

    async def doing(*before: Any) -> str:
        return await world.does(spot.name)

    if spot.kind == "retriable":
        return retriable(name=spot.name)(doing)
    options: dict[str, Any] = {"name": spot.name, "rejects": (Refused,), "retry": retry()}
    if spot.kind == "pivot":
        return pivot(**options)(doing)
    made = step(**options)(doing)

    @made.compensate(retry=1)
    async def undo(result: str) -> None:
        world.undone.append(result)
        if spot.stays:
            raise RuntimeError(f"{spot.name} stays")

    return made


def retry() -> Any:
    """Attempts without delays, so that no clock holds up a turn."""
    return Retry(attempts=ATTEMPTS, first=0, jitter=False)


def reached(spots: Mapping[str, Spot], ended: Collection[str]) -> set[str]:
    """The steps that begin once these have ended, whatever else happens."""
    over, found = set(ended), set[str]()
    for name, spot in spots.items():
        if all(before in over for before in spot.after):
            found.add(name)
            if spot.skipped:
                over.add(name)
    return {name for name in found if not spots[name].skipped}


def turns_like(spots: Mapping[str, Spot], order: Sequence[str], called: set[str]) -> list[str] | None:
    """An order of returns for our engine under which it calls just these steps; None if there is none.

    What succeeds returns in the graph's order. What fails does so as late as possible: before anything begins that the
    service has not called.
    """
    failing = next((name for name in called if spots[name].fails is not None), None)
    if failing is None:
        return list(order)
    done: list[str] = []
    for name in [name for name in order if name in called and name != failing]:
        if not reached(spots, [*done, name]) <= called:
            break
        done.append(name)
    rest = [name for name in order if name in called and name not in {failing, *done}]
    return [*done, failing, *rest] if called == reached(spots, done) else None


def on_the_service(service: Machines, graph: SagaGraph[[int]]) -> Ended:
    """Run the exported graph, and answer what it asks."""

    def told(event: Any) -> None:
        if event["role"] == "callback":
            service.client.send_task_success(taskToken=event["token"], output='"yes"')

    service.after = told
    return service.run(machine_text(graph), 1, handler(sagas=[graph]))


async def on_our_engine(graph: SagaGraph[[int]]) -> End:
    """Run the graph itself, and answer what it asks."""
    async with orchestrator("memory://", graph) as running:
        handle = await running.start(graph, 1)

        async def answer(name: str) -> None:
            async def is_answered() -> bool:
                try:
                    await running.complete_callback(saga_id=handle.id, name=name, value="yes")
                except (CallbackNotFound, CallbackClosed, WrongState):  # not yet open, or given up
                    return False
                return True

            await until(is_answered)

        answering = [asyncio.create_task(answer(node.name)) for node in graph.nodes if node.kind == "callback"]
        try:
            return await end_of(handle, running)
        finally:
            for task in answering:
                task.cancel()
            await asyncio.gather(*answering, return_exceptions=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(spots())
def test_steps_and_undos_are_those_of_our_engine(found: list[Spot]):
    """For random graphs and random failures: the same calls, the same end, the same undos in the same order.

    A child that is under way when something else fails is undone at once by our engine, and in its turn by the service.
    """
    there = World({spot.name: spot for spot in found})
    graph = graph_of(there)
    with machines() as service:
        ended = on_the_service(service, graph)
    called = {name for _, name in there.calls}
    names = [node.name.removeprefix(WITHIN) for node in Plan.of(graph.nodes).order]
    order = [name for name in names if name in there.spots]
    turns = turns_like(there.spots, [name for name in order if not there.spots[name].skipped], called)
    if turns is None:
        event("levels beside branches: no order of our engine is the same")
        assert sorted(there.undone) == sorted(name for name in called if there.spots[name].fails is None)
        assert_against_the_graph(there)
        return
    here = World(there.spots, turns=turns, wanted=called)
    end = asyncio.run(on_our_engine(graph_of(here)))
    event(end.status)
    assert sorted(here.calls) == sorted(there.calls)
    cut = any(there.spots[name].child for name in after_the_failure(there.spots, turns))
    if not cut:
        assert here.undone == there.undone
    elif not any(spot.stays for spot in found):  # else our engine stops at the first child whose undo fails
        assert sorted(here.undone) == sorted(there.undone)
    assert (end.status, end.value) == (ENDS[ended.error], ended.output)


ENDS = {None: "completed", "Compensated": "compensated", "UndoFailed": "stuck"}


def after_the_failure(spots: Mapping[str, Spot], turns: Sequence[str]) -> Sequence[str]:
    """The steps that are under way when one fails."""
    failing = next((place for place, name in enumerate(turns) if spots[name].fails is not None), len(turns))
    return turns[failing + 1 :]


def assert_against_the_graph(world: World) -> None:
    """Each step is undone after all that depend on it."""
    for place, name in enumerate(world.undone):
        assert not {*world.spots[name].after} & {*world.undone[:place]}


@settings(max_examples=25, deadline=None)
@given(spots(), st.booleans())
def test_every_machine_is_valid(found: list[Spot], side_by_side: bool):  # noqa: FBT001 - drawn
    """The linter of the Amazon States Language finds nothing in random graphs."""
    graph = graph_of(World({spot.name: spot for spot in found}), parallel_compensation=side_by_side)
    assert Linter.validate(json.loads(machine_text(graph))) == []
