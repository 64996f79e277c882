"""A store that fails on demand: what happens to an engine whose database says no, or does not answer.

Invariant: what the inner store has written is written, whatever the caller sees. That is what an unknown commit is.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from durable_core.errors import StoreError
from durable_core.model.checkup import Checkup
from durable_core.ports import Batch, Store
from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore

T = TypeVar("T")


class FaultyStore:
    """``inner``, of which the next commits or other calls can be made to fail.

    >>> from durable_core.stores import open_store
    >>> store = FaultyStore(open_store("memory://"))
    >>> store.fail_commits(2, written=True)  # both are written, and both raise
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.commits = 0
        """Commits asked for so far."""
        self.on_commit: Callable[[Batch], None] | None = None
        """Called with each batch before it is written; what it raises, ``commit`` raises."""
        self.after_commit: Callable[[Batch], None] | None = None
        """Called with each batch once it is written."""
        self._failing_commits = 0
        self._written = False
        self._failing_calls = 0
        self._transient = True
        self.runs = self._failing(inner.runs)
        self.journal = self._failing(inner.journal, commit=self._commit)
        self.claims = self._failing(inner.claims)
        self.signals = self._failing(inner.signals)
        self.versions = self._failing(inner.versions)
        self.retention = self._failing(inner.retention)
        self.spans = self._failing(inner.spans)

    def fail_commits(self, count: int, *, written: bool = False, transient: bool = True) -> None:
        """Let the next ``count`` commits raise: before anything is written, or after all of it is."""
        self._failing_commits, self._written, self._transient = count, written, transient

    def fail_calls(self, count: int, *, transient: bool = True) -> None:
        """Let the next ``count`` calls of methods other than ``open``, ``close`` and ``commit`` raise, undone."""
        self._failing_calls, self._transient = count, transient

    def _failing(self, part: T, **instead: Callable[..., Any]) -> T:
        return cast("T", _FailingPart(part, self._check, instead))

    def _check(self, what: str) -> None:
        if self._failing_calls:
            self._failing_calls -= 1
            raise self._refusal(f"call of {what}")

    def _refusal(self, what: str) -> StoreError:
        return StoreError(f"the {what} fails because a test asked for it", "Ask again", transient=self._transient)

    async def _commit(self, batch: Batch) -> frozenset[int]:
        """Commit, or raise as ``fail_commits`` says."""
        self.commits += 1
        if self.on_commit is not None:
            self.on_commit(batch)
        if not self._failing_commits:
            left_out = await self.inner.journal.commit(batch)
            if self.after_commit is not None:
                self.after_commit(batch)
            return left_out
        self._failing_commits -= 1
        if self._written:
            await self.inner.journal.commit(batch)
        raise self._refusal(f"commit of {len(batch)} rows")

    @property
    def secret(self) -> bytes:
        """The inner store's."""
        return self.inner.secret

    async def open(self, *, worker: str | None) -> None:
        """Open the inner store."""
        await self.inner.open(worker=worker)

    async def close(self) -> None:
        """Close the inner store."""
        await self.inner.close()

    async def rejoin(self, worker: str) -> None:
        """Register the worker again."""
        self._check("rejoin")
        await self.inner.rejoin(worker)

    def lease_is_safe(self) -> bool:
        """The inner store's."""
        return self.inner.lease_is_safe()

    def ahead_ns(self) -> int:
        """The inner store's."""
        return self.inner.ahead_ns()

    def on_change(self, call: Callable[[], None]) -> None:
        """Notified as the inner store is."""
        self.inner.on_change(call)

    async def changed(self) -> bool:
        """Whether another store has committed."""
        self._check("changed")
        return await self.inner.changed()

    async def check_up(self, *, now_ns: int, deep: bool) -> Checkup:
        """Examine the inner store from outside."""
        self._check("check_up")
        return await self.inner.check_up(now_ns=now_ns, deep=deep)


class _FailingPart:
    """A part of a store whose coroutines first ``check`` whether they shall fail; ``instead`` replaces some of them."""

    def __init__(self, part: object, check: Callable[[str], None], instead: dict[str, Callable[..., Any]]) -> None:
        self._part = part
        self._check = check
        self._instead = instead

    def __getattr__(self, name: str) -> Any:
        if name in self._instead:
            return self._instead[name]
        call = getattr(self._part, name)
        if not inspect.iscoroutinefunction(call):
            return call

        @functools.wraps(call)
        async def checked(*args: Any, **named: Any) -> Any:
            self._check(name)
            return await call(*args, **named)

        return checked


def stores_in_memory() -> Callable[[], Store]:
    """Makes memory stores on the same data, so that one engine can be entered where another one was left."""
    data = MemoryData()
    return lambda: MemoryStore(data)
