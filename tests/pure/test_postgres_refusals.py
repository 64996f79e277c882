"""What the errors of PostgreSQL and of its driver are taken for: those that pass are asked again, others are told."""

import asyncpg
import pytest

from durable_core.stores.postgres import connection
from durable_core.stores.postgres.address import FILES, unreadable
from durable_core.stores.postgres.connection import ends_connection
from durable_core.stores.postgres.refusals import explain, explain_commit


def error_of(state: str) -> BaseException:
    """The driver's error for a SQLSTATE of the server."""
    return asyncpg.PostgresError.new({"C": state, "M": "as the server says"})


ENDS = [
    asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.InterfaceError("cannot perform operation: another operation is cancelling"),
    asyncpg.OutdatedSchemaCacheError("a type has changed"),
    ConnectionResetError(),
    TimeoutError(),
    *map(error_of, ("08003", "08006", "57P01", "57P02", "57P05", "25P03", "25P04")),
    asyncpg.InvalidCachedStatementError("cached plan must not change result type"),
]
"""After these the connection is no good any more."""
PASSES = [
    FileNotFoundError(2, "No such file or directory"),
    PermissionError(13, "Permission denied"),
    ConnectionRefusedError(),
    asyncpg.TargetServerAttributeNotMatched("none of the hosts match"),
    *map(error_of, ("57P03", "25006", "40001", "40P01", "53300", "55P03", "58030")),
]
"""These pass by themselves, or once the server is up."""
STAYS = [
    asyncpg.DataError("invalid input for query argument $1"),
    asyncpg.UnsupportedServerFeatureError("no such feature"),
    connection.UnreadableFile("sslrootcert"),
    ConnectionError('PostgreSQL server at "x" rejected SSL upgrade'),
    *map(error_of, ("22021", "23505", "28P01", "3D000", "42501", "42P01", "0A000")),
]
"""Asking again helps with none of these."""


@pytest.mark.parametrize("error", ENDS, ids=repr)
def test_a_connection_that_has_ended_is_lost_and_not_final(error: BaseException):
    """It is dropped, and the question is asked on another one."""
    assert ends_connection(error)
    assert explain(error, place="db", doing="ask").transient


@pytest.mark.parametrize("error", PASSES, ids=repr)
def test_a_server_that_is_not_there_or_busy_is_waited_for(error: BaseException):
    """Also where its socket is no file any more."""
    assert explain(error, place="db", doing="ask").transient


@pytest.mark.parametrize("error", STAYS, ids=repr)
def test_what_stays_as_it_is_is_told_at_once(error: BaseException):
    """With the server's own words, and what to do."""
    told = explain(error, place="db", doing="ask")
    assert not told.transient
    assert told.advice or not isinstance(error, OSError)


@pytest.mark.parametrize("error", [*PASSES, *STAYS], ids=repr)
def test_what_keeps_a_commit_from_being_sent_says_nothing_against_it(error: BaseException):
    """It is written again later, whatever the reason; nothing of it was, and that is known."""
    told = explain_commit(error, place="db", rows=1, sent=False, in_doubt=False)
    assert told.transient
    assert not told.in_doubt


def test_a_file_that_an_address_names_is_told_from_a_socket(monkeypatch: pytest.MonkeyPatch):
    """The system says the same of both; here it is looked which of the files named can be read."""
    for variable in FILES.values():
        monkeypatch.delenv(variable, raising=False)
    assert unreadable("postgresql://u@/db?host=/nowhere") is None
    assert unreadable(f"postgresql://u@/db?sslrootcert={__file__}") is None
    assert unreadable("postgresql://u@/db?sslrootcert=/nowhere/root.pem") == "sslrootcert"
    monkeypatch.setenv("PGSSLCERT", "/nowhere/cert.pem")
    assert unreadable("postgresql://u@/db") == "PGSSLCERT"
