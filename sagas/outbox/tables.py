"""The tables of an outbox in the user's database.

Invariant: they have metadata of their own, so they are in nobody's ``SQLModel.metadata.create_all`` by accident.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, UnicodeText
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

METADATA = MetaData()
RELAY = "relay"
"""The name of the one row of ``sagas_outbox_relay``."""
_REGISTRY = registry(metadata=METADATA)


def _long(*, nullable: bool = False) -> "Column[str]":
    # MySQL's TEXT holds 64 KiB, and arguments may have a MiB.
    return Column(UnicodeText().with_variant(MEDIUMTEXT(), "mysql", "mariadb"), nullable=nullable)


class Tables(SQLModel, registry=_REGISTRY):
    """The base of these tables."""

    metadata = METADATA


class OutboxRow(Tables, table=True):
    """One entry, from the commit of its transaction until it was handed on."""

    __tablename__ = "sagas_outbox"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("sagas_outbox_waiting", "refused_at_ns", "id"),  # what a relay asks for twice a second
        {"sqlite_autoincrement": True},  # else a number would be used again once its row was handed on
    )

    id: int | None = Field(
        default=None,
        sa_column=Column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    )
    verb: str = Field(sa_column=Column(String(20), nullable=False))
    saga_id: str | None = Field(default=None, sa_column=_long(nullable=True))
    request: str = Field(sa_column=_long())
    traceparent: str | None = Field(default=None, sa_column=Column(String(60), nullable=True))
    at_ns: int = Field(sa_column=Column(BigInteger, nullable=False))
    refused_at_ns: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    reason: str | None = Field(default=None, sa_column=_long(nullable=True))


class RelayRow(Tables, table=True):
    """Which relay hands on the entries; see ``sagas.outbox.lease``."""

    __tablename__ = "sagas_outbox_relay"  # pyright: ignore[reportAssignmentType]

    name: str = Field(sa_column=Column(String(20), primary_key=True))
    owner: str = Field(sa_column=Column(String(200), nullable=False))
    beat: int = Field(sa_column=Column(BigInteger, nullable=False))


ENTRIES = METADATA.tables["sagas_outbox"]
RELAYS = METADATA.tables["sagas_outbox_relay"]
