"""Turns a store's address into the store: ``sqlite:///orders.db``, ``sqlite:////var/lib/orders.db``, ``memory://name``.

Invariant: an address may hold a password, so no message repeats more of it than its scheme and what is wrong.
"""

from urllib.parse import parse_qsl

from durable_core.errors import StoreError
from durable_core.ports import Store
from durable_core.stores.memory import MemoryStore, shared
from durable_core.stores.sqlite import SYNCHRONOUS, SqliteStore

ALLOWED = (
    "Give sqlite:///file.db (in the current directory), sqlite:////absolute/path/file.db, memory:// (a store of its "
    "own) or memory://name (shared within this process)"
)


def open_store(url: str, **options: str) -> Store:
    """The store at ``url``, not opened yet: nothing is read or made before its ``open()``.

    Args:
        url: the address; its query may hold options too (``sqlite:///orders.db?durability=process``).
        options: for SQLite ``durability``: ``power`` (the default) or ``process``.

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
            _refuse_options(given, allowed=())
            return MemoryStore(shared(place) if place else None)
        case "":
            raise StoreError(f"the store's address has no scheme such as sqlite://. {ALLOWED}")
        case "postgresql" | "postgres":
            raise StoreError(f"PostgreSQL is not served by this release. {ALLOWED}")
        case _:
            raise StoreError(f"a store's address cannot begin with {scheme!r}. {ALLOWED}")


def _sqlite(place: str, options: dict[str, str]) -> Store:
    host, slash, path = place.partition("/")
    if host or not slash:
        raise StoreError(
            f"a sqlite address has three slashes before its path, or four before an absolute one. {ALLOWED}"
        )
    if not path or path.endswith("/"):
        raise StoreError(f"the sqlite address names no file. {ALLOWED}")
    if path == ":memory:":
        raise StoreError(f"a SQLite database in memory cannot be shared by connections; use memory://. {ALLOWED}")
    _refuse_options(options, allowed=("durability",))
    durability = options.get("durability", "power")
    if durability not in SYNCHRONOUS:
        raise StoreError(f"the option durability is one of {', '.join(SYNCHRONOUS)}; it was given {durability!r}")
    return SqliteStore(path, durability="process" if durability == "process" else "power")


def _refuse_options(options: dict[str, str], *, allowed: tuple[str, ...]) -> None:
    unknown = sorted(options.keys() - set(allowed))
    if unknown:
        raise StoreError(
            f"the store's address has unknown options: {', '.join(unknown)}. Known here: {', '.join(allowed) or 'none'}"
        )
