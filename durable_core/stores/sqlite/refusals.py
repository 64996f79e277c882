"""What SQLite's errors mean here: which may pass if asked again, and what a person can do about each.

Invariant: no ``sqlite3.Error`` leaves this package; callers see a ``StoreError`` that names the file.
"""

import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

from durable_core.errors import StoreError, StoreFull

NOTHING_WRITTEN = "nothing of it was written"
IN_DOUBT = "if this process ends before its next commit, it may turn out to be written; else nothing of it was"
UNSYNCED = (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)
"""The rows are in the log, and taken back in memory only: whoever recovers it before the next commit finds them."""


class Advice(NamedTuple):
    """What to say about one result code of SQLite."""

    what: str
    """``{path}`` stands for the file."""
    then: str
    """What a person can do about it."""
    transient: bool = False


# By primary result code: https://www.sqlite.org/rescode.html
ADVICE: Mapping[int, Advice] = {
    sqlite3.SQLITE_FULL: Advice("the disk that holds {path} is full", "free space there", transient=True),
    sqlite3.SQLITE_BUSY: Advice(
        "another program kept {path} locked",
        "end it, or let it finish (a shell with an open transaction?)",
        transient=True,
    ),
    sqlite3.SQLITE_LOCKED: Advice("{path} is locked from within this process", "try again", transient=True),
    sqlite3.SQLITE_IOERR: Advice(
        "the disk that holds {path} gave an input/output error", "check the disk and the system's log", transient=True
    ),
    sqlite3.SQLITE_NOMEM: Advice(
        "there was no memory left to work on {path}", "give the process more memory", transient=True
    ),
    sqlite3.SQLITE_CANTOPEN: Advice(
        "{path} or a file beside it could not be opened",
        "check its directory and the limit of open files",
        transient=True,
    ),
    sqlite3.SQLITE_READONLY: Advice("{path} or its directory cannot be written", "make both writable for this user"),
    sqlite3.SQLITE_PERM: Advice("{path} may not be used by this user", "grant it access to the file"),
    sqlite3.SQLITE_CORRUPT: Advice(
        "{path} is damaged", "stop all workers, keep a copy, and restore a backup or try `sqlite3 FILE .recover`"
    ),
    sqlite3.SQLITE_NOTADB: Advice("{path} is no longer a SQLite database", "restore it from a backup"),
    sqlite3.SQLITE_TOOBIG: Advice("a value for {path} is larger than SQLite can hold", "store less in one value"),
    sqlite3.SQLITE_CONSTRAINT: Advice(
        "{path} already holds a row that this one contradicts",
        "two writers drove the same, or one batch was written twice: report it as a bug",
    ),
}
UNLISTED = Advice("SQLite refused {path}", "see SQLite's own words")

# What binding a value to a statement raises, before SQLite sees it.
UNBINDABLE = (sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError, UnicodeEncodeError)
CAUGHT = (sqlite3.Error, OverflowError, UnicodeEncodeError, OSError)


def explain(error: BaseException, *, path: str, doing: str, outcome: str = NOTHING_WRITTEN) -> StoreError:
    """The ``StoreError`` to raise from ``error``, which hit ``doing`` ("to write a batch of 7 rows").

    ``outcome`` says what is left of it; it is empty for a question, which changes nothing anyway.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None and isinstance(error, UNBINDABLE):
        return StoreError(
            f"could not {doing} in {path}: it has a value that SQLite cannot hold ({error}){_then(outcome)}",
            "Give texts without lone surrogates, whole numbers of 64 bits, and bytes",
        )
    if isinstance(error, OSError):
        return StoreError(
            f"could not {doing}: a file beside {path} could not be used ({error}){_then(outcome)}",
            "Check its directory and the limit of open files",
            transient=True,
        )
    advice = UNLISTED if code is None else ADVICE.get(code & 0xFF, UNLISTED)
    kind = StoreFull if advice is ADVICE[sqlite3.SQLITE_FULL] else StoreError
    in_doubt = code in UNSYNCED and outcome == NOTHING_WRITTEN
    explained = kind(
        f"could not {doing}: {advice.what.format(path=path)}{_then(IN_DOUBT if in_doubt else outcome)}. "
        f"SQLite says: {error}",
        advice.then,
        transient=advice.transient,
    )
    explained.in_doubt = in_doubt
    return explained


def _then(outcome: str) -> str:
    return outcome and f"; {outcome}"
