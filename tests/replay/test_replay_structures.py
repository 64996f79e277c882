"""Wherever the journal of a saga with blocks, children, waits and signals breaks off, it comes to the same end."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any, Literal

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from durable_core.layer import EntryKind, JournalEntry
from durable_core.model.run import NewRun, RunRecord
from durable_core.ports import Batch
from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from sagas import (
    Orchestrator,
    Retry,
    Saga,
    SagaHandle,
    StepInfo,
    Unknown,
    WrongState,
    current,
    lookup,
    resource,
    saga,
    step,
)
from tests.kit import Broken, End, Rejected, World, end_of, orchestrator
from tests.replay.searching import covering, some

pytestmark = pytest.mark.timeout(400)  # a machine with other work to do takes its time for so many sagas
AT_ONCE = Retry(attempts=2, first=0, jitter=False)
KEPT = ("completed",)


@attrs.frozen
class Node:
    """One statement of a random body."""

    kind: Literal["step", "look", "reject", "flaky", "sleep", "parallel", "savepoint", "map", "child", "caught"]
    inner: "tuple[Node, ...]" = ()
    width: int = 2


# -- participants ---------------------------------------------------------------------------------------------------


@attrs.define
class Jitter:
    """Lets other tasks run, a random number of times, so that branches interleave anew in each case."""

    random: random.Random
    fenced: set[str] = attrs.field(factory=set[str])
    """Keys whose compensation has run: what comes late under them has no effect any more."""

    async def pause(self) -> None:
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)


@step(rejects=(Rejected,), retry=AT_ONCE)
async def act(kind: str, *, world: World = resource(), jitter: Jitter = resource()) -> str:
    await jitter.pause()
    if kind == "reject":
        world.note()
        raise Rejected(4, "no")
    if kind == "flaky" and current().attempt == 1:
        world.note()
        raise Broken("once")
    if current().idempotency_key in jitter.fenced:
        raise Rejected(9, "too late")
    await world.act()
    await jitter.pause()
    return kind


@act.compensate(retry=AT_ONCE)
async def undo_act(result: str | Unknown, *, world: World = resource(), jitter: Jitter = resource()) -> None:
    await jitter.pause()
    await world.act()
    jitter.fenced.add(current().forward_key or "")
    await jitter.pause()


@lookup
async def look(*, jitter: Jitter = resource()) -> int:
    await jitter.pause()
    return 1


# -- bodies ---------------------------------------------------------------------------------------------------------


async def play(s: Saga, nodes: Sequence[Node]) -> None:
    for node in nodes:
        await play_one(s, node)


async def play_one(s: Saga, node: Node) -> None:
    match node.kind:
        case "step" | "reject" | "flaky":
            await s.run(act, node.kind)
        case "look":
            await s.run(look)
        case "sleep":
            await s.sleep(0)
        case "map":
            await s.map(act, [inner.kind for inner in node.inner], max_concurrency=node.width)
        case "child":
            await s.run(inner_saga, list(node.inner))
        case "savepoint":
            async with s.savepoint("block"):
                await play(s, node.inner)
        case "parallel":
            async with s.parallel() as p:
                for inner in node.inner:
                    p.run(branch, inner)
        case "caught":
            await caught(s, node)


async def branch(s: Saga, node: Node) -> None:
    await play_one(s, node)


async def caught(s: Saga, node: Node) -> None:
    """What fails in here is undone by its savepoint, and the body goes on."""
    try:
        async with s.savepoint("fallback"):
            await play(s, node.inner)
    except Exception:  # noqa: BLE001 - the body of this test's saga goes on whatever failed
        pass


@saga("inner", version=1)
async def inner_saga(s: Saga, nodes: list[Node]) -> None:
    if not nodes:
        await s.run(act, "step")  # names the step, so that a rollback without the body knows it
    await play(s, nodes)


@saga("outer", version=1)
async def outer(s: Saga, nodes: list[Node]) -> str:
    if not nodes:
        await s.run(act, "step")
    await play(s, nodes)
    return "done"


LEAVES: st.SearchStrategy[Node] = st.builds(
    Node, kind=st.sampled_from(["step", "step", "step", "look", "flaky", "sleep", "reject"])
)
MAPPED = st.lists(
    st.builds(Node, kind=st.sampled_from(["step", "step", "step", "flaky", "reject"])), min_size=1, max_size=3
).map(tuple)
NODES: st.SearchStrategy[Node] = st.recursive(
    LEAVES | st.builds(Node, kind=st.just("map"), inner=MAPPED, width=st.integers(1, 3)),
    lambda inner: st.builds(
        Node,
        kind=st.sampled_from(["parallel", "parallel", "savepoint", "child", "caught"]),
        inner=st.lists(inner, min_size=1, max_size=3).map(tuple),
    ),
    max_leaves=7,
)

STEP, REJECT, SLEEP, FLAKY, LOOK = Node("step"), Node("reject"), Node("sleep"), Node("flaky"), Node("look")


def block(kind: Any, *inner: Node, width: int = 2) -> Node:
    return Node(kind, inner, width)


NESTED = [
    [
        block(
            outer,  # type: ignore[arg-type]
            block("parallel", STEP, FLAKY),
            block("map", STEP, FLAKY),
            block("savepoint", STEP, LOOK),
            block("child", STEP, SLEEP),
            block("caught", STEP, REJECT),
        ),
        last,
    ]
    for outer, last in (("parallel", REJECT), ("savepoint", STEP), ("child", REJECT), ("caught", STEP))
]
"""Each block within each that can hold it, around each kind of step: some come to their end, the others are undone."""


# -- lives ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Life:
    """How one process saw the saga."""

    end: End
    world: World
    row: RunRecord
    journal: list[JournalEntry]


async def finish(running: Orchestrator, handle: SagaHandle[Any], store: MemoryStore, world: World) -> Life:
    """The saga to its end, with what is on disk then."""
    end = await end_of(handle, running)
    (row,) = await store.runs.find([handle.id])
    return Life(end, world, row, (await store.journal.load([row.num]))[row.num])


async def live(nodes: Sequence[Node], seed: int, *, signals: Sequence[str] = (), after: int = 0) -> Life:
    """The saga, with the signals given to it once ``after`` calls of its steps have begun."""
    world = World()
    store = MemoryStore()
    called = asyncio.Event()

    async def count(_: StepInfo) -> None:
        if len(world.calls) > after:
            called.set()

    world.before = count
    resources = [world, Jitter(random.Random(seed))]
    async with orchestrator(store, outer, resources=resources) as running:
        handle = await running.start(outer, list(nodes), id="one")
        if signals:
            ended = asyncio.ensure_future(end_of(handle, running))
            await asyncio.wait([ended, waiter := asyncio.ensure_future(called.wait())], return_when="FIRST_COMPLETED")
            waiter.cancel()
            await give(running, signals)
            await asyncio.gather(ended, return_exceptions=True)  # a kill, for one, is no end here
        return await finish(running, handle, store, world)


async def give(running: Orchestrator, signals: Sequence[str]) -> None:
    """The verbs, one after the other; one that comes too late is refused."""
    for verb in signals:
        try:
            await getattr(running, verb)("one")
        except WrongState:
            return


async def resumed(row: RunRecord, prefix: Sequence[JournalEntry], world: World, seed: int) -> Life:
    """The same saga, taken up by a new process from a journal that breaks off; the world is as the crash left it."""
    store = MemoryStore()
    await store.open(worker=None)
    num = store.journal.next_num()
    new = NewRun(
        num, row.id, row.uid, row.name, row.version, "running", None, 0, None, row.input, None, row.created_at_ns
    )
    await store.journal.commit(Batch(starts=[new], entries=[entry._replace(run=num) for entry in prefix]))
    await store.close()
    async with orchestrator(store, outer, resources=[world, Jitter(random.Random(seed))]) as running:
        handle = await running.get(row.id)
        if paused(prefix):
            await running.resume("one")
        return await finish(running, handle, store, world)


def paused(prefix: Sequence[JournalEntry]) -> bool:
    """Whether an operator held the saga when its process died."""
    held = [entry.key for entry in prefix if entry.kind == EntryKind.SIGNALLED and entry.key in ("pause", "resume")]
    return held[-1:] == ["pause"]


# -- what must hold -------------------------------------------------------------------------------------------------


def succeeded(journal: Sequence[JournalEntry]) -> list[str]:
    """The keys of steps and compensations with a success on disk, in order."""
    return [entry.key for entry in journal if entry.kind == EntryKind.SUCCEEDED]


def called(world: World) -> list[str]:
    """The keys of the steps and compensations that were called, in order."""
    return [f"{info.step}~undo" if info.compensating else info.step for info in world.calls]


def check_journal(life: Life, about: str) -> None:
    """A step succeeds once and is undone once; each rollback undoes in the reverse order of completion."""
    done = succeeded(life.journal)
    assert len(done) == len(set(done)), f"{about}: something succeeded twice: {done}"
    place = {key: index for index, key in enumerate(done)}
    groups: list[list[int]] = [[]]
    for entry in life.journal:
        if entry.kind == EntryKind.MARKED and entry.key.startswith(("undoing:", "compensating")):
            groups.append([])
        undone = entry.key.removesuffix("~undo")
        if entry.kind == EntryKind.SUCCEEDED and undone != entry.key and undone in place:  # else it was unknown
            groups[-1].append(place[undone])
    if not any(node in str(life.row.input) for node in ("parallel", "map")):  # else rollbacks may interleave
        for group in groups:
            assert group == sorted(group, reverse=True), f"{about}: undone out of order: {done}"
    final = groups[-1]
    if life.end.status == "compensated":
        assert final == sorted(final, reverse=True), f"{about}: undone out of order: {done}"


def check_world(life: Life, about: str) -> None:
    """What is live in the world is what the journal says is done and not undone; nothing is, after a rollback."""
    done = succeeded(life.journal)
    kept = {key for key in done if not key.endswith("~undo") and f"{key}~undo" not in done and "look" not in key}
    assert set(life.world.kept()) == kept, f"{about}: live effects"
    if life.end.status == "compensated":
        assert not kept, f"{about}: left after the rollback"


def world_at(life: Life, prefix: Sequence[JournalEntry]) -> World:
    """The world where the crash came right after the last entry: exactly what is on disk has happened."""
    done = succeeded(prefix)
    calls = {call.step: call for call in life.world.calls if not call.compensating}
    kept = [calls[key] for key in done if key in calls and f"{key}~undo" not in done]
    return World(live={call.key: call for call in kept})


async def check_prefixes(life: Life, seed: int) -> None:
    check_journal(life, "undisturbed")
    check_world(life, "undisturbed")
    assert life.journal[-1].kind == EntryKind.ENDED, "the run came to no end"
    for length in range(len(life.journal)):
        prefix = life.journal[:length]
        about = f"after {length} entries, the last {prefix[-1][2:6] if prefix else 'none'}"
        again = await resumed(life.row, prefix, world_at(life, prefix), seed + length)
        decided = any(entry.kind == EntryKind.SIGNALLED and entry.key == "cancel" for entry in prefix)
        if decided or not any(entry.kind == EntryKind.SIGNALLED for entry in life.journal):
            assert again.end.status == life.end.status, f"{about}: {again.end}"
        twice = set(called(again.world)) & set(succeeded(prefix))
        assert not twice, f"{about}: done again: {twice}"
        assert [e[:6] for e in again.journal[:length]] == [e._replace(run=again.row.num)[:6] for e in prefix], about
        check_journal(again, about)
        check_world(again, about)


@some
@covering(*({"nodes": nodes, "seed": seed} for seed, nodes in enumerate(NESTED)))
@given(nodes=st.lists(NODES, min_size=1, max_size=4), seed=st.integers(0, 999))
@example(nodes=[block("parallel", STEP, block("child", STEP, FLAKY), SLEEP), REJECT], seed=1)
@example(nodes=[block("parallel", STEP, REJECT, block("map", STEP, STEP, FLAKY, width=1))], seed=2)
@example(nodes=[block("caught", STEP, block("parallel", STEP, STEP), REJECT), STEP], seed=3)
@example(nodes=[block("parallel", block("caught", STEP, REJECT), block("child", STEP, REJECT), STEP)], seed=4)
@example(nodes=[block("child", block("child", STEP, block("savepoint", STEP))), REJECT], seed=5)
def test_blocks_come_to_the_same_end_from_every_prefix(nodes: list[Node], seed: int):
    """From each prefix of its journal a saga of blocks comes to the same end, runs nothing again, undoes in order."""

    async def main() -> None:
        await check_prefixes(await live(nodes, seed), seed)

    asyncio.run(main())


SIGNALS = [("cancel",), ("cancel", "cancel"), ("pause", "resume"), ("pause", "cancel", "resume")]


@some
@covering(
    *(
        {"nodes": nodes, "seed": after, "signals": signals, "after": after}
        for nodes, signals, after in zip(NESTED, SIGNALS, (5, 2, 3, 4), strict=True)
    )
)
@given(
    nodes=st.lists(NODES, min_size=1, max_size=4),
    seed=st.integers(0, 999),
    signals=st.sampled_from(SIGNALS),
    after=st.integers(0, 5),
)
@example(nodes=[block("parallel", STEP, STEP, block("child", STEP, SLEEP)), STEP], seed=1, signals=("cancel",), after=1)
@example(nodes=[block("caught", STEP, STEP, REJECT), STEP], seed=2, signals=("cancel",), after=3)
@example(nodes=[block("map", STEP, STEP, STEP, width=1)], seed=3, signals=("pause", "cancel", "resume"), after=1)
@example(nodes=[block("parallel", STEP, FLAKY), STEP], seed=4, signals=("pause", "resume"), after=0)
def test_a_cancel_or_a_pause_is_replayed_at_its_place(
    nodes: list[Node], seed: int, signals: tuple[str, ...], after: int
):
    """A run that was cancelled or paused somewhere comes to the same end from each prefix that holds the signal."""

    async def main() -> None:
        await check_prefixes(await live(nodes, seed, signals=signals, after=after), seed)

    asyncio.run(main())


@some
@covering(*({"nodes": nodes, "seed": after, "after": after} for nodes, after in zip(NESTED, (0, 1, 4, 5), strict=True)))
@given(nodes=st.lists(NODES, min_size=1, max_size=4), seed=st.integers(0, 999), after=st.integers(0, 5))
@example(nodes=[block("parallel", STEP, block("child", STEP, STEP), SLEEP), STEP], seed=1, after=2)
@example(nodes=[block("caught", STEP, STEP, REJECT), STEP], seed=2, after=3)
def test_a_killed_saga_is_rolled_back_from_every_prefix(nodes: list[Node], seed: int, after: int):
    """A saga killed anywhere is undone by rollback, its body not asked; so it is from each prefix of that rollback."""

    async def main() -> None:
        life = await live(nodes, seed, signals=("kill", "rollback"), after=after)
        killed = [place for place, entry in enumerate(life.journal) if entry.label == "abandon"]
        if not killed:
            return  # it had ended before
        assert life.end.status == "compensated"
        assert life.world.live == {}
        for length in range(killed[0] + 1, len(life.journal)):
            prefix = life.journal[:length]
            again = await resumed(life.row, prefix, world_at(life, prefix), seed + length)
            assert again.end.status == "compensated", f"after {length} entries: {again.end}"
            assert again.world.live == {}
            assert not set(called(again.world)) & set(succeeded(prefix))
            assert all(key.endswith("~undo") for key in called(again.world)), "the body's part is over"

    asyncio.run(main())


@some
@covering(*({"nodes": nodes, "seed": after, "after": after} for nodes, after in zip(NESTED, (0, 1, 4, 6), strict=True)))
@given(nodes=st.lists(NODES, min_size=1, max_size=4), seed=st.integers(0, 999), after=st.integers(0, 6))
@example(nodes=[block("parallel", STEP, STEP, STEP), REJECT], seed=1, after=2)
@example(nodes=[block("parallel", STEP, block("parallel", STEP, STEP), FLAKY), REJECT], seed=2, after=3)
def test_leaving_amid_branches_and_coming_back_is_no_different(nodes: list[Node], seed: int, after: int):
    """A clean shutdown while branches are in flight lets them end; the next process goes on to the same end."""

    async def main() -> None:
        straight = await live(nodes, seed)
        data, world = MemoryData(), World()
        begun = asyncio.Event()

        async def count(_: StepInfo) -> None:
            if len(world.calls) > after:
                begun.set()

        world.before = count
        store = MemoryStore(data)
        resources = [world, Jitter(random.Random(seed))]
        async with orchestrator(store, outer, resources=resources) as running:
            handle = await running.start(outer, list(nodes), id="one")
            ended = asyncio.ensure_future(end_of(handle, running))
            await asyncio.wait([ended, waiter := asyncio.ensure_future(begun.wait())], return_when="FIRST_COMPLETED")
            waiter.cancel()
            if not ended.done():
                ended.cancel()
            await asyncio.gather(ended, waiter, return_exceptions=True)
        store = MemoryStore(data)
        async with orchestrator(store, outer, resources=resources) as running:
            life = await finish(running, await running.get("one"), store, world)
        assert life.end.status == straight.end.status
        check_journal(life, "after a clean shutdown")
        check_world(life, "after a clean shutdown")
        calls = [key for key in called(world) if key not in flaky(life.journal)]
        assert len(calls) == len(set(calls)), "something was called twice"

    asyncio.run(main())


def flaky(journal: Sequence[JournalEntry]) -> set[str]:
    """The steps that failed and were tried again."""
    return {entry.key for entry in journal if entry.kind == EntryKind.FAILED}


@pytest.mark.parametrize("cut", range(3))
def test_a_crash_amid_a_rollback_in_parallel_is_gone_on_with(cut: int):
    """A process that dies while a child is undone beside a sibling leaves nothing live and undoes nothing twice."""

    async def main() -> None:
        nodes = [block("parallel", block("child", STEP, STEP, REJECT), SLEEP), STEP]
        life = await live(nodes, cut)
        undone = [place for place, entry in enumerate(life.journal) if entry.key.endswith("~undo")]
        assert undone
        prefix = life.journal[: undone[min(cut, len(undone) - 1)] + 1]
        again = await resumed(life.row, prefix, world_at(life, prefix), cut)
        assert again.end.status == "compensated"
        check_world(again, "after the crash")

    asyncio.run(main())
