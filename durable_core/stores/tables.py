"""The tables, once: what every other form of the schema is made from.

Migrations, admin queries and the dashboard use these classes. The hot path does not: it binds tuples to the text in
``sql.py``, which ``python -m tools.store_sql`` makes from here. Nothing imports this module at run time,
since SQLModel costs 320 ms and 30 MiB.

Invariant: the columns of ``runs`` are those of ``RunRecord`` and the columns of ``journal`` those of ``Entry``, in
order, after the row's own number. New columns come last, as a migrated table has them.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Text, text
from sqlmodel import Field, SQLModel


def _number(*, given: bool = False) -> "Column[int]":
    # SQLite makes a key of exactly the type INTEGER the row's own number, and needs no second index for it.
    key = BigInteger().with_variant(Integer(), "sqlite")
    return Column(key, primary_key=True, autoincrement=False if given else "auto")


def _some(*columns: str, name: str, rows: str, only: str | None = None) -> Index:
    """An index of the rows that a condition names; ``only`` for one kind of database."""
    return Index(name, *columns, sqlite_where=text(rows), postgresql_where=text(rows), info={"only": only})


def _whole(*, default: int | None = None, key: bool = False) -> "Column[int]":
    server_default = None if default is None else text(str(default))
    return Column(BigInteger, nullable=False, server_default=server_default, primary_key=key, autoincrement=False)


def _whole_or_none() -> "Column[int]":
    return Column(BigInteger, nullable=True)


def _text(*, default: str | None = None, unique: bool = False, key: bool = False) -> "Column[str]":
    return Column(Text, nullable=False, server_default=default, unique=unique or None, primary_key=key)


def _text_or_none() -> "Column[str]":
    return Column(Text, nullable=True)


def _data() -> "Column[bytes]":
    return Column(LargeBinary, nullable=False)


def _data_or_none() -> "Column[bytes]":
    return Column(LargeBinary, nullable=True)


class RunRow(SQLModel, table=True):
    """One run."""

    __tablename__ = "runs"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        # What claim, next_wake_ns and release_dead look for: the open runs only, so that ended ones cost nothing.
        _some("owner", "wake_at_ns", name="runs_open", rows="ended_at_ns IS NULL"),
        # What a purge looks for, the longest ended first.
        _some("ended_at_ns", name="runs_ended", rows="ended_at_ns IS NOT NULL"),
        # Pages of a list, in the order of start: of all runs, and of one function's.
        Index("runs_started", "created_at_ns", "num"),
        Index("runs_named", "name", "created_at_ns", "num"),
        # The few that a person looks for among many: those that need attention, and those that ended in another way.
        _some("created_at_ns", "num", name="runs_unwell", rows="reason IS NOT NULL AND ended_at_ns IS NULL"),
        _some(
            "status",
            "created_at_ns",
            "num",
            name="runs_undone",
            rows="ended_at_ns IS NOT NULL AND status <> 'completed'",
        ),
        _some("restarts", name="runs_restarts", rows="restarts IS NOT NULL"),
        # What many workers claim from: by function, so that a flood of one does not hide the others, and by age.
        _some(
            "name",
            "version",
            "wake_at_ns",
            "updated_at_ns",
            "num",
            name="runs_due",
            rows="ended_at_ns IS NULL AND owner IS NULL",
            only="postgresql",
        ),
    )

    num: int = Field(sa_column=_number(given=True))
    id: str = Field(sa_column=_text(unique=True))
    uid: bytes = Field(sa_column=_data())
    name: str = Field(sa_column=_text())
    version: int = Field(sa_column=_whole())
    status: str = Field(sa_column=_text())
    phase: str = Field(sa_column=_text(default=""))
    owner: str | None = Field(sa_column=_text_or_none())
    wake_at_ns: int | None = Field(sa_column=_whole_or_none())
    deadline_at_ns: int | None = Field(sa_column=_whole_or_none())
    paused: int = Field(sa_column=_whole(default=0))
    input: bytes = Field(sa_column=_data())
    output: bytes | None = Field(sa_column=_data_or_none())
    error: bytes | None = Field(sa_column=_data_or_none())
    reason: str | None = Field(sa_column=_text_or_none())
    detail: bytes | None = Field(sa_column=_data_or_none())
    traceparent: str | None = Field(sa_column=_text_or_none())
    created_at_ns: int = Field(sa_column=_whole())
    updated_at_ns: int = Field(sa_column=_whole())
    ended_at_ns: int | None = Field(sa_column=_whole_or_none())
    tags: str | None = Field(sa_column=_text_or_none())
    retagged: str | None = Field(sa_column=_text_or_none())
    awaits: str | None = Field(sa_column=_text_or_none())
    restarts: str | None = Field(sa_column=_text_or_none())


class TagRow(SQLModel, table=True):
    """One tag of a run, to search by. Triggers on ``runs`` keep it in step with the column ``tags`` there."""

    __tablename__ = "run_tags"  # pyright: ignore[reportAssignmentType]
    __table_args__ = ({"sqlite_with_rowid": False},)

    key: str = Field(sa_column=_text(key=True))
    value: str = Field(sa_column=_text(key=True))
    started_at_ns: int = Field(sa_column=_whole(key=True))
    run: int = Field(sa_column=_whole(key=True))


class JournalRow(SQLModel, table=True):
    """One entry of a run's journal. ``pos`` is the order of the commits, over all runs."""

    __tablename__ = "journal"  # pyright: ignore[reportAssignmentType]
    # A position is never given out again, so that one which was noted as exported stays true after a purge.
    __table_args__ = (Index("journal_run_seq", "run", "seq", unique=True), {"sqlite_autoincrement": True})

    pos: int = Field(sa_column=_number())
    run: int = Field(sa_column=_whole())
    seq: int = Field(sa_column=_whole())
    kind: str = Field(sa_column=_text())
    key: str = Field(sa_column=_text())
    attempt: int = Field(sa_column=_whole())
    label: str = Field(sa_column=_text())
    payload: bytes | None = Field(sa_column=_data_or_none())
    error: bytes | None = Field(sa_column=_data_or_none())
    started_at_ns: int | None = Field(sa_column=_whole_or_none())
    at_ns: int = Field(sa_column=_whole())
    due_at_ns: int | None = Field(sa_column=_whole_or_none())
    worker: str = Field(sa_column=_text())


class SignalRow(SQLModel, table=True):
    """A signal that no batch has consumed yet."""

    __tablename__ = "signals"  # pyright: ignore[reportAssignmentType]
    # A number is never given out again, so that a batch which is written twice cannot consume a newer signal.
    __table_args__ = (Index("signals_run", "run"), {"sqlite_autoincrement": True})

    num: int = Field(sa_column=_number())
    run: int = Field(sa_column=_whole())
    name: str = Field(sa_column=_text())
    payload: bytes = Field(sa_column=_data())
    at_ns: int = Field(sa_column=_whole())


class TombstoneRow(SQLModel, table=True):
    """A run that was purged. The columns are those of ``Tombstone``, and whether its journal is left to remove."""

    __tablename__ = "tombstones"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        _some("num", name="tombstones_unswept", rows="unswept = 1"),
        _some("until_ns", name="tombstones_until", rows="until_ns IS NOT NULL"),
    )

    num: int = Field(sa_column=_number(given=True))
    id: str = Field(sa_column=_text(unique=True))
    name: str = Field(sa_column=_text())
    version: int = Field(sa_column=_whole())
    status: str = Field(sa_column=_text())
    phase: str = Field(sa_column=_text())
    created_at_ns: int = Field(sa_column=_whole())
    ended_at_ns: int = Field(sa_column=_whole())
    purged_at_ns: int = Field(sa_column=_whole())
    until_ns: int | None = Field(sa_column=_whole_or_none())
    unswept: int = Field(sa_column=_whole(default=1))


class WorkerRow(SQLModel, table=True):
    """A worker that announced itself.

    Whether it is alive: its lock file says so if there is a file, else its lease, by the database's clock. ``batch`` is
    the number of its last commit, by which one whose outcome is not known is found again.
    """

    __tablename__ = "workers"  # pyright: ignore[reportAssignmentType]

    id: str = Field(sa_column=_text(key=True))
    pid: int = Field(sa_column=_whole())
    host: str = Field(sa_column=_text())
    started_at_ns: int = Field(sa_column=_whole())
    lease_until_ns: int = Field(sa_column=_whole(default=0))
    batch: int = Field(sa_column=_whole(default=0))


class ServedRow(SQLModel, table=True):
    """A durable function that some worker has served: it may be started by name from elsewhere."""

    __tablename__ = "served"  # pyright: ignore[reportAssignmentType]

    name: str = Field(sa_column=_text(key=True))
    version: int = Field(sa_column=_whole(key=True))
    fingerprint: str = Field(sa_column=_text())
    at_ns: int = Field(sa_column=_whole())


class ServingRow(SQLModel, table=True):
    """What a worker serves; gone in the commit that forgets the worker."""

    __tablename__ = "serving"  # pyright: ignore[reportAssignmentType]

    name: str = Field(sa_column=_text(key=True))
    version: int = Field(sa_column=_whole(key=True))
    worker: str = Field(sa_column=_text(key=True))


class TracedRow(SQLModel, table=True):
    """A worker's export cursor: the spans of its entries after ``pos`` are to export. Removed once all are exported.

    ``payer`` is the live worker that has taken over the cursor of a dead one.
    """

    __tablename__ = "traced"  # pyright: ignore[reportAssignmentType]

    worker: str = Field(sa_column=_text(key=True))
    pos: int = Field(sa_column=_whole())
    payer: str | None = Field(sa_column=_text_or_none())


class MetaRow(SQLModel, table=True):
    """A fact about the whole store: ``format`` and ``next_num`` (numbers), ``secret`` (32 bytes).

    The column holds either: SQLite keeps a value of a BLOB column as it was given, elsewhere a number is its digits.
    """

    __tablename__ = "meta"  # pyright: ignore[reportAssignmentType]

    key: str = Field(sa_column=_text(key=True))
    value: bytes = Field(sa_column=_data())


TABLES: tuple[type[SQLModel], ...] = (
    RunRow,
    TagRow,
    JournalRow,
    SignalRow,
    TombstoneRow,
    WorkerRow,
    ServedRow,
    ServingRow,
    TracedRow,
    MetaRow,
)

# A run's tags are JSON of an object of texts, so both databases can take them apart.
_TAG = """
    INSERT INTO run_tags (key, value, started_at_ns, run)
    SELECT key, value, new.created_at_ns, new.num FROM json_each(coalesce(new.retagged, new.tags));"""
_UNTAG = """
    DELETE FROM run_tags WHERE (key, value, started_at_ns, run) IN
        (SELECT key, value, old.created_at_ns, old.num FROM json_each(coalesce(old.retagged, old.tags)));"""
_OLD = "coalesce(old.retagged, old.tags) IS NOT NULL"
_ON = "CREATE TRIGGER runs_{name} AFTER {event} ON runs WHEN {when}\nBEGIN{body}\nEND"
SQLITE_TRIGGERS = (
    _ON.format(name="tag", event="INSERT", when="new.tags IS NOT NULL", body=_TAG),
    _ON.format(
        name="tag_again", event="UPDATE OF retagged", when="new.retagged IS NOT old.retagged", body=_UNTAG + _TAG
    ),
    _ON.format(name="untag", event="DELETE", when=_OLD, body=_UNTAG),
)
"""Keep ``run_tags`` in step with ``runs.retagged``, or ``runs.tags`` where that is empty.

A run without tags runs none of their statements.
"""

# The table is named with its schema, because behind a pooler a search path does not stay set.
_TAG_RUNS = """\
CREATE FUNCTION tag_runs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND coalesce(old.retagged, old.tags) IS NOT NULL THEN
        EXECUTE format(
            'DELETE FROM %I.run_tags WHERE (key, value, started_at_ns, run) IN'
            ' (SELECT key, value, $2, $3 FROM json_each_text($1::json))', TG_TABLE_SCHEMA
        ) USING coalesce(old.retagged, old.tags), old.created_at_ns, old.num;
    END IF;
    IF TG_OP <> 'DELETE' AND coalesce(new.retagged, new.tags) IS NOT NULL THEN
        EXECUTE format(
            'INSERT INTO %I.run_tags (key, value, started_at_ns, run)'
            ' SELECT key, value, $2, $3 FROM json_each_text($1::json)', TG_TABLE_SCHEMA
        ) USING coalesce(new.retagged, new.tags), new.created_at_ns, new.num;
    END IF;
    RETURN NULL;
END
$$"""
_EXECUTE = "FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION tag_runs()"
_AGAIN = _EXECUTE.format(when="new.retagged IS DISTINCT FROM old.retagged")
POSTGRES_TRIGGERS = (
    _TAG_RUNS,
    f"CREATE TRIGGER runs_tag AFTER INSERT ON runs {_EXECUTE.format(when='new.tags IS NOT NULL')}",
    f"CREATE TRIGGER runs_tag_again AFTER UPDATE OF retagged ON runs {_AGAIN}",
    f"CREATE TRIGGER runs_untag AFTER DELETE ON runs {_EXECUTE.format(when=_OLD)}",
)
"""The same for PostgreSQL."""
