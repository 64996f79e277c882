"""The store contract on the memory store."""

import itertools
from typing import cast

import pytest

from durable_core.ports import Store
from durable_core.stores.memory.data import shared
from durable_core.stores.memory.store import MemoryStore
from durable_core.testing.store_contract import StoreContract
from durable_core.testing.store_rows import MakeStore

_names = itertools.count()


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def make_store(self) -> MakeStore:
        name = f"contract-{next(_names)}"
        return lambda: MemoryStore(shared(name))

    def crash(self, store: Store) -> None:
        cast("MemoryStore", store).crash()
