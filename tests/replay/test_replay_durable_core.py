"""Wherever the journal of a random durable function breaks off, it comes to the same end and repeats nothing."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import attrs
from hypothesis import example, given
from hypothesis import strategies as st

from durable_core import Context, Engine, Retry, RunHandle, current, durable, step
from durable_core.layer import EntryKind, JournalEntry
from durable_core.model.run import NewRun, RunRecord
from durable_core.ports import Batch
from durable_core.stores.memory.store import MemoryStore
from tests.replay.searching import covering, some

DEADLINE_S = 30.0


@attrs.frozen
class Node:
    """One statement of a random body."""

    kind: Literal["step", "flaky", "bad", "sleep", "parallel", "map", "child", "caught", "chance"]
    inner: "tuple[Node, ...]" = ()
    width: int = 2


class Flaky(Exception):
    """Another attempt helps."""


class Bad(Exception):
    """No attempt helps."""


@attrs.define
class Called:
    """What was called: step keys, and under which idempotency keys."""

    random: random.Random
    calls: list[str] = attrs.field(factory=list[str])
    keys: dict[str, set[str]] = attrs.field(factory=dict[str, set[str]])


world = Called(random.Random(0))


async def pause() -> None:
    """Let other branches run, a random number of times, so that they interleave anew in each life."""
    for _ in range(world.random.randrange(4)):
        await asyncio.sleep(0)


@step(retry=Retry(attempts=2, first=0, jitter=False))
async def act(kind: str) -> str:
    info = current()
    world.calls.append(info.key)
    world.keys.setdefault(info.key, set()).add(info.idempotency_key)
    await pause()
    if kind == "bad":
        raise Bad(info.key)
    if kind == "flaky" and info.attempt == 1:
        raise Flaky(info.key)
    await pause()
    return info.key


async def play(ctx: Context, nodes: Sequence[Node]) -> list[Any]:
    return [await one(ctx, node) for node in nodes]


async def one(ctx: Context, node: Node) -> Any:  # noqa: PLR0911 - a kind of statement each
    match node.kind:
        case "sleep":
            await ctx.sleep(0)
            return None
        case "chance":
            return [str(ctx.uuid()), ctx.random()]
        case "map":
            return await ctx.map(act, [inner.kind for inner in node.inner], max_concurrency=node.width)
        case "child":
            return await ctx.child(inner, list(node.inner))
        case "parallel":
            async with ctx.parallel() as p:
                branches = [p.run(one, inner) for inner in node.inner]
            return [branch.result() for branch in branches]
        case "caught":
            try:
                return await play(ctx, node.inner)
            except (Bad, Flaky) as error:
                return type(error).__name__
        case _:
            return await ctx.step(act, node.kind)


@durable("inner", version=1)
async def inner(ctx: Context, nodes: list[Node]) -> list[Any]:
    return await play(ctx, nodes)


@durable("outer", version=1)
async def outer(ctx: Context, nodes: list[Node]) -> list[Any]:
    return await play(ctx, nodes)


LEAVES: st.SearchStrategy[Node] = st.builds(
    Node, kind=st.sampled_from(["step", "step", "step", "flaky", "sleep", "bad", "chance"])
)
MAPPED = st.lists(
    st.builds(Node, kind=st.sampled_from(["step", "step", "step", "flaky", "bad"])), min_size=1, max_size=3
).map(tuple)
NODES: st.SearchStrategy[Node] = st.recursive(
    LEAVES | st.builds(Node, kind=st.just("map"), inner=MAPPED, width=st.integers(1, 3)),
    lambda nodes: st.builds(
        Node,
        kind=st.sampled_from(["parallel", "parallel", "child", "caught"]),
        inner=st.lists(nodes, min_size=1, max_size=3).map(tuple),
    ),
    max_leaves=7,
)
STEP, FLAKY, BAD, SLEEP, CHANCE = Node("step"), Node("flaky"), Node("bad"), Node("sleep"), Node("chance")

NESTED = [
    [
        Node(
            outer,  # type: ignore[arg-type]
            (
                Node("parallel", (STEP, FLAKY)),
                Node("map", (STEP, FLAKY)),
                Node("child", (STEP, SLEEP)),
                Node("caught", (STEP, BAD)),
                Node("child", (CHANCE,)),
            ),
        ),
        CHANCE,
        last,
    ]
    for outer, last in (("parallel", BAD), ("child", STEP), ("caught", BAD))
]
"""Each block within each that can hold it, around each kind of step: some come to their end, the others fail."""


def engine_on(store: MemoryStore) -> Engine:
    """An engine on a store of the test's own."""
    return Engine(functions=[outer, inner], store=store, grace=0)


async def end_of(handle: RunHandle[Any]) -> tuple[str, Any]:
    """How the run ends, in a form that can be compared."""
    try:
        return "completed", await handle.result(DEADLINE_S)
    except (Bad, Flaky) as failed:
        return "failed", type(failed).__name__
    except TimeoutError:
        lines = [f"{at.seq} {at.kind} {at.key} #{at.attempt} {at.detail}" for at in await handle.history()]
        raise AssertionError("nothing happens any more:\n" + "\n".join(lines)) from None


async def straight(nodes: Sequence[Node]) -> tuple[tuple[str, Any], RunRecord, list[JournalEntry]]:
    """The function, undisturbed."""
    store = MemoryStore()
    async with engine_on(store) as engine:
        end = await end_of(await engine.start(outer, list(nodes), id="one"))
        (row,) = await store.runs.find(["one"])
        return end, row, (await store.journal.load([row.num]))[row.num]


async def resumed(row: RunRecord, prefix: Sequence[JournalEntry]) -> tuple[str, Any]:
    """The same function, taken up by a new process from a journal that breaks off."""
    store = MemoryStore()
    await store.open(worker=None)
    num = store.journal.next_num()
    new = NewRun(
        num, row.id, row.uid, row.name, row.version, "running", None, 0, None, row.input, None, row.created_at_ns
    )
    await store.journal.commit(Batch(starts=[new], entries=[entry._replace(run=num) for entry in prefix]))
    await store.close()
    async with engine_on(store) as engine:
        return await end_of(await engine.get(row.id))


def decided(node: Node) -> bool:
    """Whether the same end follows whichever of its branches is first: none but one of them can fail."""
    return not (node.kind in ("parallel", "map") and sum(map(can_fail, node.inner)) > 1) and all(
        map(decided, node.inner)
    )


def can_fail(node: Node) -> bool:
    """Whether an exception may leave it."""
    return node.kind == "bad" or (node.kind != "caught" and any(map(can_fail, node.inner)))


@some
@covering(*({"nodes": nodes, "seed": seed} for seed, nodes in enumerate(NESTED)))
@given(nodes=st.lists(NODES, min_size=1, max_size=4), seed=st.integers(0, 1_000))
@example(nodes=[Node("parallel", (STEP, FLAKY, Node("child", (STEP, SLEEP, STEP)))), CHANCE, STEP], seed=1)
@example(nodes=[Node("caught", (Node("parallel", (STEP, BAD, Node("map", (STEP, FLAKY), 1))),)), STEP], seed=2)
@example(nodes=[Node("map", (STEP, FLAKY, STEP), 2), Node("child", (Node("caught", (BAD,)), CHANCE))], seed=3)
def test_a_random_durable_function_ends_alike_from_every_prefix(nodes: list[Node], seed: int):
    """From each prefix of its journal: the same end, no completed step called again, one key for each step."""

    async def main() -> None:
        world.__init__(random.Random(seed))
        end, row, journal = await straight(nodes)
        assert journal[-1].kind == EntryKind.ENDED
        keys = world.keys
        for length in range(len(journal)):
            world.__init__(random.Random(seed + length))
            about = f"after {length} entries"
            again = await resumed(row, journal[:length])
            done = {entry.key for entry in journal[:length] if entry.kind == EntryKind.SUCCEEDED}
            assert not done & set(world.calls), f"{about}: done again"
            assert max(Counter(world.calls).values(), default=0) <= 2, f"{about}: more than its attempts"
            assert again[0] == end[0], about
            if all(map(decided, nodes)):
                assert again == end, about
            for key, found in world.keys.items():
                assert len(found) == 1, about
                assert found == keys.get(key, found), f"{about}: {key} has another key"

    asyncio.run(main())
