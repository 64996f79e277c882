"""The faulty store: told nothing it keeps the whole contract, and it fails as told."""

import itertools
from typing import cast

import pytest

from durable_core.errors import StoreError
from durable_core.model.run import RunQuery
from durable_core.ports import Store
from durable_core.stores.memory.data import shared
from durable_core.stores.memory.store import MemoryStore
from durable_core.testing import FaultyStore, StoreContract
from durable_core.testing.store_rows import MakeStore, add, in_loop, new_batch, new_run

_names = itertools.count()


class TestFaultyStore(StoreContract):
    @pytest.fixture
    def make_store(self) -> MakeStore:
        name = f"faulty-{next(_names)}"
        return lambda: FaultyStore(MemoryStore(shared(name)))

    def crash(self, store: Store) -> None:
        cast("MemoryStore", cast("FaultyStore", store).inner).crash()


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("transient", [False, True])
@in_loop
async def test_commits_fail_as_told(written: bool, transient: bool):  # noqa: FBT001
    """As many as told, before or after writing, with the asked kind of error."""
    store = FaultyStore(MemoryStore())
    await store.open(worker=None)
    store.fail_commits(2, written=written, transient=transient)
    for id in ("a", "b"):
        with pytest.raises(StoreError) as caught:
            await store.journal.commit(new_batch(starts=[new_run(store.journal.next_num(), id)]))
        assert caught.value.transient is transient
    await add(store, "c")
    assert await store.runs.count(RunQuery()) == (3 if written else 1)
    assert store.commits == 3
    await store.close()


@in_loop
async def test_calls_fail_as_told():
    """Other calls fail too, and are not made."""
    store = FaultyStore(MemoryStore())
    await store.open(worker=None)
    num = await add(store, "a")
    store.fail_calls(1)
    with pytest.raises(StoreError):
        await store.signals.send(num, "cancel", b"", now_ns=1)
    assert await store.signals.waiting([num]) == []
    await store.close()


@in_loop
async def test_a_hook_sees_each_batch():
    """``on_commit`` is called before anything is written, and what it raises is raised."""
    store = FaultyStore(MemoryStore())
    await store.open(worker=None)
    seen: list[int] = []

    def hook(batch: object) -> None:
        seen.append(1)
        raise KeyError

    store.on_commit = hook
    with pytest.raises(KeyError):
        await add(store, "a")
    assert await store.runs.count(RunQuery()) == 0
    assert seen == [1]
    await store.close()
