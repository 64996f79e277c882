"""Random graphs, cut at every commit: the same end, and undo against the order of the graph."""

import os
from itertools import count
from random import Random
from typing import Any, Literal

import attrs
import pytest

from durable_core.stores.memory.data import MemoryData
from sagas import (
    Orchestrator,
    Ref,
    Retry,
    Saga,
    SagaGraph,
    lookup,
    pivot,
    resource,
    retriable,
    saga,
    step,
)
from tests.crash.mortal import Auditor, Moment, live
from tests.kit import End, Rejected, World, end_of

SEEDS = range(int(os.environ.get("SAGAS_SOAK", "12")))
ONCE = Retry(attempts=1)


@attrs.frozen
class Drawn:
    """A graph, and what its nodes wait for, by key."""

    graph: SagaGraph[...]
    above: dict[str, set[str]]
    """The keys of all nodes that each node waits for, near and far."""
    refused: str
    """The node that is refused; empty: none."""
    behind: bool
    """Whether there is a pivot before the refused node."""


def effective(name: str, kind: Any, refused: str) -> Any:
    """A step of that name with an effect, which is refused if it is the one."""

    async def done(*given: str | None, world: World = resource()) -> str:
        if name == refused:
            raise Rejected(1, name)
        await world.act()
        return name

    async def undone(_: str, *, world: World = resource()) -> None:
        await world.act()

    if kind is not step:
        return kind(name=name, retry=ONCE)(done)
    made = step(name=name, rejects=(Rejected,))(done)
    made.compensate(undone)
    return made


def child_of(made: Any) -> Any:
    """A coded saga that runs one step."""

    @saga(f"child-{made.name}", version=1)
    async def child(s: Saga, *given: str | None) -> str:
        return await s.run(made, *given)

    return child


@lookup
async def chance(number: int) -> bool:
    """A condition."""
    return bool(number % 3)


def drawn(seed: int, *, parallel: bool) -> Drawn:
    """The graph of this number: steps, lookups, sleeps, children, conditions, perhaps a pivot, perhaps a refusal."""
    rng = Random(seed)
    g = SagaGraph("random", version=1, parallel_compensation=parallel)
    names = [f"n{number}" for number in range(rng.randint(4, 7))]
    refused = rng.choice([names[-1], "last", "last", "last", ""])
    refs: dict[str, Ref[Any]] = {}
    above: dict[str, set[str]] = {}

    def add(key: str, ref: Ref[Any], waits: list[str]) -> None:
        refs[key] = ref
        above[key] = {*waits, *(far for near in waits for far in above[near])}

    for name in names:
        waits = rng.sample(list(refs), min(len(refs), rng.choice((0, 1, 1, 2))))
        given, after = [refs[each] for each in waits[:1]], [refs[each] for each in waits[1:]]
        kind = rng.choice(("step", "step", "step", "child", "sleep", "maybe"))
        made = effective(name, step, refused)
        if kind == "sleep":
            add(name, g.sleep(0.001, name=name, after=[*given, *after]), waits)
        elif kind == "child":
            add(f"child-{name}", g.step(child_of(made), *given, after=after), waits)
        else:
            when = g.lookup(chance, rng.randint(0, 5)) if kind == "maybe" else None
            add(name, g.step(made, *given, after=after, when=when), waits)
    every = list(refs)
    behind = rng.random() < 0.3
    if behind:
        paid = g.pivot(effective("pay", pivot, refused), after=list(refs.values()))
        add("pay", paid, every)
        g.returns(g.retriable(effective("last", retriable, ""), paid))
    else:
        g.returns(g.step(effective("last", step, refused), after=list(refs.values())))
    add("last", refs[every[0]], ["pay"] if behind else every)
    return Drawn(g, above, "" if behind and refused == "last" else refused, behind)


def begin(graph: Any) -> Any:
    """Start it, and wait for its end."""

    async def start(running: Orchestrator) -> End:
        return await end_of(await running.start(graph, id="one"), running)

    return start


def check_order(found: Drawn, world: World) -> None:
    """Nothing began before what it waits for, and nothing was undone before what waited for it."""
    first: dict[str, int] = {}
    undone: dict[str, int] = {}
    for place, info in enumerate(world.calls):
        (undone if info.compensating else first).setdefault(info.step.partition("/")[0], place)
    for key, above in found.above.items():
        for parent in above & first.keys():
            if key in first:
                assert first[parent] < first[key], f"{key} began before {parent}"
            if key in undone and parent in undone:
                assert undone[key] < undone[parent], f"{parent} was undone before {key}"


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_graph_ends_alike_whenever_its_process_dies(seed: int, side: Literal["before", "after"], *, parallel: bool):
    """With a death at each commit: the end and the effects are those of a life without one, once each, in order."""
    found = drawn(seed, parallel=parallel)
    calm = Auditor(data=(data := MemoryData()))
    wanted = live(data, calm, begin(found.graph), found.graph)
    check_order(found, calm)
    for commit in count(1):
        world = Auditor(data=(data := MemoryData()))
        end = live(data, world, begin(found.graph), found.graph, death=Moment(side, commit=commit))
        outlived = end is not None
        end = end if outlived else live(data, world, begin(found.graph), found.graph)
        assert (end.status, end.value, end.error) == (wanted.status, wanted.value, wanted.error)
        assert world.kept() == calm.kept()
        assert sorted(world.undone) == sorted(calm.undone)
        assert all(len(keys) == 1 for keys in world.keys().values()), "one step, several idempotency keys"
        check_order(found, world)
        if outlived:
            return


def test_the_random_graphs_have_every_kind_of_end():
    """The numbers of this test draw graphs that complete, and graphs that are rolled back; so it proves both."""
    ends = set()
    for seed in range(12):
        found = drawn(seed, parallel=False)
        ends.add(live(data := MemoryData(), Auditor(data=data), begin(found.graph), found.graph).status)
    assert ends == {"completed", "compensated"}
