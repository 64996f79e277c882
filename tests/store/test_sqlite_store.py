"""The store contract on the SQLite store."""

from pathlib import Path
from typing import cast

import pytest

from durable_core.ports import Store
from durable_core.stores.sqlite.store import SqliteStore
from durable_core.testing.store_contract import StoreContract
from durable_core.testing.store_rows import MakeStore


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        return lambda: SqliteStore(str(tmp_path / "contract.db"))

    def crash(self, store: Store) -> None:
        cast("SqliteStore", store).crash()
