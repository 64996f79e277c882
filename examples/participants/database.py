"""A participant's own database: a SQLite file, whose transactions begin as writers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, event
from sqlmodel import Session, SQLModel, create_engine

from sagas import participant

T = TypeVar("T")


class Database:
    """The file, with the participant's tables and the one that remembers calls."""

    def __init__(self, file: Path, tables: Sequence[str]) -> None:
        """Open ``file``; make it, with the tables of these names, where missing."""
        self._engine = _sqlite(file)
        participant.create_tables(self._engine)
        SQLModel.metadata.create_all(self._engine, tables=[SQLModel.metadata.tables[name] for name in tables])

    def run(self, effect: Callable[[Session], T]) -> T:
        """Do ``effect`` in one transaction; durable on return. An exception leaves nothing."""
        with Session(self._engine) as session, session.begin():
            return effect(session)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()


def _sqlite(file: Path) -> Engine:
    engine = create_engine(f"sqlite:///{file}", connect_args={"check_same_thread": False, "timeout": 10})

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own: the next listener does

    @event.listens_for(engine, "begin")
    def _(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # read and then write without another writer in between

    return engine
