"""Makes the SQL of the stores from ``tables.py``: run ``python -m tools.store_sql`` after a change to the tables.

``sql.py`` is for SQLite; ``postgres/columns.py`` is for PostgreSQL. Its migrations are written by hand, and a test
checks that what they make is what these tables say.

Invariant: the same tables give the same text, so that a test can check that the committed files are current.
"""

import sys
from pathlib import Path
from typing import cast

from sqlalchemy import Index, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement
from sqlmodel import SQLModel

from durable_core.model.entry import Entry
from durable_core.model.run import NewRun, RunUpdate
from durable_core.model.tombstone import Tombstone
from durable_core.stores.tables import (
    POSTGRES_TRIGGERS,
    SQLITE_TRIGGERS,
    TABLES,
    JournalRow,
    RunRow,
    SignalRow,
    WorkerRow,
)

STORES = Path(__file__).parents[1] / "durable_core/stores"
NUMBERS = 1 << 20
"""How many run numbers a store of PostgreSQL reserves at a time."""
LINE = 120

SQLITE: Dialect = sqlite.dialect()
POSTGRES: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
_TYPES = {"BIGINT": "int8", "TEXT": "text", "BYTEA": "bytea"}

_HEAD = '''"""SQL of the tables, as text: definitions, column lists, and the statements that bind whole tuples.

Made from ``tables.py`` by ``python -m tools.store_sql``; edit the tables, not this file.
"""

'''
_POSTGRES_HEAD = '''"""Columns of the tables in PostgreSQL, in order, each with the type that it is bound as.

Made from ``tables.py`` by ``python -m tools.store_sql``; edit the tables, not this file.
"""
'''


def _table(row: type[SQLModel]) -> Table:
    return cast("Table", vars(row)["__table__"])


def _text(element: DDLElement, dialect: Dialect) -> str:
    lines = str(element.compile(dialect=dialect)).replace("\t", "    ").splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip())


def definitions(dialect: Dialect = SQLITE) -> tuple[str, ...]:
    """The statements that make every table, index and trigger, in order."""
    made: list[str] = []
    for row in TABLES:
        table = _table(row)
        made.append(_text(CreateTable(table), dialect))
        indexes: list[Index] = sorted(table.indexes, key=lambda index: str(index.name))
        made.extend(
            _text(CreateIndex(index), dialect) for index in indexes if index.info.get("only") in (None, dialect.name)
        )
    return (*made, *(SQLITE_TRIGGERS if dialect is SQLITE else POSTGRES_TRIGGERS))


def _columns(row: type[SQLModel], *, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    return tuple(column.name for column in _table(row).columns if column.name not in without)


def _insert(row: type[SQLModel], columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {_table(row).name} ({', '.join(columns)}) VALUES "  # noqa: S608 - names of our own columns


def _mark(row: type[SQLModel], column: str) -> str:
    """The mark that binds a value; None is bound as a number that no value is, see ``sqlite/binding.py``."""
    return "NULLIF(?, 0.5)" if _table(row).columns[column].nullable else "?"


def _marks(row: type[SQLModel], columns: tuple[str, ...]) -> str:
    return f"({', '.join(_mark(row, column) for column in columns)})"


def statements() -> dict[str, str]:
    """SQLite's statements and column lists by the name of their constant."""
    run, entry = (*NewRun._fields, "updated_at_ns"), Entry._fields
    signal = _columns(SignalRow, without=("num",))
    worker = _columns(WorkerRow, without=("lease_until_ns", "batch"))
    changed = ", ".join(f"{column} = {_mark(RunRow, column)}" for column in RunUpdate._fields[:-1])
    return {
        "RUN_COLUMNS": ", ".join(_columns(RunRow)),
        "INSERT_RUNS": _insert(RunRow, run),
        "RUN_MARKS": _marks(RunRow, run),
        "UPDATE_RUN": f"UPDATE runs SET {changed} WHERE num = ?",  # noqa: S608 - names of our own columns
        "ENTRY_COLUMNS": ", ".join(_columns(JournalRow, without=("pos",))),
        "INSERT_ENTRIES": _insert(JournalRow, entry),
        "ENTRY_MARKS": _marks(JournalRow, entry),
        "INSERT_SIGNAL": _insert(SignalRow, signal) + _marks(SignalRow, signal),
        "TOMBSTONE_COLUMNS": ", ".join(Tombstone._fields),
        "INSERT_WORKER": _insert(WorkerRow, worker) + _marks(WorkerRow, worker),
    }


def _constant(name: str, sql: str, width: int = 100) -> str:
    """``sql`` as Python source: one string, or several in brackets, broken at blanks, as ``ruff format`` has it."""
    line = f'{name} = "{sql}"'
    if len(line) <= LINE:
        return line
    lines, rest = list[str](), sql
    while len(rest) > width and len(sql) > LINE - len('    ""'):
        cut = rest.rindex(" ", 0, width) + 1
        lines.append(rest[:cut])
        rest = rest[cut:]
    return f"{name} = (\n" + "".join(f'    "{line}"\n' for line in (*lines, rest)) + ")"


def render() -> str:
    """The whole text of ``sql.py``."""
    tables = "".join(f'    """\n{definition}\n""",\n' for definition in definitions())
    constants = "".join(f"\n{_constant(name, sql)}\n" for name, sql in statements().items())
    return f"{_HEAD}CREATE = (\n{tables})\n{constants}"


def render_postgres() -> str:
    """The whole text of ``postgres/columns.py``."""
    lists: dict[str, tuple[type[SQLModel], tuple[str, ...]]] = {
        "RUN": (RunRow, _columns(RunRow)),
        "START": (RunRow, (*NewRun._fields, "updated_at_ns")),
        "UPDATE": (RunRow, RunUpdate._fields),
        "ENTRY": (JournalRow, Entry._fields),
    }
    text = _POSTGRES_HEAD
    for name, (row, columns) in lists.items():
        types = {column.name: _TYPES[column.type.compile(POSTGRES)] for column in _table(row).columns}
        pairs = "".join(f'    "{column}": "{types[column]}",\n' for column in columns)
        text += f"\n{name} = {{\n{pairs}}}\n"
    return f"{text}\nNUMBERS = {NUMBERS}\n"


TARGETS = {
    STORES / "sql.py": render,
    STORES / "postgres" / "columns.py": render_postgres,
}


if __name__ == "__main__":
    for target, content in TARGETS.items():
        target.parent.mkdir(exist_ok=True)
        target.write_text(content(), encoding="utf-8")
        sys.stdout.write(f"{target} written\n")
