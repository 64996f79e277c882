"""What SQLite and PostgreSQL are asked alike: each question is a text, the values that it binds, and how to read rows.

A text names each table as ``{s}table`` and marks each value with ``?``; a question about many keys has ``{nums}`` or
``{ids}`` in the place of a condition that takes them all. A ``Dialect`` turns that into what its database understands.

Invariant: a question with keys binds nothing else, and each of its rows has a key in the column ``by``; so a database
may answer several questions of one text together, or one question in several parts.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum, auto
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import attrs

from durable_core.model.entry import Entry
from durable_core.model.run import ENDS, OPEN, RunQuery, RunRecord, RunStatus
from durable_core.model.tombstone import EndedRun, Tombstone
from durable_core.model.version import Announced
from durable_core.stores import sql

if TYPE_CHECKING:
    from durable_core.model.checkup import Facts, Group, WorkerSeen

T = TypeVar("T")
Row = Sequence[Any]


class Reads(Enum):
    """How many rows an answer may take."""

    FEW = auto()
    """As many as it returns, by an index."""
    MANY = auto()
    """More than the event loop should wait for."""
    ALL = auto()
    """A walk through a table, at worst: it takes seconds, or minutes."""


class Question(NamedTuple, Generic[T]):
    """Something to ask a database; with ``writes`` it is a statement that also changes rows."""

    doing: str
    """For errors: "find runs"."""
    text: str
    values: tuple[object, ...]
    read: Callable[[Sequence[Row]], T]
    """What the rows say."""
    keys: tuple[object, ...] | None = None
    """What it is about: rows by a key each; it binds them and nothing else."""
    by: int = 0
    """The column of a row that holds its key."""
    reads: Reads = Reads.FEW
    writes: bool = False


class Database(Protocol):
    """Answers questions."""

    async def ask(self, question: Question[T]) -> T:
        """The answer. Raises ``StoreError`` if there is none; then nothing was changed."""
        ...


@attrs.frozen
class Dialect:
    """What a database has of its own."""

    greatest: str
    """The function that gives the largest of its arguments."""
    escaped: Callable[[str], str] | None = None
    """A text as it is stored; None if any text can be stored as it is."""
    plain: Callable[[str], str] | None = None
    """The reverse."""


# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound
FIND = f"SELECT {sql.RUN_COLUMNS} FROM {{s}}runs WHERE id {{ids}}"
FIND_NUMS = f"SELECT {sql.RUN_COLUMNS} FROM {{s}}runs WHERE num {{nums}}"
LOAD = f"SELECT {sql.ENTRY_COLUMNS} FROM {{s}}journal WHERE run {{nums}} ORDER BY run, seq"
# Two looks at the ends of indexes.
NEWEST = """
SELECT max(at_ns) FROM (
    SELECT max(updated_at_ns) AS at_ns FROM (SELECT updated_at_ns FROM {s}runs ORDER BY num DESC LIMIT 1) AS run
    UNION ALL SELECT at_ns FROM (SELECT at_ns FROM {s}journal ORDER BY pos DESC LIMIT 1) AS entry
) AS newest"""
NO_WORKER_SERVES = """
ended_at_ns IS NULL AND owner IS NULL AND wake_at_ns <= ?
    AND (paused = 0 OR EXISTS (SELECT 1 FROM {s}signals WHERE run = runs.num))
    AND NOT EXISTS (SELECT 1 FROM {s}serving WHERE serving.name = runs.name AND serving.version = runs.version)"""
ANNOUNCED = """
SELECT name, version, fingerprint, at_ns, worker FROM {s}served LEFT JOIN {s}serving USING (name, version)
ORDER BY name, version, worker"""
ENDED = """
SELECT num, id, ended_at_ns, coalesce((SELECT max(seq) FROM {s}journal WHERE run = runs.num), 0) FROM {s}runs
WHERE ended_at_ns IS NOT NULL AND (ended_at_ns, num) > (?, ?) AND ended_at_ns < ?
    AND NOT EXISTS (SELECT 1 FROM {s}workers WHERE workers.id = runs.owner)"""
TAGGED = """EXISTS (
    SELECT 1 FROM {s}run_tags AS o
    WHERE o.key = ? AND o.value = ? AND o.started_at_ns = runs.created_at_ns AND o.run = runs.num
)"""
TOMBSTONES = f"SELECT {sql.TOMBSTONE_COLUMNS} FROM {{s}}tombstones WHERE id {{ids}}"

RESTARTS = "SELECT restarts, id FROM {s}runs WHERE restarts {ids} ORDER BY restarts, created_at_ns, num"

_FIELDS = [field.name for field in attrs.fields(RunRecord)]
_ID, _STATUS, _PAUSED = map(_FIELDS.index, ("id", "status", "paused"))
_ESCAPED = tuple(map(_FIELDS.index, ("reason", "restarts")))
"""Columns that may be empty, of texts that a dialect may have to escape."""


@attrs.frozen
class Filter:
    """What a query asks, as SQL."""

    rows: str
    """For FROM."""
    condition: str
    values: tuple[object, ...]
    order: str
    """For ORDER BY."""


def where(query: RunQuery) -> Filter:
    """What ``query`` asks, as a condition on ``runs``, and the values that it binds.

    Where tags are asked for, the first leads to the runs. But where open runs are, of which there are few, these are
    read and sorted: a walk along an index of all runs would pass the many that have ended. ``+ 0`` and ``|| ''`` keep a
    planner that knows no statistics from such a walk.
    """
    parts: list[str] = []
    values: list[object] = []
    rows, at, num = "{s}runs", "created_at_ns", "num"
    few = query.attention or (query.statuses is not None and query.statuses <= OPEN)
    if few:
        at = "created_at_ns + 0"
        parts += [TAGGED] * len(query.tags)
    elif query.tags:
        rows, at, num = "{s}run_tags AS tag CROSS JOIN {s}runs", "tag.started_at_ns", "tag.run"
        parts.append("num = tag.run AND tag.key = ? AND tag.value = ?")
        parts += [TAGGED] * (len(query.tags) - 1)
    values += [text for pair in query.tags for text in pair]
    for column, wanted in (("status", query.statuses), ("phase", query.phases)):
        if wanted is not None:
            marks = "= ?" if len(wanted) == 1 else f"IN ({', '.join('?' * len(wanted))})"
            parts.append(f"{column} {marks}" if wanted else "1 = 0")
            values.extend(sorted(map(str, wanted)))
    parts += _implied(query)
    if query.attention:
        asked = "SELECT num FROM {s}runs WHERE reason IS NOT NULL AND ended_at_ns IS NULL"
        if query.at_ns is not None:
            asked = f"{asked} UNION ALL SELECT num FROM {{s}}runs WHERE {NO_WORKER_SERVES}"
            values.append(query.at_ns)
        parts.append(f"num IN ({asked})")
    for text, value in (
        ("name || '' = ?" if few else "name = ?", query.name),
        ("version = ?", query.version),
        (f"{at} >= ?", query.since_ns),
        ("ended_at_ns < ?", query.ended_before_ns),
    ):
        if value is not None:
            parts.append(text)
            values.append(value)
    if query.after is not None:
        parts.append(f"({at}, {num}) {'>' if query.oldest_first else '<'} (?, ?)")
        values += query.after
    direction = "" if query.oldest_first else " DESC"
    return Filter(rows, " AND ".join(parts) or "1 = 1", tuple(values), f"{at}{direction}, {num}{direction}")


def _implied(query: RunQuery) -> list[str]:
    """What follows from the statuses asked for: nothing new, but it lets the index of these runs serve."""
    if query.statuses is None:
        return []
    if query.statuses <= OPEN:
        return ["ended_at_ns IS NULL"]
    if query.statuses <= ENDS - {RunStatus.COMPLETED}:
        return ["ended_at_ns IS NOT NULL AND status <> 'completed'"]
    return []


def select(query: RunQuery) -> tuple[str, tuple[object, ...]]:
    """The text and values of a list of runs."""
    asked = where(query)
    text = f"SELECT {sql.RUN_COLUMNS} FROM {asked.rows} WHERE {asked.condition} ORDER BY {asked.order}"
    return (text, asked.values) if query.limit is None else (f"{text} LIMIT ?", (*asked.values, query.limit))


def only(rows: Sequence[Row]) -> int | None:
    """The only value of the only row, if there is one."""
    return None if not rows or rows[0][0] is None else int(rows[0][0])


def number(rows: Sequence[Row]) -> int:
    """The only value of the only row."""
    return int(rows[0][0])


class Questions:
    """How rows are read in one dialect, and the questions that not only ``stores/asked.py`` asks."""

    def __init__(self, dialect: Dialect) -> None:
        self._greatest = dialect.greatest
        self._escaped = dialect.escaped
        self._plain = dialect.plain

    def to_run(self, row: Row) -> RunRecord:
        """The record of a row of ``sql.RUN_COLUMNS``."""
        values: list[Any] = list(row)  # the table's columns follow the record's fields
        values[_STATUS] = RunStatus(values[_STATUS])
        values[_PAUSED] = bool(values[_PAUSED])
        if self._plain is not None:
            values[_ID] = self._plain(values[_ID])
            for place in _ESCAPED:
                if values[place] is not None:
                    values[place] = self._plain(values[place])
        return RunRecord(*values)

    def to_runs(self, rows: Sequence[Row]) -> list[RunRecord]:
        """The records of such rows."""
        return list(map(self.to_run, rows))

    def plain(self, id_: str) -> str:
        """An id as it was before it was stored."""
        return id_ if self._plain is None else self._plain(id_)

    def _keys(self, ids: Collection[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(ids if self._escaped is None else map(self._escaped, ids)))

    def find(self, ids: Collection[str]) -> Question[list[RunRecord]]:
        """The runs with these ids."""
        return Question("look up an id", FIND, (), self.to_runs, keys=self._keys(ids), by=_ID)

    def find_nums(self, nums: Collection[int]) -> Question[list[RunRecord]]:
        """The runs with these numbers."""
        return Question("look up a number", FIND_NUMS, (), self.to_runs, keys=tuple(dict.fromkeys(nums)))

    def restarts(self, ids: Collection[str]) -> Question[dict[str, list[str]]]:
        """The ids of the runs that begin these again, by the id of the run that each begins again."""

        def read(rows: Sequence[Row]) -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for before, id_ in rows:
                found.setdefault(self.plain(before), []).append(self.plain(id_))
            return found

        return Question("look for restarts", RESTARTS, (), read, keys=self._keys(ids))

    def load(self, nums: Sequence[int]) -> Question[dict[int, list[Entry]]]:
        """The journals of these runs, each by ``seq``."""

        def read(rows: Sequence[Row]) -> dict[int, list[Entry]]:
            if len(nums) == 1:
                return {nums[0]: list(map(Entry._make, rows))}
            journals: dict[int, list[Entry]] = {num: [] for num in nums}
            for row in rows:
                journals[row[0]].append(Entry._make(row))
            return journals

        return Question("read journals", LOAD, (), read, keys=tuple(dict.fromkeys(nums)))

    def announced(self) -> Question[list[Announced]]:
        """All announced versions, with the live workers that serve them."""

        def read(rows: Sequence[Row]) -> list[Announced]:
            found = [
                Announced(
                    name, version, fingerprint, at_ns, tuple(sorted(row[4] for row in some if row[4] is not None))
                )
                for (name, version, fingerprint, at_ns), some in groupby(rows, key=itemgetter(0, 1, 2, 3))
            ]
            return sorted(found)  # by code point, whatever order the database has

        return Question("read announced versions", ANNOUNCED, (), read)

    def ended(
        self, *, before_ns: int, name: str | None, after: EndedRun | None, limit: int
    ) -> Question[list[EndedRun]]:
        """Runs that ended before that time, the longest ended first."""
        at_ns, num = (-1, -1) if after is None else (after.ended_at_ns, after.num)
        named = () if name is None else (name,)

        def read(rows: Sequence[Row]) -> list[EndedRun]:
            return [EndedRun(num, self.plain(id_), at_ns, last) for num, id_, at_ns, last in rows]

        only_named = "AND name || '' = ?" if named else ""  # not by the index of names: the longest ended come first
        text = f"{ENDED} {only_named} ORDER BY ended_at_ns, num LIMIT ?"
        values = (at_ns, num, before_ns, *named, max(limit, 0))
        return Question("look for what has ended", text, values, read, reads=Reads.ALL)

    def tombstones(self, ids: Collection[str]) -> Question[list[Tombstone]]:
        """The tombstones of these ids."""

        def read(rows: Sequence[Row]) -> list[Tombstone]:
            return [Tombstone(num, self.plain(id_), *rest) for num, id_, *rest in rows]

        return Question("look up what was purged", TOMBSTONES, (), read, keys=self._keys(ids), by=1)

    def facts(self, now_ns: int) -> Mapping[str, Question[Any]]:
        """How the runs stand: for each field of ``Facts`` that is read alike in both databases, its question.

        Beside them ``versions``, the open runs of each, and ``serving``, which worker serves what.
        """
        from durable_core.model.checkup import GRACE_NS  # noqa: PLC0415 - workers do without it

        # A wake of 0 says "at once": then the run is due since it was written, or since it was signalled.
        since = (
            f"{self._greatest}(wake_at_ns, updated_at_ns, "
            "coalesce((SELECT max(at_ns) FROM {s}signals WHERE run = runs.num), 0))"
        )
        due = (
            "ended_at_ns IS NULL AND owner IS NULL AND wake_at_ns IS NOT NULL AND paused = 0 AND status <> 'stuck' "
            f"AND {since} <= ?"
        )
        # Once a run has a phase (it is being undone, or past its pivot), its deadline is void.
        late = "ended_at_ns IS NULL AND phase = '' AND deadline_at_ns <= ? AND status <> 'stuck'"
        runnable = f"SELECT id, {since} FROM {{s}}runs WHERE {due} ORDER BY 2, num LIMIT 1"
        return {
            "statuses": _fact(
                "SELECT status, count(*) FROM {s}runs WHERE ended_at_ns IS NULL GROUP BY status",
                lambda rows: {status.value: 0 for status in sorted(OPEN)} | {row[0]: int(row[1]) for row in rows},
            ),
            "rows": _fact(
                f"SELECT {', '.join(f'(SELECT count(*) FROM {{s}}{table})' for table in COUNTED)}",
                lambda rows: dict(zip(COUNTED, map(int, rows[0]), strict=True)),
            ),
            "unswept": _fact("SELECT count(*) FROM {s}tombstones WHERE unswept = 1", only),
            "oldest_end_ns": _fact("SELECT min(ended_at_ns) FROM {s}runs WHERE ended_at_ns IS NOT NULL", only),
            "newest_at_ns": _fact(NEWEST, only),
            "runnable": _fact(
                runnable, lambda rows: (self.plain(rows[0][0]), int(rows[0][1])) if rows else None, now_ns
            ),
            "stuck": self._group("ended_at_ns IS NULL AND status = 'stuck'"),
            "overdue": self._group(due, now_ns - GRACE_NS),
            "past_deadline": self._group(late, now_ns - GRACE_NS),
            "paused": self._group("ended_at_ns IS NULL AND paused = 1"),
            "versions": _fact(
                "SELECT name, version, count(*) FROM {s}runs WHERE ended_at_ns IS NULL GROUP BY name, version",
                lambda rows: {(str(name), int(version)): int(count) for name, version, count in rows},
            ),
            "serving": _fact("SELECT worker, name, version FROM {s}serving", lambda rows: [tuple(row) for row in rows]),
        }

    def _group(self, condition: str, *values: int) -> "Question[Group]":
        """How many runs there are of a kind, and the ids of the first."""
        from durable_core.model.checkup import SHOWN, Group  # noqa: PLC0415 - as above

        text = f"""
SELECT (SELECT count(*) FROM {{s}}runs WHERE {condition}), id FROM {{s}}runs WHERE {condition}
ORDER BY num LIMIT {SHOWN}"""

        def read(rows: Sequence[Row]) -> Group:
            return Group(int(rows[0][0]) if rows else 0, tuple(self.plain(id_) for _, id_ in rows))

        return _fact(text, read, *values, *values)


COUNTED = ("runs", "journal", "signals", "tombstones", "workers", "served")
"""Tables whose rows a checkup counts."""


def _fact(text: str, read: Callable[[Sequence[Row]], T], *values: int) -> Question[T]:
    return Question("look into the store", text, values, read, reads=Reads.ALL)


def facts_of(answers: dict[str, Any], workers: "tuple[WorkerSeen, ...]") -> "Facts":
    """The facts, from the answers to ``Questions.facts`` and the workers that were seen."""
    from durable_core.model.checkup import Facts  # noqa: PLC0415 - as above

    alive = {worker.name for worker in workers if worker.alive}
    served = {(name, version) for worker, name, version in answers.pop("serving") if worker in alive}
    versions = answers.pop("versions")
    unserved = {version: count for version, count in versions.items() if version not in served}
    return Facts(**answers, workers=workers, unserved=unserved)
