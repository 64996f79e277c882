"""What the memory store knows of versions: who serves which, which runs wait for one, and how many there are.

Invariant: the same rules as the SQL in ``sqlite/reader.py``; the store contract holds the two against each other.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from durable_core.model.run import RunRecord
from durable_core.model.version import Announced, Tally

Pair = tuple[str, int]


def announced(served: Mapping[Pair, tuple[str, int]], serving: Mapping[str, Collection[Pair]]) -> list[Announced]:
    """Every version with its fingerprint and the workers that serve it."""
    return [
        Announced(*pair, *what, workers=tuple(sorted(worker for worker, pairs in serving.items() if pair in pairs)))
        for pair, what in sorted(served.items())
    ]


def due(run: RunRecord, signalled: Collection[int], now_ns: int) -> bool:
    """Whether a worker that serves its version may claim ``run``."""
    return (
        run.ended_at_ns is None
        and run.owner is None
        and (not run.paused or run.num in signalled)
        and run.wake_at_ns is not None
        and run.wake_at_ns <= now_ns
    )


def tally(runs: Iterable[RunRecord]) -> list[Tally]:
    """How many of ``runs`` stand how, by version."""
    counted = Counter((run.name, run.version, run.status, run.phase) for run in runs)
    return [Tally(*group, runs=count) for group, count in sorted(counted.items())]
