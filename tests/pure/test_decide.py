"""The engine's decisions are pure: what follows a failure or a crash, and whether code and journal agree."""

from collections.abc import Sequence
from typing import Any

import pytest

from durable_core.model.codec import Codec
from durable_core.model.decide import (
    Again,
    CrashesTooOften,
    Final,
    Interrupted,
    RunAgain,
    RunAlone,
    after_crash,
    after_failure,
    agree,
    describe,
    given_up,
)
from durable_core.model.entry import ROLES, Entry, EntryKind, Role, effective
from durable_core.model.outcome import Outcome
from durable_core.model.record import StepRecord
from durable_core.model.retry import Retry
from durable_core.model.shape import CallShape
from durable_core.model.spec import StepSpec

NOW = 1_000_000_000_000
SECOND = 1_000_000_000
TWICE = Retry(attempts=2, first=3, jitter=False)


class CardDeclined(Exception): ...


def charge(order: str) -> str:
    return order


def spec(**options: Any) -> StepSpec:
    return StepSpec(
        name="charge",
        kind="step",
        fn=charge,
        shape=CallShape.of(charge, Codec()),
        is_async=False,
        rejects=(CardDeclined,),
        **options,
    )


def record(*, failures: int = 0, crashes: int = 0, unknown: bool = False, begun: bool = True) -> StepRecord:
    step = StepRecord("charge", "step", b"[]", NOW)
    step.failures, step.crashes, step.unknown, step.begun = failures, crashes, unknown, begun
    return step


def follows(error: Exception, step: StepRecord | None = None, /, *, how: Any = None, **options: Any) -> Any:
    return after_failure(spec(**options), step or record(), error, now_ns=NOW, draw=0.0, **(how or {}))


def test_a_rejection_is_final_whatever_the_policy():
    """A rejection is the participant's answer: it is not retried, and an earlier doubt does not outlive it."""
    assert follows(CardDeclined(), retry=Retry.forever()) == (Outcome.REJECTED, Final(Outcome.REJECTED))
    assert follows(CardDeclined(), record(unknown=True)) == (Outcome.REJECTED, Final(Outcome.REJECTED))


def test_a_failure_is_retried_while_the_policy_says_so():
    """The next attempt is due after the policy's delay, counted from the end of the failed one."""
    assert follows(ValueError(), retry=TWICE) == (Outcome.FAILED, Again(NOW + 3 * SECOND))
    assert follows(ValueError(), record(failures=1), retry=TWICE) == (Outcome.FAILED, Final(Outcome.FAILED))


def test_crashes_do_not_count_against_the_attempts_of_the_policy():
    """Only failures use the policy up; attempts that a crash has cut do not."""
    assert follows(ValueError(), record(crashes=4), retry=TWICE)[1] == Again(NOW + 3 * SECOND)


def test_an_unknown_outcome_is_retried_too_but_never_of_an_at_most_once_step():
    """Under the same key a retry is safe, unless the step says that it must not be called twice."""
    assert follows(TimeoutError(), retry=TWICE) == (Outcome.UNKNOWN, Again(NOW + 3 * SECOND))
    assert follows(TimeoutError(), retry=TWICE, at_most_once=True) == (Outcome.UNKNOWN, Final(Outcome.UNKNOWN))
    assert follows(ValueError(), retry=TWICE, at_most_once=True) == (Outcome.FAILED, Again(NOW + 3 * SECOND))


def test_unknown_is_sticky():
    """A failure after an unknown attempt says nothing about that attempt: the step's outcome stays unknown."""
    assert follows(ValueError(), record(failures=1, unknown=True), retry=TWICE) == (
        Outcome.UNKNOWN,
        Final(Outcome.UNKNOWN),
    )
    outcome, then = follows(ValueError(), record(unknown=True), retry=TWICE)
    assert (outcome, type(then)) == (Outcome.FAILED, Again)


def test_without_an_effect_nothing_is_unknown():
    """A lookup's timeout or doubt is a failure, also after a crash."""
    assert follows(TimeoutError(), effect=False) == (Outcome.FAILED, Final(Outcome.FAILED))
    assert follows(ValueError(), record(unknown=True), effect=False) == (Outcome.FAILED, Final(Outcome.FAILED))
    assert follows(ValueError(), how={"doubtful": True}, effect=False) == (Outcome.FAILED, Final(Outcome.FAILED))
    assert given_up(spec(effect=False), record(unknown=True)) is Outcome.FAILED


def test_what_the_engine_itself_doubts_is_unknown_whatever_was_raised():
    """After a timeout or a cut attempt the exception's type does not matter."""
    assert follows(ValueError(), how={"doubtful": True}) == (Outcome.UNKNOWN, Final(Outcome.UNKNOWN))


def test_a_bad_result_is_unknown_and_not_retried():
    """A result that cannot be stored will not get better: no further attempt, whatever the policy."""
    how = {"doubtful": True, "repeatable": False}
    assert follows(ValueError(), how=how, retry=Retry.forever()) == (Outcome.UNKNOWN, Final(Outcome.UNKNOWN))


def test_a_promised_attempt_that_is_not_made_leaves_failed_or_unknown():
    """A retry that is given up because its scope was stopped ends as what is known by then."""
    assert given_up(spec(), record()) is Outcome.FAILED
    assert given_up(spec(), record(unknown=True)) is Outcome.UNKNOWN


@pytest.mark.parametrize("crashes", range(5))
def test_a_cut_step_runs_again_until_it_has_crashed_too_often(crashes: int):
    """The fifth crash in one step, with max_crashes=5, is the last; an attempt that was withheld is none."""
    answer = after_crash(spec(), record(crashes=crashes), max_crashes=5)
    assert answer == (RunAgain() if not crashes else RunAlone() if crashes < 4 else CrashesTooOften(5))
    assert after_crash(spec(), record(crashes=crashes, begun=False), max_crashes=5) == RunAgain()


def test_an_at_most_once_step_that_may_have_begun_is_not_called_again():
    """Interrupted where the attempt may have been called; run where it certainly was not."""
    assert after_crash(spec(at_most_once=True), record(), max_crashes=5) == Interrupted()
    assert after_crash(spec(at_most_once=True), record(begun=False), max_crashes=5) == RunAgain()


# -- the journal and the code ---------------------------------------------------------------------------------------


def entry(
    kind: str, key: str = "charge", *, seq: int = 1, label: str = "", attempt: int = 0, payload: bytes | None = None
) -> Entry:
    return Entry(1, seq, kind, key, attempt, label, payload, None, None, NOW, None, "w")


def test_the_same_question_agrees_with_its_entry():
    """An entry of the same kind, key, label and arguments is the answer."""
    started = entry("started", label="step", payload=b'["a"]')
    assert agree(started, kind="started", key="charge", label="step", payload=b'["a"]')


@pytest.mark.parametrize(
    "asked", [{"kind": "armed"}, {"key": "ship"}, {"label": "lookup"}, {"payload": b'["b"]'}, {"payload": None}]
)
def test_any_other_question_is_told_apart(asked: dict[str, Any]):
    """Another kind of entry, step, step kind or argument disagrees."""
    started = entry("started", label="step", payload=b'["a"]')
    question = {"kind": "started", "key": "charge", "label": "step", "payload": b'["a"]'}
    assert not agree(started, **(question | asked))


def test_only_arguments_of_steps_are_compared():
    """The payload of a mark or parking is for people; other words in it are no disagreement."""
    parked = entry("parked", payload=b'{"reason":"old words"}')
    assert agree(parked, kind="parked", key="charge", label="", payload=b'{"reason":"new words"}')


def test_an_entry_is_described_with_what_it_has():
    """Kind, label and key, and none that is empty."""
    assert describe("started", "charge", "step") == "started step 'charge'"
    assert describe("ended", "", "completed") == "ended completed"
    assert describe("parked", "charge", "") == "parked 'charge'"


def seqs(entries: Sequence[Entry]) -> list[int]:
    return [one.seq for one in effective(entries)]


def test_remarks_are_never_replayed():
    """Faults and notes are evidence for people: a replay does not see them."""
    assert seqs(
        [entry("started", seq=1), entry("faulted", seq=2), entry("noted", seq=3), entry("succeeded", seq=4)]
    ) == [1, 4]


def test_a_retry_makes_void_what_followed_from_the_failure():
    """A signal that reopens a step takes away its end and what the body did about it, and stays itself."""
    journal = [
        entry("started", seq=1),
        entry("failed", seq=2),
        entry("marked", "x", seq=3),
        entry("faulted", seq=4),
        entry("signalled", "retry", seq=5, label="charge", attempt=2),
        entry("retried", seq=6),
    ]
    assert seqs(journal) == [1, 5, 6]


def test_a_signal_that_reopens_nothing_voids_nothing():
    """Without a step's key, or without a place in the journal, all before the signal is replayed."""
    assert seqs([entry("started", seq=1), entry("signalled", "cancel", seq=2)]) == [1, 2]
    assert seqs([entry("started", seq=1), entry("signalled", "retry", seq=2, label="charge")]) == [1, 2]


def test_a_second_retry_voids_the_first_with_what_followed():
    """Retried and failed again, retried again: only the latest attempt counts."""
    journal = [
        entry("started", seq=1),
        entry("failed", seq=2),
        entry("signalled", "retry", seq=3, label="charge", attempt=2),
        entry("retried", seq=4),
        entry("failed", seq=5),
        entry("signalled", "retry", seq=6, label="charge", attempt=5),
    ]
    assert seqs(journal) == [1, 3, 4, 6]


def test_every_kind_of_entry_has_a_role():
    """No kind is without an answer to how a replay treats it."""
    assert set(ROLES) == set(EntryKind)
    assert set(ROLES.values()) == set(Role)
