"""Stores: memory, SQLite, PostgreSQL. Each adapter is the only module that imports its library.

``open_store`` finds the store for an address; the adapters stay unloaded until it is called for them.
"""

from durable_core.stores.address import Migrated, migrate, open_store, store_of

__all__ = ["Migrated", "migrate", "open_store", "store_of"]
