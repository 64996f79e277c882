"""Makes ``sql.py`` from ``tables.py``: run ``python -m durable_core.stores.generate`` after a change to the tables.

Invariant: the same tables give the same text, so that a test can tell whether the committed file is the current one.
"""

import sys
from pathlib import Path
from typing import cast

from sqlalchemy import Index, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable, DDLElement
from sqlmodel import SQLModel

from durable_core.model.entry import Entry
from durable_core.model.run import NewRun, RunUpdate
from durable_core.model.tombstone import Tombstone
from durable_core.stores.tables import TABLES, JournalRow, RunRow, SignalRow, WorkerRow

TARGET = Path(__file__).with_name("sql.py")
LINE = 120

_HEAD = '''"""SQL of the tables, as text: definitions, column lists, and the statements that bind whole tuples.

Made from ``tables.py`` by ``python -m durable_core.stores.generate``; edit the tables, not this file.
"""

'''


def _table(row: type[SQLModel]) -> Table:
    return cast("Table", vars(row)["__table__"])


def _text(element: DDLElement) -> str:
    dialect = sqlite.dialect()
    lines = str(element.compile(dialect=dialect)).replace("\t", "    ").splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip())


def definitions() -> tuple[str, ...]:
    """The statements that make every table and index, in order."""
    made: list[str] = []
    for row in TABLES:
        table = _table(row)
        made.append(_text(CreateTable(table)))
        indexes: list[Index] = sorted(table.indexes, key=lambda index: str(index.name))
        made.extend(_text(CreateIndex(index)) for index in indexes)
    return tuple(made)


def _columns(row: type[SQLModel], *, without: str = "") -> tuple[str, ...]:
    return tuple(column.name for column in _table(row).columns if column.name != without)


def _insert(row: type[SQLModel], columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {_table(row).name} ({', '.join(columns)}) VALUES "  # noqa: S608 - names of our own columns


def _mark(row: type[SQLModel], column: str) -> str:
    """Where a value is bound; for None it is a number that no value is, see ``sqlite_binding``."""
    return "NULLIF(?, 0.5)" if _table(row).columns[column].nullable else "?"


def _marks(row: type[SQLModel], columns: tuple[str, ...]) -> str:
    return f"({', '.join(_mark(row, column) for column in columns)})"


def statements() -> dict[str, str]:
    """The statements and column lists by the name of their constant."""
    run, entry = (*NewRun._fields, "updated_at_ns"), Entry._fields
    signal, worker = _columns(SignalRow, without="num"), _columns(WorkerRow)
    changed = ", ".join(f"{column} = {_mark(RunRow, column)}" for column in RunUpdate._fields[:-1])
    return {
        "RUN_COLUMNS": ", ".join(_columns(RunRow)),
        "INSERT_RUNS": _insert(RunRow, run),
        "RUN_MARKS": _marks(RunRow, run),
        "UPDATE_RUN": f"UPDATE runs SET {changed} WHERE num = ?",  # noqa: S608 - names of our own columns
        "ENTRY_COLUMNS": ", ".join(_columns(JournalRow, without="pos")),
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


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"{TARGET} written\n")
