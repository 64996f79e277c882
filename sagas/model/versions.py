"""The versions of a store's sagas: which workers serve them and how many runs each has, so which can be retired."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from durable_core import VersionVerdict
from durable_core.layer import Announced, Tally
from durable_core.layer import versions_of as core_versions_of
from sagas.model.phases import SAGA_ENDS, SagaStatus, status_of


@attrs.frozen(kw_only=True)
class VersionInfo:
    """One version of one saga in a store."""

    saga: str
    """The saga's name."""
    version: int
    """The version."""
    verdict: VersionVerdict
    """What these numbers mean."""
    newest: bool
    """Whether it is the highest version of its saga that the store knows."""
    open: dict[SagaStatus, int]
    """How many of its sagas have not ended, by status; without statuses that do not occur."""
    ended: int
    """How many of its sagas have ended."""
    workers: tuple[str, ...]
    """The living workers that serve it, by name."""
    fingerprint: str
    """Of its body, as last announced; empty if no worker has announced it."""
    announced_at: datetime | None
    """When that body was announced first."""


def versions_of(announced: Sequence[Announced], tallies: Sequence[Tally]) -> list[VersionInfo]:
    """Every version that a worker has announced or that has sagas, by name, the newest first."""
    open_ = [status for status in SagaStatus if status not in SAGA_ENDS]
    found = [
        attrs.asdict(each, recurse=False)
        for each in core_versions_of(announced, tallies, status_of=status_of, open=open_)
    ]
    return [VersionInfo(saga=each.pop("name"), **each) for each in found]
