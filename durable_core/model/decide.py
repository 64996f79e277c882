"""The engine's decisions as pure functions: what follows an attempt, and whether code and journal agree.

Invariant: no clock, no randomness and no I/O; the same record and the same question have the same answer for ever.
"""

import attrs

from durable_core.model.duration import NS
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.outcome import Outcome, classify
from durable_core.model.record import StepRecord
from durable_core.model.retry import Delay, decide_retry
from durable_core.model.spec import StepSpec

SUSPECT = 2
"""Deaths after which a step is attempted alone. One is mostly nobody's fault: a restart, a power cut."""


@attrs.frozen
class Again:
    """Another attempt is to be made."""

    due_at_ns: int


@attrs.frozen
class Final:
    """No further attempt; the step ends so."""

    outcome: Outcome


def after_failure(
    spec: StepSpec,
    step: StepRecord,
    error: BaseException,
    *,
    now_ns: int,
    draw: float,
    repeatable: bool = True,
    doubtful: bool = False,
) -> tuple[Outcome, Again | Final]:
    """The outcome of an attempt that raised ``error``, and what follows it.

    Args:
        spec: the step as declared.
        step: its record before this attempt's end.
        error: what the attempt raised.
        now_ns: the time of the attempt's end.
        draw: a number in [0, 1) for the jitter of the delay.
        repeatable: False where a further attempt cannot help (a result that cannot be stored) or must not be made.
        doubtful: True where the engine itself knows the effect to be in doubt: a timeout, a cut attempt.
    """
    if doubtful:
        outcome = Outcome.UNKNOWN if spec.effect else Outcome.FAILED
    else:
        outcome = classify(error, rejects=spec.rejects, unknown=spec.unknown, effect=spec.effect, settles=spec.settles)
    if outcome is Outcome.REJECTED:
        return outcome, Final(outcome)
    if outcome is Outcome.UNKNOWN and spec.at_most_once:
        return outcome, Final(outcome)
    if repeatable:
        answer = decide_retry(
            spec.retry,
            failures=step.failures + 1,
            elapsed_s=(now_ns - step.policy_from_ns) / NS,
            error=error,
            draw=draw,
        )
        if isinstance(answer, Delay):
            return outcome, Again(now_ns + round(answer.delay_s * NS))
    # Unknown is sticky: a later failure says nothing about what an earlier attempt may have done.
    if step.unknown and spec.effect:
        return Outcome.UNKNOWN, Final(Outcome.UNKNOWN)
    return outcome, Final(outcome)


def given_up(spec: StepSpec, step: StepRecord) -> Outcome:
    """How a step ends whose promised next attempt will not be made."""
    return Outcome.UNKNOWN if step.unknown and spec.effect else Outcome.FAILED


@attrs.frozen
class Cut:
    """A step whose attempt was cut by a crash: what to do with it on recovery."""


@attrs.frozen
class RunAgain(Cut):
    """Attempt it again, under the same key."""


@attrs.frozen
class RunAlone(Cut):
    """Attempt it again, and no other such step at the same time: it, or one beside it, takes the process down."""


@attrs.frozen
class Interrupted(Cut):
    """It must not be called twice: its outcome is unknown."""


@attrs.frozen
class CrashesTooOften(Cut):
    """It takes its process down; a person must look."""

    crashes: int


def after_crash(
    spec: StepSpec, step: StepRecord, *, max_crashes: int
) -> RunAgain | RunAlone | Interrupted | CrashesTooOften:
    """What to do with a step that has an announced attempt and no end."""
    if not step.begun:
        return RunAgain()
    if spec.at_most_once:
        return Interrupted()
    deaths = step.crashes + 1
    if deaths >= max_crashes:
        return CrashesTooOften(deaths)
    return RunAlone() if deaths >= SUSPECT else RunAgain()


def agree(recorded: Entry, *, kind: str, key: str, label: str, payload: bytes | None) -> bool:
    """Whether the journal's next entry is what the code asks for.

    Arguments are compared by their encoding: the same call encodes the same in every process.
    """
    if recorded.kind != kind or recorded.key != key or recorded.label != label:
        return False
    return kind != EntryKind.STARTED or recorded.payload == payload


def describe(kind: str, key: str, label: str) -> str:
    """An entry for a message: ``started step 'charge'``."""
    about = f" {key!r}" if key else ""
    return f"{kind} {label}{about}" if label else f"{kind}{about}"
