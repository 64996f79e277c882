"""Whether a failed attempt is followed by another, and after how long: tenacity's rules, asked without its loop.

Invariant: the answer depends on the arguments alone. The jitter comes from a number that the caller drew, and the
caller checkpoints the delay, so a replay never draws again.
"""

import functools
from collections.abc import Iterable
from datetime import timedelta
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, Self, cast

import attrs

from durable_core.errors import DefinitionError
from durable_core.model.duration import LONGEST_S, seconds_of, shown

if TYPE_CHECKING:
    from tenacity import BaseRetrying, RetryCallState
    from tenacity.retry import RetryBaseT
    from tenacity.stop import StopBaseT, stop_base
    from tenacity.wait import WaitBaseT

_LONGEST_DELAY: Final = timedelta(minutes=5)
"""What delays grow up to where a policy does not say; a longer first delay raises it."""


@attrs.frozen
class Delay:
    """Another attempt follows, after ``delay_s`` seconds."""

    delay_s: float


@attrs.frozen
class GiveUp:
    """No further attempt; ``why`` is for people."""

    why: str


def duration(value: object, name: str, *, zero: bool = True) -> timedelta:
    """A duration given as ``timedelta`` or as seconds, checked.

    Args:
        value: What the user gave.
        name: What to call it in a message.
        zero: Whether none at all makes sense.

    Raises:
        DefinitionError: It is no duration, not finite, negative, or longer than a century.
    """
    if not isinstance(value, timedelta) and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise _wrong(name, value, "a timedelta or a number of seconds")
    seconds = seconds_of(value, zero=zero)
    if seconds is None:
        raise _wrong(name, value, f"{'at least' if zero else 'more than'} 0 seconds and at most 100 years")
    return value if isinstance(value, timedelta) else timedelta(seconds=seconds)


def _wrong(name: str, value: object, wanted: str) -> DefinitionError:
    return DefinitionError(f"{name}={shown(value)} is not valid: it must be {wanted}.")


def _attempts(value: int | None) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise _wrong("attempts", value, "a whole number from 1 on, or None for ever")
    return value


def _first(value: timedelta | float) -> timedelta:
    return duration(value, "first")


def _longest(value: timedelta | float) -> timedelta:
    return duration(value, "longest")


def _within(value: timedelta | float | None) -> timedelta | None:
    return None if value is None else duration(value, "within", zero=False)


def _factor(value: float) -> float:
    if isinstance(value, bool) or not isinstance(cast("object", value), int | float) or not 1 <= value <= LONGEST_S:
        raise _wrong("factor", value, "a number from 1 on")
    return float(value)


def _jitter(value: bool) -> bool:  # noqa: FBT001 - a converter takes its value by position
    if not isinstance(cast("object", value), bool):
        raise _wrong("jitter", value, "True or False")
    return value


def _on(value: type[Exception] | Iterable[type[Exception]] | None) -> tuple[type[Exception], ...] | None:
    if value is None:
        return None
    kinds: tuple[Any, ...] = tuple(value) if isinstance(value, Iterable) else (value,)
    if not kinds or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        raise _wrong("on", value, "a tuple of Exception classes, or None for all")
    return kinds


@attrs.frozen
class Retry:
    """When to try again: exponential delays from ``first``, each ``factor`` times the last, at most ``longest``.

    Durations are timedeltas, or seconds as a number. Each delay is stored when it begins, so it survives a restart and
    is not drawn again.

    Args:
        attempts: attempts in all, the first included; None for ever. Default: 1, no retry.
        first: the first delay. Default: 1 s.
        factor: how much longer each delay is than the one before, from 1. Default: 2.
        longest: what delays grow up to. Default: five minutes, or ``first`` where that is longer.
        jitter: draw each delay between its half and itself. Default: True.
        within: how long after the beginning of the first attempt the last one may begin. A delay that would reach
            that far is not waited for: the step is given up at once. Default: no limit.
        on: the exceptions that are worth another attempt; any other gives up at once. Default: all.
        rules: set by ``from_tenacity``.

    Raises:
        DefinitionError: An argument cannot be used, or two contradict each other; the message names them.

    Examples:
        >>> Retry(attempts=5, first=0.2, on=(ConnectionError,)).first
        datetime.timedelta(microseconds=200000)
    """

    attempts: int | None = attrs.field(default=1, converter=_attempts)
    """Attempts in all, the first included; None for ever."""
    first: timedelta = attrs.field(default=timedelta(seconds=1), converter=_first, kw_only=True)
    factor: float = attrs.field(default=2.0, converter=_factor, kw_only=True)
    longest: timedelta = attrs.field(
        default=attrs.Factory(lambda policy: max(policy.first, _LONGEST_DELAY), takes_self=True),
        converter=_longest,
        kw_only=True,
    )
    jitter: bool = attrs.field(default=True, converter=_jitter, kw_only=True)
    within: timedelta | None = attrs.field(default=None, converter=_within, kw_only=True)
    on: tuple[type[Exception], ...] | None = attrs.field(default=None, converter=_on, kw_only=True)
    rules: "BaseRetrying | None" = attrs.field(default=None, kw_only=True, repr=False)
    """A tenacity object that decides in place of all the above; ``from_tenacity`` sets it."""

    def __attrs_post_init__(self) -> None:
        if self.first > self.longest:
            raise DefinitionError(
                f"first={self.first} is above longest={self.longest}, so no delay would be what this policy says",
                "Lower first=, or raise longest= or leave it out.",
            )
        if self.within is None:
            return
        if self.attempts == 1:
            raise DefinitionError(
                f"within={self.within} has no effect, because attempts=1 makes no second attempt",
                "Give attempts= a larger number, or None for ever.",
            )
        if self.first > self.within or (self.first == self.within and not self.jitter):
            raise DefinitionError(
                f"within={self.within} leaves no time for a second attempt, because the first delay is "
                f"first={self.first}",
                "Lower first=, or raise within=.",
            )

    @classmethod
    def forever(
        cls,
        *,
        first: timedelta | float = timedelta(seconds=1),
        factor: float = 2.0,
        longest: timedelta | float | None = None,
        jitter: bool = True,
        on: tuple[type[Exception], ...] | None = None,
    ) -> Self:
        """A policy that never gives up by count or time.

        Args:
            first: the first delay, a timedelta or seconds.
            factor: how much longer each delay is than the one before.
            longest: what delays grow up to. Default: five minutes, or ``first`` where that is longer.
            jitter: draw each delay between its half and itself.
            on: the exceptions that are worth another attempt; any other gives up at once. Default: all.
        """
        if longest is None:
            return cls(None, first=first, factor=factor, jitter=jitter, on=on)
        return cls(None, first=first, factor=factor, longest=longest, jitter=jitter, on=on)

    @classmethod
    def from_tenacity(
        cls,
        *,
        stop: "StopBaseT | None" = None,
        wait: "WaitBaseT | None" = None,
        retry: "RetryBaseT | None" = None,
    ) -> Self:
        """A policy made of tenacity's own conditions; what is left out is tenacity's default (for ever, no wait).

        The conditions see the number of failures, the time since the first attempt began and the exception. A wait
        that draws a random number draws it itself; the delay is stored and not drawn again. No jitter is added. To give
        up before a delay that would reach too far, as ``within`` does, stop by ``tenacity.stop_before_delay``.

        Args:
            stop: when to give up, such as ``tenacity.stop_after_attempt(3)``.
            wait: the delay, such as ``tenacity.wait_fixed(1)``.
            retry: which exceptions to retry, such as ``tenacity.retry_if_exception_type(OSError)``.

        Raises:
            DefinitionError: A condition is asynchronous or cannot be called.
        """
        given = {"stop": stop, "wait": wait, "retry": retry}
        conditions: dict[str, Any] = {name: rule for name, rule in given.items() if rule is not None}
        for name, rule in conditions.items():
            if not callable(rule) or iscoroutinefunction(rule) or iscoroutinefunction(type(rule).__call__):
                raise _wrong(name, rule, "one of tenacity's conditions, or a plain function of its retry state")
        import tenacity  # noqa: PLC0415 - half the import time of this package, and most programs set no condition

        return cls(None, jitter=False, rules=tenacity.Retrying(**conditions))

    @staticmethod
    def of(value: "Retry | int | None", default: "Retry") -> "Retry":
        """What ``retry=`` means: a policy, a number of attempts, or None for ``default``.

        Raises:
            DefinitionError: It is none of these.
        """
        if value is None:
            return default
        if isinstance(value, Retry):
            return value
        if type(value) is not int:
            raise _wrong("retry", value, "a Retry or a number of attempts")
        return Retry(value)


def decide_retry(
    policy: Retry, *, failures: int, elapsed_s: float, error: BaseException, draw: float
) -> Delay | GiveUp:
    """Answer what follows the last failure.

    Args:
        policy: The policy of the step or compensation.
        failures: Attempts that have failed, the last included; from 1.
        elapsed_s: Seconds since the first attempt began.
        error: What the last attempt raised.
        draw: A number in [0, 1): with ``policy.jitter`` the delay is ``(0.5 + draw / 2)`` of the full one.

    Raises:
        DefinitionError: A condition of ``Retry.from_tenacity`` raised, or its wait is no duration.
    """
    if policy.attempts == 1:
        return GiveUp("it is not retried")
    retrying = policy.rules or _rules(policy)
    state = _state(retrying, failures, elapsed_s, error)
    try:
        if not retrying.retry(state):
            return GiveUp(f"{type(error).__qualname__} is not retried by this policy")
        delay_s = float(retrying.wait(state))
        if policy.jitter:
            delay_s *= 0.5 + draw / 2
        state.upcoming_sleep = delay_s  # ``stop_before_delay`` looks at it
        if retrying.stop(state):
            return GiveUp(_why_stopped(policy, failures, elapsed_s))
    except Exception as fault:  # a condition of the user's may raise anything
        message = f"a tenacity condition of a retry policy raised {type(fault).__name__}: {fault}. Mend the condition."
        raise DefinitionError(message) from fault
    if not delay_s <= LONGEST_S:
        raise DefinitionError(
            f"the wait of a retry policy answered {delay_s!r} seconds", "Give one that answers at most 100 years."
        )
    return Delay(max(delay_s, 0.0))


def _why_stopped(policy: Retry, failures: int, elapsed_s: float) -> str:
    if policy.attempts is not None and failures >= policy.attempts:
        return f"attempt {failures} of {policy.attempts} has failed"
    if policy.within is not None:
        return (
            f"{elapsed_s:.1f} s have passed since it began, and the next attempt would not begin within {policy.within}"
        )
    return f"its stop condition holds after {failures} attempts and {elapsed_s:.1f} s"


@functools.lru_cache(maxsize=256)
def _rules(policy: Retry) -> "BaseRetrying":
    """``policy`` in tenacity's terms."""
    import tenacity  # noqa: PLC0415 - as above

    stops: list[stop_base] = []
    if policy.attempts is not None:
        stops.append(tenacity.stop_after_attempt(policy.attempts))
    if policy.within is not None:
        stops.append(tenacity.stop_before_delay(policy.within))
    return tenacity.Retrying(
        stop=tenacity.stop_any(*stops),
        wait=tenacity.wait_exponential(
            multiplier=policy.first.total_seconds(), exp_base=policy.factor, max=policy.longest
        ),
        retry=tenacity.retry_if_exception_type(policy.on or BaseException),
    )


def _state(retrying: "BaseRetrying", failures: int, elapsed_s: float, error: BaseException) -> "RetryCallState":
    """What tenacity's loop would have put together by now."""
    from tenacity import Future, RetryCallState  # noqa: PLC0415 - as above

    state = RetryCallState(retrying, fn=None, args=(), kwargs={})
    state.start_time = 0.0
    state.outcome_timestamp = elapsed_s
    state.attempt_number = failures
    state.outcome = Future.construct(failures, error, has_exception=True)
    return state
