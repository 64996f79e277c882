"""The retry decision: tenacity's rules as a pure function."""

import math
from collections.abc import Callable
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
import tenacity

from durable_core.errors import DefinitionError
from durable_core.model.retry import Delay, GiveUp, Retry, decide_retry, duration


def ask(policy: Retry, failures: int = 1, elapsed_s: float = 0.0, error: Any = None, draw: float = 0.0) -> Any:
    return decide_retry(policy, failures=failures, elapsed_s=elapsed_s, error=error or ValueError("x"), draw=draw)


def delays(policy: Retry, count: int) -> list[float]:
    return [ask(policy, failures).delay_s for failures in range(1, count + 1)]


def test_default_gives_up_at_once() -> None:
    """``Retry()`` is one attempt."""
    assert ask(Retry()) == GiveUp("it is not retried")


def test_growth() -> None:
    """Delays grow by the factor from the first and stop at the longest."""
    policy = Retry(10, first=0.5, factor=3, longest=10, jitter=False)
    assert delays(policy, 5) == [0.5, 1.5, 4.5, 10.0, 10.0]


def test_steady_and_immediate() -> None:
    """A factor of 1 keeps the delay; no delay is no delay."""
    assert delays(Retry(None, first=2, factor=1, jitter=False), 3) == [2.0, 2.0, 2.0]
    assert delays(Retry(None, first=0), 3) == [0.0, 0.0, 0.0]
    assert delays(Retry(None, first=0, longest=0), 2) == [0.0, 0.0]


@pytest.mark.parametrize("make", [lambda **given: Retry(5, **given), Retry.forever], ids=["retry", "forever"])
def test_longest_follows_the_first(make: Callable[..., Retry]) -> None:
    """Where ``longest`` is left out it is five minutes, or ``first`` where that is longer: no delay is cut silently."""
    assert make(jitter=False).longest == timedelta(minutes=5)
    assert make(first=timedelta(hours=3), jitter=False).longest == timedelta(hours=3)
    assert delays(make(first=timedelta(hours=3), jitter=False), 3) == [10_800.0, 10_800.0, 10_800.0]
    assert delays(make(first=200, jitter=False), 2) == [200.0, 300.0]


@pytest.mark.parametrize("make", [lambda **given: Retry(5, **given), Retry.forever], ids=["retry", "forever"])
def test_a_first_delay_above_the_longest_is_refused(make: Callable[..., Retry]) -> None:
    """A ``first`` above a given ``longest`` is refused, also where ``first`` is the default of a second."""
    for given in ({"first": 5, "longest": 2}, {"longest": 0.5}, {"first": timedelta(hours=3), "longest": 300}):
        with pytest.raises(DefinitionError, match=r"first=.* is above longest="):
            make(**given)
    assert make(first=2, longest=2).longest == timedelta(seconds=2)


@pytest.mark.parametrize("given", [{"first": 5}, {"first": 1.5}, {"first": 1, "jitter": False}], ids=str)
def test_a_policy_without_time_for_a_second_attempt_is_refused(given: dict[str, Any]) -> None:
    """A policy whose first delay reaches past ``within`` is refused; so is one of a single attempt with ``within``."""
    with pytest.raises(DefinitionError, match="within=0:00:01 leaves no time for a second attempt"):
        Retry(99, within=1, **given)
    with pytest.raises(DefinitionError, match="attempts=1 makes no second attempt"):
        Retry(within=60)


@pytest.mark.parametrize("jitter", [True, False])
@pytest.mark.parametrize("failures", [1, 2, 3, 4, 9])
def test_no_delay_reaches_past_within(*, jitter: bool, failures: int) -> None:
    """Whatever has passed and whatever is drawn: an attempt that would begin after ``within`` is given up at once."""
    for elapsed_s, draw in product([0.0, 0.4, 0.9, 3.0, 9.5], [0.0, 0.5, 0.999]):
        answer = ask(Retry(None, first=0.8, within=10, jitter=jitter), failures, elapsed_s, draw=draw)
        full_s = 0.8 * 2.0 ** (failures - 1) * (0.5 + draw / 2 if jitter else 1)
        assert isinstance(answer, Delay) == (elapsed_s + full_s < 10)
        if isinstance(answer, Delay):
            assert elapsed_s + answer.delay_s < 10


@pytest.mark.parametrize("failures", [10, 1_000, 10_000, 10**9])
@pytest.mark.parametrize("factor", [1, 1.0000001, 2, 1e9])
def test_growth_never_overflows(failures: int, factor: float) -> None:
    """However often it failed, the delay is a number within its bounds."""
    policy = Retry.forever(factor=factor, longest=timedelta(days=36_500))
    answer = ask(policy, failures, draw=0.999)
    assert isinstance(answer, Delay)
    assert 0.5 <= answer.delay_s <= 36_500 * 86_400


@pytest.mark.parametrize(("draw", "share"), [(0.0, 0.5), (0.5, 0.75), (0.999, 0.9995)])
def test_jitter(draw: float, share: float) -> None:
    """The draw places the delay between its half and itself."""
    assert ask(Retry(5, first=8), draw=draw).delay_s == pytest.approx(8 * share)


def test_attempts() -> None:
    """The last of n failures gives up and says which it was."""
    assert isinstance(ask(Retry(3), 2), Delay)
    assert ask(Retry(3), 3) == GiveUp("attempt 3 of 3 has failed")
    assert isinstance(ask(Retry(3), 4), GiveUp)


def test_within() -> None:
    """After the given time there is no further attempt, even for ever."""
    policy = Retry(None, within=timedelta(minutes=1))
    assert isinstance(ask(policy, 5, 51.9), Delay)
    answer = ask(policy, 5, 52.0)
    assert isinstance(answer, GiveUp)
    assert "within 0:01:00" in answer.why


def test_on() -> None:
    """Only the named exceptions and their subclasses are retried."""
    policy = Retry(5, on=(ConnectionError, KeyError))
    assert isinstance(ask(policy, error=ConnectionResetError()), Delay)
    answer = ask(policy, error=ValueError())
    assert answer == GiveUp("ValueError is not retried by this policy")
    assert Retry(5, on=KeyError).on == (KeyError,)


def test_forever() -> None:
    """No count and no time ends it."""
    policy = Retry.forever(first=1, jitter=False, on=(ValueError,))
    assert policy.attempts is None
    assert isinstance(ask(policy, 10**6, 1e12), Delay)
    assert isinstance(ask(policy, error=KeyError()), GiveUp)


def test_from_tenacity() -> None:
    """Conditions of tenacity decide, seeing attempts, time and exception."""
    seen: list[tenacity.RetryCallState] = []

    def wait(state: tenacity.RetryCallState) -> float:
        seen.append(state)
        return 2.5

    policy = Retry.from_tenacity(
        stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(100),
        wait=wait,
        retry=tenacity.retry_if_exception(lambda error: "soft" in str(error)),
    )
    soft = ValueError("soft")
    assert ask(policy, 2, 7.5, soft, draw=0.9) == Delay(2.5)
    assert seen[0].attempt_number == 2
    assert seen[0].seconds_since_start == 7.5
    assert seen[0].outcome is not None
    assert seen[0].outcome.exception() is soft
    assert isinstance(ask(policy, 3, 0, soft), GiveUp)
    assert isinstance(ask(policy, 1, 100, soft), GiveUp)
    assert isinstance(ask(policy, 1, 0, ValueError("hard")), GiveUp)


def test_from_tenacity_defaults() -> None:
    """What is left out is tenacity's default: for ever, without waiting, on any ``Exception``."""
    policy = Retry.from_tenacity()
    assert ask(policy, 99) == Delay(0.0)
    assert isinstance(ask(policy, error=KeyboardInterrupt()), GiveUp)


def test_stop_before_delay_sees_the_coming_delay() -> None:
    """A stop condition may look at the delay that would follow."""
    policy = Retry.from_tenacity(stop=tenacity.stop_before_delay(10), wait=tenacity.wait_fixed(6))
    assert ask(policy, 1, 3.0) == Delay(6.0)
    assert isinstance(ask(policy, 1, 4.0), GiveUp)


@pytest.mark.parametrize(("wait", "delay_s"), [(-1, 0.0), (0, 0.0), (36_500 * 86_400, 36_500 * 86_400.0), (1, 1.0)])
def test_waits_of_tenacity(wait: float, delay_s: float) -> None:
    """A condition's delay is taken as it is; one below zero is none."""
    assert ask(Retry.from_tenacity(wait=lambda _: wait)) == Delay(delay_s)


@pytest.mark.parametrize("wait", [math.nan, math.inf, 1e300])
def test_waits_that_are_no_duration_are_refused(wait: float) -> None:
    """A condition that answers no number, or more than a century, is a fault of the definition: nothing is guessed."""
    with pytest.raises(DefinitionError, match="the wait of a retry policy answered"):
        ask(Retry.from_tenacity(wait=lambda _: wait))


def test_raising_condition() -> None:
    """A condition that raises is a fault of the definition, told as that."""

    def broken(state: tenacity.RetryCallState) -> bool:
        raise LookupError(state.attempt_number)

    with pytest.raises(DefinitionError, match="LookupError: 1"):
        ask(Retry.from_tenacity(stop=broken))


async def asynchronous(_: object) -> bool:
    return True


class Asynchronous:
    async def __call__(self, _: object) -> bool:
        return True


@pytest.mark.parametrize("bad", [3, "x", asynchronous, Asynchronous()])
def test_wrong_conditions(bad: Any) -> None:
    """A condition that cannot be called, or only awaited, is refused."""
    with pytest.raises(DefinitionError, match="stop="):
        Retry.from_tenacity(stop=bad)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": True},
        {"attempts": 1.0},
        {"attempts": "3"},
        {"first": -1},
        {"first": math.nan},
        {"first": math.inf},
        {"first": 10**400},
        {"first": True},
        {"first": "1s"},
        {"first": None},
        {"first": timedelta(seconds=-1)},
        {"first": timedelta.max},
        {"longest": -0.1},
        {"longest": 1e300},
        {"within": 0},
        {"within": timedelta(0)},
        {"within": -5},
        {"factor": 0.99},
        {"factor": math.nan},
        {"factor": math.inf},
        {"factor": True},
        {"factor": "2"},
        {"on": ()},
        {"on": (3,)},
        {"on": "ValueError"},
        {"on": (KeyboardInterrupt,)},
        {"jitter": 0.3},
    ],
    ids=str,
)
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    """An argument that is not valid is refused by name."""
    with pytest.raises(DefinitionError, match=f"^{next(iter(wrong))}="):
        Retry(**wrong)


def test_durations_are_normalised() -> None:
    """Seconds and timedeltas make equal policies, which are hashable."""
    assert Retry(3, first=1.5, within=60) == Retry(3, first=timedelta(seconds=1.5), within=timedelta(minutes=1))
    assert hash(Retry(3, first=1)) == hash(Retry(3, first=1.0))
    assert duration(0, "timeout") == timedelta(0)
    with pytest.raises(DefinitionError, match="timeout=0 is not valid"):
        duration(0, "timeout", zero=False)


def test_of() -> None:
    """``retry=`` takes a policy, a number of attempts, or nothing."""
    default = Retry(10)
    assert Retry.of(None, default) is default
    assert Retry.of(3, default) == Retry(3)
    assert Retry.of(default, Retry()) is default
    for wrong in (True, 0, 1.5, "3"):
        with pytest.raises(DefinitionError):
            Retry.of(wrong, default)  # type: ignore[arg-type]
