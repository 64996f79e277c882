"""How the tables come to be in a schema of PostgreSQL, and whether those that are there are ours.

Migrations are numbered files that are only ever added to; a fresh schema runs all of them, so it is the same as a
migrated one.

Invariant: a schema of another program is never written to, and one of a newer release neither. All of a migration is
there or nothing.
"""

import hashlib
import secrets
from importlib.resources import files

import attrs

from durable_core.errors import StoreError, StoreFormatError, StoreNotFound
from durable_core.stores.postgres import refusals
from durable_core.stores.postgres.address import Place
from durable_core.stores.postgres.connect import connect
from durable_core.stores.postgres.connection import CAUGHT, Connection, in_transaction

FORMAT = 1
"""The stored format that this release writes and reads."""
OLDEST_SERVER = 14
TABLES = ("runs", "journal", "signals", "tombstones", "run_tags", "workers", "served", "serving", "traced", "meta")

_RIGHTS = "42501"
_LOOK = """
SELECT current_setting('server_version_num')::int8, pg_is_in_recovery(), coalesce($1::text, current_schema()::text)
"""
_FOUND = """
SELECT c.relname::text FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY($2::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_META_COLUMNS = """
SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = 'meta' AND a.attnum > 0 AND NOT a.attisdropped
"""


@attrs.frozen
class Ready:
    """A schema that holds our tables as this release knows them."""

    schema: str
    """Its name."""
    secret: bytes = attrs.field(repr=False)

    @property
    def quoted(self) -> str:
        """Its name as SQL has it."""
        return quoted(self.schema)


@attrs.frozen
class Step:
    """Which migration a schema had, and which it has now."""

    before: int
    after: int


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def migrations() -> list[str]:
    """The text of each migration, from number 1 on."""
    folder = files("durable_core.stores.postgres") / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(folder / name).read_text(encoding="utf-8") for name in names]


async def migrate(place: Place) -> Step:
    """Bring the tables at ``place`` to this release's, making them if there are none.

    Raises:
        StoreError: it cannot be reached, or the role may not.
        StoreFormatError: the schema is another program's, or of a newer release.
    """
    try:
        connection = await connect(place.dsn)
    except CAUGHT as error:
        raise refusals.explain(
            error, place=place.shown, doing="migrate the store", outcome="nothing changed"
        ) from error
    try:
        return await _migrated(connection, place, await _schema_of(connection, place))
    finally:
        await connection.close()


async def made_ready(connection: Connection, place: Place, *, create: bool = True) -> Ready:
    """The schema of a store that is about to be opened; with ``create`` it is made if there is nothing yet.

    Raises:
        StoreNotFound: no such schema can be had.
        StoreFormatError: another program's tables, a newer release's, or an older one's that must be migrated first.
    """
    if create:
        schema = await _schema_of(connection, place)
        if not await _stands(connection, place, schema):
            await _migrated(connection, place, schema)
    schema = await checked(connection, place)
    secret = await connection.fetchval(f"SELECT value FROM {quoted(schema)}.meta WHERE key = 'secret'")  # noqa: S608 - quoted
    return Ready(schema, bytes(secret))


async def checked(connection: Connection, place: Place) -> str:
    """The name of the schema of a store that is there and can be opened; nothing is made.

    Raises:
        StoreNotFound: there is no store.
        StoreFormatError: another program's tables, a newer release's, or an older one's.
    """
    schema = await _schema_of(connection, place)
    stands = await _stands(connection, place, schema)
    if not stands:
        raise StoreNotFound(
            f"there is no store in the schema {schema!r} of {place.shown}", "Check the address. A worker makes one"
        )
    if stands < len(migrations()):
        raise _outdated(place, stands)
    return schema


def _outdated(place: Place, stands: int) -> StoreFormatError:
    return StoreFormatError(
        f"the tables of {place.shown} are at migration {stands}, and this release needs {len(migrations())}; "
        "nothing was changed",
        "Run `sagas migrate --store URL` once, with this release; workers of the old one should have ended",
    )


async def _schema_of(connection: Connection, place: Place) -> str:
    row = await connection.fetchrow(_LOOK, place.schema)
    version, standby, schema = row or (0, False, None)
    if version < OLDEST_SERVER * 10_000:
        raise StoreError(f"{place.shown} is PostgreSQL {version // 10_000}; a store needs {OLDEST_SERVER} or newer")
    if standby:
        raise StoreError(
            f"{place.shown} is a standby, which takes no writes",
            "Name the primary, or add ?target_session_attrs=primary",
            transient=True,
        )
    if schema is None:
        raise StoreNotFound(
            f"the search path of this role on {place.shown} has no schema", "Name one with ?schema=name"
        )
    return str(schema)


async def _stands(connection: Connection, place: Place, schema: str) -> int:
    """The number of the last migration that the schema had; 0 if there is nothing of ours in it."""
    found = {str(row[0]) for row in await connection.fetch(_FOUND, schema, TABLES)}
    if not found:
        return 0
    ours = "meta" in found and await connection.fetchval(_META_COLUMNS, schema) == ["key", "value"]
    text = f"SELECT key, value FROM {quoted(schema)}.meta WHERE key IN ('format', 'migration')"  # noqa: S608 - quoted
    facts = {str(row[0]): row[1] for row in await connection.fetch(text)} if ours else {}
    if set(facts) != {"format", "migration"}:
        raise StoreFormatError(
            f"{place.shown} has tables of another program under our names ({', '.join(sorted(found))}) in the "
            f"schema {schema!r}, so it was left as it is",
            "Name another schema with ?schema=name",
        )
    stored, stands = int(facts["format"]), int(facts["migration"])
    if stored > FORMAT or stands > len(migrations()):
        raise StoreFormatError(
            f"{place.shown} has the stored format {stored} and migration {stands}, written by a newer release; "
            f"this one knows {FORMAT} and {len(migrations())}",
            "Upgrade durable-sagas here, or name another schema",
        )
    return stands


async def _migrated(connection: Connection, place: Place, schema: str) -> Step:
    """Run the migrations that are missing, in one transaction, one process at a time."""
    lock = int.from_bytes(hashlib.blake2b(b"sagas " + schema.encode(), digest_size=8).digest(), "big", signed=True)
    try:
        async with in_transaction(connection):
            await connection.execute("SELECT pg_advisory_xact_lock($1::int8)", lock)
            known = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1)"
            if not await connection.fetchval(known, schema):
                await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
            stands, steps = await _stands(connection, place, schema), migrations()
            await connection.execute(f"SET LOCAL search_path TO {quoted(schema)}")
            for text in steps[stands:]:
                await connection.execute(text)
            if not stands:
                facts = [("format", str(FORMAT).encode()), ("migration", b"0"), ("secret", secrets.token_bytes(32))]
                for key, value in facts:
                    await connection.execute("INSERT INTO meta (key, value) VALUES ($1, $2)", key, value)
            await connection.execute("UPDATE meta SET value = $1 WHERE key = 'migration'", str(len(steps)).encode())
            await connection.execute("SET LOCAL search_path TO DEFAULT")
    except CAUGHT as error:
        if getattr(error, "sqlstate", None) == _RIGHTS:
            raise StoreError(
                f"the role of the address may not make tables in the schema {schema!r} of {place.shown} ({error})",
                "Run `sagas migrate --store URL` once with a role that may; then grant this one USAGE on the "
                "schema, and SELECT, INSERT, UPDATE, DELETE on its tables and USAGE on its sequences",
            ) from error
        raise refusals.explain(
            error, place=place.shown, doing="make the tables", outcome="nothing of them was made"
        ) from error
    return Step(stands, len(steps))
