"""Journals as releases have written them give traces by today's rules, whole and from wherever they break off."""

from pathlib import Path

import pytest

from tests.replay.journal import load, paths
from tests.traces import check_document, check_trace, spans, whole

golden = pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)


@golden
def test_a_journal_of_a_release_has_a_sound_trace(path: Path):
    """Under a manual clock, where steps take no time at all, no span breaks Jaeger's rules, sent or in a document."""
    journal = load(path)
    entries = list(journal.entries)
    check_trace(journal.row, entries, prefixes=len(entries))
    for cut in range(len(entries) + 1):
        check_document(journal.row, entries[:cut], spans(journal.row, entries[:cut]))


@golden
def test_what_has_ended_is_told_once(path: Path):
    """In the document of an ended saga no short span holds others, and nothing tells what another span tells."""
    journal = load(path)
    sent = spans(journal.row, journal.entries)
    told = whole(journal.row, journal.entries, now_ns=0)
    assert whole(journal.row, journal.entries, now_ns=1 << 62) == told, "what has ended has no now"
    last = {span.parent_id: 0 for span in told}
    for span in told:
        last[span.parent_id] = max(last[span.parent_id], span.end_ns)
    assert [span.name for span in told if span.end_ns < last.get(span.span_id, 0)] == []
    outcome = next(span for span in reversed(sent) if span.name.startswith("outcome "))
    root = told[0]
    assert (root.start_ns, root.failed, root.events) == (outcome.start_ns, outcome.failed, outcome.events)
    assert root.attributes.items() >= outcome.attributes.items()
    assert len(told) == len({span.span_id for span in told}) <= len(sent) - 2


@golden
def test_a_worker_of_an_earlier_release_has_no_machine(path: Path):
    """A worker's name without a machine is told as it is, and nothing is made up."""
    journal = load(path)
    told = [span.attributes for span in spans(journal.row, journal.entries)]
    assert "w-1" in {attributes.get("saga.worker.id") for attributes in told}
    assert not [
        attributes for attributes in told if "saga.worker.host" in attributes or "saga.worker.pid" in attributes
    ]
