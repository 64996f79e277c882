"""The statements of the PostgreSQL store but for those that write batches, for one schema.

Every table is named with its schema, because behind a pooler a search path does not stay set. Statements of several
parts stand beside the code that runs them.
"""

import functools
import itertools
import re

import attrs

from durable_core.stores.postgres import columns

# ruff: noqa: S608 - every statement here is put together from our own column names; values are bound

RUN = ", ".join(columns.RUN)
NOW_NS = "(extract(epoch FROM clock_timestamp()) * 1000000000)::int8"
CANDIDATES = 4
"""How many times as many runs as are asked for are looked at, so that workers which claim at once do not meet."""

SIGNALLED = 1 << 62
"""Set in a worker's count of batches by the sender of a signal for one of its runs.

Its next batch is refused then, and written again once the worker has seen which of its runs the signal is for."""
COUNTED = SIGNALLED - 1
"""The bits of the count itself."""

_OPEN = "ended_at_ns IS NULL AND owner IS NULL"
_MAY = "(paused = 0 OR EXISTS (SELECT 1 FROM {s}signals AS g WHERE g.run = r.num))"
_MATCH = f"r.{_OPEN} AND r.name = s.name AND r.version = s.version AND {_MAY}"
_DUE_NOW = f"""
SELECT r.num, r.updated_at_ns AS since FROM {{s}}runs AS r
WHERE {_MATCH} AND r.wake_at_ns = 0 AND r.wake_at_ns <= $3 ORDER BY r.wake_at_ns, r.updated_at_ns, r.num LIMIT $4"""
_DUE_SINCE = f"""
SELECT r.num, r.wake_at_ns AS since FROM {{s}}runs AS r
WHERE {_MATCH} AND r.wake_at_ns > 0 AND r.wake_at_ns <= $3 ORDER BY r.wake_at_ns, r.updated_at_ns, r.num LIMIT $4"""
_SERVED = "unnest($1::text[], $2::int8[]) AS s (name, version)"

# A run that waits for a person stays as it is, unless that person's signal waits already (see "wake").
_RELEASED = """
UPDATE {s}runs SET owner = NULL,
    wake_at_ns = CASE WHEN status <> 'stuck' THEN 0 ELSE wake_at_ns END
WHERE owner = ANY($1::text[]) AND ended_at_ns IS NULL RETURNING num"""

TEMPLATES = {
    "any_due": f"""
SELECT EXISTS (SELECT 1 FROM {_SERVED}, LATERAL ({_DUE_NOW}) AS d)
    OR EXISTS (SELECT 1 FROM {_SERVED}, LATERAL ({_DUE_SINCE}) AS d)""",
    # Each function gets its share of what is claimed, by age; so a flood of one holds up no other.
    "due": f"""
WITH found AS (
    SELECT s.name, d.num, d.since FROM {_SERVED}, LATERAL ({_DUE_NOW}) AS d
    UNION ALL
    SELECT s.name, d.num, d.since FROM {_SERVED}, LATERAL ({_DUE_SINCE}) AS d
), ranked AS (
    SELECT num, since, row_number() OVER (PARTITION BY name ORDER BY since, num) AS rank FROM found
    ORDER BY rank, since, num LIMIT $4
)
SELECT {", ".join(f"r.{column}" for column in columns.RUN)}, k.since
FROM ranked AS k JOIN {{s}}runs AS r ON r.num = k.num
WHERE r.{_OPEN} ORDER BY k.rank, k.since, k.num LIMIT $5 FOR UPDATE OF r SKIP LOCKED""",
    "alive": "SELECT 1 FROM {s}workers WHERE id = $1 FOR KEY SHARE",
    # A stuck run that is claimed because a retry beside what it is stuck on fell due is stuck all the same.
    "claim": """
UPDATE {s}runs SET owner = $1, status = CASE WHEN status = 'stuck' THEN status ELSE 'running' END,
    wake_at_ns = CASE WHEN status = 'stuck' THEN wake_at_ns END
WHERE num = ANY($2::int8[])""",
    "claimed": f"SELECT {RUN} FROM {{s}}runs WHERE num = ANY($2::int8[]) AND owner = $1 FOR UPDATE",
    "leases": f"""
SELECT id, lease_until_ns, {NOW_NS}, (extract(epoch FROM pg_postmaster_start_time()) * 1000000000)::int8
FROM {{s}}workers WHERE id IS DISTINCT FROM $1""",
    # A worker that has renewed since is left alone, also if this waits for the row: the condition is judged again, on
    # the row as it is.
    "remove_dead": """
WITH dead AS (
    SELECT w.id FROM {s}workers AS w JOIN unnest($1::text[], $2::int8[]) AS d (id, until_ns)
        ON w.id = d.id AND w.lease_until_ns = d.until_ns
    ORDER BY w.id FOR UPDATE OF w
)
DELETE FROM {s}workers AS w USING dead WHERE w.id = dead.id RETURNING w.id""",
    "leave": "DELETE FROM {s}workers WHERE id = $1",
    "serves_no_more": "DELETE FROM {s}serving WHERE worker = ANY($1::text[])",
    "release": _RELEASED,
    # In a statement of its own, after runs were let go and while their rows are locked: a signal that came before is
    # seen now, and one that comes later finds them without an owner.
    "wake": f"""
UPDATE {{s}}runs AS r SET wake_at_ns = 0, status = CASE WHEN status = 'stuck' THEN 'pending' ELSE status END
WHERE r.num = ANY($1::int8[]) AND r.{_OPEN} AND EXISTS (SELECT 1 FROM {{s}}signals AS g WHERE g.run = r.num)""",
    "enter": f"""
INSERT INTO {{s}}workers (id, pid, host, started_at_ns, lease_until_ns)
VALUES ($1, $2, $3, {NOW_NS}, {NOW_NS} + $4) ON CONFLICT DO NOTHING RETURNING 1""",
    "entered": f"""
UPDATE {{s}}workers SET lease_until_ns = {NOW_NS} + $4
WHERE id = $1 AND pid = $2 AND host = $3 AND batch = 0 RETURNING 1""",
    "renew": f"UPDATE {{s}}workers SET lease_until_ns = {NOW_NS} + $2 WHERE id = $1 RETURNING {NOW_NS}",
    # Asked before the signals are: one that is left later raises the flag again, and the batch is refused again.
    "count": f"""
UPDATE {{s}}workers SET batch = batch & {COUNTED} WHERE id = $1 RETURNING batch""",
    "signalled_of_worker": """
SELECT DISTINCT g.run FROM {s}signals AS g JOIN {s}runs AS r ON r.num = g.run WHERE r.owner = $1""",
    "signalled": "SELECT num, run FROM {s}signals WHERE run = ANY($1::int8[])",
    "clock": f"SELECT {NOW_NS}",
    "numbers": "SELECT nextval('{s}run_numbers')",
    "notify": "SELECT pg_notify($1, $2)",
    "serve": """
INSERT INTO {s}served AS v (name, version, fingerprint, at_ns) VALUES ($1, $2, $3, $4)
ON CONFLICT (name, version) DO UPDATE SET fingerprint = excluded.fingerprint, at_ns = excluded.at_ns
WHERE excluded.fingerprint NOT IN ('', v.fingerprint)""",
    "serving": "INSERT INTO {s}serving (name, version, worker) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
}


@attrs.frozen
class Statements:
    """The statements for ``schema`` (quoted)."""

    schema: str

    def __getitem__(self, name: str) -> str:
        """The statement of this name."""
        return self.of(TEMPLATES[name])

    def of(self, template: str) -> str:
        """A statement for this schema; a template may also be the text of a ``Question``."""
        return _statement(self.schema, template)


@functools.lru_cache(maxsize=1000)
def _statement(schema: str, template: str) -> str:
    text = template.replace("{s}", f"{schema}.")
    text = text.replace("{nums}", "= ANY(?::int8[])").replace("{ids}", "= ANY(?::text[])")
    numbers = itertools.count(1)
    return re.sub(r"[?]", lambda _: f"${next(numbers)}", text)
