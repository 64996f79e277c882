"""A look at a PostgreSQL store from outside: its server, its schema and its runs. Nothing is made or changed.

Invariant: it works beside workers and without them, and also where a store cannot be opened: then it says why.
"""

from collections.abc import Sequence

from durable_core.errors import StoreError
from durable_core.model.checkup import GRACE_NS, SHOWN, Checkup, Facts, Finding, Group, Level, WorkerSeen
from durable_core.model.run import OPEN
from durable_core.stores.postgres import refusals, schema
from durable_core.stores.postgres.address import Place
from durable_core.stores.postgres.connect import connect
from durable_core.stores.postgres.connection import CAUGHT, Connection
from durable_core.stores.postgres.nul import plain
from durable_core.stores.postgres.spans import NEWEST
from durable_core.stores.postgres.statements import NOW_NS

TABLES = ("runs", "journal", "signals", "tombstones", "workers", "served")
FEW = 10
"""Connections left that are worth a warning."""

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound
OPEN_RUNS = "ended_at_ns IS NULL"
# A wake of 0 says "at once": then it is due since it was written, or since somebody signalled it.
SINCE = (
    "greatest(wake_at_ns, updated_at_ns, (SELECT max(at_ns) FROM {s}.signals WHERE run = r.num))"
    " + CASE WHEN wake_at_ns IS NULL THEN NULL ELSE 0 END"
)
DUE = f"{OPEN_RUNS} AND owner IS NULL AND paused = 0 AND status <> 'stuck' AND {SINCE} <= $1"
# Once a run has a phase (it is being undone, or past its pivot), its deadline is void.
LATE = f"{OPEN_RUNS} AND phase = '' AND deadline_at_ns <= $1 AND status <> 'stuck'"
UNSERVED = f"""
SELECT name, version, count(*) FROM {{s}}.runs AS r
WHERE {OPEN_RUNS} AND NOT EXISTS (
    SELECT 1 FROM {{s}}.serving AS v JOIN {{s}}.workers AS w ON w.id = v.worker
    WHERE v.name = r.name AND v.version = r.version AND w.lease_until_ns >= {NOW_NS}
)
GROUP BY name, version
"""
ROOM = """
SELECT current_setting('max_connections')::int8
        - (SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'client%'),
    pg_database_size(current_database()), current_setting('fsync'), current_setting('synchronous_commit')
"""
GAPS = """
SELECT count(*) FROM (
    SELECT run FROM {s}.journal AS j WHERE EXISTS (SELECT 1 FROM {s}.runs WHERE num = j.run)
    GROUP BY run HAVING count(*) <> max(seq)
) AS torn
"""
MIB = 1 << 20


async def check_up(place: Place, *, now_ns: int, deep: bool) -> Checkup:
    """Look at the store at ``place``; with ``deep``, read every journal of it too."""
    try:
        connection = await connect(place.dsn)
    except CAUGHT as error:
        return _failed(
            "server", refusals.explain(error, place=place.shown, doing="look at it", outcome="nothing was changed")
        )
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
        told = refusals.explain(error, place=place.shown, doing="look into it", outcome="nothing was changed")
        return _failed("database", told)
    finally:
        await connection.close()


def _failed(check: str, error: StoreError) -> Checkup:
    what, _, advice = str(error.args[0]).rpartition(" [")[0].partition("What to do: ")
    return Checkup((Finding(check, Level.FAIL, what.rstrip(), advice),), None)


class _Look:
    """The questions, on a connection, about one schema."""

    def __init__(self, connection: Connection, quoted: str, now_ns: int) -> None:
        self._connection = connection
        self._quoted = quoted
        self._now_ns = now_ns

    def _text(self, text: str) -> str:
        return text.replace("{s}", self._quoted)

    async def server(self, place: Place) -> Finding:
        version = await self._connection.fetchval("SELECT current_setting('server_version')")
        return Finding("server", Level.OK, f"PostgreSQL {version} at {place.shown}")

    async def durability(self) -> Finding:
        _, _, fsync, commit = await self._connection.fetchrow(ROOM) or (0, 0, "", "")
        if fsync == "on" and commit != "off":
            return Finding("settings", Level.OK, f"fsync=on, synchronous_commit={commit}")
        told = f"fsync={fsync}, synchronous_commit={commit}: commits may be lost where the server's machine dies"
        return Finding("settings", Level.WARN, told, "set both to on, unless that is what you want")

    async def room(self) -> Finding:
        left, size, _, _ = await self._connection.fetchrow(ROOM) or (0, 0, "", "")
        told = f"{left} connections left; the database holds {size / MIB:.1f} MiB"
        if left < FEW:
            advice = "raise max_connections, or put a pooler before it; a worker takes three or four"
            return Finding("room", Level.WARN, told, advice)
        return Finding("room", Level.OK, told)

    async def sound(self) -> Finding:
        torn = await self._connection.fetchval(self._text(GAPS), timeout=600)
        if torn:
            advice = "report it as a bug; `sagas history ID` shows what is there"
            return Finding("integrity", Level.FAIL, f"{torn} journals have gaps", advice)
        return Finding("integrity", Level.OK, "every journal was read and is without gaps")

    async def facts(self) -> Facts:
        """How the runs stand."""
        ask, text = self._connection.fetchval, self._text
        since = text(SINCE)
        runnable = await self._connection.fetchrow(
            text(f"SELECT id, {since} FROM {{s}}.runs AS r WHERE {DUE} ORDER BY 2, num LIMIT 1"), self._now_ns
        )
        counts = {table: int(await ask(text(f"SELECT count(*) FROM {{s}}.{table}"), timeout=600)) for table in TABLES}
        return Facts(
            statuses=await self._statuses(),
            rows=counts,
            unswept=int(await ask(text("SELECT count(*) FROM {s}.tombstones WHERE unswept = 1"))),
            oldest_end_ns=await ask(text("SELECT min(ended_at_ns) FROM {s}.runs WHERE ended_at_ns IS NOT NULL")),
            newest_at_ns=await ask(text(NEWEST)),
            workers=await self._workers(),
            stuck=await self._group(f"{OPEN_RUNS} AND status = 'stuck'"),
            runnable=None if runnable is None else (plain(runnable[0]), int(runnable[1])),
            overdue=await self._group(DUE, self._now_ns - GRACE_NS),
            past_deadline=await self._group(LATE, self._now_ns - GRACE_NS),
            paused=await self._group(f"{OPEN_RUNS} AND paused = 1"),
            unserved={
                (str(name), int(version)): int(count)
                for name, version, count in await self._connection.fetch(text(UNSERVED))
            },
        )

    async def _statuses(self) -> dict[str, int]:
        text = self._text(f"SELECT status, count(*) FROM {{s}}.runs WHERE {OPEN_RUNS} GROUP BY status")
        found = {str(status): int(count) for status, count in await self._connection.fetch(text)}
        return {status.value: 0 for status in sorted(OPEN)} | found

    async def _group(self, condition: str, *values: int) -> Group:
        where = self._text(f"FROM {{s}}.runs AS r WHERE {condition}")
        count = await self._connection.fetchval(f"SELECT count(*) {where}", *values)
        ids: Sequence[Sequence[str]] = await self._connection.fetch(
            f"SELECT id {where} ORDER BY num LIMIT {SHOWN}", *values
        )
        return Group(int(count), tuple(plain(row[0]) for row in ids))

    async def _workers(self) -> tuple[WorkerSeen, ...]:
        text = self._text(
            f"SELECT id, pid, host, started_at_ns, lease_until_ns >= {NOW_NS} FROM {{s}}.workers "
            "ORDER BY started_at_ns, id"
        )
        rows = await self._connection.fetch(text)
        return tuple(
            WorkerSeen(str(id_), int(pid), str(host), int(at_ns), alive=alive) for id_, pid, host, at_ns, alive in rows
        )
