"""The one table of a participant: what was done under each idempotency key."""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, overload

from sqlalchemy import BigInteger, Column, Engine, Index, LargeBinary, MetaData, String, Table, Text, inspect
from sqlalchemy.dialects import mssql, mysql
from sqlalchemy.exc import DBAPIError

from sagas.participant.rules import LONGEST_KEY

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

LARGEST = (1 << 24) - 1
"""Bytes; makes MySQL take a type that holds more than 64 KiB."""

metadata = MetaData()
"""The table's metadata, for Alembic: ``target_metadata = [SQLModel.metadata, participant.metadata]``."""


def _key_type() -> String:
    """A text of which no two are equal that differ, also where the database's own order ignores case."""
    exact = mysql.VARCHAR(LONGEST_KEY, charset="utf8mb4", collation="utf8mb4_bin")
    return (
        String(LONGEST_KEY)
        .with_variant(exact, "mysql", "mariadb")
        .with_variant(mssql.NVARCHAR(LONGEST_KEY, collation="Latin1_General_100_BIN2"), "mssql")
    )


TABLE = Table(
    "sagas_participant",
    metadata,
    Column("key", _key_type(), primary_key=True),
    Column("kind", String(10), nullable=False),
    Column("request", LargeBinary(LARGEST)),
    Column("answer", LargeBinary(LARGEST)),
    Column("answer_type", Text),
    Column("of", _key_type()),
    Column("undone_by", _key_type()),
    Column("at_ns", BigInteger, nullable=False),
    Index("ix_sagas_participant_at_ns", "at_ns"),
)
"""``at_ns``: when the key was first used, in nanoseconds since the epoch; the rest as in ``rules.Record``."""


@overload
def create_tables(engine: Engine) -> None: ...
@overload
def create_tables(engine: "AsyncEngine") -> Coroutine[Any, Any, None]: ...
def create_tables(engine: "Engine | AsyncEngine") -> Coroutine[Any, Any, None] | None:
    """Make the table where it is missing; durable on return. To be awaited with an ``AsyncEngine``.

    Several processes may do so at a time. With Alembic, use ``metadata`` instead.

    Args:
        engine: of the participant's own database.
    """
    if not isinstance(engine, Engine):
        return _create(engine)
    try:
        metadata.create_all(engine)
    except DBAPIError:
        if not inspect(engine).has_table(TABLE.name):  # else another process made it meanwhile
            raise
    return None


async def _create(engine: "AsyncEngine") -> None:
    try:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
    except DBAPIError:
        async with engine.connect() as connection:
            if not await connection.run_sync(lambda plain: inspect(plain).has_table(TABLE.name)):
                raise
