"""Child sagas as their root's journal tells them: where each stands, what it did, and why it was rolled back."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from durable_core.layer import EntryKind, JournalEntry
from sagas import SagaInfo, SagaStatus
from sagas.model.children import child_info, children_of, status_of_child, undone_in, within
from sagas.model.info import steps_of

BEGAN = datetime(2030, 1, 1, tzinfo=UTC)


def journal(*lines: tuple[Any, ...]) -> list[JournalEntry]:
    """Entries of these kinds, keys, labels and payloads, a microsecond apart."""
    found = []
    for seq, (kind, key, label, payload) in enumerate(lines, 1):
        stored = None if payload is None else msgspec.json.encode(payload)
        found.append(JournalEntry(1, seq, kind, key, 1, label, stored, None, None, seq * 1000, None, "w"))
    return found


def opened(key: str, **more: Any) -> tuple[Any, ...]:
    return EntryKind.MARKED, f"child:{key}", "", {"name": "flying", "version": 3, "input": ["ann"], **more}


def mark(kind: str, key: str, payload: Any = None) -> tuple[Any, ...]:
    return EntryKind.MARKED, f"{kind}:{key}", "", payload


def begun(key: str, label: str = "step") -> tuple[Any, ...]:
    return EntryKind.STARTED, key, label, None


def done(key: str, result: Any = None) -> tuple[Any, ...]:
    return EntryKind.SUCCEEDED, key, "", result


def root(status: SagaStatus, entries: list[JournalEntry]) -> SagaInfo:
    return SagaInfo(
        id="trip-1",
        saga="trip",
        version=1,
        status=status,
        cause="cancelled" if status in (SagaStatus.COMPENSATED, SagaStatus.COMPENSATING) else None,
        input={},
        result=None,
        error=None,
        status_detail=None,
        created_at=BEGAN,
        updated_at=BEGAN,
        ended_at=None,
        wake_at=None,
        paused=False,
        reason=None,
        steps=steps_of(entries),
    )


GOING = [opened("fly"), begun("fly/seat"), done("fly/seat", "12A")]
COMPLETED = [*GOING, mark("child-completed", "fly", "ticket")]
UNDOING = [*GOING, mark("undoing", "fly"), begun("fly/seat~undo", "compensation")]
COMPENSATED = [*UNDOING, done("fly/seat~undo"), mark("child-compensated", "fly", {"cause": "failed"})]
S = SagaStatus


@pytest.mark.parametrize(
    ("lines", "status", "expected"),
    [
        (GOING, S.RUNNING, S.RUNNING),
        (GOING, S.STUCK, S.STUCK),
        (COMPLETED, S.RUNNING, S.COMPLETED),
        (COMPLETED, S.COMPLETED, S.COMPLETED),
        (COMPLETED, S.KILLED, S.COMPLETED),
        (COMPLETED, S.COMPENSATING, S.COMPENSATING),
        (COMPLETED, S.STUCK, S.STUCK),
        (COMPLETED, S.COMPENSATED, S.COMPENSATED),
        (COMPLETED, S.RESOLVED, S.COMPENSATED),
        (UNDOING, S.RUNNING, S.COMPENSATING),
        (UNDOING, S.STUCK, S.STUCK),
        (UNDOING, S.KILLED, S.KILLED),
        (UNDOING, S.RESOLVED, S.RESOLVED),
        (COMPENSATED, S.RUNNING, S.COMPENSATED),
        (COMPENSATED, S.COMPLETED, S.COMPENSATED),
    ],
)
def test_where_a_child_stands(lines: list[tuple[Any, ...]], status: SagaStatus, expected: SagaStatus):
    """Its own end counts until its root is rolled back; its rollback is as far as its root's status lets it be."""
    assert status_of_child(status, journal(*lines), "fly") is expected


def test_what_is_no_child_has_no_status():
    """Neither a step nor a key that the journal does not have."""
    entries = journal(*GOING)
    assert status_of_child(S.RUNNING, entries, "fly/seat") is None
    assert child_info(root(S.RUNNING, entries), entries, "fly/seat") is None


def around(*more: tuple[Any, ...]) -> list[JournalEntry]:
    """A child that completed within a savepoint, which is being rolled back."""
    inside = [opened("stay/fly"), begun("stay/fly/seat"), done("stay/fly/seat"), mark("child-completed", "stay/fly")]
    return journal(*inside, mark("undoing", "stay"), begun("stay/fly/seat~undo", "compensation"), *more)


def test_the_rollback_of_a_savepoint_undoes_the_children_in_it():
    """Such a child is being undone until all of the savepoint's compensations have succeeded."""
    assert status_of_child(S.RUNNING, around(), "stay/fly") is S.COMPENSATING
    assert status_of_child(S.RUNNING, around(done("stay/fly/seat~undo")), "stay/fly") is S.COMPENSATED
    found = child_info(root(S.RUNNING, around()), around(), "stay/fly")
    assert found is not None
    assert found.cause == "failed"


def nested(*more: tuple[Any, ...]) -> list[JournalEntry]:
    """A child within a child whose deadline passed."""
    return journal(
        opened("fly"),
        opened("fly/eat", name="eating", input={"who": "ann"}),
        mark("child-completed", "fly/eat", 1),
        mark("child-deadline", "fly"),
        mark("undoing", "fly"),
        *more,
    )


def test_a_child_within_a_child_is_undone_with_it():
    """Its cause is that of the child around it, and it is undone once that one is."""
    entries = nested()
    found = child_info(root(S.RUNNING, entries), entries, "fly/eat")
    assert found is not None
    assert (found.id, found.saga, found.input) == ("trip-1/fly/eat", "eating", {"who": "ann"})
    assert (found.status, found.cause) == (S.COMPENSATING, "deadline")
    ended = nested(mark("child-compensated", "fly", {"cause": "deadline"}))
    assert status_of_child(S.RUNNING, ended, "fly/eat") is S.COMPENSATED


def test_the_first_rollback_around_a_child_is_its_own():
    """One that begins later, around it or elsewhere, changes nothing."""
    entries = journal(*UNDOING, opened("other"), mark("undoing", "other"), mark("undoing", "fly"))
    found = children_of(entries)
    assert (found["fly"].undoing, found["fly"].undone_with) == (entries[3], "fly")
    assert found["other"].undone_with == "other"


def test_a_child_is_shown_as_a_saga():
    """Its name, version, arguments, result and times; its steps have keys within it."""
    entries = journal(*COMPLETED, begun("hotel"))
    found = child_info(root(S.RUNNING, entries), entries, "fly")
    assert found is not None
    assert (found.id, found.saga, found.version, found.input) == ("trip-1/fly", "flying", 3, {"0": "ann"})
    assert (found.status, found.cause, found.result, found.error) == (S.COMPLETED, None, "ticket", None)
    assert [step.key for step in found.steps] == ["seat"]
    assert found.created_at < found.ended_at  # type: ignore[operator]


def test_a_child_is_one_step_of_what_is_around_it():
    """With its own steps left out, and in the order of beginning; its children are steps of it."""
    entries = journal(begun("hotel"), *COMPENSATED, opened("fly/eat"), begun("fly/eat/meal"))
    outer = within(root(S.RUNNING, entries), entries, prefix="")
    assert [(step.key, step.kind, step.status) for step in outer] == [
        ("hotel", "step", "running"),
        ("fly", "child", "compensated"),
    ]
    inner = within(root(S.RUNNING, entries), entries, prefix="fly/")
    assert [step.key for step in inner] == ["fly/seat", "fly/eat"]


def test_a_child_under_way_is_a_step_under_way():
    """Neither ended nor with a result; one whose body has returned has both."""
    for lines, expected in ((GOING, ("running", None, False)), (COMPLETED, ("succeeded", "ticket", True))):
        entries = journal(*lines)
        (step,) = within(root(S.RUNNING, entries), entries, prefix="")
        assert (step.status, step.result, step.ended_at is not None) == expected


def test_why_a_child_was_rolled_back_is_in_its_mark():
    """The failure that left it; none in the journal of an older release, whose mark has no payload."""
    said = {"error": {"type": "shop:SoldOut", "message": "no seat"}}
    entries = journal(*GOING, mark("undoing", "fly", said))
    assert msgspec.json.decode(children_of(entries)["fly"].error or b"") == said["error"]
    assert children_of(journal(*UNDOING))["fly"].error is None
    assert children_of(journal(*GOING))["fly"].error is None


def test_what_of_a_child_was_undone_or_skipped():
    """By keys within it, whatever else the journal undoes."""
    entries = journal(
        *COMPENSATED, begun("fly/meal"), done("fly/meal"), mark("skipped", "fly/meal"), mark("skipped", "x")
    )
    assert undone_in(entries, "fly") == (["seat"], ["meal"])


def test_other_marks_about_a_child_change_nothing():
    """Such as that a step of its name was skipped."""
    assert children_of(journal(*GOING, mark("skipped", "fly"))) == children_of(journal(*GOING))
