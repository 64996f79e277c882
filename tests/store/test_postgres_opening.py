"""How a store on PostgreSQL comes to be, what it refuses to touch, and what a person is told."""

import asyncio
import logging
import sqlite3
from pathlib import Path
from urllib.parse import quote

import pytest

from durable_core import StoreError, StoreFormatError, StoreNotFound
from durable_core.layer import open_store
from durable_core.ports import Store
from durable_core.stores.postgres import schema
from durable_core.stores.postgres.address import place_of
from durable_core.testing.store_rows import add, claimed, in_loop, new_batch, new_entry, opened
from tests.postgres_server import GUARDED, PASSWORD, Server, execute
from tests.store.upgraded import goes_on, old_file
from tools import store_sql as generate

COLUMNS = """
SELECT table_name::text, column_name::text, data_type::text, is_nullable::text, replace(column_default, $1, '')
FROM information_schema.columns WHERE table_schema = $1 ORDER BY 1, ordinal_position
"""
INDEXES = "SELECT replace(indexdef, $1, '') FROM pg_indexes WHERE schemaname = $1 ORDER BY 1"


def use(url: str, *, worker: str | None = None) -> None:
    """Open the store, write to it, and close it."""

    async def run() -> None:
        store = open_store(url, patience_s=0.2)
        await store.open(worker=worker)
        try:
            num = await add(store, f"r{store.journal.next_num()}")
            await store.journal.commit(new_batch(entries=[new_entry(num, 1)]))
            assert await store.signals.send(num, "cancel", b"", now_ns=1)
        finally:
            await store.close()

    asyncio.run(run())


def tables(server: Server, name: str) -> list[tuple[object, ...]]:
    """All columns and indexes of a schema."""
    return [*execute(server.url(), COLUMNS, name), *execute(server.url(), INDEXES, name)]


def name_in(url: str) -> str:
    """The schema that an address names."""
    return url.rpartition("schema=")[2]


def test_fresh_is_what_the_tables_say(server: Server):
    """A schema that all migrations have made has the very columns and indexes of the table classes."""
    url = server.fresh()
    use(url)
    script = "; ".join(generate.definitions(generate.POSTGRES))

    async def run() -> None:
        connection = await schema.connect(server.url())
        await connection.execute(f"CREATE SCHEMA plain; SET search_path TO plain; {script}")
        await connection.close()

    asyncio.run(run())
    found = tables(server, name_in(url))
    assert len(found) > 50
    assert found == tables(server, "plain")


@in_loop
async def test_many_that_open_a_new_schema_at_once(server: Server):
    """It is made once; all have the same secret, and numbers of their own."""
    url = server.fresh()
    stores: list[Store] = [open_store(url) for _ in range(6)]
    await asyncio.gather(*(store.open(worker=f"w{place}") for place, store in enumerate(stores)))
    assert len({store.secret for store in stores}) == 1
    assert len(next(iter({store.secret for store in stores}))) == 32
    assert len({store.journal.next_num() for store in stores}) == 6
    for store in stores:
        await store.close()


def test_an_older_schema_is_migrated_when_asked(server: Server, monkeypatch: pytest.MonkeyPatch):
    """A store on it says which command to run and changes nothing; after it the store opens, with all that it had."""
    url = server.fresh()
    use(url)
    known = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: [*known, "ALTER TABLE runs ADD COLUMN colour TEXT"])
    before = tables(server, name_in(url))
    with pytest.raises(StoreFormatError, match="sagas migrate"):
        use(url)
    assert tables(server, name_in(url)) == before
    place = place_of(url, {})
    newest = len(known) + 1
    assert asyncio.run(schema.migrate(place)) == schema.Step(len(known), newest)
    assert asyncio.run(schema.migrate(place)) == schema.Step(newest, newest)
    use(url)
    assert len(tables(server, name_in(url))) == len(before) + 1
    fresh = server.fresh()
    use(fresh)
    assert tables(server, name_in(fresh)) == tables(server, name_in(url))


def test_the_first_migration_is_upgraded_with_runs_in_flight(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What a killed worker of that release left goes on to its end once the schema is migrated."""
    old_file(tmp_path / "old.db")
    url, first = server.fresh(), schema.migrations()[:1]
    with monkeypatch.context() as old:
        old.setattr(schema, "migrations", lambda: first)
        asyncio.run(schema.migrate(place_of(url, {})))
    copy_rows(tmp_path / "old.db", server.url(), name_in(url))
    assert asyncio.run(schema.migrate(place_of(url, {}))).after == len(schema.migrations())

    asyncio.run(goes_on(url))


def copy_rows(path: Path, url: str, name: str) -> None:
    """Put runs and journals of a SQLite file into a schema, as if their worker had been found dead."""
    source = sqlite3.connect(path)
    source.execute("UPDATE runs SET owner = NULL, wake_at_ns = 0 WHERE owner IS NOT NULL")

    async def copy() -> None:
        connection = await schema.connect(url)
        await connection.fetchval(f"SELECT nextval('{name}.run_numbers')")  # the numbers of the file are taken
        for table in ("runs", "journal"):
            rows = source.execute(f"SELECT * FROM {table}")
            columns = [column[0] for column in rows.description if column[0] != "pos"]
            values = [row[-len(columns) :] for row in rows]
            await connection.copy_records_to_table(table, records=values, columns=columns, schema_name=name)
        await connection.close()

    asyncio.run(copy())
    source.close()


def test_a_migration_that_fails_leaves_nothing(server: Server, monkeypatch: pytest.MonkeyPatch):
    """All of what was to be made is there or nothing."""
    url = server.fresh()
    known = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: [*known, "ALTER TABLE nowhere ADD COLUMN colour TEXT"])
    with pytest.raises(StoreError, match="nothing of them was made"):
        use(url)
    assert tables(server, name_in(url)) == []


@pytest.mark.parametrize("fact", ["migration", "format"])
def test_a_newer_schema_is_refused(fact: str, server: Server):
    """It is left as it is, and the message says to upgrade."""
    url = server.fresh()
    use(url)
    execute(server.url(), f"UPDATE {name_in(url)}.meta SET value = '99' WHERE key = $1", fact)
    with pytest.raises(StoreFormatError, match="newer release"):
        use(url)
    with pytest.raises(StoreFormatError, match="newer release"):
        asyncio.run(schema.migrate(place_of(url, {})))


@pytest.mark.parametrize(
    "table",
    [
        "runs (id int)",
        "meta (id int)",
        "meta (key text, value bytea)",
        "workers (id text, name text)",
    ],
)
def test_the_tables_of_another_program_are_left_alone(table: str, server: Server):
    """The message names the schema and how to name another; a store beside them in one of its own is fine."""
    url = server.fresh()
    execute(server.url(), f"CREATE SCHEMA {name_in(url)}")
    execute(server.url(), f"CREATE TABLE {name_in(url)}.{table}")
    before = tables(server, name_in(url))
    with pytest.raises(StoreFormatError, match=r"another program .* \?schema=name"):
        use(url)
    assert tables(server, name_in(url)) == before
    use(server.fresh())


def test_a_role_that_may_not_make_tables(server: Server):
    """It is told who must do what; after that it works with the rights that the message names, and no more."""
    url = server.url(schema="strict", user="strict")
    execute(server.url(), "CREATE ROLE strict LOGIN")
    for step in ("CREATE SCHEMA", None):
        with pytest.raises(StoreError, match=r"may not make tables .*sagas migrate.*USAGE on the schema"):
            use(url)
        if step:
            execute(server.url(), "CREATE SCHEMA strict")
            execute(server.url(), "GRANT USAGE ON SCHEMA strict TO strict")
    asyncio.run(schema.migrate(place_of(server.url(schema="strict"), {})))
    with pytest.raises(StoreError, match="the role may not"):
        use(url)
    execute(server.url(), "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA strict TO strict")
    execute(server.url(), "GRANT USAGE ON ALL SEQUENCES IN SCHEMA strict TO strict")
    use(url, worker="w1")


def test_what_cannot_be_opened_is_told(server: Server, caplog: pytest.LogCaptureFixture):
    """Each with what to do about it, and never with a password."""
    execute(server.url(), f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'")
    execute(server.url(), "CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
    execute(server.url(), "CREATE ROLE reader LOGIN")
    execute(server.url(), "ALTER ROLE reader SET default_transaction_read_only = on")
    caplog.set_level(logging.DEBUG)
    nowhere = server.url(user=GUARDED, password=PASSWORD).replace(f":{server.port}/", ":1/")
    for url, kind, words, transient in (
        (server.url(user=GUARDED, password="wrong" + PASSWORD), StoreNotFound, "user or the password", False),
        (server.url(user=GUARDED), StoreNotFound, "user or the password", False),
        (
            server.url(user=GUARDED, password=PASSWORD).replace("/postgres", "/nowhere"),
            StoreNotFound,
            "no such database",
            False,
        ),
        (nowhere, StoreError, "cannot be reached", True),
        (server.url(user="crowded"), StoreError, "no more connections", True),
        (server.url(user="reader", schema="read"), StoreError, "takes no writes", True),
    ):
        with pytest.raises(kind, match=words) as caught:
            use(url)
        assert caught.value.transient is transient, url
        assert PASSWORD not in str(caught.value)
        assert PASSWORD not in repr(open_store(url))
    assert PASSWORD not in caplog.text
    use(server.url(user="sagas", schema="guarded"))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://u:12?secret=b@127.0.0.1/db", "percent-encoded: @ as %40"),
        ("postgresql://u:12#secret@127.0.0.1/db", "percent-encoded: .* # as %23"),
        ("postgresql://u:12/secret@127.0.0.1/db", "percent-encoded: .* / as %2F"),
        ("postgresql://u:12[secret@127.0.0.1/db", "percent-encoded: .* as %5B"),
        ("postgresql://u:12@secret@127.0.0.1/db", "percent-encoded: @ as %40"),
        ("postgresql://u:secret@127.0.0.1/db?sslmode=sometimes", "sslmode is one of disable, .* given 'sometimes'"),
        ("postgresql://u:secret@127.0.0.1/db?target_session_attrs=quick", "is one of any, primary"),
        ("postgresql://u:secret@127.0.0.1/db?port=abc", "port is a number"),
        ("postgresql://u:secret@127.0.0.1/db?colour=red", "unknown options: colour"),
    ],
)
def test_an_address_that_is_wrong_is_told_without_its_password(address: str, words: str):
    """Also where a special sign in the password makes it pass for something else."""
    with pytest.raises(StoreError, match=words) as caught:
        open_store(address)
    assert "secret" not in str(caught.value)


def test_files_and_encryption_that_are_not_there(server: Server):
    """Each is told for what it is, and not as a server that cannot be reached."""
    for option, words in (
        ("sslmode=verify-full&sslrootcert=/nowhere/root.pem", "sslrootcert"),
        ("sslmode=require", "offers no encryption"),
    ):
        with pytest.raises(StoreError, match=words) as caught:
            use(f"{server.url()}?{option}")
        assert not caught.value.transient


@in_loop
async def test_a_schema_may_have_any_name(server: Server):
    """Quotes, blanks and capitals are as good as any; two of them do not meet."""
    for name in ('We"ird', "a b;c", "é", "select"):
        url = server.url() + f"?schema={quote(name)}"
        async with opened(lambda url=url: open_store(url), "w1", None) as (store, observer):  # type: ignore[misc]
            num = await add(store, "a")
            await store.journal.commit(new_batch(entries=[new_entry(num, seq) for seq in range(1, 500)]))
            assert len((await observer.journal.load([num]))[num]) == 499
            assert await claimed(store, "w1") == ["a"]


def test_without_a_schema_it_is_the_roles_own(server: Server):
    """The first of the search path, as for any other program."""
    execute(server.url(), "CREATE DATABASE plain")
    url = server.url().replace("/postgres", "/plain")
    use(url)
    assert execute(url, "SELECT count(*) FROM public.runs") == [(1,)]
    execute(url, "ALTER ROLE sagas IN DATABASE plain SET search_path = nowhere")
    with pytest.raises(StoreNotFound, match=r"\?schema=name"):
        use(url)
