"""Every saga of a test has a sound trace: its store is looked through when it is closed.

Invariant: the spans are those of the journal alone, so this needs no exporter and no clock, and runs with every test of
the folders whose conftest takes it up.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from durable_core import JournalEntry, RunRecord, SpanRecord, spans_of
from durable_core.model.run import RunQuery
from durable_core.stores.memory import MemoryStore
from durable_core.stores.sqlite import SqliteStore
from durable_core.testing import broken_rules
from sagas.model.spans import VOCABULARY

MANY = 100
"""Sagas looked at when a store is closed: those of a load test are alike."""
PREFIXES = 3
"""From how many places of its journal a saga's spans are tried; all of them would cost the square of its length."""

spans = partial(spans_of, vocabulary=VOCABULARY)


def check_trace(record: RunRecord, entries: list[JournalEntry], *, prefixes: int = PREFIXES) -> list[SpanRecord]:
    """One saga's spans: by Jaeger's rules, and the same whoever exports them, whenever and however often."""
    whole = spans(record, entries)
    about = "\n".join(f"{span.name}: {dict(span.attributes)}" for span in whole)
    assert not broken_rules(whole), f"{broken_rules(whole)}\n{about}\n{_told(entries)}"
    assert spans(record, entries) == whole, "exported twice, they differ"
    step = max(1, len(entries) // (prefixes + 1))
    for length in range(step, len(entries), step):
        since = entries[length - 1].seq
        both = spans(record, entries[:length]) + spans(record, entries, since)
        assert both == whole, f"another worker, from entry {since} on, exports others"
    return whole


def _told(entries: list[JournalEntry]) -> str:
    return "\n".join(f"  {entry.seq} {entry.kind} {entry.key} #{entry.attempt} {entry.label}" for entry in entries)


async def _check_all(store: Any, prefixes: int) -> None:
    records = await store.select(RunQuery(limit=MANY))
    journals = await store.load([record.num for record in records])
    for record in records:
        check_trace(record, journals[record.num], prefixes=prefixes)


def sound(*, prefixes: int = PREFIXES) -> Any:
    """A fixture that looks through every store that a test closes in good order."""

    @pytest.fixture(scope="module", autouse=True)
    def sound_traces() -> Iterator[None]:
        patch = pytest.MonkeyPatch()
        for store in (MemoryStore, SqliteStore):
            patch.setattr(store, "close", _checking(store.close, prefixes))
        yield
        patch.undo()

    return sound_traces


def _checking(close: Any, prefixes: int) -> Any:
    async def checked(store: Any) -> None:
        try:
            if getattr(store, "_open", None) or getattr(store, "_opened", None) is not None:
                await _check_all(store, prefixes)
        finally:
            await close(store)

    return checked
