"""When to say that something is away: once when it goes, now and then while it lasts, and once when it is back.

Invariant: each outage that was said to begin is said to end, and a failure that the next try mends is not said at all.
"""

AGAIN_S = 60.0
"""Between two lines about one outage."""


class Outage:
    """What is known about one thing that may be away; times are those of a steady clock."""

    __slots__ = ("_failures", "_said_s", "_since_s")

    def __init__(self) -> None:
        self._failures = 0
        """Since it last answered."""
        self._since_s = 0.0
        self._said_s: float | None = None

    def met(self, at_s: float) -> bool:
        """It failed at this time; whether to say so now."""
        self._failures += 1
        if self._failures == 1:
            self._since_s = at_s
            return False
        if self._said_s is not None and at_s - self._said_s < AGAIN_S:
            return False
        self._said_s = at_s
        return True

    def over(self, at_s: float) -> float | None:
        """It has answered at this time; for how many seconds it was away, if that was said."""
        if not self._failures:
            return None
        said, self._failures, self._said_s = self._said_s is not None, 0, None
        return at_s - self._since_s if said else None
