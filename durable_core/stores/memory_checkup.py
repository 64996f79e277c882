"""The facts of a checkup, about a store in memory, which has no files to judge."""

from collections import Counter
from typing import TYPE_CHECKING

from durable_core.model.checkup import GRACE_NS, SHOWN, Checkup, Facts, Finding, Group, Level, WorkerSeen
from durable_core.model.run import OPEN, RunRecord, RunStatus

if TYPE_CHECKING:
    from durable_core.stores.memory import MemoryData


class Examined:
    """The part of the memory store that is looked at."""

    data: "MemoryData"

    async def last_seen_ns(self) -> int | None:
        """The last time that was written; see ``Store.last_seen_ns``."""
        data = self.data
        times = [data.runs[num].updated_at_ns for num in list(data.runs)[-1:]]
        if data.order:
            run, seq = data.order[-1]
            times += [entry.at_ns for entry in [data.journals.get(run, {}).get(seq)] if entry is not None]
        return max(times, default=None)

    async def check_up(self, *, now_ns: int, deep: bool) -> Checkup:  # noqa: ARG002 - the port's
        """Look at it from outside; see ``Store.check_up``."""
        findings = (Finding("file", Level.OK, "a store in memory: nothing outlasts the process"),)
        return Checkup(findings, self._facts(now_ns))

    def _facts(self, now_ns: int) -> Facts:
        data = self.data
        runs = [run for _, run in sorted(data.runs.items())]
        open_runs = [run for run in runs if run.ended_at_ns is None]
        alive = [name for name, store in data.workers.items() if store.alive]
        served = {pair for name in alive for pair in data.serving.get(name, ())}
        due = [run for run in open_runs if _is_due(run, now_ns)]
        longest = min(due, key=lambda run: (_due_since_ns(run), run.num), default=None)
        journal = [entry for entries in data.journals.values() for entry in entries.values()]
        times = [run.updated_at_ns for run in runs] + [entry.at_ns for entry in journal]
        late = [run for run in open_runs if run.status is not RunStatus.STUCK and not run.phase]
        rows = (len(runs), len(journal), len(data.signals), len(data.tombstones), len(data.workers), len(data.served))
        return Facts(
            statuses={status.value: 0 for status in sorted(OPEN)} | Counter(run.status.value for run in open_runs),
            rows=dict(zip(("runs", "journal", "signals", "tombstones", "workers", "served"), rows, strict=True)),
            unswept=len(data.unswept),
            oldest_end_ns=min((run.ended_at_ns for run in runs if run.ended_at_ns is not None), default=None),
            newest_at_ns=max(times, default=None),
            workers=tuple(WorkerSeen(name, 0, "", 0, alive=store.alive) for name, store in data.workers.items()),
            stuck=_group([run for run in open_runs if run.status is RunStatus.STUCK]),
            runnable=None if longest is None else (longest.id, _due_since_ns(longest)),
            overdue=_group([run for run in due if _is_due(run, now_ns - GRACE_NS)]),
            past_deadline=_group(
                [run for run in late if run.deadline_at_ns is not None and run.deadline_at_ns <= now_ns - GRACE_NS]
            ),
            paused=_group([run for run in open_runs if run.paused]),
            unserved=Counter((run.name, run.version) for run in open_runs if (run.name, run.version) not in served),
        )


def _is_due(run: RunRecord, now_ns: int) -> bool:
    return (
        run.owner is None
        and not run.paused
        and run.status is not RunStatus.STUCK
        and run.wake_at_ns is not None
        and _due_since_ns(run) <= now_ns
    )


def _due_since_ns(run: RunRecord) -> int:
    """A wake of 0 says "at once", so it is due since it was written."""
    return max(run.wake_at_ns or 0, run.updated_at_ns)


def _group(runs: list[RunRecord]) -> Group:
    return Group(len(runs), tuple(run.id for run in runs[:SHOWN]))
