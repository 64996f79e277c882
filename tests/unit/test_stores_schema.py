"""The tables, the text made of them, and the plans that SQLite makes for the text."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator

import attrs
import pytest

from durable_core.model.entry import Entry
from durable_core.model.run import RunQuery, RunRecord, RunStatus
from durable_core.model.tombstone import Tombstone
from durable_core.stores import generate, sql
from durable_core.stores.sqlite import purge, reader, writer
from durable_core.stores.sqlite.reader import where
from durable_core.stores.tables import JournalRow, RunRow, TombstoneRow


def test_the_committed_text_is_what_the_tables_give():
    """Run ``python -m durable_core.stores.generate`` where this fails."""
    for target, content in generate.TARGETS.items():
        assert target.read_text(encoding="utf-8") == content()


def test_columns_follow_the_records():
    """A row is bound and read by position, so the orders must agree."""
    assert list(RunRow.model_fields) == [field.name for field in attrs.fields(RunRecord)]
    assert list(JournalRow.model_fields) == ["pos", *Entry._fields]
    assert list(TombstoneRow.model_fields) == [*Tombstone._fields, "unswept"]


def test_sqlmodel_is_not_loaded_at_run_time():
    """It would cost every process a third of a second and 30 MiB."""
    code = "import sys, durable_core.stores; print({'sqlmodel', 'sqlalchemy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    for definition in sql.CREATE:
        connection.execute(definition)
    yield connection
    connection.close()


SELECT = "SELECT * FROM runs WHERE {} ORDER BY num DESC LIMIT 9"
OPEN_ONES = where(RunQuery(statuses=frozenset({RunStatus.STUCK}))).text


@pytest.mark.parametrize(
    ("text", "index"),
    [
        (reader.DUE.format(marks="(?, ?), (?, ?)"), "runs_open (owner=? AND wake_at_ns<?)"),
        (reader.NEXT_WAKE, "runs_open (owner=? AND wake_at_ns>?)"),
        (reader.IN_VAIN, "runs_open (owner=? AND wake_at_ns<?)"),
        (reader.LOAD_ONE, "journal_run_seq (run=?)"),
        (reader.LOAD.format(marks="?, ?"), "journal_run_seq (run=?)"),
        (reader.FIND.format(marks="?, ?"), "sqlite_autoindex_runs_1 (id=?)"),
        (reader.SIGNALS.format(marks="?, ?"), "INTEGER PRIMARY KEY (rowid=?)"),
        (writer._RELEASE, "runs_open (owner=?)"),
        (writer._CLAIM.format(marks="?, ?"), "INTEGER PRIMARY KEY (rowid=?)"),
        (writer._WAKE_SIGNALLED, "INTEGER PRIMARY KEY (rowid=?)"),
        (purge.ENDED.format(named=""), "runs_ended (ended_at_ns>? AND ended_at_ns<?)"),
        (purge.ENDED.format(named="AND name = ?"), "runs_ended (ended_at_ns>? AND ended_at_ns<?)"),
        (purge.BURY, "INTEGER PRIMARY KEY (rowid=?)"),
        (purge.UNSWEPT, "tombstones_unswept"),
        (purge.SWEEP, "journal_run_seq (run=?)"),
        (purge.EXPIRED, "tombstones_until (until_ns<?)"),
        (reader.TOMBSTONES.format(marks="?, ?"), "sqlite_autoindex_tombstones_1 (id=?)"),
        (writer._PURGED.format(marks="?, ?"), "sqlite_autoindex_tombstones_1 (id=?)"),
        (SELECT.format(where(RunQuery(ended_before_ns=1, before_num=9)).text), "INTEGER PRIMARY KEY (rowid<?)"),
        (sql.UPDATE_RUN, "INTEGER PRIMARY KEY (rowid=?)"),
        (SELECT.format(where(RunQuery(parent=1)).text), "runs_children (parent=?)"),
        (SELECT.format(where(RunQuery(before_num=1)).text), "INTEGER PRIMARY KEY (rowid<?)"),
    ],
)
def test_questions_use_an_index(connection: sqlite3.Connection, text: str, index: str):
    """No statement of the engine's reads a whole table of runs or entries, or sorts what an index has in order."""
    count = text.count("?")
    plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + text, [1] * count)]
    assert any(f" {index}" in step for step in plan), plan
    assert not [step for step in plan if step.startswith("SCAN") and ("runs" in step or "journal" in step)]
    if index.startswith(("runs_open", "runs_ended", "journal")):
        assert "USE TEMP B-TREE FOR ORDER BY" not in plan
