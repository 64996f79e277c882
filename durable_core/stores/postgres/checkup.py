"""A look at a PostgreSQL store from outside: its server, its schema and its runs. Nothing is made or changed.

Invariant: it works beside workers and without them, and also where a store cannot be opened: then it says why.
"""

from typing import Any

from durable_core.errors import StoreError
from durable_core.model.checkup import Checkup, Facts, Finding, Level, WorkerSeen
from durable_core.stores.postgres import refusals, schema
from durable_core.stores.postgres.address import Place
from durable_core.stores.postgres.connect import connect
from durable_core.stores.postgres.connection import CAUGHT, Connection
from durable_core.stores.postgres.database import QUESTIONS
from durable_core.stores.postgres.statements import NOW_NS, Statements
from durable_core.stores.questions import facts_of

FEW = 10
"""Connections left that are worth a warning."""

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound
ROOM = """
SELECT current_setting('max_connections')::int8
        - (SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'client%'),
    pg_database_size(current_database()), current_setting('fsync'), current_setting('synchronous_commit')
"""
GAPS = """
SELECT count(*) FROM (
    SELECT run FROM {s}journal AS j WHERE EXISTS (SELECT 1 FROM {s}runs WHERE num = j.run)
    GROUP BY run HAVING count(*) <> max(seq)
) AS torn
"""
MIB = 1 << 20


async def check_up(place: Place, *, now_ns: int, deep: bool) -> Checkup:
    """Look at the store at ``place``; with ``deep``, read every journal of it too."""
    try:
        connection = await connect(place.dsn)
    except CAUGHT as error:
        return _failed("server", refusals.explain(error, place=place.shown, doing="look at it", outcome=""))
    try:
        name = await schema.checked(connection, place)
        look = _Look(connection, f"{schema.quoted(name)}", now_ns)
        findings = [await look.server(place), await look.durability(), await look.room()]
        findings.append(Finding("format", Level.OK, f"stored format {schema.FORMAT}, schema {name!r}"))
        if deep:
            findings.append(await look.sound())
        return Checkup(tuple(findings), await look.facts())
    except StoreError as error:
        return _failed("format", error)
    except CAUGHT as error:
        what = refusals.explain(error, place=place.shown, doing="look into it", outcome="")
        return _failed("database", what)
    finally:
        await connection.close()


def _failed(check: str, error: StoreError) -> Checkup:
    return Checkup((Finding(check, Level.FAIL, error.text, error.advice),), None)


class _Look:
    """The questions, on a connection, about one schema."""

    def __init__(self, connection: Connection, quoted: str, now_ns: int) -> None:
        self._connection = connection
        self._text = Statements(quoted).of
        self._now_ns = now_ns

    async def server(self, place: Place) -> Finding:
        version = await self._connection.fetchval("SELECT current_setting('server_version')")
        return Finding("server", Level.OK, f"PostgreSQL {version} at {place.shown}")

    async def durability(self) -> Finding:
        _, _, fsync, commit = await self._connection.fetchrow(ROOM) or (0, 0, "", "")
        if fsync == "on" and commit != "off":
            return Finding("settings", Level.OK, f"fsync=on, synchronous_commit={commit}")
        what = f"fsync={fsync}, synchronous_commit={commit}: commits may be lost where the server's machine dies"
        return Finding("settings", Level.WARN, what, "set both to on, unless that is what you want")

    async def room(self) -> Finding:
        left, size, _, _ = await self._connection.fetchrow(ROOM) or (0, 0, "", "")
        what = f"{left} connections left; the database holds {size / MIB:.1f} MiB"
        if left < FEW:
            advice = "raise max_connections, or put a pooler before it; a worker takes three or four"
            return Finding("room", Level.WARN, what, advice)
        return Finding("room", Level.OK, what)

    async def sound(self) -> Finding:
        torn = await self._connection.fetchval(self._text(GAPS), timeout=600)
        if torn:
            advice = "report it as a bug; `sagas history ID` shows what is there"
            return Finding("integrity", Level.FAIL, f"{torn} journals have gaps", advice)
        return Finding("integrity", Level.OK, "every journal was read and is without gaps")

    async def facts(self) -> Facts:
        """How the runs stand."""
        answers: dict[str, Any] = {}
        for name, question in QUESTIONS.facts(self._now_ns).items():
            rows = await self._connection.fetch(self._text(question.text), *question.values, timeout=600)
            answers[name] = question.read(rows)
        return facts_of(answers, await self._workers())

    async def _workers(self) -> tuple[WorkerSeen, ...]:
        text = self._text(
            f"SELECT id, pid, host, started_at_ns, lease_until_ns >= {NOW_NS} FROM {{s}}workers "
            "ORDER BY started_at_ns, id"
        )
        rows = await self._connection.fetch(text)
        return tuple(
            WorkerSeen(str(id_), int(pid), str(host), int(at_ns), alive=alive) for id_, pid, host, at_ns, alive in rows
        )
