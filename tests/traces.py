"""Every saga of a test has a sound trace: its store is looked through when it is closed.

Invariant: the spans are those of the journal alone, so this needs no exporter and no clock, and runs with every test of
the folders whose conftest takes it up.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from durable_core.layer import JournalEntry, RunRecord, SpanRecord, otlp_document, spans_of, whole_spans
from durable_core.model.run import RunQuery
from durable_core.stores.memory.store import MemoryStore
from durable_core.stores.sqlite.store import SqliteStore
from durable_core.testing import broken_rules
from sagas.model.spans import VOCABULARY

MANY = 100
"""Sagas looked at when a store is closed: those of a load test are alike."""
PREFIXES = 3 if "SAGAS_SOAK" in os.environ else 1
"""From how many places of its journal a saga's spans are tried; `replay/test_traces.py` tries each place."""
KEPT_IN = "SAGAS_TRACES"
"""The variable with a folder that each saga's spans are kept in: as they are sent, and as a document; else nowhere."""

spans = partial(spans_of, vocabulary=VOCABULARY)
whole = partial(whole_spans, vocabulary=VOCABULARY)


def check_trace(record: RunRecord, entries: list[JournalEntry], *, prefixes: int = PREFIXES) -> list[SpanRecord]:
    """One saga's spans: by Jaeger's rules, and the same whoever exports them, whenever and however often."""
    sent = spans(record, entries)
    _check_rules(sent, entries)
    assert spans(record, entries) == sent, "exported twice, they differ"
    check_document(record, entries, sent)
    step = max(1, len(entries) // (prefixes + 1))
    for length in range(step, len(entries), step):
        since = entries[length - 1].seq
        before = spans(record, entries[:length])
        assert before + spans(record, entries, since) == sent, f"another worker, from entry {since} on, exports others"
        check_document(record, entries[:length], before)
    return sent


def check_document(record: RunRecord, entries: list[JournalEntry], sent: list[SpanRecord]) -> None:
    """The saga as a document, ended or not: by the same rules, with the ids that are sent, nothing told twice."""
    told = whole(record, entries, now_ns=entries[-1].at_ns if entries else 0)
    _check_rules(told, entries)
    under_way = {span.span_id for span in told if span.name.endswith(" (running)")}
    assert {span.span_id for span in told} - under_way <= {span.span_id for span in sent}
    assert not under_way & {span.span_id for span in sent}
    if any(entry.kind == "ended" for entry in entries) and not told[0].holds:
        assert told[0].end_ns >= max(span.end_ns for span in told)
        assert not under_way, "what has ended has nothing under way"


def _check_rules(found: list[SpanRecord], entries: list[JournalEntry]) -> None:
    broken = broken_rules(found)
    about = "\n".join(f"{span.name}: {dict(span.attributes)}" for span in found)
    assert not broken, f"{broken}\n{about}\n{_told(entries)}"


def _told(entries: list[JournalEntry]) -> str:
    return "\n".join(f"  {entry.seq} {entry.kind} {entry.key} #{entry.attempt} {entry.label}" for entry in entries)


def shape_of(record: RunRecord, entries: list[JournalEntry]) -> int:
    """The same for journals that tell the same story: their values, times and workers may differ."""
    told = [(entry.kind, entry.key, entry.attempt, entry.label, entry.error is None) for entry in entries]
    return hash((record.name, record.status, record.traceparent is None, *told))


async def _check_all(store: Any, prefixes: int, seen: set[int], *, alike: bool) -> None:
    records = await store.runs.select(RunQuery(limit=MANY))
    journals = await store.journal.load([record.num for record in records])
    for record in records:
        entries = journals[record.num]
        same = hash((record.id, record.uid, record.traceparent, record.created_at_ns, *entries))
        facts = shape_of(record, entries) if alike else same
        if facts not in seen:  # by every process that leaves a store, the same is found again
            seen.add(facts)
            _keep(record, entries, check_trace(record, entries, prefixes=prefixes))


def _keep(record: RunRecord, entries: list[JournalEntry], sent: list[SpanRecord]) -> None:
    folder = os.environ.get(KEPT_IN)
    if folder is None or not sent or not entries:
        return
    for kind, found in {"sent": sent, "document": whole(record, entries, now_ns=entries[-1].at_ns)}.items():
        written = msgspec.json.encode(otlp_document(found, service="tests", scope=VOCABULARY.scope))
        Path(folder, kind).mkdir(exist_ok=True)
        Path(folder, kind, f"{found[0].trace_id:032x}.json").write_bytes(written)


def sound(*, prefixes: int = PREFIXES, alike: bool = False) -> Any:
    """A fixture that looks through every store that a test closes in good order.

    With ``alike``, one of a module's sagas that only differ in values, times and workers is looked at; in a soak all.
    """
    alike = alike and "SAGAS_SOAK" not in os.environ and KEPT_IN not in os.environ

    @pytest.fixture(scope="module", autouse=True)
    def sound_traces() -> Iterator[None]:
        patch, seen = pytest.MonkeyPatch(), set[int]()
        for store in (MemoryStore, SqliteStore):
            patch.setattr(store, "close", _checking(store.close, prefixes, seen, alike=alike))
        yield
        patch.undo()

    return sound_traces


def _checking(close: Any, prefixes: int, seen: set[int], *, alike: bool) -> Any:
    async def checked(store: Any) -> None:
        try:
            if store._session.alive if isinstance(store, MemoryStore) else store._database._opened is not None:
                await _check_all(store, prefixes, seen, alike=alike)
        finally:
            await close(store)

    return checked
