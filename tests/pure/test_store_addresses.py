"""Addresses of stores: what is understood, and what is refused with which words."""

import pytest

from durable_core.errors import StoreError
from durable_core.stores import open_store
from durable_core.stores.memory.store import MemoryStore
from durable_core.stores.sqlite.store import SqliteStore


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///orders.db", "orders.db"),
        ("sqlite:////var/lib/x.db", "/var/lib/x.db"),
        ("sqlite:///a b%20#.db", "a b%20#.db"),
    ],
)
def test_sqlite_addresses(url: str, path: str):
    """Three slashes are followed by a relative path, four begin an absolute one, and the path is taken as it is."""
    store = open_store(url)
    assert isinstance(store, SqliteStore)
    assert store.path == path


def test_durability_is_an_option():
    """It can be given in the address or beside it, and the latter wins."""
    for store, expected in (
        (open_store("sqlite:///x.db"), "FULL"),
        (open_store("sqlite:///x.db?durability=process"), "NORMAL"),
        (open_store("sqlite:///x.db", durability="process"), "NORMAL"),
        (open_store("sqlite:///x.db?durability=process", durability="power"), "FULL"),
    ):
        assert isinstance(store, SqliteStore)
        assert store._database.synchronous == expected


def test_memory_addresses():
    """Stores of one name share their data; without a name each has its own."""
    stores = [open_store(url) for url in ("memory://a", "memory://a", "memory://b", "memory://", "memory://")]
    data = [store.data for store in stores if isinstance(store, MemoryStore)]
    assert data[0] is data[1]
    assert len({id(one) for one in data}) == 4


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "no scheme"),
        ("orders.db", "no scheme"),
        ("sqlite:orders.db", "no scheme"),
        ("sqlite://", "three slashes"),
        ("sqlite://orders.db", "three slashes"),
        ("sqlite:///", "no file"),
        ("sqlite:///dir/", "no file"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///x.db?durability=none", "power, process"),
        ("sqlite:///x.db?timeout=3", "timeout"),
        ("memory://a?durability=power", "durability"),
        ("postgresql://me:hunter2@host/db?durability=power", "durability"),
        ("postgresql://me:hunter2@host/db?schema=", "schema"),
        ("postgresql://me@host:hunter2/db", "be read"),
        ("postgresql://me@host/db?password=hunter2&timeout=3", "timeout"),
        ("mysql://me:hunter2@host/db?password=hunter2", "'mysql'"),
        ("sqlite://me:hunter2@host/db?password=hunter2", "three slashes"),
        ("sqlite:///db?password=hunter2", "password"),
        ("me:hunter2@host/db", "no scheme"),
    ],
)
def test_wrong_addresses(url: str, word: str):
    """The message says what is wrong and never repeats a password."""
    with pytest.raises(StoreError, match=word) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)
    assert not caught.value.transient
