"""What is to be undone, and in which order: reverse order of completion, each once, none that cannot have run."""

from typing import Any

from durable_core.layer import EntryKind, JournalEntry, StepRecord, fold
from sagas.model.plan import in_doubt, probe_key, to_undo, undo_key, undone


def steps(*told: tuple[str, str, str]) -> dict[str, StepRecord]:
    """Steps by (key, kind, how it ended); completed in the order given, started in the opposite one."""
    journal = [entry(EntryKind.STARTED, key, label=kind) for key, kind, _ in reversed(told)]
    for seq, (key, _, end) in enumerate(told, len(told) + 1):
        if end == "succeeded":
            journal.append(entry(EntryKind.SUCCEEDED, key, seq=seq))
        elif end != "running":
            journal.append(entry(EntryKind.FAILED, key, seq=seq, label=end))
    return fold(journal)


def entry(kind: str, key: str, **columns: Any) -> JournalEntry:
    return JournalEntry(1, 0, kind, key, 1, "", None, None, None, 0, None, "w")._replace(**columns)


def test_undo_is_the_reverse_of_completion_not_of_the_start():
    """The step that completed last is undone first."""
    assert to_undo(steps(("a", "step", "succeeded"), ("b", "step", "succeeded"), ("c", "step", "succeeded"))) == [
        "c",
        "b",
        "a",
    ]


def test_only_completed_steps_are_undone():
    """Not what failed, was rejected, is in doubt or still runs; and nothing that is no compensatable step."""
    ended = [(end, "step", end) for end in ("rejected", "failed", "unknown", "running")]
    kinds = [(kind, kind, "succeeded") for kind in ("pivot", "lookup", "retriable", "compensation", "probe")]
    assert to_undo(steps(("a", "step", "succeeded"), *ended, *kinds)) == ["a"]


def test_what_is_undone_or_skipped_is_not_undone_again():
    """A step whose compensation has succeeded is left out, and one that an operator counts as undone."""
    told = steps(
        ("a", "step", "succeeded"),
        ("b", "step", "succeeded"),
        ("c", "step", "succeeded"),
        ("c~undo", "compensation", "succeeded"),
    )
    assert to_undo(told, skipped=["b"]) == ["a"]


def test_a_compensation_that_failed_has_undone_nothing():
    """Its step is still to be undone."""
    assert to_undo(steps(("a", "step", "succeeded"), ("a~undo", "compensation", "failed"))) == ["a"]


def test_the_undone_steps_are_told_in_the_order_in_which_they_were_undone():
    """By the completion of their compensations, whatever the order of the steps."""
    told = steps(
        ("a", "step", "succeeded"),
        ("b", "step", "succeeded"),
        ("b~undo", "compensation", "succeeded"),
        ("a~undo", "compensation", "succeeded"),
    )
    assert undone(told) == ["b", "a"]


def test_a_savepoint_undoes_what_is_in_it():
    """Only keys under the prefix."""
    told = steps(("a", "step", "succeeded"), ("courier/a", "step", "succeeded"), ("courier#2/a", "step", "succeeded"))
    assert to_undo(told, "courier/") == ["courier/a"]


def test_doubts_are_settled_latest_first_and_once():
    """Steps and pivots with an unknown outcome; not lookups or retriables, nor what an operator skipped."""
    told = steps(
        ("a", "step", "unknown"),
        ("b", "pivot", "unknown"),
        ("c", "lookup", "unknown"),
        ("d", "step", "succeeded"),
        ("e", "step", "unknown"),
    )
    assert in_doubt(told) == ["e", "b", "a"]
    assert in_doubt(told, skipped=["e"]) == ["b", "a"]


def test_a_doubt_that_was_undone_is_none():
    """A compensation that admits Unknown has settled it."""
    assert in_doubt(steps(("a", "step", "unknown"), ("a~undo", "compensation", "succeeded"))) == []


def test_the_keys_of_compensation_and_probe_are_their_steps():
    """They are derived, so a journal tells whom they serve."""
    assert (undo_key("x/a#2"), probe_key("x/a#2")) == ("x/a#2~undo", "x/a#2~probe")
