"""Operators' verbs on runs: `judge` in every status against the table, and the table against the page in the docs."""

import re
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

from durable_core import RunStatus
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.info import RunInfo, plain_input, run_info
from durable_core.model.run import RunUpdate, unchanged
from durable_core.model.verbs import VERBS, Accept, Refuse, Repeat, faulted_on, judge
from tests.pure.records import record

PAGE = Path(__file__).parents[2] / "docs/reference/durable-core.md"
GOING = {RunStatus.PENDING, RunStatus.RUNNING, RunStatus.WAITING}
EXPECTED: dict[str, tuple[set[RunStatus], set[RunStatus]]] = {
    "retry": ({RunStatus.STUCK}, set()),
    "kill": (GOING | {RunStatus.STUCK}, {RunStatus.KILLED}),
    "pause": (GOING | {RunStatus.STUCK}, set()),
    "resume": (GOING | {RunStatus.STUCK}, set()),
}
CELLS = {Accept: "✓", Repeat: "=", Refuse: ""}


@pytest.mark.parametrize("verb", EXPECTED)
@pytest.mark.parametrize("status", RunStatus)
def test_a_verb_acts_where_it_makes_sense(verb: str, status: RunStatus):
    """In each status each verb is accepted, or a harmless repetition, or refused with a message that names both."""
    acts, repeats = EXPECTED[verb]
    answer = judge(verb, record(status), paused=verb == "resume")
    assert type(answer) is (Accept if status in acts else Repeat if status in repeats else Refuse)
    if isinstance(answer, Refuse):
        assert status.value in answer.why
        assert f"`{verb}`" in answer.why


@pytest.mark.parametrize("status", RunStatus)
def test_pause_and_resume_are_harmless_twice_and_refused_after_the_end(status: RunStatus):
    """Where the run stands as asked already nothing changes; a run that has ended is neither paused nor resumed."""
    expected = Repeat if status in EXPECTED["pause"][0] else Refuse
    assert type(judge("pause", record(status), paused=True)) is expected
    assert type(judge("resume", record(status), paused=False)) is expected


def entry(kind: EntryKind, key: str = "", attempt: int = 0) -> Entry:
    return Entry(1, 1, kind, key, attempt, "", None, None, None, 0, None, "w")


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ([entry(EntryKind.STARTED, "charge"), entry(EntryKind.FAULTED, "charge", 4)], ("charge", 4)),
        ([entry(EntryKind.FAULTED, "charge", 4), entry(EntryKind.NOTED)], ("charge", 4)),
        ([entry(EntryKind.FAULTED, "charge", 4), entry(EntryKind.SIGNALLED)], ("", 0)),
        ([entry(EntryKind.FAULTED, "charge", 4), entry(EntryKind.PARKED)], ("", 0)),
        ([entry(EntryKind.STARTED, "charge")], ("", 0)),
        ([], ("", 0)),
    ],
)
def test_a_retry_attempts_again_what_faulted_last(entries: list[Entry], found: tuple[str, int]):
    """The step of the last fault, unless a retry or another stop came after it; else the body itself."""
    assert faulted_on(entries) == found


def test_the_page_shows_the_table():
    """The tables of the page say of each verb and status what `judge` answers, and what each verb does."""
    page = PAGE.read_text(encoding="utf-8")
    head = re.search(r"^\| Status \| (.*) \|$", page, re.MULTILINE)
    assert head is not None
    verbs = re.findall(r"`(\w+)`", head[1])
    assert verbs == list(VERBS) == list(EXPECTED)
    for status in RunStatus:
        row = re.search(rf"^\| `{status}` \|(.*)\|$", page, re.MULTILINE)
        assert row is not None
        answers = [CELLS[type(judge(verb, record(status), paused=verb == "resume"))] for verb in verbs]
        assert [cell.strip() for cell in row[1].split("|")] == answers
    for verb, rule in VERBS.items():
        assert f"| `{verb}` | {rule.does} |" in page


def test_a_claim_makes_a_run_its_workers():
    """It runs then, and no time is left that it waits for; a stuck one stays so, with what is promised beside that."""
    for status in RunStatus:
        waiting = attrs.evolve(record(status), wake_at_ns=7)
        claimed = waiting.claimed_by("w")
        is_stuck = status is RunStatus.STUCK
        assert claimed == attrs.evolve(
            waiting,
            owner="w",
            status=RunStatus.STUCK if is_stuck else RunStatus.RUNNING,
            wake_at_ns=7 if is_stuck else None,
        )


def test_a_row_as_it_stands_changes_nothing():
    """Each column that a change may write has its own value."""
    stands = attrs.evolve(record(RunStatus.WAITING), phase="p", wake_at_ns=7, paused=True, detail=b"1")
    assert {name: getattr(stands, name) for name in RunUpdate._fields if hasattr(stands, name)} == {
        name: value for name, value in unchanged(stands)._asdict().items() if hasattr(stands, name)
    }


def test_a_run_is_shown_with_what_stopped_it():
    """Its own failure, or the last one of its journal where it is stuck; its value by its type, or plain."""

    def shown(status: RunStatus, *entries: Entry, **columns: Any) -> RunInfo:
        row = attrs.evolve(record(status), **columns)
        return run_info(row, entries, read_input=plain_input, read_result=msgspec.json.decode)

    failed = entry(EntryKind.FAILED, "charge")._replace(label="failed", error=b'{"type":"shop:Closed","message":"no"}')
    assert "no" in str(shown(RunStatus.STUCK, failed, entry(EntryKind.NOTED)).error)
    assert shown(RunStatus.RUNNING, failed).error is None
    done = shown(RunStatus.COMPLETED, output=b"[1]", input=b'["a"]', wake_at_ns=7000)
    assert (done.result, done.input, done.error, done.wake_at) == ([1], {"0": "a"}, None, None)
    assert shown(RunStatus.WAITING, wake_at_ns=7000).wake_at is not None
