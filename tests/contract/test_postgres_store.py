"""The store contract on the PostgreSQL store."""

from typing import cast

import pytest

from durable_core.ports import Store
from durable_core.stores import open_store
from durable_core.stores.postgres.store import PostgresStore
from durable_core.testing.store_contract import StoreContract
from durable_core.testing.store_rows import MakeStore
from tests.postgres_server import Server, crash


class TestPostgresStore(StoreContract):
    @pytest.fixture
    def make_store(self, server: Server) -> MakeStore:
        url = server.fresh()
        return lambda: open_store(url)

    def crash(self, store: Store) -> None:
        """Its lease would end in a while; here it ends at once."""
        crash(cast("PostgresStore", store))
