"""A store that refuses what a saga writes, or all that is written: no saga is lost, and no end is told that is none."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from durable_core.errors import StoreError
from durable_core.model.entry import EntryKind
from durable_core.ports import Batch
from durable_core.stores import open_store
from durable_core.testing import FaultyStore
from sagas import Orchestrator, Saga, SagaInfo, SagaStuck, saga, step
from sagas import StoreError as PublicStoreError
from tests.kit import Place, until

BAD = "could not write: it has a value that this store cannot hold"
gates: list[asyncio.Event] = []
"""What the held steps of the test under way wait for."""


@step(compensation=None, because="a test")
async def hold(number: int) -> int:
    await gates[-1].wait()
    return number


@saga("held", version=1)
async def held(s: Saga, number: int) -> int:
    return await s.run(hold, number)


@asynccontextmanager
async def refusing(
    place: Place, refuses: Callable[[Batch], bool], **options: object
) -> AsyncGenerator[tuple[Orchestrator, FaultyStore]]:
    """An orchestrator whose store refuses for good the batches that ``refuses`` names."""
    store = FaultyStore(open_store(place.url))
    running = Orchestrator(store=store, sagas=[held], **options)  # type: ignore[arg-type]

    def look(batch: Batch) -> None:
        if refuses(batch):
            raise StoreError(BAD, transient=False)

    store.on_commit = look
    gates.append(asyncio.Event())
    async with running:
        yield running, store


def ends(batch: Batch, num: int) -> bool:
    """Whether it holds the end of that run."""
    return any(entry.run == num and entry.kind == EntryKind.ENDED for entry in batch.entries)


@pytest.mark.parametrize("of", ["the first", "all but the first"])
async def test_a_saga_whose_rows_are_refused_needs_attention_and_goes_on_when_it_is_retried(place: Place, of: str):
    """Whether it is alone in a commit or among others: it is not said to have ended, and the others end."""
    told: list[str] = []

    async def attention(info: SagaInfo) -> None:
        told.append(info.id)

    bad: set[int] = set()
    async with refusing(place, lambda batch: any(ends(batch, num) for num in bad), on_attention=attention) as (
        running,
        _,
    ):
        handles = [await running.start(held, number, id=f"s{number}") for number in range(4)]
        records = [await running.engine.find(handle.id) for handle in handles]
        chosen = records[:1] if of == "the first" else records[1:]
        bad |= {record.num for record in chosen}
        gates[-1].set()  # all of them end in one commit
        for handle, record in zip(handles, records, strict=True):
            if record not in chosen:
                assert await handle.result(timeout=20) is not None
                continue
            with pytest.raises(SagaStuck) as stuck:
                await handle.result(timeout=20)
            assert BAD in stuck.value.reason
        assert {info.id for info in await running.list(attention=True)} == {record.id for record in chosen}

        async def all_told() -> bool:
            return sorted(told) == sorted(record.id for record in chosen)

        await until(all_told, running)
        for record in chosen:
            assert (await running.engine.find(record.id)).owner is None
        bad.clear()
        for record in chosen:
            await running.retry(record.id)
            assert await (await running.get(record.id)).result(timeout=20) is not None


def test_a_store_that_refuses_everything_costs_no_saga(place: Place, monkeypatch: pytest.MonkeyPatch):
    """As long as it takes nothing, nothing is said to have ended; once it does, every saga ends, and none is stuck."""
    monkeypatch.setattr(
        "durable_core.engine.writer.LONGEST_PAUSE_S", 0.05
    )  # between its attempts, of which there are many
    closed = False

    async def main() -> None:
        nonlocal closed
        async with refusing(place, lambda _: closed, store_timeout=0.3) as (running, store):
            handles = [await running.start(held, number, id=f"s{number}") for number in range(4)]
            closed = True
            gates[-1].set()
            tried = store.commits

            async def tried_often() -> bool:
                return store.commits > tried + 20

            await until(tried_often, running)
            assert [info.status for info in await running.list()] == ["running"] * 4
            with pytest.raises(PublicStoreError):
                await running.start(held, 9, id="late")
            closed = False
            for handle in handles:
                assert await handle.result(timeout=20) is not None
            assert [info.id for info in await running.list(limit=9)] == ["s3", "s2", "s1", "s0"]

    asyncio.run(main())


@pytest.mark.parametrize("verb", ["pause", "cancel", "kill"])
async def test_a_verb_whose_entry_is_refused_is_said_not_to_be_kept(place: Place, verb: str):
    """Whoever gave it hears so, and the saga does not do what it was told without a trace."""

    def refuses(batch: Batch) -> bool:
        return any(entry.kind == EntryKind.SIGNALLED for entry in batch.entries)

    async with refusing(place, refuses) as (running, _):
        handle = await running.start(held, 1, id="s")
        with pytest.raises(PublicStoreError, match="not all of it was kept"):
            await getattr(running, verb)(handle.id)
        with pytest.raises(SagaStuck):
            await handle.result(timeout=20)
        gates[-1].set()


async def test_a_call_waits_for_a_store_in_trouble_no_longer_than_it_is_told(place: Place):
    """A start behind a commit that is tried again and again, and a verb: each raises in time; no such start begins."""
    async with refusing(place, lambda _: False, store_timeout=0.3) as (running, store):
        handle = await running.start(held, 1, id="s")
        store.fail_commits(10**6)
        gates[-1].set()  # what it writes now waits

        async def in_trouble() -> bool:
            return running.engine.health().trouble is not None

        await until(in_trouble, running)
        for call in (running.start(held, 2, id="late"), running.pause(handle.id)):
            async with asyncio.timeout(20):
                with pytest.raises(PublicStoreError) as caught:
                    await call
            assert caught.value.transient
        store.fail_commits(0)
        assert await handle.result(timeout=20) == 1
        assert [info.id for info in await running.list()] == ["s"]
