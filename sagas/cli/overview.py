"""A store at a glance: how many sagas are in which state, what needs attention, and what is newest."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from durable_core.layer import at
from sagas.cli.durations import moment
from sagas.cli.output import Line, Piece, clean
from sagas.cli.views import MEANINGS, sagas_table, summary
from sagas.model.info import SagaSummary
from sagas.model.phases import SAGA_ENDS, SagaStatus
from sagas.model.versions import VersionInfo

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator

OPEN = tuple(status for status in SagaStatus if status not in SAGA_ENDS)
FIXED = 9
"""Lines of a screen that are always there: heads, titles, blanks."""
LEAST = 4
"""How many rows a table has at least, however low the screen."""


@attrs.frozen
class Overview:
    """A store at one moment."""

    versions: Sequence[VersionInfo]
    attention: Sequence[SagaSummary]
    """The newest of those that need it."""
    needing: int
    """How many need attention."""
    newest: Sequence[SagaSummary]
    now_ns: int

    @property
    def open(self) -> Mapping[SagaStatus, int]:
        """How many sagas have not ended, by status; every open status is there."""
        tally = Counter[SagaStatus](dict.fromkeys(OPEN, 0))
        for version in self.versions:
            tally.update(version.open)
        return tally

    @property
    def ended(self) -> int:
        """How many sagas in the store have ended."""
        return sum(version.ended for version in self.versions)

    @property
    def workers(self) -> Sequence[str]:
        """The living workers, by name."""
        return sorted({worker for version in self.versions for worker in version.workers})

    def rates_since(self, before: "Overview") -> tuple[float, float]:
        """How many sagas started, and how many ended, per second since ``before``; a purge counts as neither."""
        seconds = max((self.now_ns - before.now_ns) / 1e9, 1e-3)
        started = self.ended + sum(self.open.values()) - before.ended - sum(before.open.values())
        return max(0.0, started / seconds), max(0.0, (self.ended - before.ended) / seconds)


async def look(orchestrator: "Orchestrator", *, rows: int) -> Overview:
    """Look at the store; at most ``rows`` sagas of each kind are read."""
    return Overview(
        versions=await orchestrator.versions(),
        attention=await orchestrator.list(attention=True, limit=rows),
        needing=await orchestrator.count(attention=True),
        newest=await orchestrator.list(limit=rows),
        now_ns=orchestrator.engine.clock.now_ns(),
    )


def rows_for(height: int) -> int:
    """How many sagas of each kind a screen of so many lines can show."""
    return max(LEAST, (height - FIXED) // 2)


def lines_of(
    overview: Overview, *, store: str, width: int, height: int | None = None, before: Overview | None = None
) -> list[Line]:
    """A screen.

    Args:
        overview: the state now.
        store: its address, without secrets.
        width: of the screen, in cells.
        height: of the screen, in lines; what needs attention takes at most half of it. None: as many as needed.
        before: an earlier state, for the rates.
    """
    found: list[Line] = [(Piece(clean(store), "bold"), Piece(f"  {moment(at(overview.now_ns))}", "dim"))]
    found += [_activity(overview, before), tuple(_tally(overview)), ()]
    if overview.needing:
        found.append((Piece(f"needs attention ({overview.needing})", "bold red"),))
        table = sagas_table(overview.attention, now_ns=overview.now_ns, width=width, reasons=True)
        found += table if height is None else _cut(table, max(LEAST, (height - FIXED) // 2))
    else:
        found.append((Piece("nothing needs attention", "green"),))
    found.append(())
    if overview.newest:
        found.append((Piece("newest", "bold"),))
        found += sagas_table(overview.newest, now_ns=overview.now_ns, width=width)
    else:
        found.append((Piece("no sagas yet"),))
    return found


def _cut(lines: Sequence[Line], room: int) -> Sequence[Line]:
    more: Line = (Piece("... `sagas list --attention` shows the rest", "dim"),)
    return lines if len(lines) <= room else [*lines[: room - 1], more]


def _activity(overview: Overview, before: Overview | None) -> Line:
    count = len(overview.workers)
    pieces = [Piece(f"{count} worker{'' if count == 1 else 's'}", "" if count else "bold red")]
    if before is not None:
        started, ended = overview.rates_since(before)
        pieces.append(Piece(f"   started {started:.1f}/s   ended {ended:.1f}/s"))
    return tuple(pieces)


def _tally(overview: Overview) -> Iterator[Piece]:
    for status, count in overview.open.items():
        yield Piece(f"{status} ", "dim")
        yield Piece(f"{count:,}   ", MEANINGS[status].style if count else "dim")
    yield Piece("ended ", "dim")
    yield Piece(f"{overview.ended:,}")


def document_of(overview: Overview) -> dict[str, Any]:
    """The same as one document."""
    return {
        "at": at(overview.now_ns),
        "workers": overview.workers,
        "open": {status.value: count for status, count in overview.open.items()},
        "ended": overview.ended,
        "attention": {"count": overview.needing, "sagas": [summary(info) for info in overview.attention]},
        "newest": [summary(info) for info in overview.newest],
    }
