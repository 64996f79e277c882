"""What the store contract's tests are made of: rows with a value in every column, and stores on the same data."""
# ruff: noqa: S101 - a test suite asserts, and its numbers are examples

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, ParamSpec

import pytest

from durable_core.model.entry import Entry
from durable_core.model.run import NewRun, RunRecord, RunStatus, RunUpdate
from durable_core.model.tags import write_tags
from durable_core.ports import Batch, Store

P = ParamSpec("P")
MakeStore = Callable[[], Store]

SERVED = [("order", 1)]
NOW_NS = 1_000


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make an async test one that pytest can call as it is."""

    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    functools.update_wrapper(run, test)
    return run


def new_run(
    num: int,
    id: str,
    *,
    owner: str | None = None,
    wake_at_ns: int | None = 0,
    name: str = "order",
    version: int = 1,
    created_at_ns: int = 17,
    tags: dict[str, str] | None = None,
    restarts: str | None = None,
) -> NewRun:
    """A run that begins; due at once and unowned by default."""
    uid = num.to_bytes(16, "big")
    return NewRun(
        num,
        id,
        uid,
        name,
        version,
        "pending",
        owner,
        wake_at_ns,
        99,
        b'{"a":1}',
        "link:00-1",
        created_at_ns,
        write_tags(tags or {}),
        restarts,
    )


def new_entry(run: int, seq: int, *, payload: bytes | None = b"1", key: str = "charge") -> Entry:
    """A journal entry with a value in every column."""
    return Entry(run, seq, "failed", key, 1, "unknown", payload, b"{}", 5, 6, 7, "w1")


def new_update(
    num: int,
    *,
    status: RunStatus = RunStatus.WAITING,
    owner: str | None = None,
    wake_at_ns: int | None = None,
    paused: bool = False,
    phase: str = "",
    ended_at_ns: int | None = None,
    retagged: dict[str, str] | None = None,
) -> RunUpdate:
    """A run's new state; unowned and without a wake by default."""
    return RunUpdate(
        str(status),
        phase,
        owner,
        wake_at_ns,
        int(paused),
        b"out",
        b"err",
        "why",
        b"{}",
        18,
        ended_at_ns,
        write_tags(retagged or {}),
        "waits",
        num,
    )


def new_batch(
    *, starts: Iterable[NewRun] = (), entries: Iterable[Entry] = (), updates: Iterable[RunUpdate] = ()
) -> Batch:
    """A batch of these rows."""
    return Batch(starts=list(starts), entries=list(entries), updates={update.num: update for update in updates})


@asynccontextmanager
async def opened(make_store: MakeStore, *workers: str | None) -> AsyncGenerator[list[Store]]:
    """Stores on the same data, one for each of ``workers``, opened in order and closed in the end."""
    stores: list[Store] = []
    try:
        for worker in workers:
            store = make_store()
            await store.open(worker=worker)
            stores.append(store)
        yield stores
    finally:
        for store in reversed(stores):
            await store.close()


async def add(store: Store, id: str, **columns: Any) -> int:
    """Start a run called ``id``; return its number."""
    num = store.journal.next_num()
    assert await store.journal.commit(new_batch(starts=[new_run(num, id, **columns)])) == frozenset()
    return num


async def the(store: Store, id: str) -> RunRecord:
    """The run called ``id``."""
    (found,) = await store.runs.find([id])
    return found


async def claimed(store: Store, worker: str, *, limit: int = 100, now_ns: int = NOW_NS) -> list[str]:
    """The ids of what ``worker`` gets, in order."""
    return [run.id for run in await store.claims.claim(worker, SERVED, now_ns=now_ns, limit=limit)]


class Rules:
    """What a subclass of the contract gives: the fixture ``make_store`` and the method ``crash``."""

    @pytest.fixture
    def make_store(self) -> MakeStore:
        """Returns a function that makes stores, not opened yet, all on the same data, which begins empty."""
        raise NotImplementedError

    def crash(self, store: Store) -> None:
        """Let ``store`` go as the end of its process would: nothing is released or said."""
        raise NotImplementedError
