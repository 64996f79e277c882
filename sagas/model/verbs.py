"""Operators' verbs, and the states in which each applies.

One table makes the guards, the tests of every verb in every state, and the page in the docs.
"""

from collections.abc import Mapping, Sequence

import attrs
import msgspec

from durable_core.layer import check_text
from sagas.model.info import SagaInfo, StepState
from sagas.model.phases import SAGA_ENDS, Phase, SagaStatus, is_compensating

GOING = frozenset({SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.WAITING})
OPEN = frozenset(SagaStatus) - SAGA_ENDS
STUCK = frozenset({SagaStatus.STUCK})


@attrs.frozen(kw_only=True)
class Verb:
    """When a verb applies."""

    accepted: frozenset[SagaStatus]
    """Statuses in which it is journalled and acts."""
    repeated: frozenset[SagaStatus] = frozenset()
    """Statuses in which it has been done already: it is accepted, and nothing changes."""
    undoes: bool = False
    """It leads to a rollback, so it is refused after the pivot."""
    steps: frozenset[str] = frozenset()
    """The statuses of the step that it must name; none if it names no step."""
    step_done: str | None = None
    """The status that it gives that step: repeating it there is harmless."""
    does: str = ""
    """For the docs."""


VERBS: Mapping[str, Verb] = {
    "cancel": Verb(
        accepted=GOING | STUCK,
        repeated=frozenset({SagaStatus.COMPENSATING, SagaStatus.COMPENSATED, SagaStatus.RESOLVED}),
        undoes=True,
        does="ask for a rollback; what is in flight ends first",
    ),
    "retry": Verb(accepted=STUCK, does="try again what the saga is stuck on, with a fresh retry policy"),
    "skip": Verb(
        accepted=STUCK,
        steps=frozenset({"compensation_failed"}),
        step_done="skipped",
        does="count the compensation of a step as done, because a person has undone it",
    ),
    "resolve": Verb(
        accepted=STUCK,
        steps=frozenset({"unknown", "failed", "compensation_failed"}),
        does="settle an unknown outcome, or a failure that was held back: the step has happened, or it has not; or say "
        "that a compensation that was given up has happened",
    ),
    "kill": Verb(accepted=OPEN, repeated=frozenset({SagaStatus.KILLED}), does="end it here and now; nothing is undone"),
    "pause": Verb(accepted=OPEN, does="start no further step until it is resumed; its deadline runs on"),
    "resume": Verb(accepted=OPEN, does="continue after a pause"),
    "rollback": Verb(
        accepted=frozenset({SagaStatus.STUCK, SagaStatus.KILLED}),
        repeated=frozenset({SagaStatus.COMPENSATING, SagaStatus.COMPENSATED, SagaStatus.RESOLVED}),
        undoes=True,
        does="undo what a stuck or killed saga has done",
    ),
}


class OperatorAction(msgspec.Struct):
    """A verb as an operator gave it and as the journal holds it."""

    step: str | None = None
    happened: bool | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    verb: str = ""
    reason: str = ""
    actor: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("actor", "note", "reason"):
            check_text(getattr(self, name), f"{name}=")

    @classmethod
    def read(cls, verb: str, payload: bytes | None) -> "OperatorAction":
        """The action that a signal of this name holds."""
        action = msgspec.json.decode(payload or b"{}", type=cls)
        action.verb = verb
        return action


@attrs.frozen
class Accept:
    """The verb is journalled."""


@attrs.frozen
class Repeat:
    """It has been done already: nothing changes."""


@attrs.frozen
class Refuse:
    """It does not apply here; ``past_pivot`` if that is the reason."""

    why: str
    past_pivot: bool = False


def judge(  # noqa: PLR0911 - an answer for each reason, in the order in which they count
    verb: str, info: SagaInfo, phase: str, step: str | None, *, happened: bool | None = None
) -> Accept | Repeat | Refuse:
    """Whether ``verb`` (about ``step``, which ``happened`` or not) applies to a saga in this state."""
    rule = VERBS[verb]
    if verb in ("pause", "resume") and info.status in rule.accepted and info.paused == (verb == "pause"):
        return Repeat()
    if info.status in rule.repeated or (verb == "cancel" and is_compensating(phase)):
        return Repeat()
    if rule.undoes and phase == Phase.PAST_PIVOT:
        return Refuse(
            f"saga {info.id!r} has passed its pivot: it only goes forward, and nothing is undone any more; "
            "nothing was changed",
            past_pivot=True,
        )
    if verb == "rollback" and (doubtful := _unknown_pivot(info)) is not None:
        return Refuse(
            f"the pivot {doubtful!r} of saga {info.id!r} may have happened, and after it nothing is undone. Settle it "
            f"first with `resolve`; nothing was changed"
        )
    named = _step(info.steps, step) if step is not None else None
    if step is not None and named is None:
        keys = ", ".join(state.key for state in info.steps) or "none"
        return Refuse(f"saga {info.id!r} has no step {step!r}; its steps are: {keys}. Nothing was changed")
    if named is not None and rule.step_done is not None and named.status == rule.step_done:
        return Repeat()
    if info.status not in rule.accepted:
        return Refuse(
            f"saga {info.id!r} is {info.status}, and `{verb}` applies only to a saga that is "
            f"{', '.join(sorted(rule.accepted))}; nothing was changed"
        )
    if named is not None and (why := _unfit(verb, named, phase, happened)) is not None:
        return Refuse(f"step {step!r} of saga {info.id!r} {why}; nothing was changed")
    if rule.accepted == STUCK and step is not None and step not in info.stuck_on:
        on = ", ".join(info.stuck_on) or "its code, and no step"
        return Refuse(f"saga {info.id!r} is stuck on {on}, not on {step!r}; nothing was changed")
    return Accept()


def _unfit(verb: str, named: StepState, phase: str, happened: bool | None) -> str | None:  # noqa: FBT001
    """Why the verb is not for this step, as it stands."""
    fits = VERBS[verb].steps
    if fits and named.status not in fits:
        return f"is {named.status}, and `{verb}` is for a step that is {' or '.join(sorted(fits))}"
    if verb == "resolve" and named.status == "failed" and phase == Phase.PAST_PIVOT:
        return "has failed after the pivot, where all must succeed; retry it"
    if verb == "resolve" and named.status == "compensation_failed" and happened is False:
        return "has succeeded, and its compensation must succeed too; retry it, or say that it happened"
    return None


def _unknown_pivot(info: SagaInfo) -> str | None:
    """The pivot whose outcome a person must settle."""
    if info.status is not SagaStatus.STUCK:
        return None
    return next((state.key for state in info.steps if state.kind == "pivot" and state.status == "unknown"), None)


def _step(steps: Sequence[StepState], key: str) -> StepState | None:
    return next((state for state in steps if state.key == key), None)
