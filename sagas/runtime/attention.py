"""The log of what needs attention: each line once in a process, as an error of the logger ``sagas``."""

import logging

log = logging.getLogger("sagas")

MOST_LOGGED = 10_000
"""Lines that a process remembers, so as not to log one again."""


class AttentionLog:
    """What one process has logged of sagas that need attention."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}
        """The latest last."""

    def once(self, line: str, *, saga_id: str) -> None:
        """Log ``line`` unless it was."""
        if line not in self._lines:
            log.error("%s", line, extra={"run_id": saga_id})
        self._lines.pop(line, None)
        self._lines[line] = None
        if len(self._lines) > MOST_LOGGED:
            del self._lines[next(iter(self._lines))]
