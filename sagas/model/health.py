"""The health of a store's sagas, as findings: a pure function of the facts that the store reports about its runs."""

from collections.abc import Iterator, Mapping
from datetime import timedelta

from durable_core.layer import Facts, Finding, Group, Level, at

SLIGHT_NS = 1_000_000_000
"""Clocks may differ by this much before it is reported."""
MUCH_NS = 60 * SLIGHT_NS
"""A clock that is behind by more makes sagas wait for times that have passed."""


def judged(facts: Facts, *, now_ns: int) -> list[Finding]:
    """The findings about ``facts``, one for each check, in a fixed order."""
    return [
        _clock(facts, now_ns),
        _workers(facts),
        _stuck(facts.stuck),
        _overdue(facts, now_ns),
        _deadline(facts.past_deadline),
        _versions(facts.unserved),
        _open(facts),
        _kept(facts),
        _rows(facts),
    ]


def _clock(facts: Facts, now_ns: int) -> Finding:
    if facts.newest_at_ns is None or facts.newest_at_ns - now_ns < SLIGHT_NS:
        return Finding("clock", Level.OK, "not behind the newest row")
    level = Level.FAIL if facts.newest_at_ns - now_ns > MUCH_NS else Level.WARN
    behind = timedelta(seconds=(facts.newest_at_ns - now_ns) // 1_000_000_000)
    said = f"it is {behind} behind the newest row, of {at(facts.newest_at_ns):%Y-%m-%d %H:%M:%S} UTC"
    return Finding("clock", level, said, "set the clock of this machine; until then, time continues from that row's")


def _workers(facts: Facts) -> Finding:
    alive = [worker for worker in facts.workers if worker.alive]
    dead = len(facts.workers) - len(alive)
    said = ", ".join(f"{worker.name} (pid {worker.pid} on {worker.host})" for worker in alive) or "none alive"
    if dead:
        said += f"; {dead} died without signing off; the next worker that looks releases their sagas"
    if alive or not sum(facts.statuses.values()):
        return Finding("workers", Level.OK, said)
    return Finding("workers", Level.WARN, said, "open sagas wait for one: sagas worker MODULE")


def _stuck(stuck: Group) -> Finding:
    if not stuck.count:
        return Finding("stuck", Level.OK, "no saga is stuck")
    return Finding("stuck", Level.WARN, _group(stuck, "stuck"), "sagas show ID says why, and what to do")


def _overdue(facts: Facts, now_ns: int) -> Finding:
    if facts.overdue.count:
        said = _group(facts.overdue, "due for more than a minute, and no worker has taken them")
        if not any(worker.alive for worker in facts.workers):
            return Finding("overdue", Level.WARN, said, "start a worker that serves them: sagas worker MODULE")
        advice = "see `versions` below, the workers' logs, and whether --concurrency is used up"
        return Finding("overdue", Level.WARN, said, advice)
    if facts.runnable is None:
        return Finding("overdue", Level.OK, "no saga waits for a worker")
    saga_id, since_ns = facts.runnable
    waited_s = max(now_ns - since_ns, 0) / 1e9
    return Finding("overdue", Level.OK, f"none; {saga_id} has waited longest for a worker: {waited_s:.0f} s")


def _deadline(late: Group) -> Finding:
    if not late.count:
        return Finding("deadline", Level.OK, "no saga is past its deadline")
    said = _group(late, "past their deadline, and not being undone")
    return Finding(
        "deadline", Level.WARN, said, "a worker that serves them undoes them, after the step that is running has ended"
    )


def _versions(unserved: Mapping[tuple[str, int], int]) -> Finding:
    if not unserved:
        return Finding("versions", Level.OK, "a living worker serves every version that is open")
    said = ", ".join(f"{name} v{version} ({count} open)" for (name, version), count in sorted(unserved.items()))
    return Finding("versions", Level.WARN, f"no living worker serves {said}", "start a worker whose modules have them")


def _open(facts: Facts) -> Finding:
    said = ", ".join(f"{count} {status}" for status, count in facts.statuses.items() if count) or "none"
    paused = f"; {_group(facts.paused, 'paused')}" if facts.paused.count else ""
    return Finding("open", Level.OK, f"{said}{paused}")


def _kept(facts: Facts) -> Finding:
    ended = facts.rows["runs"] - sum(facts.statuses.values())
    said = f"{ended} ended sagas are kept"
    if facts.oldest_end_ns is not None:
        said += f", the oldest since {at(facts.oldest_end_ns):%Y-%m-%d}"
    said += f"; the ids of {facts.rows['tombstones']} purged ones stay refused"
    if facts.unswept:
        said += f"; the next purge removes the journals of {facts.unswept} purged ones"
    return Finding("kept", Level.OK, said)


def _rows(facts: Facts) -> Finding:
    return Finding("rows", Level.OK, ", ".join(f"{table} {count}" for table, count in facts.rows.items()))


def _group(group: Group, what: str) -> str:
    return f"{group.count} {what}: {', '.join(_ids(group))}"


def _ids(group: Group) -> Iterator[str]:
    yield from group.ids
    if group.count > len(group.ids):
        yield "..."
