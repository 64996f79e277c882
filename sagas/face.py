"""The face of sagas: runs of ``durable_core`` in the words, errors and views of sagas' users.

Pure functions of a run's row and journal; ``Client`` asks the store.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import attrs
import msgspec

from durable_core import DefinitionError, RunExists, RunKilled, RunNotFound, RunStatus, RunStuck, WrongState
from durable_core.layer import (
    ABANDON,
    CallShape,
    EntryKind,
    Face,
    JournalEntry,
    Order,
    RunOutcome,
    RunRecord,
    RunRef,
    Standing,
    faulted_on,
    in_words,
    plain_input,
    rebuild,
)
from sagas.errors import SagaCompensated, SagaExists, SagaKilled, SagaNotFound, SagaPastPivot, SagaStuck
from sagas.model.attention import line_of, needs_of
from sagas.model.children import child_info, status_of_child, undone_in, within
from sagas.model.info import SagaInfo, SagaSummary, info_of, parked, summary_of, undo_given_up
from sagas.model.phases import SagaStatus, cause_of, is_compensating, is_saga, query_of, rolls_back, status_of
from sagas.model.verbs import VERBS, Accept, OperatorAction, Refuse, Repeat, judge

SummaryT = TypeVar("SummaryT", bound=SagaSummary)
GOING = frozenset({RunStatus.PENDING, RunStatus.RUNNING, RunStatus.WAITING})
LASTING = {"kill": SagaStatus.KILLED, "rollback": SagaStatus.COMPENSATING}
"""The status of a saga once it has taken up a verb that decides it by itself."""


@attrs.frozen
class SagaFace(Face[SagaInfo, SagaStatus]):
    """The face of sagas."""

    step_shape: Callable[[RunRecord, str], CallShape | None]
    """How the step with this key is stored, where the saga is registered in this process."""

    noun: ClassVar[str] = "saga"
    not_open: ClassVar[tuple[str, str]] = (
        "this orchestrator is not open",
        "Use it within its `async with` block, or give the application `lifespan(orchestrator)` of sagas.fastapi",
    )
    exists: ClassVar[type[RunExists]] = SagaExists
    killed: ClassVar[type[RunKilled]] = SagaKilled
    stuck: ClassVar[type[RunStuck]] = SagaStuck

    # -- looking ---------------------------------------------------------------------------------------------------

    def candidates(self, id: str) -> Sequence[str]:
        """A child's id is ``<parent id>/<step key>``, and an id may itself contain slashes: the longest comes first."""
        parts = id.split("/")
        return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]

    def shows(self, record: RunRecord) -> bool:
        """Whether the run may be a saga."""
        return is_saga(record)

    def closed(self, record: RunRecord) -> bool:
        """Whether it is being, or was, rolled back."""
        return rolls_back(record.phase)

    def not_found(self, id: str, missing: RunNotFound | None = None) -> SagaNotFound:
        """An error that says when it was purged, if it was."""
        if missing is not None and missing.purged_at_ns is not None:
            return SagaNotFound(f"saga {missing.text}", missing.advice, run_id=id, purged_at_ns=missing.purged_at_ns)
        return SagaNotFound(f"no saga has the id {id!r} in this store", "`sagas list` shows those there are", run_id=id)

    def query(self, status: str) -> tuple[frozenset[RunStatus], frozenset[str] | None]:
        """Runs whose status and phase make this status."""
        try:
            return query_of(SagaStatus(status))
        except ValueError:
            raise DefinitionError(f"{status!r} is no status of a saga", f"Use one of {', '.join(SagaStatus)}") from None

    def status(self, standing: Standing) -> SagaStatus | None:
        """By status and phase of its row; that of a child is read off the journal."""
        status = status_of(standing.record.status, standing.record.phase)
        return status_of_child(status, standing.entries, standing.child) if standing.child else status

    def describe(self, standing: Standing) -> SagaInfo | None:
        """A child is a saga of its own."""
        record, entries = standing.record, standing.entries
        info = info_of(record, entries, read_input=standing.read_input, read_result=standing.result_reader(self.noun))
        info = self._whole(info, standing)
        if standing.child:
            return child_info(info, entries, standing.child)
        return attrs.evolve(info, steps=within(info, entries, prefix=""))

    def summary(self, standing: Standing) -> SagaSummary:
        """A saga in a list; its journal is not needed."""
        return self._whole(summary_of(standing.record), standing)

    def _whole(self, info: SummaryT, standing: Standing) -> SummaryT:
        """What the row and the journal cannot tell: that it was begun again, or that no worker serves its version."""
        if standing.restarted_as:
            info = attrs.evolve(info, restarted_as=standing.restarted_as)
        if standing.unserved_at_ns is None:
            return info
        return attrs.evolve(info, reason=self._unserved(standing, standing.unserved_at_ns), unserved=True)

    def _unserved(self, standing: Standing, now_ns: int) -> str:
        record, more = standing.record, " (`sagas versions` shows the workers of each version)"
        if record.deadline_at_ns is not None and record.deadline_at_ns <= now_ns and not record.phase:
            more += ". Its deadline has passed, and it cannot be undone before there is one"
        return self.unserved(standing, more=more)

    def stuck_on(self, standing: Standing) -> tuple[str, ...]:
        """The steps that are parked."""
        return tuple(dict.fromkeys(step for steps in parked(standing.entries).values() for step in steps))

    def attention(self, info: SagaInfo, entries: Sequence[JournalEntry], *, worker: str) -> Iterator[str]:
        """The reasons that this worker has journalled, and a version that no worker serves."""
        return (line_of(info, need) for need in needs_of(info, entries, worker=worker))

    # -- its end ---------------------------------------------------------------------------------------------------

    def outcome(self, ref: RunRef, outcome: RunOutcome, shape: CallShape | None, standing: Standing | None) -> Any:
        """The result of a child is its own, once its root has ended or is stuck; it is plain JSON."""
        if standing is not None and standing.child:
            child = self.describe(standing)
            if child is None:
                raise self.not_found(f"{ref.id}/{standing.child}")
            if child.status is SagaStatus.COMPLETED:
                return child.result
            if child.status is SagaStatus.COMPENSATED:
                undone, skipped = undone_in(standing.entries, standing.child)
                raise _rolled_back(child.id, child.status, child.cause, child.error, undone=undone, skipped=skipped)
        return super().outcome(ref, outcome, shape, standing)

    def failed(self, ref: RunRef, outcome: RunOutcome) -> SagaCompensated:
        """A saga that has failed was rolled back."""
        report: dict[str, list[str]] = msgspec.json.decode(outcome.output or b"{}")
        return _rolled_back(
            ref.id,
            status_of(outcome.status, outcome.phase),
            cause_of(outcome.phase),
            None if outcome.error is None else rebuild(outcome.error),
            undone=report.get("compensated", []),
            skipped=report.get("skipped", []),
        )

    # -- operators -------------------------------------------------------------------------------------------------

    def judge(self, verb: str, action: OperatorAction, standing: Standing) -> Order | None:
        """Judge by the table of verbs, for the saga as it is now and as it will be after the waiting signals.

        Raises:
            SagaPastPivot: nothing can be undone any more.
            PayloadError: the result given to ``resolve`` is not of the step's type.
        """
        record, entries = standing.record, standing.entries
        action = _of_child(action, standing)
        match _judgement(verb, action, standing):
            case Repeat():
                return None
            case Refuse(why=why, past_pivot=True):
                raise SagaPastPivot(why, run_id=record.id, status=record.status)
            case Refuse(why=why):
                raise WrongState(why, run_id=record.id, status=record.status)
            case Accept():
                if action.happened and action.step is not None and action.step not in undo_given_up(parked(entries)):
                    self._check_result(record, action.step, bytes(action.result))
                label, since = _reopening(verb, entries)
                undoing = is_compensating(record.phase) and record.ended_at_ns is None
                if verb == "rollback" and undoing and _lasting(standing) != "kill":
                    verb, label = "retry", ""  # it is being undone already: go on with that
                return Order(name=verb, payload=msgspec.json.encode(action), label=label, since=since)

    def _check_result(self, record: RunRecord, key: str, stored: bytes) -> None:
        """Refuse a result that is not one of the step's type, where the saga is known here."""
        shape = self.step_shape(record, key)
        if shape is not None:
            shape.decode_result(stored, what=f"saga {record.id}, step {key!r}: the result given to resolve")


def _rolled_back(
    id: str,
    status: SagaStatus,
    cause: str | None,
    error: BaseException | None,
    *,
    undone: Sequence[str],
    skipped: Sequence[str],
) -> SagaCompensated:
    cause = cause or "failed"
    why = in_words(error) if error is not None else cause
    raised = SagaCompensated(
        f"saga {id!r} was rolled back ({why}); undone: {', '.join(undone) or 'nothing had to be'}",
        saga_id=id,
        status=status.value,
        cause=cause,
        compensated=undone,
        skipped=skipped,
    )
    raised.__cause__ = error
    return raised


def _of_child(action: OperatorAction, standing: Standing) -> OperatorAction:
    """A verb about a step of a child is about that step of its root."""
    record, child = standing.record, standing.child
    if not child:
        return action
    if action.step is None:
        raise WrongState(
            f"'{record.id}/{child}' is a child of saga {record.id!r} and ends with it",
            "Give the id of that saga. Nothing was changed",
            run_id=f"{record.id}/{child}",
            status=record.status,
        )
    return msgspec.structs.replace(action, step=f"{child}/{action.step}")


def _judgement(verb: str, action: OperatorAction, standing: Standing) -> Accept | Repeat | Refuse:
    record, entries = standing.record, standing.entries
    info = info_of(record, entries, read_input=plain_input, read_result=msgspec.json.decode)
    info = attrs.evolve(info, paused=standing.paused)
    signalled = record.status in GOING and bool(parked(entries))
    if signalled:  # the journal tells: until a worker has taken a verb up it is stuck on what it was
        info = attrs.evolve(info, status=SagaStatus.STUCK)
    lasting = LASTING.get(_lasting(standing) or "")
    if lasting is not None:
        info, signalled = attrs.evolve(info, status=lasting), False
    match judge(verb, info, record.phase, action.step, happened=action.happened):
        case Accept() as found:
            # A cancel shows in no status before what is in flight has ended.
            doubtful = signalled or (verb == "cancel" and record.status in GOING)
        case Refuse(past_pivot=past_pivot) as found:
            doubtful = not signalled and not past_pivot
        case Repeat():
            return Repeat()
    return Repeat() if doubtful and _is_repeated(verb, action, standing) else found


def _waiting(standing: Standing) -> list[OperatorAction]:
    """The verbs that no worker has taken up yet, in order."""
    named = [(signal.name.partition(" ")[0], signal.payload) for signal in standing.signals]
    return [OperatorAction.read(name, payload) for name, payload in named if name in VERBS]


def _lasting(standing: Standing) -> str | None:
    """The last verb that waits to be taken up and decides by itself how the saga will stand."""
    return next((each.verb for each in reversed(_waiting(standing)) if each.verb in LASTING), None)


def _is_repeated(verb: str, action: OperatorAction, standing: Standing) -> bool:
    """Whether the last verb was exactly this one: then a repetition changes nothing."""
    signalled = [entry for entry in standing.entries if entry.kind == EntryKind.SIGNALLED and entry.key in VERBS]
    given = [OperatorAction.read(entry.key, entry.payload) for entry in signalled]
    given += _waiting(standing)
    last = given[-1] if given else None
    return last is not None and (last.verb, last.step, last.happened, bytes(last.result)) == (
        verb,
        action.step,
        action.happened,
        bytes(action.result),
    )


def _reopening(verb: str, entries: Sequence[JournalEntry]) -> tuple[str, int]:
    """A label and an entry: which part of the journal is void once the verb acts; see ``EntryKind.SIGNALLED``."""
    if verb == "rollback":
        return ABANDON, 0
    return faulted_on(entries) if verb == "retry" else ("", 0)
