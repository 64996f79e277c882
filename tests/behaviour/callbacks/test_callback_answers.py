"""Answers to callbacks from everywhere at once: early, late, twice, by the hundred, from other processes."""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sagas import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackNotFound,
    CallbackTimeout,
    DefinitionError,
    Orchestrator,
    PayloadError,
    Saga,
    SagaCompensated,
    SagaNotFound,
    SagaStatus,
    WrongState,
    saga,
)
from sagas.testing import ManualClock
from tests import forked
from tests.behaviour.callbacks import callback_scenes as on
from tests.behaviour.callbacks.callback_scenes import (
    Approval,
    busy,
    kinds,
    on_stage,
    plain,
    reserve,
    waiting,
    watched,
)

YES, NO = Approval(ok=True, by="bob"), Approval(ok=False, by="eve")
ROOT = Path(__file__).parents[3]


# -- when and from where ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_outside", [False, True])
async def test_an_answer_that_comes_before_the_saga_waits_is_kept(url: str, *, from_outside: bool):
    """The body is still in a step when the answer comes, from its own process or another one: it sees it later."""
    async with on_stage(url) as (orchestrator, clock), Orchestrator(url, worker=False, clock=clock) as outside:
        handle = await orchestrator.start(busy, id="a")
        await on.WORLD.gate("hold").entered.wait()
        sender = outside if from_outside else orchestrator
        await sender.complete_callback(on.WORLD.tokens[-1], YES)
        await sender.complete_callback(on.WORLD.tokens[-1], YES)
        with pytest.raises(CallbackAlreadyAnswered):
            await sender.complete_callback(on.WORLD.tokens[-1], NO)
        on.WORLD.gate("hold").open()
        assert await handle.result(timeout=20) == "bob"


@pytest.mark.parametrize("definition", [plain, busy])
async def test_a_process_that_only_sends_is_told_what_became_of_its_answer(url: str, definition: Any):
    """A wrong value, a second answer and a late one are refused to a sender that has neither worker nor types."""
    async with on_stage(url) as (orchestrator, clock), Orchestrator(url, worker=False, clock=clock) as outside:
        handle = await orchestrator.start(definition, id="a")
        while not on.WORLD.tokens:  # noqa: ASYNC110 - a step's own turn
            await asyncio.sleep(0)
        (token,) = on.WORLD.tokens
        with pytest.raises(PayloadError):
            await outside.complete_callback(token, {"ok": 1})
        await outside.complete_callback(token, {"by": "bob", "ok": True})
        await outside.complete_callback(token, YES)
        with pytest.raises(CallbackAlreadyAnswered):
            await outside.complete_callback(token, NO)
        with pytest.raises(CallbackAlreadyAnswered):
            await outside.fail_callback(token, "too late")
        on.WORLD.gate("hold").open()
        assert await handle.result(timeout=20) == "bob"


@saga("untyped", version=1)
async def untyped(s: Saga) -> list[int]:
    callback = await s.callback("numbers", list[int], timeout=timedelta(days=1))  # a type without a name
    return await callback.result()


async def test_a_type_that_the_sender_cannot_load_is_checked_by_the_worker(url: str):
    """The sender waits for the worker's verdict; the saga keeps waiting after a wrong answer."""
    async with (
        on_stage(url, sagas=[untyped]) as (orchestrator, clock),
        Orchestrator(url, worker=False, clock=clock) as outside,
    ):
        handle = await orchestrator.start(untyped, id="u")
        await clock.idle()
        for wrong in ("no", [1, "2"], None):
            with pytest.raises(PayloadError):
                await outside.complete_callback(saga_id="u", name="numbers", value=wrong)
        assert (await handle.info()).status is SagaStatus.WAITING
        await outside.complete_callback(saga_id="u", name="numbers", value=[1, 2])
        assert await handle.result(timeout=20) == [1, 2]
        assert await kinds(handle, "noted") == 3


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("from_outside", [False, True])
async def test_a_hundred_answers_at_once(url: str, *, same: bool, from_outside: bool):
    """The same answer is taken from all hundred; of a hundred different ones exactly one is, and the saga sees it."""
    async with on_stage(url) as (orchestrator, clock), Orchestrator(url, worker=False, clock=clock) as outside:
        handle, token = await waiting(orchestrator, clock, plain)
        sender = outside if from_outside else orchestrator
        answers = [Approval(ok=True, by="bob" if same else f"u{number}") for number in range(100)]
        told = await asyncio.gather(
            *(sender.complete_callback(token, answer) for answer in answers), return_exceptions=True
        )
        refused = [answer for answer in told if answer is not None]
        assert len(refused) == (0 if same else 99)
        assert all(isinstance(answer, CallbackAlreadyAnswered) for answer in refused)
        assert await handle.result(timeout=20) == answers[told.index(None)].by
        assert await kinds(handle, "answered") == 1


@pytest.mark.usefixtures("impatient")
async def test_a_kept_answer_counts_although_its_time_has_passed_before_a_worker_came(url: str):
    """It was durable before the timeout was: the order of commits decides."""
    async with on_stage(url, worker=False) as (outside, clock):
        async with Orchestrator(url, sagas=on.SAGAS, clock=clock, grace=1) as first:
            _, token = await waiting(first, clock, plain)
        await outside.complete_callback(token, YES)
        await clock.advance(timedelta(days=5))
        async with Orchestrator(url, sagas=on.SAGAS, clock=clock, grace=1):
            assert await (await outside.get("a")).result(timeout=20) == "bob"


@pytest.mark.usefixtures("impatient")
async def test_a_kept_answer_of_the_wrong_type_leaves_the_saga_waiting(url: str):
    """The worker that comes refuses it, in the journal and with who gave it, and takes the next one."""
    async with on_stage(url, worker=False) as (outside, clock):
        async with Orchestrator(url, sagas=[untyped], clock=clock, grace=1) as first:
            await first.start(untyped, id="u")
            await clock.idle()
        await outside.complete_callback(saga_id="u", name="numbers", value="wrong", actor="ann", note="in a hurry")
        async with Orchestrator(url, sagas=[untyped], clock=clock, grace=1):
            handle = await outside.get("u")
            await clock.idle()
            assert (await handle.info()).status is SagaStatus.WAITING
            (told,) = [entry for entry in await handle.history() if entry.kind == "noted"]
            assert (told.detail, told.actor, told.note) == ("answer misfit", "ann", "in a hurry")
            await outside.complete_callback(saga_id="u", name="numbers", value=[3], actor="bob")
            assert await handle.result(timeout=20) == [3]
            assert [entry.actor for entry in await handle.history() if entry.kind == "answered"] == ["bob"]


# -- against timeout and cancel --------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer_first", [True, False])
@pytest.mark.parametrize("rival", ["timeout", "cancel"])
async def test_an_answer_races_timeout_and_cancel(url: str, *, rival: str, answer_first: bool):
    """Whichever is journalled first counts, and the other side is told."""
    async with on_stage(url) as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, plain)
        await clock.advance(timedelta(days=2) - timedelta(milliseconds=1))

        async def strike() -> None:
            await (clock.advance(1) if rival == "timeout" else handle.cancel("changed my mind"))

        if answer_first:
            await orchestrator.complete_callback(token, YES)
            assert await handle.result(timeout=20) == "bob"
        else:
            await strike()
            with pytest.raises(SagaCompensated) as raised:
                await handle.result(timeout=20)
            assert raised.value.cause == ("failed" if rival == "timeout" else "cancelled")
            assert isinstance(raised.value.__cause__, CallbackTimeout) is (rival == "timeout")
            with pytest.raises(CallbackClosed):
                await orchestrator.complete_callback(token, YES, actor="ann", note="her leave is over")
            assert await kinds(handle, "answered") == 0, "actor and note open nothing"


@pytest.mark.parametrize("rival", ["timeout", "cancel"])
async def test_a_hundred_races_have_one_winner_each_and_both_sides_agree(url: str, rival: str):
    """Answer and rival at the very same moment: the journal has both in one order, and the end is what it says."""
    async with on_stage(url) as (orchestrator, clock):
        handles = [await orchestrator.start(plain, id=f"r{number}") for number in range(100)]
        await clock.idle()
        await clock.advance(timedelta(days=2) - timedelta(milliseconds=1))

        async def answer(number: int) -> bool:
            try:
                await orchestrator.complete_callback(saga_id=f"r{number}", name="approval", value=YES)
            except CallbackClosed:
                return False
            return True

        async def strike(number: int) -> None:
            if rival == "cancel":
                with contextlib.suppress(WrongState):  # it has completed: the answer has won
                    await handles[number].cancel()

        racing = [answer(n) if (n + side) % 2 else strike(n) for n in range(100) for side in (0, 1)]
        told, _ = await asyncio.gather(asyncio.gather(*racing), clock.advance(1 if rival == "timeout" else 0))
        accepted = [told[2 * n + (1 - n % 2)] for n in range(100)]
        for number, handle in enumerate(handles):
            try:
                assert await handle.result(timeout=20) == "bob"
                won = True
            except SagaCompensated:
                won = False
            assert accepted[number] or not won
            if accepted[number] and not won:  # a cancel was accepted right after it, before the body had gone on
                heard = [entry.kind for entry in await handle.history() if entry.kind in ("answered", "signalled")]
                assert heard == ["answered", "signalled"]


@saga("first", version=1)
async def first_of_two(s: Saga) -> str:
    one, two = await s.callback("one", str), await s.callback("two", int)
    answered = await s.first(one, two)
    return f"{'one' if answered is one else 'two'}: {await answered.result()}"


async def test_the_first_of_several_is_given(url: str):
    """``s.first`` returns the callback that was answered first."""
    async with on_stage(url, sagas=[first_of_two]) as (orchestrator, clock):
        handle = await orchestrator.start(first_of_two, id="f")
        await clock.idle()
        await orchestrator.complete_callback(saga_id="f", name="two", value=7)
        assert await handle.result() == "two: 7"


class Foreign:
    """No payload."""


@saga("parent", version=1)
async def parent(s: Saga) -> str:
    return f"{await s.run(plain)} and {await s.run(twice)}"


@saga("twice", version=1)
async def twice(s: Saga) -> str:
    await s.run(reserve, "table")
    first = await s.callback("approval", str)
    second = await s.callback("approval", str)
    return await second.result() + await first.result()


async def test_a_childs_callback_and_a_second_of_one_name(url: str):
    """By the child's id or its key from the parent; ``approval#2`` is the second; each token is its own's."""
    async with on_stage(url, sagas=[parent, plain, twice]) as (orchestrator, clock):
        handle = await orchestrator.start(parent, id="p")
        await clock.idle()
        await orchestrator.complete_callback(saga_id="p/plain", name="approval", value=YES)
        await clock.idle()
        await orchestrator.complete_callback(saga_id="p", name="twice/approval#2", value="2")
        await orchestrator.heartbeat_callback(saga_id="p/twice", name="approval")
        await orchestrator.complete_callback(saga_id="p/twice", name="approval", value="1")
        assert await handle.result(timeout=20) == "bob and 21"


async def test_answers_that_make_no_sense_change_nothing(url: str):
    """Each has its own clear error, and the saga keeps waiting for the right one."""
    async with on_stage(url) as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, plain)
        before = len(await handle.history())
        complete = orchestrator.complete_callback
        refused: list[tuple[type[Exception], Callable[[], Any]]] = [
            (DefinitionError, lambda: complete(token, YES, saga_id="a", name="approval")),
            (DefinitionError, lambda: complete(value=YES)),
            (DefinitionError, lambda: complete(saga_id="a", value=YES)),
            (DefinitionError, lambda: complete(name="approval", value=YES)),
            (DefinitionError, lambda: complete(7, YES)),  # type: ignore[arg-type]
            (DefinitionError, orchestrator.heartbeat_callback),
            (CallbackNotFound, lambda: complete(saga_id="a", name="hand_out", value=YES)),
            (CallbackNotFound, lambda: complete(saga_id="a", name="approval#2", value=YES)),
            (CallbackNotFound, lambda: complete(saga_id="a", name="", value=YES)),
            (SagaNotFound, lambda: complete(saga_id="zz", name="approval", value=YES)),
            (SagaNotFound, lambda: complete(saga_id="", name="approval", value=YES)),
            *(
                (PayloadError, lambda wrong=wrong: complete(token, wrong))
                for wrong in ({"ok": 1}, "yes", None, {"ok": True})
            ),
            (PayloadError, lambda: complete(token, Foreign())),
            (PayloadError, lambda: complete(token, float("nan"))),
            (PayloadError, lambda: complete(token, "x" * 10_000_000)),
            (PayloadError, lambda: orchestrator.fail_callback(token, "x" * 10_000_000)),
            (PayloadError, lambda: complete(token, "\udcff")),
        ]
        head, _, proof = token.partition("-")
        for forged in (
            token[:-1], token + "A", token[1:], f"{head}-", f"-{proof}", f"0{token}", f" {token}", f"{token}\n", "é",
            "\udcff-AAAA", "x" * 100_000, f"{'f' * 16}-{proof}", f"-1-{proof}", f"{int(head, 16) + 1:x}-{proof}",
            token.swapcase(), "\0",
        ):  # fmt: skip
            refused += [
                (CallbackNotFound, lambda forged=forged: complete(forged, YES)),
                (CallbackNotFound, lambda forged=forged: orchestrator.heartbeat_callback(forged)),
            ]
        for error, call in refused:
            with pytest.raises(error) as raised:
                await call()
            assert len(str(raised.value)) < 1000
            assert token not in str(raised.value)
        assert (await handle.info()).status is SagaStatus.WAITING
        assert len(await handle.history()) == before
        await complete(token, YES)
        assert await handle.result(timeout=20) == "bob"


# -- the secret ------------------------------------------------------------------------------------------------------


async def test_a_token_of_another_store_finds_nothing(tmp_path: Path):
    """Two stores have different secrets, so even the same saga under the same number has another token."""
    on.WORLD = on.World()
    clock = ManualClock()
    one, two = (Orchestrator(f"sqlite:///{tmp_path}/{name}.db", sagas=on.SAGAS, clock=clock) for name in "ab")
    async with one, two:
        _, mine = await waiting(one, clock, plain)
        _, theirs = await waiting(two, clock, plain)
        assert mine != theirs
        with pytest.raises(CallbackNotFound):
            await one.complete_callback(theirs, YES)
        await one.complete_callback(mine, YES)


SECRET = "correct horse battery staple, and some more"


async def test_sagas_secret_takes_the_place_of_the_stores_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Tokens are good under the secret that they were made with, given by the environment or as an argument."""
    url = f"sqlite:///{tmp_path}/c.db"

    async def under(secret: str | None, scene: Callable[[Orchestrator], Any]) -> Any:
        async with Orchestrator(url, sagas=on.SAGAS, secret=secret, grace=1) as orchestrator:
            return await scene(orchestrator)

    async def wait_for_token(orchestrator: Orchestrator) -> str:
        await orchestrator.start(plain, id="a")
        while not on.WORLD.tokens:  # noqa: ASYNC110 - a step's own turn
            await asyncio.sleep(0.001)
        return on.WORLD.tokens[-1]

    on.WORLD = on.World()
    monkeypatch.setenv("SAGAS_SECRET", SECRET)
    token = await under(None, wait_for_token)
    monkeypatch.delenv("SAGAS_SECRET")
    for other in (None, SECRET[:-1]):
        with pytest.raises(CallbackNotFound):
            await under(other, lambda o: o.complete_callback(token, YES))
    await under(SECRET, lambda o: o.complete_callback(token, YES))
    handle = await under(SECRET, lambda o: o.get("a"))
    assert handle.id == "a"
    assert await under(None, lambda o: _result(o, "a")) == "bob"
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


async def _result(orchestrator: Orchestrator, id: str) -> Any:
    return await (await orchestrator.get(id)).result(timeout=20)


@pytest.mark.parametrize("short", ["short", " " * 40, "x" * 31, b"x" * 31, 7])
def test_a_secret_that_could_be_guessed_is_refused(short: Any, monkeypatch: pytest.MonkeyPatch):
    """Too short, blank or no text: a clear error that does not print it."""
    with pytest.raises(DefinitionError) as raised:
        Orchestrator("memory://", secret=short)
    assert "xxx" not in str(raised.value)
    if isinstance(short, str):
        monkeypatch.setenv("SAGAS_SECRET", short)
        with pytest.raises(DefinitionError, match="SAGAS_SECRET has"):
            Orchestrator("memory://")
    monkeypatch.setenv("SAGAS_SECRET", "")
    Orchestrator("memory://")  # set to nothing is not set


async def test_neither_token_nor_secret_is_logged_shown_or_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Not in any logger at DEBUG, not in the database's bytes, not in history or info, not in a repr."""
    monkeypatch.setenv("SAGAS_SECRET", SECRET)
    caplog.set_level(logging.DEBUG)
    tokens: list[str] = []
    async with on_stage(f"sqlite:///{tmp_path}/c.db") as (orchestrator, clock):
        handle, token = await waiting(orchestrator, clock, watched, None)
        again, second = await waiting(orchestrator, clock, plain, id="b")
        tokens.extend([token, second])
        shown = [repr(await handle.history()), repr(await handle.info()), repr(orchestrator.engine.settings)]
        await orchestrator.heartbeat_callback(token)
        with pytest.raises(PayloadError) as misfit:
            await orchestrator.complete_callback(token, "no")
        await orchestrator.complete_callback(token, YES)
        await again.cancel()
        with pytest.raises(CallbackClosed) as closed:
            await asyncio.gather(_none(again), orchestrator.complete_callback(second, YES))
        shown += [str(misfit.value), str(closed.value), repr(await again.history()), repr(await handle.info())]
        for secret in (*tokens, SECRET):
            assert not any(secret in text for text in shown)

    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"hand_out" in stored
    for secret in (*tokens, *(token.partition("-")[2] for token in tokens), SECRET):
        assert secret.encode() not in stored
        assert secret not in caplog.text


async def _none(handle: Any) -> None:
    with pytest.raises(SagaCompensated):
        await handle.result(timeout=20)


@saga("echo", version=1)
async def echo(s: Saga) -> str:
    callback = await s.callback("approval", dict[str, str])
    await s.run(on.hand_out, callback.token)
    answer = await callback.result()
    await s.run(reserve, answer["token"])
    return str(answer["token"] == callback.token)


async def test_a_masked_token_is_itself_again_after_a_crash(url: str):
    """An argument, an answer and a result that hold the token are the same on replay, also for who repeats it."""
    async with on_stage(url, worker=False) as (_, clock):
        async with Orchestrator(url, sagas=[echo], clock=clock, grace=1) as first:
            await first.start(echo, id="e")
            await clock.idle()
        (token,) = on.WORLD.tokens
        async with Orchestrator(url, sagas=[echo], clock=clock, grace=1) as second:
            await second.complete_callback(token, {"token": token})
            await second.complete_callback(token, {"token": token})
            handle = await second.get("e")
            assert await handle.result(timeout=20) == "True"
            assert on.WORLD.log == [token], "the step is given the token itself"
            assert token not in repr(await handle.info())


# -- several processes -----------------------------------------------------------------------------------------------

SENDER = """
import asyncio, sys
from sagas import CallbackAlreadyAnswered, Orchestrator

async def main(url, token, name):
    async with Orchestrator(url, worker=False) as outside:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(10):
            try:
                await outside.complete_callback(token, {"ok": True, "by": name or "same"})
                print("accepted", flush=True)
            except CallbackAlreadyAnswered:
                print("second", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def sending(url: str, token: str, name: str) -> "subprocess.Popen[str]":
    return forked.Process(
        [sys.executable, "-c", SENDER, url, token, name],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("same", [False, True])
async def test_answers_from_several_processes_on_one_file(tmp_path: Path, *, same: bool):
    """Four processes answer at once, ten times each: the same answer is taken by all, of different ones just one is."""
    url = f"sqlite:///{tmp_path}/c.db"

    async with on_stage(url) as (orchestrator, _clock):
        handle = await orchestrator.start(plain, id="a")
        while not on.WORLD.tokens:  # noqa: ASYNC110 - a step's own turn
            await asyncio.sleep(0.001)
        names = ["" if same else f"p{number}" for number in range(4)]
        senders = [sending(url, on.WORLD.tokens[-1], name) for name in names]
        try:
            for sender in senders:
                assert sender.stdout is not None
                assert await asyncio.to_thread(sender.stdout.readline) == "ready\n"
            told = await asyncio.gather(*(asyncio.to_thread(sender.communicate, "go\n", 60) for sender in senders))
        finally:
            for sender in senders:
                sender.kill()
                if not sender.stdin.closed:  # type: ignore[union-attr]
                    sender.communicate()
        words = [out.split() for out, _ in told]
        assert all(len(said) == 10 and len(set(said)) == 1 for said in words), words
        won = [name or "same" for name, said in zip(names, words, strict=True) if said[0] == "accepted"]
        assert len(won) == (4 if same else 1), words
        assert await handle.result(timeout=20) == won[0]
