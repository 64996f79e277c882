"""The tables, the text made of them, and the plans that SQLite makes for the text."""

import sqlite3
from collections.abc import Iterator

import attrs
import pytest

from durable_core.model.entry import Entry
from durable_core.model.run import Place, RunQuery, RunRecord, RunStatus
from durable_core.model.tombstone import Tombstone
from durable_core.stores import asked, questions, sql
from durable_core.stores.questions import select
from durable_core.stores.sqlite import claims, journal, retention, signals, workers
from durable_core.stores.sqlite.dialect import QUESTIONS, statement
from durable_core.stores.tables import JournalRow, RunRow, TombstoneRow
from tools import store_sql

COMPLETED = frozenset({RunStatus.COMPLETED})
FAILED = frozenset({RunStatus.FAILED})
STUCK = frozenset({RunStatus.STUCK})
PLACE = Place(1, 2)


def test_the_committed_text_is_what_the_tables_give():
    """Run ``python -m tools.store_sql`` where this fails."""
    for target, content in store_sql.TARGETS.items():
        assert target.read_text(encoding="utf-8") == content()


def test_columns_follow_the_records():
    """A row is bound and read by position, so the orders must agree."""
    assert list(RunRow.model_fields) == [field.name for field in attrs.fields(RunRecord)]
    assert list(JournalRow.model_fields) == ["pos", *Entry._fields]
    assert list(TombstoneRow.model_fields) == [*Tombstone._fields, "unswept"]


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    for definition in sql.CREATE:
        connection.execute(definition)
    yield connection
    connection.close()


def listed(query: RunQuery) -> str:
    """The statement for a list of runs."""
    return statement(select(query)[0])


def ended(name: str | None) -> str:
    """The statement for ended runs."""
    return statement(QUESTIONS.ended(before_ns=1, name=name, after=None, limit=1).text)


@pytest.mark.parametrize(
    ("text", "index"),
    [
        (claims.DUE.format(marks="(?, ?), (?, ?)"), "runs_open (owner=? AND wake_at_ns<?)"),
        (statement(asked.NEXT_WAKE), "runs_open (owner=? AND wake_at_ns>?)"),
        (statement(asked.UNSERVED), "runs_open (owner=? AND wake_at_ns<?)"),
        (statement(questions.LOAD, 1), "journal_run_seq (run=?)"),
        (statement(questions.LOAD, 2), "journal_run_seq (run=?)"),
        (statement(questions.FIND, 2), "sqlite_autoindex_runs_1 (id=?)"),
        (statement(questions.RESTARTS, 2), "runs_restarts (restarts=?)"),
        (signals.SIGNALS.format(marks="?, ?"), "INTEGER PRIMARY KEY (rowid=?)"),
        (workers.RELEASE, "runs_open (owner=?)"),
        (claims.CLAIM.format(marks="?, ?"), "INTEGER PRIMARY KEY (rowid=?)"),
        (journal.WAKE_SIGNALLED, "INTEGER PRIMARY KEY (rowid=?)"),
        (ended(None), "runs_ended (ended_at_ns>? AND ended_at_ns<?)"),
        (ended("order"), "runs_ended (ended_at_ns>? AND ended_at_ns<?)"),
        (retention.PURGE, "INTEGER PRIMARY KEY (rowid=?)"),
        (retention.UNSWEPT, "tombstones_unswept"),
        (retention.SWEEP, "journal_run_seq (run=?)"),
        (retention.EXPIRED, "tombstones_until (until_ns<?)"),
        (statement(questions.TOMBSTONES, 2), "sqlite_autoindex_tombstones_1 (id=?)"),
        (journal.PURGED.format(marks="?, ?"), "sqlite_autoindex_tombstones_1 (id=?)"),
        (statement(asked.UNBEGUN), "runs_open (owner=? AND wake_at_ns=?)"),
        (statement(asked.READ), "INTEGER PRIMARY KEY (rowid>?)"),
        (sql.UPDATE_RUN, "INTEGER PRIMARY KEY (rowid=?)"),
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


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (RunQuery(), "SCAN runs USING INDEX runs_started"),
        (RunQuery(after=PLACE), "SEARCH runs USING INDEX runs_started (created_at_ns<?)"),
        (RunQuery(after=PLACE, oldest_first=True), "SEARCH runs USING INDEX runs_started (created_at_ns>?)"),
        (RunQuery(name="order", after=PLACE), "SEARCH runs USING INDEX runs_named (name=? AND created_at_ns<?)"),
        (RunQuery(name="order", version=2, statuses=COMPLETED), "SEARCH runs USING INDEX runs_named (name=?)"),
        (RunQuery(statuses=COMPLETED), "SCAN runs USING INDEX runs_started"),
        (RunQuery(statuses=FAILED, phases=frozenset({"a", "b"})), "SEARCH runs USING INDEX runs_undone (status=?)"),
        (RunQuery(statuses=FAILED, after=PLACE), "SEARCH runs USING INDEX runs_undone (status=? AND created_at_ns<?)"),
        (RunQuery(tags=(("a", "1"),)), "SEARCH tag USING PRIMARY KEY (key=? AND value=?)"),
        (
            RunQuery(tags=(("a", "1"), ("b", "2")), statuses=COMPLETED, name="order", after=PLACE),
            "SEARCH tag USING PRIMARY KEY (key=? AND value=? AND (started_at_ns,run)<(?,?))",
        ),
    ],
)
def test_a_page_is_read_in_order(connection: sqlite3.Connection, query: RunQuery, index: str):
    """An index has the rows in the order of the page, so none are sorted and no more are read than it shows."""
    plan = plan_of(connection, query)
    assert plan[0] == index
    assert not [step for step in plan[1:] if "SCAN" in step or "TEMP B-TREE" in step]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (RunQuery(statuses=STUCK), "SCAN runs USING INDEX runs_open"),
        (RunQuery(statuses=STUCK, name="order", after=PLACE), "SCAN runs USING INDEX runs_open"),
        (RunQuery(statuses=STUCK, tags=(("a", "1"),)), "SCAN runs USING INDEX runs_open"),
        (RunQuery(attention=True, name="order"), "SCAN runs USING INDEX runs_unwell"),
    ],
)
def test_a_page_of_few_is_sorted(connection: sqlite3.Connection, query: RunQuery, index: str):
    """Open runs are few, however many have ended: only these are read."""
    plan = plan_of(connection, query)
    assert index in plan
    assert not [step for step in plan if "runs_started" in step or "runs_named" in step or step == "SCAN runs"]


def plan_of(connection: sqlite3.Connection, query: RunQuery) -> list[str]:
    """How SQLite goes about a list."""
    text = listed(query)
    return [str(row[3]) for row in connection.execute("EXPLAIN QUERY PLAN " + text, [1] * text.count("?"))]
