"""What PostgreSQL's errors mean here: which may pass if asked again, and what a person can do about each.

Invariant: no error of the driver leaves this package; callers see a ``StoreError`` that names the database, never its
password.
"""

from collections.abc import Mapping
from typing import NamedTuple

from durable_core.errors import StoreError, StoreFull, StoreNotFound
from durable_core.stores.postgres.connection import UnreadableFile, ends_connection, is_other_kind

NOTHING_WRITTEN = "nothing of it was written"
NOTHING_ASKED = "nothing was changed"
NOT_KNOWN = "whether it was written is not known yet, and is found out before anything else is"


class Advice(NamedTuple):
    """What to say about one error of PostgreSQL."""

    what: str
    """``{place}`` stands for the database."""
    then: str
    """What a person can do about it."""
    transient: bool = False
    kind: type[StoreError] = StoreError


_GONE = Advice("the connection to {place} was lost", "see whether the server runs; workers go on once it does", True)  # noqa: FBT003
_AWAY = Advice("{place} cannot be reached", "start the server, or correct the host and port", True)  # noqa: FBT003
_NO_FILE = Advice(
    "a file that the address of {place} names cannot be read",
    "correct sslrootcert, sslcert, sslkey, sslcrl or passfile",
)
_STANDBY = Advice(
    "{place} takes no writes: it is a standby, or set to read only",
    "name the primary, or add ?target_session_attrs=primary",
    True,  # noqa: FBT003 - a standby is promoted at times
)
_UNENCRYPTED = Advice("{place} offers no encryption", "set it up there, or give ?sslmode=prefer")
_BUSY = Advice("{place} made this wait too long or gave way to another transaction", "try again", True)  # noqa: FBT003
_POOLED = Advice(
    "the statements prepared on {place} are gone, as behind a pooler of transactions that does not show itself",
    "let it pool sessions, or reach PostgreSQL directly",
)
_SPLIT = Advice(
    "{place} is behind a pooler of statements, which makes transactions impossible",
    "let it pool transactions or sessions (in PgBouncer: pool_mode), or reach PostgreSQL directly",
)
_SPLITS = "not allowed in statement pooling mode"
"""PgBouncer's words; it has no code for that."""
_TWICE = Advice(
    "{place} already holds a row that this one contradicts",
    "two writers drove the same, or one batch was written twice: report it as a bug",
)
_LOCKED_OUT = Advice("{place} refused the user or the password", "correct them in the address", kind=StoreNotFound)
_FULL = Advice("the disk of {place} is full", "free space there", True, StoreFull)  # noqa: FBT003
_RIGHTS = Advice("the role may not do this on {place}", "grant it SELECT, INSERT, UPDATE and DELETE on the tables")
_CHANGED = Advice(
    "the tables of {place} are not those of this release", "run `sagas migrate` with the newest release on this store"
)

# By SQLSTATE, or its first two characters: https://www.postgresql.org/docs/current/errcodes-appendix.html
ADVICE: Mapping[str, Advice] = {
    "08": _GONE,
    "22": Advice(
        "it has a value that {place} cannot hold",
        "give texts without NUL and lone surrogates, whole numbers of 64 bits, and bytes",
    ),
    "23": _TWICE,
    "25006": _STANDBY,
    "25P03": _GONE,
    "25P04": _GONE,
    "26000": _POOLED,
    "28": _LOCKED_OUT,
    "3D000": Advice("there is no such database: {place}", "make it with `createdb`", kind=StoreNotFound),
    "3F000": Advice("there is no such schema: {place}", "make it, or correct ?schema=", kind=StoreNotFound),
    "40": _BUSY,
    "42501": _RIGHTS,
    "42703": _CHANGED,
    "42P01": _CHANGED,
    "42P05": _POOLED,
    "53100": _FULL,
    "53200": Advice("{place} had no memory left", "give the server more memory", True),  # noqa: FBT003
    "53300": Advice(
        "{place} takes no more connections",
        "raise max_connections, end other programs, or put a pooler before it",
        True,  # noqa: FBT003
    ),
    "54": Advice("a value is larger than {place} can hold", "store less in one value"),
    "55P03": _BUSY,
    "57": _GONE,
    "57014": _BUSY,
    "57P03": Advice("{place} is starting or stopping", "wait for it", True),  # noqa: FBT003
    "58": Advice("{place} had an input/output error", "check its disk and its log", True),  # noqa: FBT003
}
_BINDING = "invalid input for query argument"
_UNLISTED = Advice("{place} refused it", "see PostgreSQL's own words")


def advice_for(error: BaseException) -> Advice:
    """What to say about ``error``."""
    state = getattr(error, "sqlstate", None)
    if _SPLITS in str(error):
        return _SPLIT
    if state:
        listed = ADVICE.get(state) or ADVICE.get(state[:2])
        return listed or (_GONE if ends_connection(error) else _UNLISTED)
    if isinstance(error, OSError):
        return _kept_out(error)
    if is_other_kind(error):
        return _STANDBY
    return _GONE if ends_connection(error) else _UNLISTED


def _kept_out(error: OSError) -> Advice:
    if isinstance(error, UnreadableFile):
        return _NO_FILE
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        return _UNENCRYPTED
    return _AWAY  # also where the socket of a local server that is down is no file any more


def explain_commit(error: BaseException, *, place: str, rows: int, sent: bool, in_doubt: bool) -> StoreError:
    """The ``StoreError`` of a commit; if it was not even sent, the error says nothing against the batch."""
    outcome = NOT_KNOWN if in_doubt else NOTHING_WRITTEN
    explained = explain(error, place=place, doing=f"write a batch of {rows} rows", outcome=outcome)
    explained.in_doubt = in_doubt
    explained.transient |= not sent
    return explained


def as_store_error(error: BaseException, *, place: str, doing: str, outcome: str) -> StoreError:
    """The ``StoreError`` to raise for ``error``: itself, if it is one."""
    return error if isinstance(error, StoreError) else explain(error, place=place, doing=doing, outcome=outcome)


def explain(error: BaseException, *, place: str, doing: str, outcome: str = NOTHING_WRITTEN) -> StoreError:
    """The ``StoreError`` to raise from ``error``, which hit ``doing`` ("to write a batch of 7 rows").

    ``outcome`` says what is left of it; it is empty for a question, which changes nothing anyway.
    """
    if not getattr(error, "sqlstate", None) and getattr(error.__context__, "sqlstate", None):
        error = error.__context__ or error  # a rollback that failed because of it hides the error that matters
    if isinstance(error, ValueError | OverflowError):  # the driver could not bind it
        return StoreError(
            f"could not {doing}: it has a value that {place} cannot hold ({error}){_then(outcome)}",
            "Give texts without lone surrogates, whole numbers of 64 bits, and bytes",
        )
    advice = advice_for(error)
    said = str(error).partition("\n")[0] or type(error).__name__
    if _BINDING in said:
        said = said.rpartition(" (")[2].rstrip(")")  # without the values themselves: they are the user's
    return advice.kind(
        f"could not {doing}: {advice.what.format(place=place)}{_then(outcome)}. {_who(error)}: {said}",
        advice.then,
        transient=advice.transient,
    )


def _then(outcome: str) -> str:
    return outcome and f"; {outcome}"


def _who(error: BaseException) -> str:
    return (
        "The system says" if isinstance(error, OSError) and not isinstance(error, TimeoutError) else "PostgreSQL says"
    )
