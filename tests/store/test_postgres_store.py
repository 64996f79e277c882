"""The store contract on the PostgreSQL store."""

from typing import cast

import pytest

from durable_core import StoreError
from durable_core.ports import Store
from durable_core.stores import open_store
from durable_core.stores.postgres.store import PostgresStore
from durable_core.testing.store_contract import StoreContract
from durable_core.testing.store_rows import NOW_NS, MakeStore, add, in_loop, new_batch, new_entry, new_run, opened
from tests.postgres_server import Server, crash


class TestPostgresStore(StoreContract):
    @pytest.fixture
    def make_store(self, server: Server) -> MakeStore:
        url = server.fresh()
        return lambda: open_store(url)

    def crash(self, store: Store) -> None:
        """Its lease would end in a while; here it ends at once."""
        crash(cast("PostgresStore", store))

    @in_loop
    async def test_a_flood_of_one_function_holds_up_no_other(self, make_store: MakeStore) -> None:
        """Runs of another function are claimed with the first, whatever waits before them; of each the oldest first."""
        async with opened(make_store, "w1") as (store,):
            flood = [new_run(store.journal.next_num(), f"flood{n:03}", created_at_ns=n) for n in range(300)]
            await store.journal.commit(new_batch(starts=flood))
            for name in ("a", "b"):
                await add(store, name, name="rare", created_at_ns=500)
            await add(store, "timed", name="rare", wake_at_ns=900, created_at_ns=500)
            found = await store.claims.claim("w1", [("order", 1), ("rare", 1)], now_ns=NOW_NS, limit=10)
            assert [run.id for run in found] == [*(f"flood{n:03}" for n in range(7)), "a", "b", "timed"]
            rest = await store.claims.claim("w1", [("order", 1), ("rare", 1)], now_ns=NOW_NS, limit=400)
            assert [run.id for run in rest] == [f"flood{n:03}" for n in range(7, 300)]

    @in_loop
    async def test_a_value_that_cannot_be_held_is_refused(self, make_store: MakeStore) -> None:
        """Its batch is not written, the error is not transient and says which values can be, and the store goes on."""
        async with opened(make_store, "w1") as (store,):
            num = await add(store, "a", owner="w1")
            for many in (1, 300):  # one statement, and a COPY
                for odd in (
                    new_entry(num, 1)._replace(at_ns=1 << 70),
                    new_entry(num, 1)._replace(key="\ud800"),
                    new_entry(num, 1)._replace(label="a\0b"),
                ):
                    rest = [new_entry(num, seq) for seq in range(2, many + 1)]
                    with pytest.raises(StoreError, match="cannot hold") as caught:
                        await store.journal.commit(new_batch(entries=[odd, *rest]))
                    assert not caught.value.transient
            assert await store.journal.load([num]) == {num: []}
            await store.journal.commit(new_batch(entries=[new_entry(num, 1)]))
