"""Callbacks: answered by the right one, once, in time, with a value of the declared type."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from sagas import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackFailed,
    CallbackNotFound,
    CallbackTimeout,
    Orchestrator,
    PayloadError,
    Saga,
    SagaCompensated,
    SagaHandle,
    SagaStatus,
    lookup,
    saga,
)
from sagas.testing import ManualClock


@attrs.frozen
class Approval:
    ok: bool
    by: str


TOKENS: list[str] = []


@lookup
async def hand_out(token: str) -> None:
    TOKENS.append(token)


@saga("approve", version=1)
async def approve(s: Saga) -> str:
    callback = await s.callback("approval", Approval, timeout=timedelta(days=2))
    await s.run(hand_out, callback.token)
    decision = await callback.result()
    return decision.by


@saga("first", version=1)
async def first_of_two(s: Saga) -> str:
    one = await s.callback("one", str)
    two = await s.callback("two", int)
    answered = await s.first(one, two)
    return f"{'one' if answered is one else 'two'}: {await answered.result()}"


Scene = Callable[[Orchestrator, ManualClock], Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind, that survives its orchestrator."""
    return f"memory://{tmp_path.name}" if request.param == "memory" else f"sqlite:///{tmp_path}/c.db"


def play(url: str, scene: Scene, clock: ManualClock | None = None) -> None:
    """Run ``scene`` on an orchestrator whose clock stands still."""

    async def main() -> None:
        hand = clock or ManualClock()
        async with asyncio.timeout(30), Orchestrator(url, sagas=[approve, first_of_two], clock=hand) as orchestrator:
            await scene(orchestrator, hand)

    asyncio.run(main())


async def waiting(orchestrator: Orchestrator, clock: ManualClock, id: str = "a") -> tuple[SagaHandle[str], str]:
    """A saga that waits for its approval, and the token."""
    TOKENS.clear()
    handle = await orchestrator.start(approve, id=id)
    await clock.idle()
    assert (await handle.info()).status is SagaStatus.WAITING
    return handle, TOKENS[-1]


def test_an_answer_by_token_is_taken_once(url: str):
    """The first answer wins, repeating it is harmless, another one is told that it came second."""

    async def scene(orchestrator: Orchestrator, clock: ManualClock) -> None:
        handle, token = await waiting(orchestrator, clock)
        await orchestrator.complete_callback(token, Approval(ok=True, by="bob"))
        await orchestrator.complete_callback(token, Approval(ok=True, by="bob"))
        with pytest.raises(CallbackAlreadyAnswered):
            await orchestrator.complete_callback(token, Approval(ok=False, by="eve"))
        assert await handle.result() == "bob"

    play(url, scene)


def test_a_value_of_another_type_is_refused_to_its_sender(url: str):
    """The saga keeps waiting, and a right answer is still taken."""

    async def scene(orchestrator: Orchestrator, clock: ManualClock) -> None:
        handle, token = await waiting(orchestrator, clock)
        for wrong in ({"ok": 1}, "yes", None, {"ok": True}):
            with pytest.raises(PayloadError):
                await orchestrator.complete_callback(token, wrong)
        assert (await handle.info()).status is SagaStatus.WAITING
        await orchestrator.complete_callback(token, {"ok": True, "by": "bob"})
        assert await handle.result() == "bob"

    play(url, scene)


def test_a_forged_token_finds_nothing(url: str):
    """Cut short, altered, of another saga, or rubbish: not found, and nothing changes."""

    async def scene(orchestrator: Orchestrator, clock: ManualClock) -> None:
        handle, token = await waiting(orchestrator, clock)
        number, _, proof = token.partition("-")
        other = f"{int(number, 16) + 1:x}-{proof}"
        altered = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
        for forged in (token[:-1], token[:9], altered, other, "", "-", "zz-é", "0" * 10_000, f"{'f' * 30}-{proof}"):
            with pytest.raises(CallbackNotFound):
                await orchestrator.complete_callback(forged, Approval(ok=True, by="eve"))
        assert (await handle.info()).status is SagaStatus.WAITING

    play(url, scene)


def test_a_failure_is_raised_in_the_body(url: str):
    """``fail_callback`` makes ``result()`` raise ``CallbackFailed`` with the message."""

    async def scene(orchestrator: Orchestrator, clock: ManualClock) -> None:
        handle, _ = await waiting(orchestrator, clock)
        await orchestrator.fail_callback(saga_id="a", name="approval", message="not today")
        with pytest.raises(SagaCompensated) as raised:
            await handle.result()
        assert isinstance(raised.value.__cause__, CallbackFailed)
        assert raised.value.__cause__.answer == "not today"

    play(url, scene)


def test_the_timeout_runs_from_the_callback(url: str):
    """Nobody answers: ``CallbackTimeout``; a late answer is refused."""

    async def scene(orchestrator: Orchestrator, clock: ManualClock) -> None:
        handle, token = await waiting(orchestrator, clock)
        await clock.advance(timedelta(days=1, hours=23))
        assert (await handle.info()).status is SagaStatus.WAITING
        await clock.advance(timedelta(hours=2))
        with pytest.raises(SagaCompensated) as raised:
            await handle.result()
        assert isinstance(raised.value.__cause__, CallbackTimeout)
        with pytest.raises(CallbackClosed):
            await orchestrator.complete_callback(token, Approval(ok=True, by="bob"))

    play(url, scene)


def test_a_cancelled_saga_takes_no_answer(url: str):
    """The wait was given up: the sender is told."""

    async def scene(orchestrator: Orchestrator, clock: ManualClock) -> None:
        handle, token = await waiting(orchestrator, clock)
        await handle.cancel("changed my mind")
        with pytest.raises(SagaCompensated):
            await handle.result()
        with pytest.raises(CallbackClosed):
            await orchestrator.complete_callback(token, Approval(ok=True, by="bob"))

    play(url, scene)


def test_of_a_hundred_answers_at_once_one_is_taken(url: str):
    """One sender is told yes, all others that they came second."""

    async def scene(orchestrator: Orchestrator, clock: ManualClock) -> None:
        handle, token = await waiting(orchestrator, clock)
        answers = [orchestrator.complete_callback(token, Approval(ok=True, by=f"u{number}")) for number in range(100)]
        told = await asyncio.gather(*answers, return_exceptions=True)
        assert sum(answer is None for answer in told) == 1
        assert all(isinstance(answer, CallbackAlreadyAnswered) for answer in told if answer is not None)
        assert await handle.result() == f"u{told.index(None)}"

    play(url, scene)


def test_the_first_of_several_is_given(url: str):
    """``s.first`` returns the callback that was answered first."""

    async def scene(orchestrator: Orchestrator, clock: ManualClock) -> None:
        handle = await orchestrator.start(first_of_two, id="f")
        await clock.idle()
        await orchestrator.complete_callback(saga_id="f", name="two", value=7)
        assert await handle.result() == "two: 7"

    play(url, scene)


def test_a_callback_outlives_its_process(url: str):
    """The token of an earlier process is good in a later one, and time goes on meanwhile."""
    clock = ManualClock()
    tokens: list[str] = []

    async def before(orchestrator: Orchestrator, hand: ManualClock) -> None:
        _, token = await waiting(orchestrator, hand)
        tokens.append(token)

    async def after(orchestrator: Orchestrator, hand: ManualClock) -> None:
        await hand.advance(timedelta(days=1))
        handle = await orchestrator.get("a")
        await orchestrator.complete_callback(tokens[0], Approval(ok=True, by="later"))
        assert await handle.result() == "later"

    play(url, before, clock)
    if not url.startswith("memory"):
        play(url, after, clock)
