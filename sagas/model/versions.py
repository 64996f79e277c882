"""The versions of a store's sagas: who serves them and how many runs each has; so which can go and which are missed."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

import attrs

from durable_core import Announced, Tally
from sagas.model.info import SAGA_ENDS, SagaStatus, at, status_of


class VersionVerdict(StrEnum):
    """What the numbers come to."""

    NEW = "new"
    """The newest, and no saga has been started with it yet."""
    IN_USE = "in use"
    """Sagas of it are open and served, or new ones begin with it."""
    CAN_BE_RETIRED = "can be retired"
    """No saga of it is open and a newer version is there: its code may go."""
    WAITING_IN_VAIN = "waiting in vain"
    """Sagas of it are open, and no living worker serves it: they stand still, or will once their time comes."""


@attrs.frozen(kw_only=True)
class VersionInfo:
    """One version of one saga in a store."""

    saga: str
    version: int
    verdict: VersionVerdict
    newest: bool
    """Whether it is the highest version of its saga that the store knows."""
    open: dict[SagaStatus, int]
    """How many sagas of it have not ended, by status; only those statuses that occur."""
    ended: int
    """How many have."""
    workers: tuple[str, ...]
    """The living workers that serve it, by name."""
    fingerprint: str
    """Of its body, as announced last; empty where no worker has ever announced it."""
    announced_at: datetime | None
    """When that body was announced first."""


def versions_of(announced: Sequence[Announced], tallies: Sequence[Tally]) -> list[VersionInfo]:
    """Every version that a worker has announced or that has runs, by saga, the newest first."""
    known = {(each.name, each.version): each for each in announced}
    pairs = {*known, *((each.name, each.version) for each in tallies)}
    newest = {name: max(version for other, version in pairs if other == name) for name, _ in pairs}
    return [
        _version(
            name,
            version,
            known.get((name, version)),
            [each for each in tallies if (each.name, each.version) == (name, version)],
            newest=version == newest[name],
        )
        for name, version in sorted(pairs, key=lambda pair: (pair[0], -pair[1]))
    ]


def _version(
    name: str, version: int, announced: Announced | None, tallies: Sequence[Tally], *, newest: bool
) -> VersionInfo:
    counted: dict[SagaStatus, int] = {}
    for each in tallies:
        status = status_of(each.status, each.phase)
        counted[status] = counted.get(status, 0) + each.runs
    going = {status: counted[status] for status in SagaStatus if status in counted and status not in SAGA_ENDS}
    ended = sum(runs for status, runs in counted.items() if status in SAGA_ENDS)
    workers = () if announced is None else announced.workers
    return VersionInfo(
        saga=name,
        version=version,
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
        return VersionVerdict.IN_USE if served else VersionVerdict.WAITING_IN_VAIN
    if not newest:
        return VersionVerdict.CAN_BE_RETIRED
    return VersionVerdict.IN_USE if ended else VersionVerdict.NEW
