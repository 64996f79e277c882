"""One saga, as its starter holds it."""

import asyncio
from typing import Generic, TypeVar

from durable_core import Duration, RunNotFound, RunRef, at_home, duration
from sagas.model.info import Entry, SagaInfo, SagaStatus, history_of
from sagas.observer import not_found
from sagas.operators import Operators

R = TypeVar("R")


@at_home("_orchestrator.engine.home")
class SagaHandle(Generic[R]):
    """One saga, as its starter sees it."""

    __slots__ = ("__weakref__", "_child", "_orchestrator", "_ref")

    def __init__(self, orchestrator: Operators, ref: RunRef, *, child: str = "") -> None:
        self._orchestrator = orchestrator
        self._ref = ref
        self._child = child

    @property
    def id(self) -> str:
        """The saga's id; ``<parent id>/<step key>`` for a child."""
        return f"{self._ref.id}/{self._child}" if self._child else self._ref.id

    def __repr__(self) -> str:
        return f"<SagaHandle {self._ref.name} v{self._ref.version} {self.id!r}>"

    async def result(self, timeout: Duration | None = None) -> R:
        """Wait for the end; returns what the body returned.

        Args:
            timeout: how long to wait, in real time; a timedelta or seconds.

        Raises:
            SagaCompensated: it was rolled back; ``__cause__`` is what left the body.
            SagaStuck: it needs a person; raised at once.
            SagaKilled: an operator ended it.
            SagaNotFound: it was purged.
            TimeoutError: it has not ended in time; the saga goes on.
            DefinitionError: the timeout is no duration.
        """
        if timeout is not None:
            async with asyncio.timeout(duration(timeout, "timeout").total_seconds()):
                return await self.result()
        orchestrator, ref = self._orchestrator, self._ref
        try:
            outcome = await orchestrator.engine.outcome(ref.num, ref.id)
        except RunNotFound as missing:
            raise not_found(ref.id, missing) from None
        if not self._child:
            return await orchestrator.answer(ref, outcome)  # type: ignore[no-any-return]
        return await orchestrator.answer_of_child(ref, self._child, outcome)  # type: ignore[no-any-return]

    async def status(self) -> SagaStatus:
        """How the saga stands, as far as it is durable. It reads one row, so it may be asked again and again.

        The status of a child saga is read off its root's journal.

        Raises:
            SagaNotFound: it was purged.
        """
        return await self._orchestrator.status_of(self._ref, self._child)

    async def info(self) -> SagaInfo:
        """The saga as it stands, as far as it is durable. It reads the whole journal; see ``status``."""
        return await self._orchestrator.info(self.id)

    async def history(self) -> list[Entry]:
        """Its journal, oldest first."""
        entries = await self._orchestrator.engine.journal(self._ref.num)
        prefix = f"{self._child}/"
        return history_of([entry for entry in entries if not self._child or entry.key.startswith(prefix)])

    async def cancel(self, reason: str = "") -> None:
        """Ask for a rollback; see ``Orchestrator.cancel``."""
        await self._orchestrator.cancel(self.id, reason=reason)
