"""Which workers are dead: those whose lease has run out by this process's own steady clock.

The database's clock says how long a lease still had when it was first seen, and nothing more; so it may be set, forward
or back, and no living worker is taken for dead, and no dead one for living.

Invariant: a worker that renews its lease in time is never named, as long as the database answers.
"""

from collections.abc import Collection

import attrs

STEP = 0.2
"""The part of a lease by which the database's clock may be set unnoticed: what a worker keeps as a margin."""
BACK = 1 / 3
"""The part of a lease in which a worker renews it once the server is back: it tries several times a second."""
LONGEST = 10
"""No lease is taken to be longer than so many of our own."""


@attrs.frozen
class Leased:
    """A worker's row, as it was read."""

    worker: str
    until_ns: int
    """By the database's clock."""


@attrs.frozen
class Answered:
    """When the workers' rows were read."""

    theirs_ns: int
    """By the database's clock."""
    up_since_ns: int
    """When the server was started, by its clock."""
    sent_s: float
    """When it was asked, by the steady clock."""
    got_s: float


@attrs.define
class _Seen:
    until_ns: int
    ends_s: float
    """When that lease has run out, by the steady clock."""
    longest_s: float
    """How much of a lease of this worker was ever seen to be left."""


class Watch:
    """What one process has seen of the others' leases.

    Args:
        lease_s: how long its own is: the measure where another's length is not known.
        theirs_ns: what the database's clock is taken to say at ``at_s``, before it was asked: what this machine's does.
        at_s: the time by the steady clock.
    """

    def __init__(self, lease_s: float, *, theirs_ns: int, at_s: float) -> None:
        self._lease_s = lease_s
        self._ahead_s = theirs_ns / 1e9 - at_s
        self._seen: dict[str, _Seen] = {}

    def dead(self, rows: Collection[Leased], at: Answered) -> list[Leased]:
        """The workers whose lease has run out, of the ``rows`` that were read then."""
        took_s, ahead_s = at.got_s - at.sent_s, at.theirs_ns / 1e9 - at.got_s
        stepped = abs(ahead_s - self._ahead_s) > self._lease_s * STEP + took_s
        self._ahead_s = ahead_s
        self._seen = {row.worker: self._sight(row, at, stepped=stepped) for row in rows}
        if took_s > self._lease_s * STEP:
            return []  # the database was slow to answer: others may be as slow to renew
        just_up = at.theirs_ns - at.up_since_ns < self._lease_s * BACK * 1e9
        return [
            row
            for row in rows
            if self._seen[row.worker].ends_s <= at.got_s and not (just_up and row.until_ns < at.up_since_ns)
        ]

    def _sight(self, row: Leased, at: Answered, *, stepped: bool) -> _Seen:
        seen = self._seen.get(row.worker)
        if seen is not None and seen.until_ns == row.until_ns:
            return seen
        longest_s = 0.0 if seen is None else seen.longest_s
        if stepped:  # nobody knows by which time this lease was granted: it is given all of its length from here on
            return _Seen(row.until_ns, at.got_s + max(longest_s, self._lease_s), longest_s)
        left_s = min(max((row.until_ns - at.theirs_ns) / 1e9, 0.0), self._lease_s * LONGEST)
        return _Seen(row.until_ns, at.got_s + left_s, max(longest_s, left_s))
