"""Reads and writes the rows of ``sagas_participant`` in the transaction of a session.

Invariant: the primary key decides who comes first. An insert of a key that another open transaction has inserted waits
until that transaction ends; no other lock is needed.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
from sqlalchemy import Connection, Insert, RowMapping, delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from durable_core import DefinitionError, StoreError
from durable_core.layer import SystemClock
from sagas.participant.rules import Answer, Kind, Record
from sagas.participant.table import TABLE

CLOCK = SystemClock()
INSERT_OR_NOTHING: Mapping[str, Insert] = {
    "postgresql": postgresql_insert(TABLE).on_conflict_do_nothing(),
    "sqlite": sqlite_insert(TABLE).on_conflict_do_nothing(),
    "mysql": insert(TABLE).prefix_with("IGNORE"),
    "mariadb": insert(TABLE).prefix_with("IGNORE"),
}
"""By dialect, the insert that does nothing where the key is taken; others need a savepoint."""
READS_THE_PAST = frozenset(("mysql", "mariadb"))
"""Where a plain read may not see the row that has just made an insert fail; a read that locks does."""
CONFLICTS = frozenset(("40001", "40P01", 1205, 1213))
"""Serialization failures and deadlocks: SQLSTATEs, and MySQL's numbers."""
BUSY = "database is locked"
"""How SQLite says it."""


@attrs.frozen
class Rows:
    """The rows, as the transaction of one session sees them."""

    connection: Connection

    @classmethod
    def of(cls, session: Session) -> "Rows":
        """Those of the session's transaction, which begins here if it has not.

        Raises:
            DefinitionError: the session commits each statement by itself.
        """
        connection = session.connection(bind_arguments={"clause": TABLE})
        if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            raise DefinitionError(
                "this session is in AUTOCOMMIT: an effect and its answer would not be committed together. Use a "
                "session whose transaction ends with commit(). Nothing was changed"
            )
        return cls(connection)

    def claim(self, record: Record) -> Record | None:
        """Take a key: None if it is now this transaction's, else what another has stored under it.

        Waits for an open transaction that has taken the same key.

        Raises:
            StoreError: transient: another transaction has written the key, which this one cannot see.
        """
        values = {**_values(record), "at_ns": CLOCK.now_ns()}
        with retryable(record.key):
            if self._inserted(values):
                return None
            found = self.find(record.key)
        if found is None:
            raise _conflict(record.key)
        return found

    def _inserted(self, values: dict[str, Any]) -> bool:
        statement = INSERT_OR_NOTHING.get(self.connection.dialect.name)
        if statement is not None:
            options = {"preserve_rowcount": True}
            return self.connection.execute(statement, values, execution_options=options).rowcount == 1
        try:
            with self.connection.begin_nested():
                self.connection.execute(insert(TABLE), values)
        except IntegrityError:
            return False
        return True

    def find(self, key: str) -> Record | None:
        """What is stored under ``key``."""
        question = select(TABLE).where(TABLE.c.key == key)
        if self.connection.dialect.name in READS_THE_PAST:
            question = question.with_for_update(read=True)
        row = self.connection.execute(question).mappings().one_or_none()
        return None if row is None else _record(row)

    def complete(self, key: str, answer: Answer) -> None:
        """Store the answer of a key that this transaction has taken.

        Raises:
            StoreError: transient: the database has forgotten the transaction meanwhile.
        """
        taken = update(TABLE).where(TABLE.c.key == key)
        if self.connection.execute(taken.values(answer=answer.payload, answer_type=answer.declared)).rowcount != 1:
            raise _conflict(key)

    def mark_undone(self, key: str, by: str) -> bool:
        """Note which undo undid a step, unless another one has: then False. Waits for that one's transaction."""
        with retryable(key):
            free = update(TABLE).where(TABLE.c.key == key, TABLE.c.undone_by.is_(None))
            return self.connection.execute(free.values(undone_by=by)).rowcount == 1

    def give_back(self, key: str) -> None:
        """Forget a key that this transaction has taken."""
        self.connection.execute(delete(TABLE).where(TABLE.c.key == key))


@contextmanager
def retryable(key: str) -> Generator[None]:
    """Make a conflict between two transactions an error that says so."""
    try:
        yield
    except DBAPIError as error:
        if _is_conflict(error.orig):
            raise _conflict(key) from error
        raise


def _is_conflict(error: BaseException | None) -> bool:
    state = getattr(error, "sqlstate", None) or (error.args[0] if error is not None and error.args else None)
    return state in CONFLICTS or (isinstance(state, str) and BUSY in state)


def _conflict(key: str) -> StoreError:
    return StoreError(
        f"idempotency key {key!r}: another transaction is using it, or has just used it, and this one cannot see how "
        "that ended",
        "Roll back and repeat the whole request in a new transaction; nothing was done here",
        transient=True,
    )


def _values(record: Record) -> dict[str, Any]:
    return {
        "key": record.key,
        "kind": record.kind.value,
        "request": record.request,
        "answer": None,
        "answer_type": None,
        "of": record.of,
        "undone_by": record.undone_by,
    }


def _record(row: RowMapping) -> Record:
    payload = row["answer"]
    answer = None if payload is None else Answer(bytes(payload), row["answer_type"] or "")
    request = None if row["request"] is None else bytes(row["request"])
    return Record(row["key"], Kind(row["kind"]), request, answer, row["of"], row["undone_by"])
