"""The plans that PostgreSQL makes for the store's statements at 200,000 runs: the hot ones use their indexes."""

import asyncio
from collections.abc import Callable, Iterator

import attrs
import pytest

from durable_core import RunStatus
from durable_core.layer import RunQuery, open_store
from durable_core.model.run import Place
from durable_core.stores.asked import NEXT_WAKE, READ
from durable_core.stores.postgres import columns
from durable_core.stores.postgres.batch import OFTEN_ALIKE
from durable_core.stores.postgres.connect import connect
from durable_core.stores.postgres.in_doubt import _STRAY
from durable_core.stores.postgres.rows import Arrays, Form, Values
from durable_core.stores.postgres.signals import MANY, ONE
from durable_core.stores.postgres.statement import Parts, statement
from durable_core.stores.postgres.statements import TEMPLATES, Statements
from durable_core.stores.questions import FIND, FIND_NUMS, LOAD, select
from tests.postgres_server import Server

RUNS = 200_000
NOW_NS = 1_800_000_000_000_000_000

# Of a hundred runs 80 have ended, 15 wait for a later time, 2 are owned, 2 are due and one waits for a person.
FILL = f"""
INSERT INTO runs
    (num, id, uid, name, version, status, owner, wake_at_ns, input, created_at_ns, updated_at_ns, ended_at_ns, tags)
SELECT n, 'r' || n, '\\x00'::bytea, 'saga' || n % 20, 1,
    CASE WHEN n % 100 < 80 THEN 'completed' WHEN n % 100 < 95 THEN 'waiting' WHEN n % 100 < 97 THEN 'running'
        WHEN n % 100 < 99 THEN 'pending' ELSE 'stuck' END,
    CASE WHEN n % 100 BETWEEN 95 AND 96 THEN 'w' || n % 7 END,
    CASE WHEN n % 100 BETWEEN 80 AND 94 THEN {NOW_NS} + n WHEN n % 100 BETWEEN 97 AND 98 THEN 0 END,
    '\\x00'::bytea, n, n, CASE WHEN n % 100 < 80 THEN n END,
    CASE WHEN n % 10 = 0 THEN '{{"customer":"' || n % 1000 || '"}}' END
FROM generate_series(1, {RUNS}) AS n;
INSERT INTO journal (run, seq, kind, key, attempt, label, at_ns, worker)
SELECT n, seq, 'started', 'charge', 1, 'step', n, 'w' || n % 7
FROM generate_series(1, {RUNS}) AS n, generate_series(1, 2) AS seq;
INSERT INTO signals (run, name, payload, at_ns)
SELECT n * 100, 'cancel', '\\x00'::bytea, 1 FROM generate_series(1, 50) AS n;
INSERT INTO workers (id, pid, host, started_at_ns, lease_until_ns)
SELECT 'w' || n, 1, 'h', 1, {NOW_NS} FROM generate_series(0, 6) AS n;
ANALYZE;
"""


@attrs.frozen
class Filled:
    """A schema with many runs, and a way to ask for plans."""

    statements: Statements
    plan: Callable[..., str]


class Typed(str):
    """A value as SQL has it, with its type."""

    __slots__ = ()


def literal(value: object) -> str:
    """A value as SQL has it."""
    if isinstance(value, Typed):
        return value
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(literal, value))}]"
    return str(value) if isinstance(value, int) else f"'{value}'"


@pytest.fixture(scope="module")
def filled(server: Server) -> Iterator[Filled]:
    """The schema, made once for all these tests."""
    url = server.fresh()
    schema = url.rpartition("=")[2]
    with asyncio.Runner() as runner:

        async def fill() -> object:
            store = open_store(url)
            await store.open(worker=None)
            await store.close()
            connection = await connect(server.url())
            await connection.execute(f"SET search_path TO {schema}; {FILL}", timeout=120)
            return connection

        connection = runner.run(fill())

        async def plan(text: str, mode: str, *values: object) -> str:
            await connection.execute(f"SET plan_cache_mode = force_{mode}_plan; PREPARE asked AS {text}")
            call = f"({', '.join(map(literal, values))})" if values else ""
            rows = await connection.fetch(f"EXPLAIN EXECUTE asked{call}")
            await connection.execute("DEALLOCATE asked")
            return "\n".join(str(row[0]) for row in rows)

        yield Filled(Statements(f'"{schema}"'), lambda *asked: runner.run(plan(*asked)))
        runner.run(connection.close())


NAMES = [f"saga{n}" for n in range(20)]
DUE = (NAMES, [1] * 20, NOW_NS, 40)
ALIKE = frozenset(OFTEN_ALIKE & columns.UPDATE.keys())
UPDATE = ["waiting", "", None, 1, 0, None, None, None, None, 1, None, None, None, 95]


def update_values(form: Form) -> list[Typed]:
    """An update of one run, each value typed as its parameter is."""
    alike = form.alike if isinstance(form, Arrays) else set(columns.UPDATE)
    return [
        Typed(f"{literal(value)}::{type_}" if name in alike else f"ARRAY[{literal(value)}]::{type_}[]")
        for value, (name, type_) in zip(UPDATE, columns.UPDATE.items(), strict=True)
    ]


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize(
    ("name", "values", "indexes"),
    [
        (LOAD, ([1, 2, 3],), ["journal_run_seq"]),
        (FIND, (["r1", "r2"],), ["runs_id_key"]),
        ("any_due", (*DUE[:3], 1), ["runs_due"]),
        ("due", (*DUE, 10), ["runs_due", "runs_pkey"]),
        ("claim", ("w1", [97, 98]), ["runs_pkey"]),
        ("claimed", ("w1", [97, 98]), ["runs_pkey"]),
        (NEXT_WAKE, (NOW_NS,), ["runs_open"]),
        (FIND_NUMS, ([97, 98],), ["runs_pkey"]),
        ("release", (["w1"],), ["runs_open"]),
        ("wake", ([97, 98],), ["runs_pkey"]),
    ],
)
def test_a_statement_uses_its_index(
    filled: Filled, name: str, values: tuple[object, ...], indexes: list[str], mode: str
):
    """No table of runs or entries is read as a whole, whether the plan is made for these values or for any."""
    check(filled.plan(filled.statements.of(TEMPLATES.get(name, name)), mode, *values), indexes)


def check(plan: str, indexes: list[str]) -> None:
    """The plan uses these indexes, and reads neither runs nor entries as a whole."""
    print(plan)
    assert "Seq Scan on runs" not in plan
    assert "Seq Scan on journal" not in plan
    for index in indexes:
        assert f" {index} " in plan


@pytest.mark.parametrize("form", [Values(1), Arrays(), Arrays(ALIKE)], ids=["values", "arrays", "alike"])
@pytest.mark.parametrize("mode", ["custom", "generic"])
def test_a_batch_finds_its_runs_by_number(filled: Filled, mode: str, form: Form):
    """An update of one run among many is not a walk through all, however the rows are bound."""
    text = statement(filled.statements.schema, Parts(worker=True, updates=form, consumed=True))
    check(filled.plan(text, mode, "w1", 1, *update_values(form), [7]), ["runs_pkey"])


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (RunQuery(), "runs_started"),
        (RunQuery(after=Place(5000, 5000)), "runs_started"),
        (RunQuery(after=Place(5000, 5000), oldest_first=True), "runs_started"),
        (RunQuery(statuses=frozenset({RunStatus.COMPLETED})), "runs_started"),
        (RunQuery(statuses=frozenset({RunStatus.FAILED}), after=Place(5000, 5000)), "runs_undone"),
        (RunQuery(statuses=frozenset({RunStatus.STUCK}), limit=None), "runs_"),
        (RunQuery(name="saga7", after=Place(5000, 5000)), "runs_named"),
        (RunQuery(tags=(("customer", "42"),), after=Place(5000, 5000)), "run_tags_pkey"),
    ],
)
def test_lists_use_an_index(filled: Filled, query: RunQuery, index: str):
    """A page of a list is not a walk through all runs."""
    text, values = select(query)
    plan = filled.plan(filled.statements.of(text), "custom", *values)
    print(plan)
    assert "Seq Scan" not in plan
    assert index in plan


def test_what_is_done_rarely_uses_an_index_too(filled: Filled):
    """Runs whose starter gave up are found by their numbers."""
    check(filled.plan(filled.statements.of(_STRAY), "custom", [1, 2], "w1"), ["runs_pkey"])


@pytest.mark.parametrize("mode", ["custom", "generic"])
def test_signals_find_their_runs_by_number(filled: Filled, mode: str):
    """One signal, and many in one statement."""
    one = (97, "cancel", "", 1, False, "c", "t")
    check(filled.plan(filled.statements.of(ONE), mode, *one), ["runs_pkey"])
    many = ([97, 98, 99], ["cancel"] * 3, "{a,b,c}", [1] * 3, [False] * 3, "c", "t")
    check(filled.plan(filled.statements.of(MANY), mode, *many), ["runs_pkey"])


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("worker", ["w1", "w99"])
def test_spans_are_read_from_a_position_on(filled: Filled, worker: str, mode: str):
    """What a worker has written is found from where its spans were exported, also where it has hardly written since."""
    check(filled.plan(filled.statements.of(READ), mode, 2 * RUNS - 10_000, worker, 2000), ["journal_pkey"])
