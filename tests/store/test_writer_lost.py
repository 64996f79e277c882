"""The writer of a worker that was taken for dead, when somebody else meets the loss first."""

import asyncio
from typing import Any

import pytest

from durable_core import LeaseLost, StoreError
from durable_core.engine.writer import NoOwner, Writer
from durable_core.ports import Batch
from durable_core.testing.store_rows import in_loop, new_entry, new_run

LOST = LeaseLost("taken for dead", worker="w1")


class Away:
    """A store that cannot be reached for its first commits, and keeps what is written later."""

    def __init__(self, refusals: int, *, transient: bool = True) -> None:
        self.refusals = refusals
        self.transient = transient
        self.written: list[Batch] = []
        self.asked = asyncio.Event()
        self.journal = self

    async def commit(self, batch: Batch) -> frozenset[int]:
        self.asked.set()
        if self.refusals:
            self.refusals -= 1
            raise StoreError("away", transient=self.transient)
        self.written.append(batch)
        return frozenset()


class Owner(NoOwner):
    """Knows of the loss that is reported."""

    async def lease_lost(self, lost: LeaseLost, /) -> None:
        assert lost is LOST


def writer_on(store: Any) -> Writer:
    writer = Writer(store, asyncio.get_running_loop(), patience_s=60)
    writer.owner = Owner()
    return writer


@in_loop
async def test_what_is_being_written_is_not_repeated_under_the_new_name():
    """A batch that is tried again and again is given up with the name that it was made under; its starters hear so."""
    store = Away(1)
    writer = writer_on(store)
    told: list[tuple[bool, StoreError | None]] = []
    writer.start(new_run(1, "a"), lambda *said: told.append(said))
    writer.append(new_entry(1, 1))
    flushed = asyncio.create_task(writer.flushed())
    await store.asked.wait()
    writer.drop(LOST)
    with pytest.raises(LeaseLost):
        await flushed
    ((accepted, error),) = told
    assert not accepted
    assert error is not None
    assert error.transient
    assert "not known" in str(error)
    assert store.written == []
    writer.append(new_entry(2, 1))
    await writer.flushed()
    assert [entry.run for batch in store.written for entry in batch.entries] == [2]


@in_loop
async def test_nothing_is_written_while_it_is_held():
    """Between two names what is queued waits; then it is written as one batch."""
    store = Away(0)
    writer = writer_on(store)
    writer.hold()
    writer.append(new_entry(1, 1))
    flushed = asyncio.create_task(writer.flushed())
    for _ in range(5):
        await asyncio.sleep(0)
    assert store.written == []
    writer.append(new_entry(1, 2))
    writer.go_on()
    await flushed
    assert [len(batch.entries) for batch in store.written] == [2]
