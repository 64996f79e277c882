"""A store that fails on demand: what happens to an engine whose database says no, or does not answer.

Invariant: what the inner store has written is written, whatever the caller was told. That is what an unknown commit is.
"""

from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from durable_core.errors import StoreError
from durable_core.model.checkup import Checkup
from durable_core.model.entry import Entry
from durable_core.model.run import RunQuery, RunRecord, RunRef
from durable_core.model.tombstone import EndedRun, Swept, Tombstone
from durable_core.model.version import Announced, Offer, Tally
from durable_core.ports import Batch, Signal, Store

T = TypeVar("T")


class FaultyStore:
    """``inner``, of which the next commits or other calls can be told to fail.

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
        self._failing_commits = 0
        self._written = False
        self._failing_calls = 0
        self._transient = True

    def fail_commits(self, count: int, *, written: bool = False, transient: bool = True) -> None:
        """Let the next ``count`` commits raise: before anything is written, or after all of it is."""
        self._failing_commits, self._written, self._transient = count, written, transient

    def fail_calls(self, count: int, *, transient: bool = True) -> None:
        """Let the next ``count`` calls of methods other than ``open``, ``close`` and ``commit`` raise, undone."""
        self._failing_calls, self._transient = count, transient

    async def open(self, *, worker: str | None) -> None:
        """Open the inner store."""
        await self.inner.open(worker=worker)

    async def close(self) -> None:
        """Close the inner store."""
        await self.inner.close()

    def next_num(self) -> int:
        """The inner store's next number."""
        return self.inner.next_num()

    async def commit(self, batch: Batch) -> frozenset[int]:
        """Commit, or raise as told by ``fail_commits``."""
        self.commits += 1
        if self.on_commit is not None:
            self.on_commit(batch)
        if not self._failing_commits:
            return await self.inner.commit(batch)
        self._failing_commits -= 1
        if self._written:
            await self.inner.commit(batch)
        raise self._refusal(f"commit of {len(batch)} rows")

    def _refusal(self, what: str) -> StoreError:
        return StoreError(f"the {what} fails because a test asked for it; ask again", transient=self._transient)

    async def _call(self, what: str, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._failing_calls:
            self._failing_calls -= 1
            raise self._refusal(what)
        return await call()

    async def claim(
        self, worker: str, served: Collection[tuple[str, int]], *, now_ns: int, limit: int
    ) -> list[RunRecord]:
        """Claim, or raise as told by ``fail_calls``; so do the methods below."""
        return await self._call("claim", lambda: self.inner.claim(worker, served, now_ns=now_ns, limit=limit))

    async def release_dead(self) -> int:
        """Release the runs of the dead."""
        return await self._call("release", self.inner.release_dead)

    async def next_wake_ns(self, *, after_ns: int) -> int | None:
        """When the next run falls due."""
        return await self._call("question for the next wake", partial(self.inner.next_wake_ns, after_ns=after_ns))

    async def load(self, nums: Sequence[int]) -> dict[int, list[Entry]]:
        """The journals."""
        return await self._call("load", lambda: self.inner.load(nums))

    async def announce(self, offers: Collection[Offer], *, now_ns: int) -> list[Offer]:
        """Note what the worker serves."""
        return await self._call("announcement", lambda: self.inner.announce(offers, now_ns=now_ns))

    async def announced(self) -> list[Announced]:
        """What any worker has announced."""
        return await self._call("question for what is announced", self.inner.announced)

    async def unserved(self, *, now_ns: int) -> list[RunRef]:
        """The runs that wait in vain."""
        return await self._call("question for the unserved", partial(self.inner.unserved, now_ns=now_ns))

    async def unbegun_since_ns(self) -> int | None:
        """Since when a run has waited to be begun."""
        return await self._call("question for the unbegun", self.inner.unbegun_since_ns)

    async def tally(self, name: str | None = None) -> list[Tally]:
        """How many runs stand how."""
        return await self._call("tally", partial(self.inner.tally, name))

    async def find(self, ids: Sequence[str]) -> list[RunRecord]:
        """The runs of these ids."""
        return await self._call("find", lambda: self.inner.find(ids))

    def lease_is_safe(self) -> bool:
        """The inner store's."""
        return self.inner.lease_is_safe()

    async def rejoin(self, worker: str) -> None:
        """Announce the worker again."""
        await self._call("announcement", lambda: self.inner.rejoin(worker))

    def ahead_ns(self) -> int:
        """The inner store's."""
        return self.inner.ahead_ns()

    async def last_seen_ns(self) -> int | None:
        """The last time that was written."""
        return await self._call("question for the last time", self.inner.last_seen_ns)

    @property
    def secret(self) -> bytes:
        """The inner store's."""
        return self.inner.secret

    async def find_num(self, num: int) -> RunRecord | None:
        """The run of this number."""
        return await self._call("find", lambda: self.inner.find_num(num))

    async def find_nums(self, nums: Sequence[int]) -> list[RunRecord]:
        """The runs of these numbers."""
        return await self._call("find", lambda: self.inner.find_nums(nums))

    async def owe(self, worker: str) -> int:
        """Let a worker owe spans."""
        return await self._call("note of what is owed", lambda: self.inner.owe(worker))

    async def owed(self, worker: str) -> dict[str, int]:
        """What is owed."""
        return await self._call("question for what is owed", lambda: self.inner.owed(worker))

    async def adopt(self, debtor: str, *, worker: str) -> bool:
        """Let a worker alone pay for another."""
        return await self._call("adoption of a debt", lambda: self.inner.adopt(debtor, worker=worker))

    async def pay(self, worker: str, pos: int | None) -> None:
        """Note what has been exported."""
        await self._call("note of what was exported", lambda: self.inner.pay(worker, pos))

    async def written(self, worker: str, *, after: int, limit: int) -> list[tuple[int, Entry]]:
        """What a worker has written."""
        return await self._call("question for entries", lambda: self.inner.written(worker, after=after, limit=limit))

    async def select(self, query: RunQuery) -> list[RunRecord]:
        """The runs that ``query`` describes."""
        return await self._call("select", lambda: self.inner.select(query))

    async def count(self, query: RunQuery) -> int:
        """How many runs ``query`` describes."""
        return await self._call("count", lambda: self.inner.count(query))

    async def signal(self, run: int, name: str, payload: bytes, *, now_ns: int, ended: bool = False) -> bool:
        """Leave a signal."""
        return await self._call("signal", lambda: self.inner.signal(run, name, payload, now_ns=now_ns, ended=ended))

    async def signals(self, runs: Collection[int]) -> list[Signal]:
        """The signals that wait."""
        return await self._call("question for signals", lambda: self.inner.signals(runs))

    def on_change(self, call: Callable[[], None]) -> None:
        """Hear what the inner store hears."""
        self.inner.on_change(call)

    async def changed(self) -> bool:
        """Whether somebody else has committed."""
        return await self._call("question for changes", self.inner.changed)

    async def check_up(self, *, now_ns: int, deep: bool) -> Checkup:
        """Look at it from outside."""
        return await self._call("checkup", lambda: self.inner.check_up(now_ns=now_ns, deep=deep))

    async def ended(
        self, *, before_ns: int, name: str | None = None, after: EndedRun | None = None, limit: int = 100
    ) -> list[EndedRun]:
        """Runs that may be purged."""
        return await self._call(
            "question for ended runs",
            lambda: self.inner.ended(before_ns=before_ns, name=name, after=after, limit=limit),
        )

    async def bury(self, runs: Sequence[EndedRun], *, now_ns: int, until_ns: int | None) -> list[int]:
        """Put tombstones in the place of runs."""
        return await self._call("purge", lambda: self.inner.bury(runs, now_ns=now_ns, until_ns=until_ns))

    async def sweep(self, *, limit: int) -> Swept:
        """Remove what is left of purged journals."""
        return await self._call("removal of purged journals", lambda: self.inner.sweep(limit=limit))

    async def tombstones(self, ids: Sequence[str]) -> list[Tombstone]:
        """What is left of purged runs."""
        return await self._call("question for tombstones", lambda: self.inner.tombstones(ids))

    async def forget(self, *, now_ns: int, limit: int) -> int:
        """Drop tombstones whose time has come."""
        return await self._call("removal of tombstones", lambda: self.inner.forget(now_ns=now_ns, limit=limit))
