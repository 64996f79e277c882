"""Whether a worker works: not that its process is up, but when its store last answered and when it last wrote."""

import attrs


@attrs.frozen(kw_only=True)
class Pulse:
    """How one engine fares at one moment."""

    silent_s: float
    """Seconds since the store last answered and took what was written; small on a healthy worker, also an idle one."""
    wrote_s: float | None
    """Seconds since it last wrote something; None where it has not yet. An idle worker writes nothing."""
    runs: int
    """Runs in its memory."""
    under_way: int
    """Attempts that have been called and have not ended."""
    backlog: int
    """Rows that wait to be written."""
    trouble: str | None
    """Why commits fail, while they do."""


class Pulsometer:
    """Takes note of what was seen; the time is the event loop's."""

    def __init__(self, now_s: float) -> None:
        self._answered_s = now_s
        self._taken_s = now_s
        self._wrote_s: float | None = None
        self._written = 0

    def answered(self, now_s: float, *, written: int, troubled: bool) -> None:
        """The store has answered; ``written`` rows were written so far, and the last commit has failed or not."""
        self._answered_s = now_s
        if not troubled:
            self._taken_s = now_s
        if written != self._written:
            self._written, self._wrote_s = written, now_s

    def silent_s(self, now_s: float) -> float:
        """Seconds since the store last answered and took what was written."""
        return now_s - min(self._answered_s, self._taken_s)

    def wrote_s(self, now_s: float) -> float | None:
        """Seconds since something was written."""
        return None if self._wrote_s is None else now_s - self._wrote_s
