"""How a step ends: each outcome of an attempt, and each way to settle a doubt before the body goes on."""

# ruff: noqa: ASYNC110

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from sagas import (
    DidNotHappen,
    Happened,
    Orchestrator,
    Retry,
    Saga,
    SagaCompensated,
    SagaStatus,
    SagaStuck,
    StepTimeout,
    StillUnknown,
    Unknown,
    current,
    lookup,
    pivot,
    retriable,
    saga,
    step,
)
from sagas.testing import ManualClock
from tests.kit import Place, act, never, settled, steps, until


class Declined(Exception): ...


class Worse(Declined, TimeoutError): ...


class Broken(Exception): ...


class Lost(Exception): ...


REQUEST = httpx.Request("POST", "https://bank.example/charges")
UNKNOWN = [
    TimeoutError("slow"),
    ConnectionError("cut"),
    ConnectionResetError("cut"),
    BrokenPipeError("cut"),
    httpx.ReadTimeout("slow", request=REQUEST),
    httpx.WriteTimeout("slow", request=REQUEST),
    httpx.ReadError("cut", request=REQUEST),
    httpx.WriteError("cut", request=REQUEST),
    httpx.RemoteProtocolError("cut", request=REQUEST),
]
FAILED = [
    ConnectionRefusedError("nobody there"),
    Broken("no"),
    ValueError("no"),
    httpx.ConnectError("nobody there", request=REQUEST),
    httpx.ConnectTimeout("nobody there", request=REQUEST),
    httpx.PoolTimeout("busy", request=REQUEST),
    httpx.UnsupportedProtocol("no such", request=REQUEST),
]


def names(value: Any) -> str:
    """A readable name of a case."""
    return type(value).__name__


async def told(url: str, world: list[str], one: Any, *, then: Any = None, fails: bool = False) -> tuple[str, Any]:
    """How a saga ends that runs a step after another one: what its body told, and its info."""
    before = act(world, "before")

    @saga("catching", version=1)
    async def catching(s: Saga) -> str:
        await s.run(before)
        try:
            said = str(await s.run(one))
        except Exception as error:  # noqa: BLE001 - whatever a body is shown
            said = f"caught {type(error).__name__} {error}".strip()
        if then is not None:
            await s.run(then)
        if fails:
            raise Broken(said)
        return said

    async with Orchestrator(url, sagas=[catching], clock=ManualClock(auto=True)) as orchestrator:
        handle = await orchestrator.start(catching, id="saga-x")
        try:
            end = await handle.result()
        except SagaStuck as stuck:
            end = f"stuck {stuck}"
        except SagaCompensated as compensated:
            end = str(compensated.__cause__)
        return end, await handle.info()


async def declines_as_it_is_cut() -> None:
    """The participant's own answer, amid a cancellation."""
    try:
        await never()
    finally:
        raise Declined("cut")


def plain(**options: Any) -> dict[str, Any]:
    """Options of a step with a compensation, which the bank may decline."""
    return {"rejects": (Declined,), **options}


NO_UNDO = {"compensation": None, "because": "nobody minds"}
T, B = TimeoutError("t"), Broken("b")
CASES: dict[str, tuple[list[Any], dict[str, Any], str, str, int]] = {
    "returns": (["paid"], plain(), "paid", "succeeded", 1),
    "rejected, and not retried": ([Declined("no"), "paid"], plain(retry=5), "caught Declined no", "rejected", 1),
    "rejected by a base, before unknown": ([Worse("w")], plain(retry=5), "caught Worse w", "rejected", 1),
    "rejected as it is cut": ([declines_as_it_is_cut], plain(timeout=5), "caught Declined cut", "rejected", 1),
    "a lookup rejected": ([Declined("no")], {**plain(), "at": lookup}, "caught Declined no", "rejected", 1),
    "a pivot rejected": ([Declined("no")], {**plain(), "at": pivot}, "caught Declined no", "rejected", 1),
    "failed": ([B], plain(), "caught Broken b", "failed", 1),
    "failed, then not": ([B, B, "paid"], plain(retry=3), "paid", "succeeded", 3),
    "unknown": ([T], plain(), "stuck", "unknown", 1),
    "unknown, then not": ([T, "paid"], plain(retry=3), "paid", "succeeded", 2),
    "unknown, as the step says": ([Lost("?")], plain(unknown=(Lost,)), "stuck", "unknown", 1),
    "a failure, as the step says": ([T], plain(unknown=(Lost,)), "caught TimeoutError t", "failed", 1),
    "a failure clears no doubt": ([T, B], plain(retry=3), "stuck", "unknown", 3),
    "a refused connection clears no doubt": (
        [ConnectionResetError(), ConnectionRefusedError()], plain(retry=2), "stuck", "unknown", 2,
    ),
    "a success clears a doubt": ([T, B, "paid"], plain(retry=5), "paid", "succeeded", 3),
    "a rejection clears a doubt": ([T, B, Declined("no")], plain(retry=5), "caught Declined no", "rejected", 3),
    "unknown, at most once": ([T, "paid"], plain(retry=5, at_most_once=True), "stuck", "unknown", 1),
    "failed, at most once": ([B, "paid"], plain(retry=5, at_most_once=True), "paid", "succeeded", 2),
    "a pivot unknown": ([T], {**plain(), "at": pivot}, "stuck", "unknown", 1),
    "a lookup has nothing to settle": ([T], {"at": lookup}, "caught TimeoutError t", "failed", 1),
    "a lookup's timeout": ([never], {"at": lookup, "timeout": 5}, "caught StepTimeout", "failed", 1),
    "no undo has nothing to settle": ([ConnectionError("c")], NO_UNDO, "caught ConnectionError c", "failed", 1),
    "a bad result, nothing to settle": ([object], NO_UNDO, "caught PayloadError", "failed", 1),
    "a retriable": (
        [T, B, ConnectionError(), httpx.ReadError(""), Declined(), "sent"], {"at": retriable}, "sent", "succeeded", 6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_how_a_step_ends(url: str, world: list[str], case: str):
    """What an attempt does decides the outcome, the retries, and whether the saga goes on, goes back or is stuck.

    An exception of `rejects`, or of a subclass, is the participant's answer: no retry, nothing to undo. One of
    `unknown` leaves a doubt, which only a success or a rejection under the same key clears; at most once, it is not
    retried. Any other has failed: it is retried by the policy, then the body sees it. What has nothing to settle has
    failed too, and a retriable is simply retried.
    """
    plays, options, end, status, calls = CASES[case]
    charge = act(world, "charge", *plays, **options)
    said, info = await told(url, world, charge)
    assert said.startswith(end)
    state = info.steps[1]
    assert (state.status, state.attempts) == (status, calls)
    assert info.status == (SagaStatus.STUCK if end == "stuck" else SagaStatus.COMPLETED)
    assert world == ["before", *["charge"] * calls], "nothing is undone"


@pytest.mark.parametrize("error", UNKNOWN, ids=names)
async def test_an_unknown_without_a_way_to_settle_is_stuck(url: str, world: list[str], error: Exception):
    """An exception of `unknown`, a transport error: retried by policy with the same key, then stuck for an operator."""
    end, info = await told(url, world, act(world, "charge", error, retry=2))
    assert end.startswith("stuck ")
    assert all(word in end for word in ("saga-x", "charge", "probe", "Unknown", "resolve")), "it says what to declare"
    assert (info.status, steps(info)["charge"]) == (SagaStatus.STUCK, "unknown")
    assert world == ["before", "charge", "charge"], "the body did not go on, and nothing was undone"


@pytest.mark.parametrize("error", FAILED, ids=names)
async def test_a_failure_is_that_nothing_happened(url: str, world: list[str], error: Exception):
    """Any other exception: failed, nothing happened.

    Retried if the policy says so, then the body sees the exception.
    """
    end, info = await told(url, world, act(world, "charge", error, retry=3))
    assert end == f"caught {type(error).__name__} {error}"
    assert steps(info)["charge"] == "failed"
    assert world == ["before", *["charge"] * 3]


async def test_retries_of_a_doubt_keep_the_key(url: str, world: list[str]):
    """Unknown: retried with the same key if the policy says so."""
    keys: list[str] = []

    @step(retry=3, compensation=None, because="only looks")
    async def charge() -> str:
        keys.append(current().idempotency_key)
        if len(keys) < 3:
            raise TimeoutError
        return "done"

    assert (await told(url, world, charge))[0] == "done"
    assert len(set(keys)) == 1
    assert len(keys) == 3


# -- settled by a probe -----------------------------------------------------------------------------------------------


class Shop:
    """A step that ends as told, a probe that answers as told, and a compensation that does or does not admit Unknown.

    An exception is raised, whatever else is returned.
    """

    def __init__(
        self, world: list[str], *answers: Any, ends: Any = None, at: Any = step, admits: bool = False, result: Any = str
    ) -> None:
        def play(answer: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def charge() -> Any:
            world.append("charge")
            if ends is never:
                await never()
            return play(TimeoutError("t") if ends is None else ends)

        async def probe() -> Any:
            world.append("probe")
            return play(left.pop(0) if len(left) > 1 else left[0])

        async def undo(paid: Any) -> None:
            world.append(f"undo {'Unknown' if paid == Unknown() else paid}")

        charge.__annotations__["return"] = result
        undo.__annotations__["paid"] = result | Unknown if admits else result
        self.charge = at(rejects=(Declined,), timeout=60 if ends is never else None)(charge)
        left = list(answers)
        if answers:
            self.charge.probe(retry=Retry(attempts=5, first=0))(probe)
        if at is step:
            self.charge.compensate(undo)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param({}, "TimeoutError t", id="a step"),
        pytest.param({"admits": True}, "TimeoutError t", id="a step whose undo admits Unknown"),
        pytest.param({"at": pivot}, "TimeoutError t", id="a pivot"),
        pytest.param({"ends": ValueError("bug")}, "ValueError bug", id="any other exception"),
        pytest.param({"ends": httpx.ReadTimeout("cut")}, "ReadTimeout cut", id="a transport error"),
        pytest.param({"ends": {object()}}, "PayloadError", id="a bad result"),
        pytest.param({"ends": never}, "StepTimeout", id="a timeout"),
    ],
)
@pytest.mark.parametrize(
    ("answers", "found"),
    [
        pytest.param([Happened("found")], True, id="Happened"),
        pytest.param(["found"], True, id="a bare value"),
        pytest.param([DidNotHappen()], False, id="DidNotHappen"),
        pytest.param([None], False, id="None"),
        pytest.param([StillUnknown(), StillUnknown(), "found"], True, id="StillUnknown at first"),
        pytest.param([Broken(), ConnectionError(), DidNotHappen()], False, id="the probe itself fails at first"),
    ],
)
async def test_a_probe_settles_a_doubt(
    url: str, world: list[str], options: dict[str, Any], error: str, answers: list[Any], *, found: bool
):
    """`Happened(value)`, or a bare value: the step has succeeded, and the saga goes on.

    `DidNotHappen`, or `None`: the body sees the exception, and there is nothing to undo. `StillUnknown`, or a probe
    that raises, has settled nothing: it is asked again by its own policy. A `@pivot` may have a probe too.
    """
    end, info = await told(url, world, Shop(world, *answers, **options).charge)
    assert end.startswith("found" if found else f"caught {error}")
    assert steps(info)["charge"] == ("succeeded" if found else "failed")
    assert info.steps[1].result == ("found" if found else None)
    assert world == ["before", "charge", *["probe"] * len(answers)]


@pytest.mark.parametrize("error", FAILED, ids=names)
async def test_any_other_exception_is_a_doubt_where_it_can_be_settled(url: str, world: list[str], error: Exception):
    """Any other exception is unknown if the step has a way to settle it.

    What says that nothing was sent need not be.
    """
    end, info = await told(url, world, Shop(world, "found", ends=error).charge)
    if isinstance(error, Broken | ValueError):
        assert (end, steps(info)["charge"]) == ("found", "succeeded")
        assert world == ["before", "charge", "probe"]
    else:
        assert world in (["before", "charge"], ["before", "charge", "probe"])


@pytest.mark.parametrize("verb", ["retry", "resolve"])
async def test_a_probe_that_never_knows_leaves_it_to_the_operator(url: str, world: list[str], verb: str):
    """Else the saga is stuck, nothing is undone, and an operator settles it with `resolve`.

    `retry` asks the probe again under a fresh policy, and the saga goes on.
    """
    answers = [*[StillUnknown()] * 6, Happened("found")]
    shop, before = Shop(world, *answers), act(world, "before")

    @saga("asks", version=1)
    async def body(s: Saga) -> str:
        await s.run(before)
        return await s.run(shop.charge)

    async with Orchestrator(url, sagas=[body], clock=ManualClock(auto=True)) as orchestrator:
        handle = await orchestrator.start(body)
        with pytest.raises(SagaStuck, match="probe") as stuck:
            await handle.result()
        assert stuck.value.steps == ("charge",)
        assert world == ["before", "charge", *["probe"] * 5]
        if verb == "retry":
            await orchestrator.retry(handle.id)
        else:
            await orchestrator.resolve(handle.id, "charge", happened=True, result="found")
        assert await handle.result() == "found"
    assert world == ["before", "charge", *["probe"] * (7 if verb == "retry" else 5)]


@pytest.mark.parametrize("answer", [Happened(None), None, "found"], ids=["Happened", "None", "a bare value"])
async def test_a_result_type_that_admits_none_needs_the_long_form(url: str, world: list[str], answer: Any):
    """A bare value or `None` is short for the first two only where the result type does not admit `None`.

    There either could mean two things, and is refused.
    """
    end, info = await told(url, world, Shop(world, answer, result=str | None).charge)
    if isinstance(answer, Happened):
        assert (end, steps(info)["charge"]) == ("None", "succeeded")
    else:
        assert end.startswith("stuck ")
        assert "Happened(value)" in end


# -- settled by an undo, or by a person -------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("error", [TimeoutError("t"), Broken("b"), httpx.ReadTimeout("r")], ids=names)
async def test_a_compensation_that_admits_unknown_settles_at_once(
    url: str, world: list[str], error: Exception, *, fails: bool
):
    """Run at once with `Unknown`; then the body sees the exception and may catch it safely.

    It is not run again, when the saga rolls back later.
    """
    after = act(world, "after")
    end, info = await told(url, world, Shop(world, ends=error, admits=True).charge, then=after, fails=fails)
    assert end == f"caught {type(error).__name__} {error}"
    assert world == ["before", "charge", "undo Unknown", "after", *(["undo after", "undo before"] if fails else [])]
    assert (info.status, steps(info)["charge"]) == ("compensated" if fails else "completed", "compensated")


@pytest.mark.parametrize(
    ("answers", "options", "undone"),
    [
        pytest.param([Happened("found")], {}, ["probe", "undo found"], id="found"),
        pytest.param([], {"ends": "paid", "admits": True}, ["undo paid"], id="returned, though Unknown were admitted"),
        pytest.param([], {"ends": Declined("no"), "admits": True}, [], id="rejected, though Unknown were admitted"),
        pytest.param([StillUnknown(), DidNotHappen()], {}, ["probe", "probe"], id="ruled out"),
    ],
)
async def test_a_step_is_undone_with_what_is_known_of_it(
    url: str, world: list[str], answers: list[Any], options: dict[str, Any], undone: list[str]
):
    """A rollback undoes a step with its result, returned or found, and not where it was rejected or did not happen.

    A doubt is settled before the body goes on, and before anything is undone; `Unknown` is given only where nobody
    knows.
    """
    _, info = await told(url, world, Shop(world, *answers, **options).charge, fails=True)
    assert info.status == "compensated"
    assert world == ["before", "charge", *undone, "undo before"]


@pytest.mark.parametrize("settles", ["happened", "did not happen", "retry"])
@pytest.mark.parametrize("at", [step, pivot])
async def test_an_operator_settles_what_nothing_else_does(url: str, world: list[str], at: Any, settles: str):
    """Else the saga is stuck, undoes nothing, and an operator settles it: it succeeded with this result, or never was.

    Or `retry` calls it again, under its key. Who did it, and why, is recorded.
    """
    keys: set[str] = set()

    def plays() -> str:
        keys.add(current().idempotency_key)
        if current().attempt == 1:
            raise TimeoutError("t")
        return "again"

    before, charge = act(world, "before"), act(world, "charge", plays, at=at)

    @saga("operated", version=1)
    async def body(s: Saga) -> str:
        await s.run(before)
        try:
            return f"got {await s.run(charge)}"
        except TimeoutError as error:
            return f"caught {error}"

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        with pytest.raises(SagaStuck) as stuck:
            await handle.result()
        assert stuck.value.steps == ("charge",)
        assert [info.id for info in await orchestrator.list(status="stuck")] == [handle.id]
        if settles == "retry":
            await orchestrator.retry(handle.id, actor="ada", note="the bank is back")
        else:
            given = {"happened": True, "result": "r"} if settles == "happened" else {"happened": False}
            await orchestrator.resolve(handle.id, "charge", **given, actor="ada", note="the bank is back")
        assert (
            await handle.result() == {"happened": "got r", "did not happen": "caught t", "retry": "got again"}[settles]
        )
        (verb,) = [entry for entry in await handle.history() if entry.kind == "signalled"]
        assert (verb.actor, verb.note) == ("ada", "the bank is back")
        info = await handle.info()
        assert (info.status, info.reason) == ("completed", None)
    assert world == ["before", *["charge"] * (2 if settles == "retry" else 1)]
    assert len(keys) == 1


@pytest.mark.parametrize(
    "bad", [object(), {1, object()}, 7, "x" * 2_000_000], ids=["object", "set", "another type", "large"]
)
async def test_a_bad_result_is_a_doubt_and_never_retried(url: str, world: list[str], bad: Any):
    """A result that cannot be encoded, is of another type or too large: unknown, never retried.

    A body that catches sees `PayloadError`, which names the saga and the step.
    """

    @step(retry=5)
    async def charge() -> str:
        world.append("charge")
        return bad

    @charge.compensate
    async def refund(paid: str | Unknown) -> None:
        world.append(f"refund {paid == Unknown()}")

    end, _ = await told(url, world, charge)
    assert end.startswith("caught PayloadError")
    assert all(word in end for word in ("charge", "saga-x"))
    assert world == ["before", "charge", "refund True"]


async def test_the_undo_of_a_doubt_gets_what_the_last_attempt_raised(place: Place):
    """`Unknown.error` is the last attempt's exception with what it carries, also in a process that was begun later."""
    seen: list[Any] = []

    @step(retry=Retry(attempts=2, first=0), unknown=(Lost,))
    async def charge() -> str:
        lost = Lost("cut")
        lost.reference = f"payment {current().attempt}"  # type: ignore[attr-defined]
        raise lost

    @charge.compensate(retry=1)
    async def refund(paid: str | Unknown) -> None:
        error = paid.error if isinstance(paid, Unknown) else None
        seen.append((type(error), vars(error)["reference"], str(error)))
        if len(seen) < 3:
            raise Broken

    @saga("lost", version=1)
    async def lost(s: Saga) -> None:
        await s.run(charge)

    for times in (1, 2, 3):
        async with place.orchestrator(lost) as running:
            handle = await running.start(lost, id="saga-x")
            if seen:
                await running.retry("saga-x")
            await until(lambda times=times: len(seen) == times, running)
            await settled(handle)
    assert seen == [(Lost, "payment 2", "cut")] * 3


# -- time -----------------------------------------------------------------------------------------------------------


async def test_a_timeout_is_a_steptimeout(url: str, world: list[str]):
    """The step's timeout: unknown; the body sees `StepTimeout` (also a `TimeoutError`) once it is settled."""

    @step(timeout=timedelta(seconds=5))
    async def slow() -> str:
        world.append("slow")
        await never()
        return ""

    @slow.compensate
    async def undo(result: str | Unknown) -> None:
        world.append(f"undo {isinstance(result, Unknown)}")

    @saga("slow", version=1)
    async def body(s: Saga) -> str:
        try:
            await s.run(slow)
        except TimeoutError as error:
            return f"{type(error).__name__} {error}"
        return "?"

    clock = ManualClock()
    async with Orchestrator(url, sagas=[body], clock=clock) as orchestrator:
        handle = await orchestrator.start(body, id="t-1")
        await until(lambda: world)
        await clock.advance(4.9)
        assert world == ["slow"]
        await clock.advance(0.2)
        end = await handle.result()
    assert end.startswith("StepTimeout ")
    assert "slow" in end
    assert world == ["slow", "undo True"]
    assert issubclass(StepTimeout, TimeoutError)


def outliving(world: list[str], *, threaded: bool, fails: bool) -> tuple[Any, Callable[[], None]]:
    """A step whose first attempt takes no notice of its timeout, and what lets that attempt end."""
    opened, may_end = threading.Event(), asyncio.Event()

    def ends() -> str:
        world.append("end")
        if fails and current().attempt == 1:
            raise Broken
        return "late" if current().attempt == 1 else "second"

    def slow() -> str:
        world.append("begin")
        assert opened.wait(60)
        return ends()

    async def stubborn() -> str:
        world.append("begin")
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                world.append("swallowed")
        return ends()

    async def undo(result: str) -> None:
        world.append(f"undo {result}")

    async def find() -> str | None:
        world.append("probe")

    made = step(name="slow", timeout=5, retry=Retry(2, first=0))(slow if threaded else stubborn)
    made.compensate(undo)
    made.probe(find)
    return made, lambda: (opened.set(), may_end.set())[0]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("threaded", [True, False], ids=["a thread", "code that swallows cancellation"])
async def test_an_attempt_that_outlives_its_timeout_is_waited_for(
    url: str, world: list[str], *, threaded: bool, fails: bool
):
    """It has timed out at once, but retry, probe and undo wait until it has returned: two attempts never overlap.

    Its late result is the outcome; a late failure leaves the doubt, and is retried.
    """
    slow, let_end = outliving(world, threaded=threaded, fails=fails)

    @saga("slow", version=1)
    async def body(s: Saga) -> str:
        return await s.run(slow)

    clock = ManualClock()
    async with Orchestrator(url, sagas=[body], clock=clock) as orchestrator:
        handle = await orchestrator.start(body)
        await until(lambda: world)
        advancing = asyncio.ensure_future(clock.advance(6))
        while "timed_out" not in [entry.kind for entry in await handle.history()]:
            await asyncio.sleep(0.002)
        assert (await handle.info()).steps[0].status == "running"
        swallowed = [] if threaded else ["swallowed"]
        assert world == ["begin", *swallowed]
        let_end()
        await advancing
        await clock.advance(1)
        assert await handle.result() == ("second" if fails else "late")
    assert world == ["begin", *swallowed, "end", *(["begin", "end"] if fails else [])]


async def test_a_compensation_has_a_timeout_and_a_policy_of_its_own(url: str, world: list[str]):
    """`@charge.compensate(retry=Retry(...), timeout=...)`."""

    @step
    async def charge() -> str:
        return "c"

    @charge.compensate(retry=Retry(3, first=0), timeout=5)
    async def refund(_: str) -> None:
        world.append("refund")
        if len(world) < 3:
            await never()

    @saga("refund", version=1)
    async def body(s: Saga) -> None:
        await s.run(charge)
        raise Broken

    async with Orchestrator(url, sagas=[body], clock=ManualClock(auto=True)) as orchestrator:
        handle = await orchestrator.start(body)
        with pytest.raises(SagaCompensated):
            await handle.result()
        info = await settled(handle)
    assert world == ["refund"] * 3
    assert info.steps[0].compensation.attempts == 3
    assert steps(info) == {"charge": "compensated"}
