"""The SQLite file as a whole: whether it is ours, how it comes to be, and how a connection to it is set up.

Invariants: a file of another program is never opened for writing, so it stays as it is byte for byte. Our file appears
under its name only when it is complete: it is made beside it and renamed, so a crash leaves all or nothing.
"""

import os
import re
import secrets
import sqlite3
from pathlib import Path
from urllib.parse import quote

from durable_core.errors import StoreError, StoreFormatError, StoreNotFound
from durable_core.stores import sql
from durable_core.stores.sqlite import refusals
from durable_core.stores.sqlite.locks import is_held, worker_path
from durable_core.stores.sqlite.workers import others

APPLICATION_ID = 0x53414741
"""``SAGA`` in ASCII, in the file's header: ``file`` and ``PRAGMA application_id`` show it."""
FORMAT = 2
"""The stored format that this release writes and reads; see ``upgrade`` for those that it brings to it."""
OLDEST_FORMAT = 1
"""The oldest stored format that this release brings to its own."""
OLDEST_SQLITE = (3, 35, 0)
"""The first with RETURNING."""
FIRST_NUM = 1
STATEMENTS_KEPT = 256
"""Prepared statements kept by a connection: more than there are."""
FOREIGN = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
"""What SQLite says of a file that it has not made."""
BUSY_S = 5.0
"""How long SQLite waits for another program's lock, in seconds; our own programs wait for the write lock instead."""
WAL_LIMIT = 64 << 20
"""Bytes that a write-ahead log is cut back to, once everything in it has been copied to the database."""


def check_sqlite() -> None:
    """Raise ``StoreError`` where Python is linked to a SQLite that is too old."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise StoreError(
            f"this Python has SQLite {sqlite3.sqlite_version}; a store needs {oldest} or newer",
            "Use a newer Python, or one that is linked to a newer SQLite",
        )


def _uri(path: str, options: str) -> str:
    return f"file:{quote(os.path.abspath(path))}?{options}"  # noqa: PTH100 - keeps symbolic links, as SQLite's own names do


def check_place(path: str) -> None:
    """Raise ``StoreNotFound`` if no database can be at ``path``, before anything is made there."""
    try:
        _check_place(path)
    except OSError as error:  # a directory above that may not be entered, a name that is too long
        raise StoreNotFound(
            f"no database can be at {path}: {error.strerror}",
            "Give this user access to the directories above it, or choose another file",
        ) from error


def _check_place(path: str) -> None:
    place, directory = Path(path), Path(path).absolute().parent
    if place.is_dir():
        raise StoreNotFound(f"{path} is a directory", f"Name a file in it, such as {place / 'sagas.db'}")
    if not directory.is_dir():
        raise StoreNotFound(f"the directory {directory} of the database {path} does not exist", "Make it first")
    if place.exists() and not place.is_file():
        raise StoreNotFound(f"{path} is no ordinary file", "Name one, or one that does not exist yet")
    if not _may(directory, os.W_OK | os.X_OK):
        raise StoreNotFound(
            f"the directory {directory} cannot be written by this user, and SQLite keeps files beside {path}",
            "Make the directory writable, or choose another one",
        )
    if place.exists() and not _may(place, os.R_OK | os.W_OK):
        raise StoreNotFound(f"{path} cannot be read and written by this user", "Give it access, or choose another file")


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def is_new(path: str) -> bool:
    """Whether there is nothing at ``path``, or an empty file, which is nobody's."""
    return not Path(path).exists() or not Path(path).stat().st_size


def check_ours(path: str) -> None:
    """Raise ``StoreFormatError`` where the file at ``path`` is another program's. Reads its header and nothing else."""
    # Immutable: no lock, no log, no file beside it. Our mark is in the header from the file's first moment on.
    probe = sqlite3.connect(_uri(path, "mode=ro&immutable=1"), uri=True)
    try:
        # While the log is copied to it, and after that was cut, the header may speak of pages that the file has not got
        # yet. Read without its log that is damage to SQLite, unless the schema is asked for as it lies there.
        probe.execute("PRAGMA writable_schema = ON")
        (mark,) = probe.execute("PRAGMA application_id").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in FOREIGN:
            raise refusals.explain(error, path=path, doing="read the header", outcome="it was left as it is") from error
        raise StoreFormatError(
            f"{path} is not a SQLite database ({error}), so it was left as it is", "Name another file"
        ) from error
    finally:
        probe.close()
    if mark != APPLICATION_ID:
        raise StoreFormatError(
            f"{path} is a SQLite database of another program, so it was left as it is", "Name another file"
        )


def create(path: str) -> None:
    """Make the database at ``path``, readable and writable by its owner only. Call under the write lock."""
    draft = f"{path}-new"
    for leftover in (draft, f"{draft}-journal"):
        Path(leftover).unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(draft, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for definition in sql.CREATE:
            connection.execute(definition)
        facts = (("format", FORMAT), ("next_num", FIRST_NUM), ("secret", secrets.token_bytes(32)))
        connection.executemany("INSERT INTO meta VALUES (?, ?)", facts)
        connection.execute("COMMIT")
    finally:
        connection.close()
    Path(draft).replace(path)
    sync_directory(path)


def sync_directory(path: str) -> None:
    """Make the name ``path`` itself outlast a power loss."""
    directory = os.open(Path(path).absolute().parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def connect_writer(path: str, *, synchronous: str) -> sqlite3.Connection:
    """The connection for all writes and checkpoints, of a file that is ours; call under the write lock.

    A file of an older format is brought to this release's; see ``upgrade``.

    It is set to WAL and ``synchronous``, and asked whether it took them: only WAL with FULL kept every acknowledged
    commit when power loss was simulated.
    """
    connection = _connect(path, "mode=rw", timeout_s=BUSY_S)
    try:
        check_format(connection, path)
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        (level,) = connection.execute("PRAGMA synchronous").fetchone()
        upgrade(connection, path)
    except BaseException:
        connection.close()
        raise
    if mode == "wal" and level == {"NORMAL": 1, "FULL": 2}[synchronous]:
        return connection
    connection.close()
    raise StoreError(
        f"{path} could not be set to a write-ahead log (mode {mode!r}, synchronous {level}), without which commits "
        "would not survive a power loss; is it on a network drive? Put it on a local disk"
    )


def connect_readers(path: str) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Two of ``connect_reader``, or none."""
    first = connect_reader(path)
    try:
        return first, connect_reader(path)
    except BaseException:
        first.close()
        raise


def connect_reader(path: str) -> sqlite3.Connection:
    """A connection that cannot write and never checkpoints. The writer's must be open before and closed after it."""
    # Two connections that write and checkpoint at once can lose commits in SQLite 3.7.0 to 3.51.2 (the WAL-reset
    # bug, https://www.sqlite.org/wal.html#walresetbug): one that is read-only does neither, not even when it closes.
    connection = _connect(path, "mode=ro", timeout_s=BUSY_S)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_asleep(path: str) -> sqlite3.Connection:
    """A connection that reads a file which nobody has open as it lies there: no lock, no log, no file beside it."""
    return _connect(path, "mode=ro&immutable=1", timeout_s=BUSY_S)


def _connect(path: str, options: str, *, timeout_s: float) -> sqlite3.Connection:
    # Used by one thread at a time, though not always the same one.
    return sqlite3.connect(
        _uri(path, options),
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS_KEPT,
    )


def check_format(connection: sqlite3.Connection, path: str) -> int:
    """The stored format. Raises ``StoreFormatError`` where it is not one that this release reads."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone()
    row = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone() if tables else None
    stored = row[0] if row else None
    if isinstance(stored, int) and OLDEST_FORMAT <= stored <= FORMAT:
        return stored
    if isinstance(stored, int) and stored > FORMAT:
        raise StoreFormatError(
            f"{path} has the stored format {stored}, written by a newer release; this one reads {FORMAT}",
            "Upgrade durable-sagas here, or name another file",
        )
    raise StoreFormatError(
        f"{path} bears our mark but has no stored format that this release knows ({stored!r})",
        "Restore it from a backup, or name another file",
    )


COLUMNS_OF_2 = (
    "DROP INDEX runs_children",
    "ALTER TABLE runs DROP COLUMN parent",
    "ALTER TABLE runs ADD COLUMN tags TEXT",
    "ALTER TABLE runs ADD COLUMN retagged TEXT",
    "ALTER TABLE runs ADD COLUMN awaits TEXT",
    "ALTER TABLE runs ADD COLUMN restarts TEXT",
)
"""What makes the tables of format 1 those of format 2, but for what is new beside them."""


_MADE = re.compile(r"\s*CREATE (?:UNIQUE )?(?:TABLE|INDEX|TRIGGER) (\w+)")
"""The name of what a definition makes."""


def upgrade(connection: sqlite3.Connection, path: str) -> None:
    """Bring a file of an older format to this release's, in one transaction; call under the write lock.

    Raises:
        StoreFormatError: a worker of the older release is alive on it. Nothing was changed.
    """
    stored = check_format(connection, path)
    if stored == FORMAT:
        return
    alive = [worker for worker in others(connection, None) if is_held(worker_path(path, worker))]
    if alive:
        raise StoreFormatError(
            f"{path} has the stored format {stored}, this release writes {FORMAT}, and workers of the older release "
            f"are alive on it ({', '.join(alive)}); nothing was changed",
            "End them, and open it again: it is upgraded then. A release that knows only the older format can no "
            "longer open it",
        )
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in COLUMNS_OF_2:
            connection.execute(statement)
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        for definition in sql.CREATE:
            made = _MADE.match(definition)
            if made is None or made[1] not in there:
                connection.execute(definition)
        connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (FORMAT,))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
