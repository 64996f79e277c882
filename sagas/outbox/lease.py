"""Which of several relays hands on the entries of an outbox: one at a time, and another one soon after it has died.

Pure. The lease is a row with an owner and a number that rises with each renewal. Nobody compares clocks: a relay counts
by its own how long the row has stayed the same, and the holder by its own since when it last renewed.

Invariant: ``HOLD_S`` is less than ``TAKEOVER_S``, so a holder stops before another relay begins. One that was held up
between its look at the clock and its call may still repeat entries, which the orchestrator takes as repetitions.
"""

import attrs

HOLD_S = 2.0
"""How long a renewal entitles to hand on, from before it was asked for."""
TAKEOVER_S = 3.0
"""How long a lease must stay the same before another relay takes it."""
BEAT_S = 0.5
"""How often the holder renews while it hands on; an outbox without entries is only read."""


@attrs.frozen
class Lease:
    """The row, as it was read or written."""

    owner: str
    """Empty where its holder gave it up."""
    beat: int


@attrs.frozen
class Hold:
    """The lease is held: hand on."""


@attrs.frozen
class Take:
    """Try to take or renew it, if it still is as expected."""

    expected: Lease


@attrs.frozen
class Wait:
    """Another relay may be at work."""

    for_s: float


@attrs.frozen
class Watch:
    """What one relay knows of the lease."""

    seen: Lease | None = None
    since_s: float = 0.0
    """When it was first seen so."""
    held: Lease | None = None
    """As this relay wrote it last."""
    until_s: float = 0.0
    """How long that entitles to hand on."""

    def saw(self, lease: Lease, *, now_s: float) -> "Watch":
        """The row was read."""
        return self if lease == self.seen else attrs.evolve(self, seen=lease, since_s=now_s)

    def wrote(self, lease: Lease, *, asked_s: float) -> "Watch":
        """The row was written by this relay, which began to ask at ``asked_s``."""
        return Watch(seen=lease, since_s=asked_s, held=lease, until_s=asked_s + HOLD_S)

    def lost(self) -> "Watch":
        """Another relay has written the row."""
        return attrs.evolve(self, held=None)

    def holds(self, *, now_s: float) -> bool:
        """Whether entries may be handed on now."""
        return self.held is not None and self.held == self.seen and now_s < self.until_s


def decide(watch: Watch, lease: Lease, *, owner: str, now_s: float) -> Hold | Take | Wait:
    """What ``owner`` does where entries wait, and ``lease`` is the row as ``watch`` saw it last."""
    if watch.holds(now_s=now_s):
        return Hold()
    if lease.owner in ("", owner):  # its own where it let the lease lapse, or never heard that it had written it
        return Take(lease)
    left_s = watch.since_s + TAKEOVER_S - now_s
    return Take(lease) if left_s <= 0 else Wait(left_s)
