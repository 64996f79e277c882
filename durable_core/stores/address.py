"""Turns a store's address into the store: ``sqlite:///orders.db``, ``postgresql://user@host/db``, ``memory://name``.

Invariant: an address may hold a password, so no message repeats more of it than its scheme and what is wrong.
"""

import os
from urllib.parse import parse_qsl

import attrs

from durable_core.errors import DefinitionError, StoreError
from durable_core.ports import Store
from durable_core.stores.postgres.address import place_of

# ruff: noqa: PLC0415 - only the store in use is loaded, one of three

ALLOWED = (
    "Give sqlite:///file.db (in the current directory), sqlite:////absolute/path/file.db, "
    "postgresql://user@host/database, memory:// (a store of its own) or memory://name (shared within this process)"
)


@attrs.frozen
class Migrated:
    """Which migration a store's tables had, 0 for none, and which they have now."""

    before: int
    after: int


def open_store(url: str, *, lease_s: float = 15.0, patience_s: float = 30.0, **options: str) -> Store:
    """The store at ``url``, not opened yet: nothing is read or made before its ``open()``.

    Args:
        url: the address; its query may hold options too (``sqlite:///orders.db?durability=process``).
        lease_s: how long a silent worker keeps its runs, in a store where its death cannot be seen at once.
        patience_s: how long a question waits for a database that cannot be reached.
        options: for SQLite ``durability``: ``power`` (the default) or ``process``; for PostgreSQL ``schema``, and those
            that its driver takes.

    Raises:
        StoreError: the address or an option is not one of those above.
    """
    scheme, mark, rest = url.partition("://")
    place, _, query = rest.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True)) | options
    match scheme if mark else "":
        case "sqlite":
            return _sqlite(place, given)
        case "memory":
            from durable_core.stores.memory.data import shared
            from durable_core.stores.memory.store import MemoryStore

            _refuse_options(given, allowed=())
            return MemoryStore(shared(place) if place else None)
        case "":
            raise StoreError(f"the store's address has no scheme such as sqlite://. {ALLOWED}")
        case "postgresql" | "postgres":
            return _postgres(url, options, lease_s=lease_s, patience_s=patience_s)
        case _:
            raise StoreError(f"a store's address cannot begin with {scheme!r}. {ALLOWED}")


def store_of(url: str | None, store: Store | None, *, lease_s: float, patience_s: float) -> Store:
    """The store that a program gives: the one at ``url``, not opened yet, or ``store`` itself.

    Args:
        url: the store's address; see ``open_store``.
        store: a store instead of an address; it may be open.
        lease_s: see ``open_store``; a given store has its own.
        patience_s: likewise.

    Raises:
        DefinitionError: both are given, or neither is, or the address is no text.
        StoreError: there can be no store at this address.
    """
    if store is not None:
        if url is not None:
            raise DefinitionError("an address and a store are given", "Give one of them: the address, or store=")
        return store
    if url is None:
        raise DefinitionError("no store is given", f"Give its address, or a store as store=. {ALLOWED}")
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DefinitionError(
            f"a store's address is a text, not a {type(url).__name__}", f"A store object is given as store=. {ALLOWED}"
        )
    return open_store(url, lease_s=lease_s, patience_s=patience_s)


async def migrate(url: str) -> Migrated:
    """Bring the tables of the store at ``url`` to this release's, making them if there are none.

    Raises:
        StoreError: there can be no store, or its tables are another program's, or a newer release's.
    """
    from durable_core.stores.memory.store import MemoryStore
    from durable_core.stores.sqlite.store import SqliteStore

    store = open_store(url)
    if isinstance(store, MemoryStore):
        raise StoreError("a store in memory has no tables to migrate", "Name a file or a server")
    if isinstance(store, SqliteStore):  # there is one stored format of it so far
        before = int(os.path.exists(store.path))  # noqa: ASYNC240, PTH110 - one look at a local file
        await store.open(worker=None)
        await store.close()
        return Migrated(before, 1)
    from durable_core.stores.postgres import schema

    step = await schema.migrate(place_of(url, {}))
    return Migrated(step.before, step.after)


def _sqlite(place: str, options: dict[str, str]) -> Store:
    from durable_core.stores.sqlite.store import SYNCHRONOUS, SqliteStore

    host, slash, path = place.partition("/")
    if host or not slash:
        raise StoreError(
            f"a sqlite address has three slashes before its path, or four before an absolute one. {ALLOWED}"
        )
    if not path or path.endswith("/"):
        raise StoreError(f"the sqlite address names no file. {ALLOWED}")
    if path == ":memory:":
        raise StoreError("a SQLite database in memory cannot be shared by connections", f"Use memory://. {ALLOWED}")
    _refuse_options(options, allowed=("durability",))
    durability = options.get("durability", "power")
    if durability not in SYNCHRONOUS:
        raise StoreError(f"the option durability is one of {', '.join(SYNCHRONOUS)}; it was given {durability!r}")
    return SqliteStore(path, durability="process" if durability == "process" else "power")


def _postgres(url: str, options: dict[str, str], *, lease_s: float, patience_s: float) -> Store:
    try:
        from durable_core.stores.postgres.store import PostgresStore
    except ImportError as missing:
        raise StoreError(
            f"the driver for PostgreSQL is not installed ({missing})", "Run `pip install 'durable-sagas[postgres]'`"
        ) from missing
    return PostgresStore(place_of(url, options), lease_s=lease_s, patience_s=patience_s)


def _refuse_options(options: dict[str, str], *, allowed: tuple[str, ...]) -> None:
    unknown = sorted(options.keys() - set(allowed))
    if unknown:
        raise StoreError(
            f"the store's address has unknown options: {', '.join(unknown)}. Known here: {', '.join(allowed) or 'none'}"
        )
