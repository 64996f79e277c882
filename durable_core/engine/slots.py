"""Who may have something under way, and who may stay in memory while it waits.

New runs, and runs that fell due, share the places turn by turn.

Invariant: while both wait for a place, each gets every second one that becomes free, so neither keeps the other out.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from durable_core.replay.run import Run

LINGER_NS = 5_000_000_000
"""A run that waits no longer than this may stay in memory; a longer wait costs a row and nothing else."""
MOST_LINGERING = 2000
"""Runs that may stay in memory while they wait, at some 7 KiB each; beyond, a short wait costs a row too."""


class Queued(NamedTuple):
    """A new run that waits for its turn, and what its body will be given."""

    run: Run
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Slots:
    """The places of one worker."""

    __slots__ = ("_active", "_claims_next", "_kept", "enter", "places", "queue", "starved")

    def __init__(self, places: int) -> None:
        self.places = places
        self.queue: deque[Queued] = deque()
        """New runs beyond the places: durable, and not begun."""
        self.starved = False
        """No place was free for what may be due, so it waits in the store."""
        self._active: set[Run] = set()
        """Runs that have something in flight."""
        self.enter: Callable[[Run], None] = self._active.add
        """``run`` has something under way. Called for every attempt."""
        self._kept = 0
        """Free places that are kept for what is due."""
        self._claims_next = True

    @property
    def active(self) -> int:
        """How many runs have something in flight."""
        return len(self._active)

    def has(self, run: Run) -> bool:
        """Whether ``run`` has a place."""
        return run in self._active

    @property
    def open(self) -> bool:
        """Whether a new run may begin."""
        return len(self._active) + self._kept < self.places

    def leave(self, run: Run) -> bool:
        """``run`` has nothing under way any more; True where its place is for what is due."""
        if run not in self._active:
            return False
        self._active.discard(run)
        if not self.starved:
            return False
        mine = self._claims_next or not self.queue
        self._claims_next = not mine
        self._kept += mine
        return mine

    def claimable(self) -> int:
        """How many due runs may be claimed now; where none may, whoever leaves makes room."""
        room = max(self.places - self.active - len(self.queue), min(self._kept, self.places - self.active))
        self.starved = room <= 0
        if self.starved:
            self._kept = 0  # the kept place was taken by a run in memory that went on; it will be asked for anew
        return max(room, 0)

    def claimed(self, runs: int) -> None:
        """So many were claimed and have entered; with none, nothing is due, and the places are anybody's."""
        self._kept = max(self._kept - runs, 0) if runs else 0

    def next(self) -> Queued | None:
        """The new run that may begin now."""
        while self.queue and self.open:
            queued = self.queue.popleft()
            if not queued.run.dead:
                return queued
        return None

    def lingers(self, wait_ns: int, *, of: int) -> bool:
        """Whether a run that waits so long stays in memory, as one ``of`` so many there: it is due, or few wait."""
        if wait_ns <= 0:
            return True
        return wait_ns <= LINGER_NS and of - self.active - len(self.queue) <= MOST_LINGERING

    def take(self, run: Run) -> Queued | None:
        """Take ``run`` out of its turn; None where it does not wait for one."""
        for place, queued in enumerate(self.queue):
            if queued.run is run:
                del self.queue[place]
                return queued
        return None
