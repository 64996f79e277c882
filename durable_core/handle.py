"""One run, as its starter holds it."""

import asyncio
from typing import Generic, TypeVar

from durable_core.engine.home import at_home
from durable_core.model.duration import Duration
from durable_core.model.info import HistoryEntry, RunInfo, history_of
from durable_core.model.retry import duration
from durable_core.model.run import RunRef
from durable_core.observer import Observer

R = TypeVar("R")


@at_home("_observer.runs.home")
class RunHandle(Generic[R]):
    """One run, as its starter sees it."""

    def __init__(self, observer: Observer, ref: RunRef) -> None:
        self._observer = observer
        self._ref = ref

    @property
    def id(self) -> str:
        """The run's id."""
        return self._ref.id

    def __repr__(self) -> str:
        return f"<RunHandle {self._ref.name} v{self._ref.version} {self.id!r}>"

    async def result(self, timeout: Duration | None = None) -> R:
        """Wait for the end; returns what the body returned, decoded where its function is registered here.

        Args:
            timeout: how long to wait, in real time; a timedelta or seconds.

        Raises:
            Exception: what left the body, of its own class and with its own data.
            RunStuck: it needs a person; raised at once.
            RunKilled: an operator ended it.
            TimeoutError: it has not ended in time; the run goes on.
            StoreError: the engine was left while this waited; the run goes on.
        """
        runs, ref = self._observer.runs, self._ref
        async with asyncio.timeout(None if timeout is None else duration(timeout, "timeout").total_seconds()):
            outcome = await runs.outcome(ref.num, ref.id)
        return await self._observer.answer(ref, outcome)  # type: ignore[no-any-return]

    async def info(self) -> RunInfo:
        """The run as it stands, as far as it is durable."""
        return await self._observer.info(self.id)

    async def history(self) -> list[HistoryEntry]:
        """Its journal, oldest first, as far as it is durable."""
        return history_of(await self._observer.runs.journal(self._ref.num))
