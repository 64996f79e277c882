"""The versions of a store as people see them: which are open, which can be retired, and which no worker serves."""

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

import attrs

from durable_core.model.duration import at
from durable_core.model.run import RunStatus
from durable_core.model.version import Announced, Tally

StatusT = TypeVar("StatusT")


class VersionVerdict(StrEnum):
    """What the numbers of a version mean."""

    NEW = "new"
    """The newest, and nothing has been started with it yet."""
    IN_USE = "in use"
    """Runs of it are open and served, or new ones begin with it."""
    CAN_BE_RETIRED = "can be retired"
    """No run of it is open and there is a newer version: its code may go."""
    UNSERVED = "unserved"
    """Runs of it are open, and no living worker serves it: they stand still, or will once they are due."""


@attrs.frozen(kw_only=True)
class VersionInfo(Generic[StatusT]):
    """One version of one durable function in a store."""

    name: str
    version: int
    verdict: VersionVerdict
    newest: bool
    """Whether it is the highest version of this name that the store knows."""
    open: dict[StatusT, int]
    """How many of its runs have not ended, by status; only those statuses that occur."""
    ended: int
    """How many of its runs have ended."""
    workers: tuple[str, ...]
    """The living workers that serve it, by name."""
    fingerprint: str
    """Of its body, as announced last; empty where it was announced without one, or never."""
    announced_at: datetime | None
    """When that body was announced first."""


def versions_of(
    announced: Sequence[Announced],
    tallies: Sequence[Tally],
    *,
    status_of: Callable[[RunStatus, str], StatusT],
    open: Sequence[StatusT],  # noqa: A002
) -> list[VersionInfo[StatusT]]:
    """Every version that a worker has announced or that has runs, by name, the newest first.

    Args:
        announced: what workers have announced.
        tallies: how many runs there are of each version.
        status_of: what the layer makes of a run's status and phase.
        open: the layer's statuses of runs that have not ended, in order.
    """
    known = {(each.name, each.version): each for each in announced}
    counted: dict[tuple[str, int], dict[StatusT, int]] = {pair: {} for pair in known}
    for each in tallies:
        found, status = counted.setdefault((each.name, each.version), {}), status_of(each.status, each.phase)
        found[status] = found.get(status, 0) + each.runs
    newest = dict(sorted(counted))  # the highest version of a name comes last
    return [
        _version_info(pair, known.get(pair), counted[pair], open, newest=pair[1] == newest[pair[0]])
        for pair in sorted(counted, key=lambda pair: (pair[0], -pair[1]))
    ]


def _version_info(
    pair: tuple[str, int],
    announced: Announced | None,
    counted: dict[StatusT, int],
    open: Sequence[StatusT],  # noqa: A002
    *,
    newest: bool,
) -> VersionInfo[StatusT]:
    going = {status: counted[status] for status in open if status in counted}
    ended = sum(counted.values()) - sum(going.values())
    workers = () if announced is None else announced.workers
    return VersionInfo(
        name=pair[0],
        version=pair[1],
        verdict=_verdict(open=bool(going), ended=bool(ended), served=bool(workers), newest=newest),
        newest=newest,
        open=going,
        ended=ended,
        workers=workers,
        fingerprint="" if announced is None else announced.fingerprint,
        announced_at=None if announced is None else at(announced.at_ns),
    )


def _verdict(*, open: bool, ended: bool, served: bool, newest: bool) -> VersionVerdict:  # noqa: A002
    if open:
        return VersionVerdict.IN_USE if served else VersionVerdict.UNSERVED
    if not newest:
        return VersionVerdict.CAN_BE_RETIRED
    return VersionVerdict.IN_USE if ended else VersionVerdict.NEW
