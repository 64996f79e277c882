"""A step's record is a fold of its entries: the same entries give the same record, whoever folds them."""

from typing import Any

import pytest

from durable_core.model.entry import Entry
from durable_core.model.record import ABANDON, StepRecord, StepStatus, abandoned_at, anew, fold


def entry(kind: str, seq: int, *, key: str = "charge", attempt: int = 1, label: str = "", **columns: Any) -> Entry:
    blank = Entry(1, seq, kind, key, attempt, label, None, None, None, 100 + seq, None, "w")
    return blank._replace(**columns)


STARTED = entry("started", 1, label="step", payload=b'["order"]')


def folded(*entries: Entry) -> StepRecord:
    return fold([STARTED, *entries])["charge"]


def test_an_intent_is_a_running_step_that_may_have_been_called():
    """After its intent a step runs its first attempt, with the arguments that the intent holds."""
    step = folded()
    assert (step.status, step.attempt, step.begun, step.kind) == (StepStatus.RUNNING, 1, True, "step")
    assert (step.arguments, step.started_at_ns, step.name) == (b'["order"]', 101, "charge")


def test_a_success_ends_the_step_with_its_result():
    """The result, the time and the place in the order of completion are those of the entry."""
    step = folded(entry("succeeded", 2, payload=b"7"))
    assert (step.status, step.result, step.ended_at_ns, step.ended_seq) == (StepStatus.SUCCEEDED, b"7", 102, 2)


def test_a_failure_with_a_due_time_promises_an_attempt():
    """The step goes on running, its failure is counted, and its next attempt is due."""
    step = folded(entry("failed", 2, label="failed", error=b"e", due_at_ns=500))
    assert (step.status, step.failures, step.due_at_ns, step.error) == (StepStatus.RUNNING, 1, 500, b"e")
    step.apply(entry("retried", 3, attempt=2))
    assert (step.attempt, step.due_at_ns, step.crashes, step.unknown) == (2, None, 0, False)


def test_a_failure_without_a_due_time_ends_the_step():
    """Its status is the outcome that the entry is labelled with."""
    for outcome in (StepStatus.FAILED, StepStatus.REJECTED, StepStatus.UNKNOWN):
        step = folded(entry("failed", 2, label=outcome.value, error=b"e"))
        assert (step.status, step.ended_seq, step.due_at_ns) == (outcome, 2, None)


def test_doubt_is_sticky_until_somebody_who_knows_speaks():
    """A later failure keeps the doubt; a rejection, a success and a settlement end it."""
    doubtful = [entry("failed", 2, label="unknown", due_at_ns=9), entry("retried", 3, attempt=2)]
    assert folded(*doubtful).unknown
    assert folded(*doubtful, entry("failed", 4, attempt=2, label="failed", due_at_ns=9)).unknown
    assert not folded(*doubtful, entry("failed", 4, attempt=2, label="rejected")).unknown
    assert not folded(*doubtful, entry("succeeded", 4, attempt=2)).unknown
    assert not folded(*doubtful, entry("settled", 4, label="did_not_happen")).unknown


def test_an_attempt_after_one_without_an_end_tells_of_a_crash():
    """The cut attempt may have had its effect: it counts as a crash and leaves a doubt, and is no failure."""
    step = folded(entry("retried", 2, attempt=2))
    assert (step.crashes, step.unknown, step.failures, step.attempt) == (1, True, 0, 2)


def test_a_withheld_attempt_was_never_called():
    """The attempt after it tells of no crash and leaves no doubt."""
    step = folded(entry("withheld", 2))
    assert not step.begun
    step.apply(entry("retried", 3, attempt=2))
    assert (step.crashes, step.unknown, step.begun) == (0, False, True)


def test_a_timeout_alone_ends_nothing():
    """A timed-out attempt has not returned: the step goes on running."""
    assert folded(entry("timed_out", 2)).status is StepStatus.RUNNING


def test_a_given_up_retry_ends_as_labelled():
    """A promised attempt that will not be made ends the step."""
    step = folded(entry("failed", 2, label="unknown", due_at_ns=9), entry("gave_up", 3, label="unknown"))
    assert (step.status, step.due_at_ns, step.ended_seq) == (StepStatus.UNKNOWN, None, 3)


def test_settled_as_happened_is_a_success_with_that_result():
    """The settlement's place in the journal is the step's place in the order of completion."""
    step = folded(entry("failed", 2, label="unknown"), entry("settled", 5, label="happened", payload=b"7"))
    assert (step.status, step.result, step.ended_seq, step.unknown) == (StepStatus.SUCCEEDED, b"7", 5, False)


def test_settled_as_not_happened_is_a_failure():
    """There is nothing to undo of a step that did not happen."""
    step = folded(entry("failed", 2, label="unknown"), entry("settled", 5, label="did_not_happen"))
    assert step.status is StepStatus.FAILED


def test_a_reopened_step_has_a_fresh_policy_and_its_old_doubt():
    """Failures and crashes are counted anew; that an earlier attempt may have happened is not forgotten."""
    step = folded(
        entry("retried", 2, attempt=2), entry("failed", 3, attempt=2, label="unknown"), entry("reopened", 4, attempt=3)
    )
    assert (step.status, step.failures, step.crashes, step.attempt) == (StepStatus.RUNNING, 0, 0, 3)
    assert step.unknown
    assert step.begun


def test_an_attempt_that_was_cut_stays_in_doubt_when_an_operator_reopens_its_step():
    """A step that crashed too often may have happened: a failure of the attempt asked for proves nothing."""
    step = folded()
    step.reopen(200)
    step.apply(entry("retried", 2, attempt=2))
    assert step.unknown


def test_a_reopened_step_measures_its_policy_from_then_on():
    """`within=` of a retry policy begins anew when an operator asks, however old the step is."""
    step = folded(entry("failed", 2, label="failed"))
    step.reopen(10**9)
    assert step.policy_from_ns == 10**9
    assert step.started_at_ns == 101


@pytest.mark.parametrize(
    ("label", "columns", "status", "begun"),
    [
        ("succeeded", {"payload": b"7"}, StepStatus.SUCCEEDED, True),
        ("failed", {"error": b"e", "due_at_ns": 9}, StepStatus.FAILED, True),
        ("rejected", {"error": b"e"}, StepStatus.REJECTED, True),
        ("withheld", {}, StepStatus.FAILED, False),
    ],
)
def test_an_abandoned_step_ends_as_its_attempt_did(
    label: str, columns: dict[str, Any], status: StepStatus, *, begun: bool
):
    """An attempt that returned while nobody drove the run is no doubt once the body's part is over."""
    late = entry("noted", 2, label=label, started_at_ns=101, **columns)
    step = folded(late, entry("signalled", 3, key="", label=ABANDON))
    assert (step.status, step.begun, step.result, step.due_at_ns) == (status, begun, columns.get("payload"), None)


def test_only_the_attempt_under_way_can_have_returned_late():
    """A note about another attempt says nothing of the one that was cut: it stays in doubt."""
    late = entry("noted", 2, label="succeeded", attempt=2, started_at_ns=101, payload=b"7")
    step = folded(late, entry("signalled", 3, key="", label=ABANDON))
    assert (step.status, step.result) == (StepStatus.UNKNOWN, None)


def test_an_operators_retry_reopens_its_step():
    """A signal that names a step, other than one that ends the body's part, begins its policy anew."""
    step = folded(entry("failed", 2, label="failed"), entry("signalled", 3, key="", label="charge", attempt=2))
    assert (step.status, step.begun, step.ended_at_ns) == (StepStatus.RUNNING, False, None)


def test_a_run_has_its_steps_in_the_order_of_their_intents():
    """Steps are told apart by key; entries of waits, marks and the run itself are none of theirs."""
    ship = entry("started", 3, key="ship", label="step")
    steps = fold(
        [
            entry("marked", 0, key="m"),
            STARTED,
            entry("fired", 2, key="sleep"),
            ship,
            entry("succeeded", 4, key="ship"),
            entry("ended", 5, key=""),
        ]
    )
    assert list(steps) == ["charge", "ship"]
    assert [step.status for step in steps.values()] == [StepStatus.RUNNING, StepStatus.SUCCEEDED]


def test_an_attempt_that_was_announced_and_given_up_was_never_called():
    """One that was promised for later had not been announced."""
    given_up = entry("gave_up", 4, label="failed")
    failed = entry("failed", 2, label="failed", due_at_ns=9)
    assert folded(failed, entry("retried", 3, attempt=2), given_up).withheld
    assert not folded(failed, given_up).withheld


def test_a_step_begun_anew_is_another_edition_with_its_own_arguments():
    """Doubt, result and error of the former one count no more; without arguments it keeps those that it had."""
    doubtful = entry("failed", 2, label="unknown", error=b"e")
    again = folded(doubtful, entry("reopened", 3, attempt=2, label=anew(1), payload=b'["other"]'))
    assert (again.edition, again.unknown, again.result, again.error) == (1, False, None, None)
    assert (again.arguments, again.attempt, again.status) == (b'["other"]', 2, StepStatus.RUNNING)
    assert (again.begun, again.withheld, again.ended_at_ns) == (True, False, None)
    assert folded(doubtful, entry("reopened", 3, attempt=2, label=anew(1))).arguments == b'["order"]'
    assert folded(doubtful).edition == 0


def test_an_intent_tells_which_attempt_it_is():
    """A step that serves another edition may begin with a later one."""
    assert fold([STARTED._replace(attempt=3)])["charge"].attempt == 3


def test_the_last_word_that_a_body_is_over_counts():
    """Its place is that of the last such signal, wherever it is; a signal with another label says nothing of it."""
    over = entry("signalled", 2, key="rollback", label=ABANDON)
    assert abandoned_at([over]) == 0
    assert abandoned_at([STARTED, over, over, STARTED]) == 2
    assert abandoned_at([STARTED, entry("signalled", 2, key="retry", label="charge")]) is None
    assert abandoned_at([STARTED._replace(label=ABANDON)]) is None
