"""What a look at a store finds, without opening it for work: findings about its files, and facts about its runs.

A store judges its own files and settings, which differ from store to store; the facts about its runs are the same
everywhere, and are judged by whoever can name the commands that help.
"""

from collections.abc import Mapping
from enum import StrEnum

import attrs

from durable_core.model.duration import NS

GRACE_NS = 60 * NS
"""How long a run may be due, or past its deadline, before somebody should look."""
SHOWN = 5
"""Ids of a group."""


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """Look at it when you can."""
    FAIL = "fail"
    """Runs cannot go on, or are not safe."""


@attrs.frozen
class Finding:
    """One thing that was checked."""

    check: str
    """Its name, the same in every release."""
    level: Level
    what: str
    """What was found."""
    advice: str = ""
    """What to do about it; empty where nothing is to be done."""


@attrs.frozen
class WorkerSeen:
    """A worker that announced itself."""

    name: str
    pid: int
    host: str
    started_at_ns: int
    alive: bool


@attrs.frozen
class Group:
    """Runs that have something in common: how many, and a few of them."""

    count: int = 0
    ids: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Facts:
    """How the runs of a store stand."""

    statuses: Mapping[str, int]
    """Open runs by status."""
    rows: Mapping[str, int]
    """Rows by table."""
    unswept: int
    """Purged runs whose journals are left to remove."""
    oldest_end_ns: int | None
    """When the run ended that has been kept for the longest."""
    newest_at_ns: int | None
    """The latest time that any row bears."""
    workers: tuple[WorkerSeen, ...]
    stuck: Group
    runnable: tuple[str, int] | None
    """The unowned run that has been due for the longest, and since when."""
    overdue: Group
    """Unowned runs that have been due for longer than a grace."""
    past_deadline: Group
    """Open runs whose deadline passed longer ago than a grace, and still counts."""
    paused: Group
    unserved: Mapping[tuple[str, int], int]
    """Open runs by the function and version that no worker serves."""


@attrs.frozen
class Checkup:
    """All that was found."""

    findings: tuple[Finding, ...]
    facts: Facts | None
    """None where the store could not be read; then a finding says why."""
