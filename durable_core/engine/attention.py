"""Tells whoever asked to be told that a run needs a person.

Invariant: whatever the listener raises or however long it takes, no run waits for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

log = logging.getLogger("durable_core")

MOST_LOGGED = 10_000
"""Lines that a process remembers, so as not to log one again."""


class Attention:
    """The calls under way to one listener; without a listener nothing happens."""

    __slots__ = ("_asked", "_leaving", "_listener", "_telling")

    def __init__(self, listener: Callable[[str], Awaitable[None]] | None) -> None:
        self._listener = listener
        self._leaving = False
        self._asked: set[str] = set()
        """The runs whose call has not begun: it tells also of what comes until then."""
        self._telling: set[asyncio.Task[None]] = set()

    def ask_for(self, run_id: str) -> None:
        """The run of this id needs a person."""
        if self._listener is not None and run_id not in self._asked:
            self._asked.add(run_id)
            self._begin(self._tell(run_id, self._listener))

    def ask_for_each(self, run_ids: Sequence[str]) -> None:
        """The runs of these ids need a person. There may be many, so they are told of one after another.

        Those that are left when the engine is left are not: the next one finds them again.
        """
        if self._listener is not None:
            self._begin(self._tell_each(run_ids, self._listener))

    def _begin(self, telling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, run_id: str, told: Callable[[str], Awaitable[None]]) -> None:
        self._asked.discard(run_id)
        try:
            await told(run_id)
        except Exception:
            log.exception("on_attention failed for run %s", run_id)

    async def _tell_each(self, run_ids: Sequence[str], told: Callable[[str], Awaitable[None]]) -> None:
        for run_id in run_ids:
            if self._leaving:
                return
            await self._tell(run_id, told)

    async def told(self) -> None:
        """Return once no call is under way; none of many begins any more."""
        self._leaving = True
        if self._telling:
            await asyncio.gather(*self._telling, return_exceptions=True)


class AttentionLog:
    """What one process has logged of runs that need a person: each line once, as an error."""

    __slots__ = ("_lines", "_logger")

    def __init__(self, logger: logging.Logger = log) -> None:
        self._logger = logger
        self._lines: dict[str, None] = {}
        """The latest last."""

    def once(self, line: str, *, run_id: str) -> None:
        """Log ``line`` unless it was; what a terminal would act upon is spelled out."""
        shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
        if shown not in self._lines:
            self._logger.error("%s", shown, extra={"run_id": run_id})
        self._lines.pop(shown, None)
        self._lines[shown] = None
        if len(self._lines) > MOST_LOGGED:
            del self._lines[next(iter(self._lines))]
