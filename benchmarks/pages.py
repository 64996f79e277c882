"""W7: pages of lists among 1,000,000 ended and 10,000 open sagas: how long the slowest of each kind takes.

The rows are put in by SQL, since what is measured is the reading, and each page is asked for as a program asks.
Run it on a new store: `python -m benchmarks.pages sqlite:////tmp/pages.db`.
"""

import asyncio
import sqlite3
import statistics
import time
from typing import Any

from sagas import Orchestrator, SagaSummary

ENDED, OPEN = 1_000_000, 10_000
PAGES = 5
BEGAN_NS = 1_790_000_000_000_000_000
# One in a hundred was compensated, one in ten thousand was killed; of the open ones one in a hundred is stuck.
ROWS = f"""
SELECT n AS num, 'order-' || n AS id, {{uid}} AS uid, 'order-' || (n % 20) AS name, 1 AS version,
    CASE WHEN n > {ENDED} THEN CASE WHEN n % 100 = 0 THEN 'stuck' ELSE 'waiting' END
        WHEN n % 10000 = 0 THEN 'killed' WHEN n % 100 = 0 THEN 'failed' ELSE 'completed' END AS status,
    CASE WHEN n <= {ENDED} AND n % 100 = 0 AND n % 10000 <> 0 THEN 'compensated/failed' ELSE '' END AS phase,
    CASE WHEN n > {ENDED} AND n % 100 <> 0 THEN {BEGAN_NS} * 2 + n END AS wake_at_ns,
    {{input}} AS input, CASE WHEN n > {ENDED} AND n % 100 = 0 THEN 'it needs a person' END AS reason,
    {BEGAN_NS} + n * 1000000 AS created_at_ns, {BEGAN_NS} + n * 1000000 AS updated_at_ns,
    CASE WHEN n <= {ENDED} THEN {BEGAN_NS} + n * 1000000 + 1 END AS ended_at_ns,
    CASE WHEN n % 10 = 0 THEN '{{{{"customer":"' || (n % 5000) || '","shop":"' || (n % 7) || '"}}}}' END AS tags
"""
COLUMNS = (
    "num, id, uid, name, version, status, phase, wake_at_ns, input, reason, created_at_ns, updated_at_ns, ended_at_ns, "
    "tags"
)
NUMBERS = f"WITH RECURSIVE n(n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM n WHERE n < {ENDED + OPEN})"
KINDS: dict[str, dict[str, Any]] = {
    "all": {},
    "oldest": {"order": "oldest"},
    "saga": {"saga": "order-7"},
    "completed": {"status": "completed"},
    "compensated": {"status": "compensated"},
    "killed": {"status": "killed"},
    "stuck": {"status": "stuck"},
    "waiting": {"status": "waiting", "saga": "order-3"},
    "attention": {"attention": True},
    "tag": {"tags": {"customer": "40"}},
    "tags": {"tags": {"customer": "40", "shop": "3"}},
    "tag-stuck": {"tags": {"shop": "3"}, "status": "stuck"},
}


async def w7(url: str) -> dict[str, float]:
    """The slowest of the first pages of each kind, in ms; beside them the median of all."""
    await _fill(url)
    figures: dict[str, float] = {}
    every: list[float] = []
    async with Orchestrator(url, worker=False) as orchestrator:
        for kind, filters in KINDS.items():
            took = await _pages(orchestrator, filters)
            figures[f"{kind}_ms"] = max(took) * 1e3
            every += took
    return figures | {"p50_ms": statistics.median(every) * 1e3, "worst_ms": max(every) * 1e3}


async def _pages(orchestrator: Orchestrator, filters: dict[str, Any]) -> list[float]:
    took: list[float] = []
    last: SagaSummary | None = None
    for _ in range(PAGES):
        began = time.perf_counter()
        page = await orchestrator.list(after=last, **filters)
        took.append(time.perf_counter() - began)
        if not page:
            break
        last = page[-1]
    return took


async def _fill(url: str) -> None:
    async with Orchestrator(url, worker=False):
        pass  # makes the tables
    if url.startswith("sqlite:///"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        rows = ROWS.format(uid="randomblob(16)", input="x'5b5d'")
        connection.execute(f"{NUMBERS} INSERT INTO runs ({COLUMNS}) {rows} FROM n")
        connection.commit()
        connection.close()
        return
    from durable_core.stores.postgres.address import place_of  # noqa: PLC0415 - asyncpg is an extra
    from durable_core.stores.postgres.connect import connect  # noqa: PLC0415

    place = place_of(url, {})
    connection_ = await connect(place.dsn)
    rows = ROWS.format(uid="decode(md5(n::text), 'hex')", input="'[]'::bytea")
    await connection_.execute(f'SET search_path TO "{place.schema}"')
    await connection_.execute(f"{NUMBERS} INSERT INTO runs ({COLUMNS}) {rows} FROM n", timeout=600)
    await connection_.execute("ANALYZE")
    await connection_.close()


if __name__ == "__main__":
    import sys

    for name, figure in asyncio.run(w7(sys.argv[1])).items():
        sys.stdout.write(f"{name:>16} {figure:8.2f}\n")
