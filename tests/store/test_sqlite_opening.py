"""Opening a SQLite file: what is made, what is refused, and that nothing foreign is touched."""

import asyncio
import os
import shutil
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable_core.errors import StoreError, StoreFormatError, StoreNotFound
from durable_core.stores.sqlite import schema
from durable_core.stores.sqlite.checkup import check_up
from durable_core.stores.sqlite.locks import worker_lock
from durable_core.stores.sqlite.store import SqliteStore
from durable_core.testing.store_rows import add, in_loop, new_batch, new_entry, new_run
from tests import forked
from tests.store.upgraded import goes_on, old_file


def refusal(path: Path | str, *, worker: str | None = "w1") -> StoreError:
    """What opening ``path`` raises."""

    async def open_it() -> StoreError:
        with pytest.raises(StoreError) as caught:
            await SqliteStore(str(path)).open(worker=worker)
        return caught.value

    return asyncio.run(open_it())


def use(path: Path | str) -> None:
    """Open, start a run, close."""

    async def use_it() -> None:
        store = SqliteStore(str(path))
        await store.open(worker="w1")
        await add(store, f"run {store.journal.next_num()}")
        await store.close()

    asyncio.run(use_it())


def contents(directory: Path) -> dict[str, bytes]:
    """Every file with its bytes."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_a_new_file_is_its_owners_and_marked_as_ours(tmp_path: Path):
    """Mode 0600 for all files, our mark and format inside, and one file left when all are gone."""

    async def look() -> None:
        store = SqliteStore(str(tmp_path / "x.db"))
        await store.open(worker="w1")
        await add(store, "a")
        assert len(list(tmp_path.iterdir())) == 6
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
        await store.close()

    old = os.umask(0)
    try:
        asyncio.run(look())
    finally:
        os.umask(old)
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]
    connection = sqlite3.connect(tmp_path / "x.db")
    facts = dict(connection.execute("SELECT key, value FROM meta"))
    assert connection.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert facts["format"] == schema.FORMAT
    assert len(facts["secret"]) == 32


def test_the_secret_is_the_stores(tmp_path: Path):
    """All stores on a file have the same one, and another file has another."""

    async def secret(name: str) -> bytes:
        store = SqliteStore(str(tmp_path / name))
        await store.open(worker=None)
        await store.close()
        with pytest.raises(StoreError, match="not open"):
            _ = store.secret
        await store.open(worker=None)
        found = store.secret
        await store.close()
        return found

    assert asyncio.run(secret("x.db")) == asyncio.run(secret("x.db")) != asyncio.run(secret("y.db"))


def test_a_process_that_dies_while_it_copies_the_log_leaves_a_file_that_opens(tmp_path: Path):
    """The file's first page, copied first, speaks of pages that are in the log only: read with the log it is whole."""

    async def die() -> None:
        store = SqliteStore(str(tmp_path / "x.db"))
        await store.open(worker=None)
        await store.journal.commit(
            new_batch(starts=[new_run(7, "a")], entries=[new_entry(7, 1, payload=b"x" * 99_000)])
        )
        for name in ("x.db", "x.db-wal"):
            shutil.copy(tmp_path / name, tmp_path / f"left-{name}")
        await store.close()

    asyncio.run(die())
    log = (tmp_path / "left-x.db-wal").read_bytes()
    frames = [log[at : at + 24 + 4096] for at in range(32, len(log), 24 + 4096)]
    first_page = [frame[24:] for frame in frames if frame[:4] == (1).to_bytes(4, "big")][-1]
    with (tmp_path / "left-x.db").open("r+b") as file:
        file.write(first_page)

    async def look() -> None:
        store = SqliteStore(str(tmp_path / "left-x.db"))
        await store.open(worker=None)
        assert len((await store.journal.load([7]))[7]) == 1
        await store.close()

    asyncio.run(look())


@pytest.mark.parametrize(("durability", "level"), [("power", 2), ("process", 1)])
@in_loop
async def test_commits_are_as_durable_as_promised(tmp_path: Path, durability: str, level: int):
    """``power`` is WAL with synchronous=FULL, ``process`` with NORMAL; readers can neither write nor checkpoint."""
    store = SqliteStore(str(tmp_path / "x.db"), durability="process" if durability == "process" else "power")
    await store.open(worker=None)
    connection = store._database.file.connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
    for reader in (store._database.file.reader, store._database.file.bulk_reader):
        assert reader.execute("PRAGMA query_only").fetchone() == (1,)
        assert reader.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM runs")
    await store.close()


def tables(path: Path) -> list[tuple[object, ...]]:
    """All columns, indexes and triggers."""
    connection = sqlite3.connect(path)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
    columns = [(name, *row) for name in names for row in connection.execute(f"PRAGMA table_xinfo({name})")]
    others = connection.execute("SELECT name, sql FROM sqlite_master WHERE type <> 'table' ORDER BY 1").fetchall()
    connection.close()
    return [*columns, *others]


@in_loop
async def test_a_file_of_the_older_format_is_upgraded(tmp_path: Path):
    """Its tables become those of a fresh file, and the sagas that were in flight go on to their end."""
    old_file(tmp_path / "old.db")
    await goes_on(f"sqlite:///{tmp_path / 'old.db'}")
    store = SqliteStore(str(tmp_path / "fresh.db"))
    await store.open(worker=None)
    await store.close()
    assert tables(tmp_path / "old.db") == tables(tmp_path / "fresh.db")


def test_a_file_with_workers_of_the_older_release_is_not_upgraded(tmp_path: Path):
    """They could no longer write to it: the refusal names them, and the file stays as it is."""
    path = tmp_path / "old.db"
    old_file(path)
    connection = sqlite3.connect(path)
    (worker,) = connection.execute("SELECT id FROM workers").fetchone()
    connection.close()
    before = tables(path)
    lock = worker_lock(str(path), worker)
    assert lock.try_acquire()
    assert worker in str(refusal(path))
    lock.close()
    assert tables(path) == before
    seen = {finding.check: finding for finding in check_up(str(path), now_ns=1, deep=True).findings}
    assert seen["format"].what == "stored format 1; this release writes 2"
    use(path)
    assert tables(path) != before


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All of it is there or nothing, and the next release can try again."""
    path = tmp_path / "old.db"
    old_file(path)
    before = tables(path)
    monkeypatch.setattr(schema, "COLUMNS_OF_2", (*schema.COLUMNS_OF_2, "ALTER TABLE nowhere ADD COLUMN a TEXT"))
    refusal(path)
    assert tables(path) == before
    monkeypatch.undo()
    use(path)


def test_an_empty_file_is_nobodys(tmp_path: Path):
    """It becomes a store, as one that does not exist does."""
    path = tmp_path / "x.db"
    path.touch()
    use(path)
    use(path)
    assert path.stat().st_size > 0


def test_what_a_crash_left_of_a_creation_does_no_harm(tmp_path: Path):
    """The file is made beside its place; a half-made one is thrown away."""
    (tmp_path / "x.db-new").write_bytes(b"half")
    (tmp_path / "x.db-new-journal").write_bytes(b"half a journal")
    use(tmp_path / "x.db")
    assert list(contents(tmp_path)) == ["x.db"]


def foreign_database(path: Path, *, wal: bool) -> None:
    """Another program's database."""
    connection = sqlite3.connect(path)
    if wal:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    connection.execute("INSERT INTO meta VALUES ('format', 1)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("kind", ["text", "sqlite", "sqlite in WAL mode", "truncated", "sqlite without tables"])
def test_a_foreign_file_is_left_as_it_is(tmp_path: Path, kind: str):
    """It is refused with its name, byte for byte unchanged, and nothing is left beside it."""
    path = tmp_path / "orders.db"
    if kind == "text":
        path.write_text("order,amount\n" * 500)
    elif kind == "sqlite without tables":
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 3")
        connection.close()
    else:
        foreign_database(path, wal=kind == "sqlite in WAL mode")
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:50])
    before = contents(tmp_path)
    error = refusal(path)
    assert isinstance(error, StoreFormatError)
    assert str(path) in str(error)
    assert contents(tmp_path) == before


def test_a_newer_format_is_refused(tmp_path: Path):
    """The message names both formats and says to upgrade; a lost format is told from it."""
    path = tmp_path / "x.db"
    use(path)
    for change, word in (("UPDATE meta SET value = 99 WHERE key = 'format'", "99"), ("DELETE FROM meta", "None")):
        connection = sqlite3.connect(path)
        connection.execute(change)
        connection.commit()
        connection.close()
        error = refusal(path)
        assert isinstance(error, StoreFormatError)
        assert word in str(error)
        assert [file.name for file in tmp_path.iterdir()] == ["x.db"]


def test_places_where_no_file_can_be(tmp_path: Path):
    """No such directory, a directory, a file as directory, a pipe, too long: each a ``StoreNotFound`` that says so."""
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    for path, word in (
        (tmp_path / ("x" * 300), "name too long"),
        (tmp_path / "missing" / "x.db", "does not exist"),
        (tmp_path, "is a directory"),
        (tmp_path / "file" / "x.db", "does not exist"),
        (tmp_path / "pipe", "no ordinary file"),
    ):
        error = refusal(path)
        assert isinstance(error, StoreNotFound)
        assert word in str(error).lower()
        assert str(path) in str(error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that every user may reach; those above ``tmp_path`` are for one user, and each new pytest sees to it."""
    with tempfile.TemporaryDirectory(prefix="sagas-open-") as place:
        Path(place).chmod(0o777)
        yield Path(place)


def test_files_that_may_not_be_written(open_place: Path):
    """What this user may not write or enter is refused with what to do. In a process of its own: root may do all."""
    use(open_place / "x.db")
    code = """
import asyncio, os, sys
from durable_core.errors import StoreNotFound
from durable_core.stores.sqlite.store import SqliteStore
if os.geteuid() == 0:
    os.seteuid(65534)
for path in sys.argv[1:]:
    try:
        asyncio.run(SqliteStore(path).open(worker=None))
    except StoreNotFound as error:
        print(error)
"""
    sealed = open_place / "sealed"
    sealed.mkdir()
    use(sealed / "x.db")
    (sealed / "x.db").chmod(0o444)
    (open_place / "x.db").chmod(0o444)
    closed = open_place / "closed"
    (closed / "inner").mkdir(parents=True)
    paths = [str(open_place / "x.db"), str(sealed / "x.db"), str(sealed / "new.db")]
    paths += [str(closed / "x.db"), str(closed / "inner" / "x.db")]
    sealed.chmod(0o555)
    closed.chmod(0o600)
    try:
        done = forked.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    finally:
        sealed.chmod(0o755)
        closed.chmod(0o755)
    said = done.stdout.splitlines()
    assert len(said) == 5, done
    assert "cannot be read and written" in said[0]
    assert "directory" in said[1]
    assert "directory" in said[2]
    for line, path in zip(said[3:], paths[3:], strict=True):
        assert f"no database can be at {path}: Permission denied. Give this user access" in line


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The message names the version there is and the one that is needed."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 9))
    error = refusal(tmp_path / "x.db")
    assert "3.35.0" in str(error)
    assert not list(tmp_path.iterdir())


def test_one_file_by_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A link, or a relative path and another directory since, leads to the same locks."""

    async def both() -> None:
        (tmp_path / "link.db").symlink_to(tmp_path / "x.db")
        monkeypatch.chdir(tmp_path)
        one, two = SqliteStore("x.db"), SqliteStore(str(tmp_path / "link.db"))
        await one.open(worker="w1")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        await two.open(worker="w2")
        await add(one, "a", owner="w1")
        assert await two.claims.release_dead() == 0
        with pytest.raises(StoreError, match="already runs"):
            await SqliteStore(str(tmp_path / "x.db")).open(worker="w2")
        await one.close()
        await two.close()

    asyncio.run(both())
    assert sorted(contents(tmp_path)) == ["link.db", "x.db"]


def test_looking_at_the_header_costs_no_lock(tmp_path: Path):
    """POSIX locks fall when any descriptor of the file is closed: a look at it must not take those of open stores."""

    def locks(path: Path) -> int:
        # Those of this process on this file. The list of all processes' is torn where others lock meanwhile.
        found: set[str] = set()
        for descriptor in Path("/proc/self/fd").iterdir():
            if descriptor.exists() and descriptor.samefile(path):
                info = Path("/proc/self/fdinfo", descriptor.name).read_text(encoding="utf-8")
                found |= {line.partition(" POSIX ")[2] for line in info.splitlines() if line.startswith("lock:")}
        return len(found)

    async def look() -> None:
        path = tmp_path / "x.db"
        store = SqliteStore(str(path))
        await store.open(worker=None)
        before = locks(path)
        schema.check_ours(str(path))
        assert before == locks(path) > 0
        await store.close()

    if not Path("/proc/self/fdinfo").exists():
        pytest.skip("only Linux lists its locks")
    asyncio.run(look())
