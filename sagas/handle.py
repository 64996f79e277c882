"""One saga, as its starter holds it."""

import asyncio
from datetime import timedelta
from typing import Generic, TypeVar

from durable_core import RunRef
from sagas.model.definition import Span
from sagas.model.info import Entry, SagaInfo, history_of
from sagas.operators import Operators

R = TypeVar("R")


class SagaHandle(Generic[R]):
    """One saga, as its starter sees it."""

    def __init__(self, orchestrator: Operators, ref: RunRef) -> None:
        self._orchestrator = orchestrator
        self._ref = ref

    @property
    def id(self) -> str:
        """The saga's id."""
        return self._ref.id

    def __repr__(self) -> str:
        return f"<SagaHandle {self._ref.name} v{self._ref.version} {self.id!r}>"

    async def result(self, timeout: Span | None = None) -> R:
        """Wait for the end; returns what the body returned.

        Args:
            timeout: how long to wait, in real time; a timedelta or seconds.

        Raises:
            SagaCompensated: it was rolled back; ``__cause__`` is what left the body.
            SagaStuck: it needs a person; raised at once.
            SagaKilled: an operator ended it.
            TimeoutError: it has not ended in time; the saga goes on.
        """
        if timeout is None:
            outcome = await self._orchestrator.engine.outcome(self._ref.num, self.id)
        else:
            async with asyncio.timeout(timeout.total_seconds() if isinstance(timeout, timedelta) else timeout):
                outcome = await self._orchestrator.engine.outcome(self._ref.num, self.id)
        return await self._orchestrator.answer(self._ref, outcome)  # type: ignore[no-any-return]

    async def info(self) -> SagaInfo:
        """The saga as it stands, as far as it is durable."""
        return await self._orchestrator.info(self.id)

    async def history(self) -> list[Entry]:
        """Its journal, oldest first."""
        return history_of(await self._orchestrator.engine.journal(self._ref.num))

    async def cancel(self, reason: str = "") -> None:
        """Ask for a rollback; see ``Orchestrator.cancel``."""
        await self._orchestrator.cancel(self.id, reason=reason)


