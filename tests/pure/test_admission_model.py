"""The places of a worker against a small model of the worker around them: whoever waits for a place gets one."""

from random import Random
from typing import Any

import attrs
import pytest

from durable_core.engine.slots import Queued, Slots


@attrs.define(eq=False)
class Sham:
    """What a place knows of a run."""

    dead: bool = False


@attrs.define
class Worked:
    """A worker as far as it has to do with places: what it starts, claims, lets rest in memory, and lets go."""

    places: Slots
    resting: list[Any] = attrs.field(factory=list)
    """In memory, with nothing under way: a timer of theirs may ring at any time."""
    active: list[Any] = attrs.field(factory=list)
    due: int = 0
    """Runs in the store that are due."""
    poked: bool = False
    admits: int = 0
    """Calls of ``_admit`` that are still to be made."""

    def start(self) -> None:
        run: Any = Sham()
        if self.places.open:
            self._enter(run)
        else:
            self.places.queue.append(Queued(run, (), {}))

    def falls_due(self) -> None:
        self.due += 1
        self.poked = True

    def rests(self, *, ends: bool) -> None:
        """One of those that have something under way has nothing more under way, or has ended."""
        if not self.active:
            return
        run = self.active.pop(0)
        if not ends:
            self.resting.append(run)
        if self.places.leave(run):
            self.poked = True
        elif self.places.queue:
            self.admits += 1

    def rings(self) -> None:
        """The timer of one that rests in memory: it goes on, whether or not there is a place."""
        if self.resting:
            self._enter(self.resting.pop(0))

    def looks(self) -> None:
        """The worker's look at the store."""
        if not self.poked:
            return
        self.poked = False
        while True:
            room = self.places.claimable()
            if not room:
                return
            claimed = min(room, self.due)
            if not claimed:
                break
            self.due -= claimed
            for _ in range(claimed):
                self._enter(Sham())
            self.places.claimed(claimed)
        self.places.claimed(0)
        self._admit()

    def admits_now(self) -> None:
        if self.admits:
            self.admits -= 1
            self._admit()

    def _admit(self) -> None:
        while (queued := self.places.next()) is not None:
            self._enter(queued.run)

    def _enter(self, run: Any) -> None:
        self.places.enter(run)
        self.active.append(run)

    def comes_to_rest(self) -> None:
        """Nothing new comes; what is under way ends, and what is to be done is done."""
        while self.active or self.poked or self.admits:
            self.looks()
            self.admits_now()
            self.rests(ends=True)


SEQUENCES = 3000
MOVES = {
    "start": Worked.start,
    "due": Worked.falls_due,
    "rest": lambda worked: worked.rests(ends=False),
    "end": lambda worked: worked.rests(ends=True),
    "ring": Worked.rings,
    "look": Worked.looks,
    "admit": Worked.admits_now,
}


@pytest.mark.parametrize("places", [1, 2, 3])
def test_whoever_waits_for_a_place_gets_one(places: int):
    """Whatever starts, falls due, rests, rings and ends in whatever order: in the end nobody waits for a place."""
    for seed in range(SEQUENCES):
        rng = Random(seed)
        moves = rng.choices(sorted(MOVES), k=rng.randint(4, 30))
        worked = Worked(Slots(places))
        for move in moves:
            MOVES[move](worked)
            assert worked.places.active == len(worked.active)
        worked.comes_to_rest()
        assert not worked.places.queue, f"a new run never got its turn after {moves}"
        assert not worked.due, f"a run that was due was never claimed after {moves}"
        assert worked.places.active == 0


def test_a_kept_place_that_a_timer_took_is_free_again():
    """A run rests, its place is kept for what is due, and its own timer takes it back before anybody looks.

    Once it rests again the new run that waits in the queue gets its turn.
    """
    worked = Worked(Slots(1))
    for move in ("start", "start", "due", "look", "rest", "ring", "look", "end"):
        MOVES[move](worked)
    worked.comes_to_rest()
    assert not worked.places.queue
    assert not worked.due
