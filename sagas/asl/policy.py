"""Retry policies and time limits in the service's terms: whole seconds, counted retries, named errors.

Invariant: only what a policy repeats on our engine is repeated here; a rejection never is.
"""

import math
from datetime import timedelta
from typing import Any

from durable_core import Retry
from durable_core.layer import Duration, to_ns
from sagas.model.definition import Declared

State = dict[str, Any]

REJECTED = "Rejected"
"""The participant's own answer: nothing happened."""
FAILED = "Failed"
"""Nothing happened."""
FAILED_FOR_GOOD = "FailedForGood"
"""Nothing happened, and the policy makes no further attempt for this exception."""
UNKNOWN = "Unknown"
"""It may have happened."""
THROTTLED = "Lambda.TooManyRequestsException"
"""The function was not called."""
CUT = (
    "States.Timeout",
    "Lambda.Unknown",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Sandbox.Timedout",
    "Runtime.ExitError",
)
"""The attempt was cut: what it did is not known."""
NOTHING_HAPPENED = (REJECTED, FAILED, FAILED_FOR_GOOD, THROTTLED)
ALL = "States.ALL"

MOST_ATTEMPTS = 99_999_999
LONGEST_DELAY_S = 31_622_399
LONGEST_TIMEOUT_S = 99_999_999
LONGEST_LAMBDA_S = 900
FOREVER = -1
"""Stands for the number of retries of a step that is retried for ever, until the machine's events are counted."""


def seconds(span: Duration | timedelta) -> int:
    """Whole seconds, rounded up, at least one."""
    return max(1, math.ceil(to_ns(span) / 1e9))


def retrier(policy: Retry, errors: tuple[str, ...], *, done: int = 1) -> list[State]:
    """The ``Retry`` of a state; empty if it is not retried.

    Args:
        policy: of the step, its compensation or its probe.
        errors: after which errors.
        done: attempts that were made before its first retry.
    """
    retries = FOREVER if policy.attempts is None else policy.attempts - done
    if not retries:
        return []
    first, longest = seconds(policy.first), seconds(policy.longest)
    found: State = {
        "ErrorEquals": list(errors),
        "IntervalSeconds": first,
        "MaxAttempts": retries,
        "BackoffRate": policy.factor if longest > first else 1.0,
        "JitterStrategy": "FULL" if policy.jitter else "NONE",
    }
    if longest > first:
        found["MaxDelaySeconds"] = longest
    return [found]


def errors_to_repeat(policy: Retry, *, doubtful: bool, until_done: bool) -> tuple[str, ...]:
    """After which errors an attempt is repeated.

    Args:
        policy: it may name the exceptions that are worth another attempt.
        doubtful: whether an unknown outcome matters, so that it is repeated in a state of its own.
        until_done: whether everything is repeated, as for what must be done in the end.
    """
    if until_done and policy.on is None:
        return (ALL,)
    return (FAILED, THROTTLED) if doubtful else (FAILED, THROTTLED, *CUT)


def has_doubt_state(step: Declared[..., Any]) -> bool:
    """Whether further attempts after an unknown outcome are made by a state of their own.

    Such a state keeps in mind what a retry would forget: that the effect may have happened.
    """
    return step.effect and step.retry.attempts != 1 and not step.at_most_once and step.kind != "retriable"
