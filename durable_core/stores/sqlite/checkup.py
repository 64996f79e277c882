"""A look at a SQLite store from outside: its files, its settings and its runs. Nothing is made, changed or locked.

Invariant: it works beside workers and without them, and also where a store cannot be opened: then it says why.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from stat import S_IMODE

from durable_core.errors import StoreError, StoreFormatError
from durable_core.model.checkup import Checkup, Facts, Finding, Level, WorkerSeen
from durable_core.stores.questions import facts_of
from durable_core.stores.sqlite import refusals, schema
from durable_core.stores.sqlite.dialect import QUESTIONS, rows_of
from durable_core.stores.sqlite.locks import is_held, worker_path

MIB = 1 << 20
LITTLE = 1024 * MIB
"""Free room on the disk that is worth a warning."""
TOO_LITTLE = 64 * MIB
OTHERS = 0o077
"""Permissions of group and world."""
MUCH_FREE = 64 * MIB
"""Room in the file itself that is worth a word if it is more than half of the file."""
WAL_RESET = ((3, 7, 0), (3, 51, 2))
"""Releases of SQLite in which connections that write and checkpoint at once can lose commits."""


def check_up(path: str, *, now_ns: int, deep: bool) -> Checkup:
    """Look at the store at ``path``; with ``deep``, read every page of it too."""
    path = os.path.realpath(path)
    findings = [_library()]
    try:
        findings += _place(path)
    except (StoreError, OSError, sqlite3.Error) as error:
        why = error.message if isinstance(error, StoreError) else str(error)
        return Checkup((*findings, Finding("file", Level.FAIL, why)), None)
    findings += [_modes(path), _beside(path), _disk(path)]
    try:
        inside, facts = _inside(path, now_ns=now_ns, deep=deep)
    except StoreError as error:
        check = "format" if isinstance(error, StoreFormatError) else "database"
        return Checkup((*findings, Finding(check, Level.FAIL, error.text, error.advice)), None)
    return Checkup((*findings, *inside), facts)


def _library() -> Finding:
    version, shown = sqlite3.sqlite_version_info, f"SQLite {sqlite3.sqlite_version}"
    if version < schema.OLDEST_SQLITE:
        oldest = ".".join(map(str, schema.OLDEST_SQLITE))
        return Finding("sqlite", Level.FAIL, f"{shown}; a store needs {oldest} or newer", "use a newer Python")
    if WAL_RESET[0] <= version <= WAL_RESET[1]:
        shown += ", which has a bug (WAL-reset) that does no harm here: writers take turns"
    return Finding("sqlite", Level.OK, shown)


def _place(path: str) -> Iterator[Finding]:
    if not Path(path).exists():
        raise StoreError(f"there is no store at {path}", "Check the address and the directory that you are in")
    if Path(path).is_file() and schema.is_new(path):
        raise StoreError(f"{path} is empty: a worker makes a store of it when it starts")
    schema.check_place(path)
    schema.check_ours(path)
    yield Finding("file", Level.OK, f"{path}, {_size(Path(path).stat().st_size)}")


def _modes(path: str) -> Finding:
    """Whether others may read or write it: payloads are in it as they are."""
    open_ones = [file for file in _files(path) if S_IMODE(file.stat().st_mode) & OTHERS]
    if open_ones:
        shown = ", ".join(f"{file.name} ({S_IMODE(file.stat().st_mode):04o})" for file in open_ones)
        files = " ".join(str(file) for file in open_ones)
        return Finding("mode", Level.WARN, f"others than its owner have access to {shown}", f"chmod 600 {files}")
    owner = Path(path).stat().st_uid
    if owner != os.geteuid():
        return Finding(
            "mode", Level.WARN, f"it belongs to user {owner}, you are {os.geteuid()}", "run workers as its owner"
        )
    return Finding("mode", Level.OK, "readable and writable by its owner only")


def _files(path: str) -> list[Path]:
    """The database, and the files of SQLite beside it that hold rows."""
    return [file for file in (Path(path), Path(f"{path}-wal"), Path(f"{path}-journal")) if file.exists()]


def _beside(path: str) -> Finding:
    names = sorted(file.name for file in Path(path).parent.glob(f"{_escaped(Path(path).name)}-*"))
    shown = ", ".join(name.removeprefix(Path(path).name) for name in names) or "none"
    wal = Path(f"{path}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > 2 * schema.WAL_LIMIT:
        what = (
            f"the write-ahead log holds {_size(size)}, which is copied to the database once nobody reads an old state"
        )
        return Finding("files", Level.WARN, what, "look for a program that keeps a transaction open: a shell, a backup")
    if Path(f"{path}-journal").exists():
        what = "a rollback journal lies beside it, so a program that is not ours has written it, or was cut"
        return Finding("files", Level.WARN, what, "let no other program write this file; the next worker recovers it")
    return Finding("files", Level.OK, f"{shown} beside it; the write-ahead log holds {_size(size)}")


def _escaped(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _disk(path: str) -> Finding:
    free = shutil.disk_usage(Path(path).parent).free
    level = Level.FAIL if free < TOO_LITTLE else Level.WARN if free < LITTLE else Level.OK
    advice = (
        "" if level is Level.OK else "free space there: purge what has ended, or move the file while no worker runs"
    )
    return Finding("disk", level, f"{_size(free)} free", advice)


def _inside(path: str, *, now_ns: int, deep: bool) -> tuple[list[Finding], Facts]:
    """What the database itself says, at one moment."""
    used = Path(f"{path}-wal").exists()
    try:
        return _looked(path, used=used, now_ns=now_ns, deep=deep)
    except refusals.CAUGHT as error:
        if not used and Path(f"{path}-wal").exists():  # a worker came amid the look at a file that nobody used
            return _inside(path, now_ns=now_ns, deep=deep)
        raise refusals.explain(error, path=path, doing="look into it", outcome="") from error


def _looked(path: str, *, used: bool, now_ns: int, deep: bool) -> tuple[list[Finding], Facts]:
    # If no log lies beside the file nobody has it open, and even a reader would make one: so it is read as it is.
    connection = schema.connect_reader(path) if used else schema.connect_asleep(path)
    try:
        connection.execute("BEGIN")
        found = [_format(schema.check_format(connection, path)), _mode(path), _pages(connection)]
        if deep:
            found.append(_sound(connection))
        return found, _facts(connection, path, now_ns=now_ns)
    finally:
        connection.close()


def _format(stored: int) -> Finding:
    if stored == schema.FORMAT:
        return Finding("format", Level.OK, f"stored format {stored}")
    what = f"stored format {stored}; this release writes {schema.FORMAT}"
    return Finding("format", Level.WARN, what, "open it with this release once, while no older worker runs")


def _facts(connection: sqlite3.Connection, path: str, *, now_ns: int) -> Facts:
    """How the runs of the store at ``path`` stand at ``now_ns``."""
    asked = QUESTIONS.facts(now_ns).items()
    answers = {name: question.read(rows_of(connection, question)) for name, question in asked}
    rows = connection.execute("SELECT id, pid, host, started_at_ns FROM workers ORDER BY started_at_ns, id")
    workers = tuple(
        WorkerSeen(id_, pid, host, at_ns, alive=is_held(worker_path(path, id_))) for id_, pid, host, at_ns in rows
    )
    return facts_of(answers, workers)


def _mode(path: str) -> Finding:
    with Path(path).open("rb") as file:
        wal = file.read(20)[18:] == b"\x02\x02"  # https://www.sqlite.org/fileformat.html, bytes 18 and 19
    if wal:
        what = "write-ahead log; each worker sets synchronous=FULL, unless its address has durability=process"
        return Finding("settings", Level.OK, what)
    what = "no write-ahead log: no worker has opened it yet, or another program has changed that"
    return Finding("settings", Level.WARN, what, "the next worker sets it")


def _pages(connection: sqlite3.Connection) -> Finding:
    names = ("page_size", "page_count", "freelist_count")
    size, pages, free = (int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
    shown = f"{pages} pages of {size} bytes, {free} of them free for new rows"
    if free * size > MUCH_FREE and free * 2 > pages:
        advice = "the file does not shrink by itself; to give the room back: stop all workers, then sqlite3 FILE VACUUM"
        return Finding("pages", Level.WARN, shown, advice)
    return Finding("pages", Level.OK, shown)


def _sound(connection: sqlite3.Connection) -> Finding:
    shown = [str(line) for (line,) in connection.execute("PRAGMA quick_check(5)")]
    if shown == ["ok"]:
        return Finding("integrity", Level.OK, "every page was read and is sound")
    advice = "stop all workers, keep a copy, and restore a backup or try `sqlite3 FILE .recover`"
    return Finding("integrity", Level.FAIL, "; ".join(shown), advice)


def _size(count: int) -> str:
    """Bytes, for people."""
    if count < MIB:
        return f"{count / 1024:.0f} KiB"
    return f"{count / MIB:.1f} MiB" if count < 1024 * MIB else f"{count / 1024 / MIB:.1f} GiB"
