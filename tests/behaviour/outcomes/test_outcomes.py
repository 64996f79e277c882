"""Section 1 of the contract, "How a step ends": every row of the table and each way to settle a doubt."""

# ruff: noqa: ASYNC110, FBT001

import asyncio
import threading
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
    StepInterrupted,
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
from tests.kit import act, never, settled, steps, until


class Declined(Exception): ...


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


def catching(one: Any, *, then: Any = None) -> Any:
    """A saga that runs a step, and tells what it caught."""

    @saga("catching", version=1)
    async def catching_one(s: Saga) -> str:
        try:
            return str(await s.run(one))
        except Exception as error:  # noqa: BLE001 - whatever a body is shown
            if then is not None:
                await s.run(then)
            return f"caught {type(error).__name__} {error}".strip()

    return catching_one


async def told(url: str, one: Any, *, then: Any = None, resources: Any = (), clock: Any = None) -> tuple[str, Any]:
    """How a saga around one step ends: what its body told, and its info."""
    definition = catching(one, then=then)
    async with Orchestrator(
        url, sagas=[definition], clock=clock or ManualClock(auto=True), resources=resources
    ) as orchestrator:
        handle = await orchestrator.start(definition, id="saga-x")
        try:
            end = await handle.result()
        except SagaStuck as stuck:
            end = f"stuck {stuck}"
        except SagaCompensated as compensated:
            end = f"compensated {compensated}"
        return end, await handle.info()


async def test_a_rejection_is_the_answer(url: str, world: list[str]):
    """An exception of `rejects`: rejected, no retry; the saga body sees the exception."""
    end, info = await told(url, act(world, "charge", Declined("broke"), rejects=(Declined,), retry=5))
    assert end == "caught Declined broke"
    assert steps(info) == {"charge": "rejected"}
    assert world == ["charge"], "no retry, nothing to undo"


async def test_a_rejection_is_one_also_by_its_base(url: str, world: list[str]):
    """An exception of `rejects`, so of a subclass too; and `rejects` comes before `unknown`."""

    class Worse(Declined, TimeoutError): ...

    end, info = await told(url, act(world, "charge", Worse("w"), rejects=(Declined,), retry=5))
    assert (end, steps(info), world) == ("caught Worse w", {"charge": "rejected"}, ["charge"])


@pytest.mark.parametrize("error", UNKNOWN, ids=names)
async def test_an_unknown_without_a_way_to_settle_is_stuck(url: str, world: list[str], error: Exception):
    """An exception of `unknown`, a transport error: retried by policy with the same key, then stuck for an operator."""
    end, info = await told(url, act(world, "charge", error, retry=2))
    assert end.startswith("stuck ")
    assert "saga-x" in end
    assert "charge" in end
    assert "probe" in end, "its message says which of the two to declare"
    assert "Unknown" in end
    assert (info.status, steps(info)) == (SagaStatus.STUCK, {"charge": "unknown"})
    assert world == ["charge", "charge"], "the body did not go on, and nothing was undone"


@pytest.mark.parametrize("error", FAILED, ids=names)
async def test_a_failure_is_that_nothing_happened(url: str, world: list[str], error: Exception):
    """Any other exception: failed, nothing happened.

    Retried if the policy says so, then the body sees the exception.
    """
    end, info = await told(url, act(world, "charge", error, retry=3))
    assert end == f"caught {type(error).__name__} {error}"
    assert steps(info) == {"charge": "failed"}
    assert world == ["charge"] * 3


@pytest.mark.parametrize("error", FAILED, ids=names)
async def test_any_other_exception_is_a_doubt_where_it_can_be_settled(url: str, world: list[str], error: Exception):
    """Any other exception is unknown if the step has a way to settle it.

    What says that nothing was sent need not be.
    """

    @step
    async def charge() -> str:
        world.append("charge")
        raise error

    @charge.compensate
    async def refund(paid: str) -> None:
        world.append(f"refund {paid}")

    @charge.probe
    async def find() -> str | None:
        world.append("probe")
        return "found"

    end, info = await told(url, charge)
    if isinstance(error, Broken | ValueError):
        assert (end, steps(info)) == ("found", {"charge": "succeeded"})
        assert world == ["charge", "probe"]
    else:
        assert world in (["charge"], ["charge", "probe"])


async def test_unknown_types_can_be_chosen(url: str, world: list[str]):
    """`unknown=` is the step's own tuple: its types are doubts, and the default ones are failures then."""
    one = act(world, "charge", Lost("?"), unknown=(Lost,))
    assert (await told(url, one))[0].startswith("stuck ")


async def test_unknown_is_sticky_against_failures(url: str, world: list[str]):
    """Once an attempt ended unknown, a later failure does not clear it."""
    one = act(world, "charge", TimeoutError(), Broken("later"), retry=3)
    end, info = await told(url, one)
    assert end.startswith("stuck ")
    assert steps(info) == {"charge": "unknown"}
    assert world == ["charge"] * 3


async def test_unknown_is_sticky_against_a_refused_connection(url: str, world: list[str]):
    """A refused connection says that nothing was sent this time, not that nothing was sent the time before."""
    one = act(world, "charge", ConnectionResetError(), ConnectionRefusedError(), retry=2)
    end, info = await told(url, one)
    assert (end[:6], steps(info)) == ("stuck ", {"charge": "unknown"})


@pytest.mark.parametrize(
    ("last", "end", "status"), [("paid", "paid", "succeeded"), (Declined("no"), "caught Declined no", "rejected")]
)
async def test_a_success_or_a_rejection_clears_a_doubt(url: str, world: list[str], last: Any, end: str, status: str):
    """A success, a rejection under the same key does clear an unknown."""
    one = act(world, "charge", TimeoutError(), Broken(), last, retry=5, rejects=(Declined,))
    told_end, info = await told(url, one)
    assert (told_end, steps(info)) == (end, {"charge": status})
    assert world == ["charge"] * 3


async def test_retries_of_a_doubt_keep_the_key(url: str):
    """Unknown: retried with the same key if the policy says so."""
    keys: list[str] = []

    @step(retry=3, compensation=None, because="only looks")
    async def charge() -> str:
        keys.append(current().idempotency_key)
        if len(keys) < 3:
            raise TimeoutError
        return "done"

    assert (await told(url, charge))[0] == "done"
    assert len(set(keys)) == 1
    assert len(keys) == 3


async def test_at_most_once_is_never_retried(url: str, world: list[str]):
    """Unknown is never retried for `at_most_once`."""
    one = act(world, "charge", TimeoutError("t"), "paid", retry=5, at_most_once=True)
    end, info = await told(url, one)
    assert (end[:6], steps(info), world) == ("stuck ", {"charge": "unknown"}, ["charge"])


@pytest.mark.parametrize("bad", [object(), {1, object()}, "x" * 30_000_000], ids=["object", "set", "large"])
async def test_a_bad_result_is_a_doubt_and_never_retried(url: str, world: list[str], bad: Any):
    """A result that cannot be encoded or is too large: unknown, never retried.

    A body that catches sees `PayloadError`.
    """

    @step(retry=5)
    async def charge() -> Any:
        world.append("charge")
        return bad

    @charge.compensate
    async def refund(paid: Any | Unknown) -> None:
        world.append(f"refund {paid is bad}")

    end, _ = await told(url, charge)
    assert end.startswith("caught PayloadError")
    assert "charge" in end
    assert world in (["charge", "refund False"], ["charge", "refund True"])


class Shop:
    """A step with a probe that answers as told, and a compensation that does or does not admit `Unknown`."""

    def __init__(
        self, world: list[str], *answers: Any, error: Exception | None = None, at: Any = step, admits: bool = False
    ) -> None:
        @at
        async def charge() -> str:
            world.append("charge")
            raise error or TimeoutError("t")

        left = list(answers)

        async def probe() -> Any:
            world.append("probe")
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        if answers:
            charge.probe(probe)
        if at is step and admits:

            @charge.compensate
            async def undo(paid: str | Unknown) -> None:
                world.append(f"undo {'Unknown' if isinstance(paid, Unknown) or paid is Unknown else paid}")

        elif at is step:

            @charge.compensate
            async def undo_known(paid: str) -> None:
                world.append(f"undo {paid}")

        self.charge = charge


@pytest.mark.parametrize("admits", [True, False])
@pytest.mark.parametrize("at", [step, pivot])
@pytest.mark.parametrize("answer", [Happened("found"), "found"], ids=["Happened", "bare"])
async def test_a_probe_that_found_it_is_a_success(url: str, world: list[str], answer: Any, at: Any, admits: bool):
    """`Happened(value)`, or a bare value: the step has succeeded, the saga goes on. A `@pivot` may have a probe too."""
    end, info = await told(url, Shop(world, answer, at=at, admits=admits).charge)
    assert (end, steps(info), world) == ("found", {"charge": "succeeded"}, ["charge", "probe"])


@pytest.mark.parametrize("admits", [True, False])
@pytest.mark.parametrize("at", [step, pivot])
@pytest.mark.parametrize("answer", [DidNotHappen(), None], ids=["DidNotHappen", "None"])
async def test_a_probe_that_rules_it_out_is_a_failure(url: str, world: list[str], answer: Any, at: Any, admits: bool):
    """`DidNotHappen`, or `None` where the result type does not admit it: the body sees the exception.

    Nothing to undo.
    """
    end, info = await told(url, Shop(world, answer, at=at, admits=admits).charge)
    assert end == "caught TimeoutError t"
    assert world == ["charge", "probe"]
    assert steps(info)["charge"] == "failed"


async def test_a_found_effect_is_undone_with_its_value(url: str, world: list[str]):
    """After `Happened(value)` the step has succeeded: the rollback undoes it with that value."""
    shop = Shop(world, Happened("found"))

    @saga("undone", version=1)
    async def body(s: Saga) -> None:
        await s.run(shop.charge)
        raise Broken

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        with pytest.raises(SagaCompensated) as caught:
            await (await orchestrator.start(body)).result()
    assert caught.value.compensated == ["charge"]
    assert world == ["charge", "probe", "undo found"]


async def test_a_probe_is_asked_again(url: str, world: list[str]):
    """`StillUnknown`: asked again by its own retry policy."""
    end, _ = await told(url, Shop(world, StillUnknown(), StillUnknown(), "found").charge)
    assert (end, world) == ("found", ["charge", "probe", "probe", "probe"])


async def test_a_probe_that_breaks_is_asked_again(url: str, world: list[str]):
    """A probe that raises has not settled anything: asked again."""
    end, _ = await told(url, Shop(world, Broken(), ConnectionError(), "found").charge)
    assert (end, world) == ("found", ["charge", "probe", "probe", "probe"])


async def test_a_probe_that_never_knows_leaves_it_to_the_operator(url: str, world: list[str]):
    """Else the saga is stuck, and an operator settles it with `resolve`; retries of the probe have come to an end."""
    end, info = await told(url, Shop(world, StillUnknown()).charge)
    assert end.startswith("stuck ")
    assert steps(info) == {"charge": "unknown"}
    assert world.count("probe") > 1
    assert set(world) == {"charge", "probe"}


async def test_a_result_type_that_admits_none_needs_the_long_form(url: str, world: list[str]):
    """A bare value or `None` is short for the first two only where the result type does not admit `None`."""

    @step
    async def find() -> str | None:
        raise TimeoutError("t")

    @find.compensate
    async def undo(_: str | None) -> None:
        world.append("undo")

    @find.probe
    async def probe() -> Happened[str | None] | DidNotHappen:
        world.append("probe")
        return Happened(None)

    end, info = await told(url, find)
    assert (end, steps(info), world) == ("None", {"find": "succeeded"}, ["probe"])


@pytest.mark.parametrize("error", [TimeoutError("t"), Broken("b"), httpx.ReadTimeout("r")], ids=names)
async def test_a_compensation_that_admits_unknown_settles_at_once(url: str, world: list[str], error: Exception):
    """Run at once with `Unknown`; then the body sees the exception and may catch it safely."""
    after = act(world, "after")
    end, _ = await told(url, Shop(world, error=error, admits=True).charge, then=after)
    assert end == f"caught {type(error).__name__} {error}"
    assert world == ["charge", "undo Unknown", "after"]


async def test_what_was_settled_so_is_not_undone_again(url: str, world: list[str]):
    """It is not run again, when the saga rolls back later."""
    shop, after = Shop(world, admits=True), act(world, "after")

    @saga("later", version=1)
    async def body(s: Saga) -> None:
        try:
            await s.run(shop.charge)
        except TimeoutError:
            await s.run(after)
        raise Broken

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        with pytest.raises(SagaCompensated):
            await (await orchestrator.start(body)).result()
    assert world == ["charge", "undo Unknown", "after", "undo after"]


async def test_what_is_settled_is_settled_before_anything_is_undone(url: str, world: list[str]):
    """A given-up unknown is settled before the body goes on, and before anything is undone."""
    first, shop = act(world, "first"), Shop(world, StillUnknown(), DidNotHappen())

    @saga("order", version=1)
    async def body(s: Saga) -> None:
        await s.run(first)
        await s.run(shop.charge)

    async with Orchestrator(url, sagas=[body], clock=ManualClock(auto=True)) as orchestrator:
        with pytest.raises(SagaCompensated) as caught:
            await (await orchestrator.start(body)).result()
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert world == ["first", "charge", "probe", "probe", "undo first"]


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize("at", [step, pivot])
async def test_an_operator_settles_what_nothing_else_does(url: str, world: list[str], at: Any, happened: bool):
    """(3) Else the saga is stuck and an operator settles it with `resolve`.

    Succeeded with that result, or never happened.
    """
    charge = act(world, "charge", TimeoutError("t"), at=at)

    @saga("operated", version=1)
    async def body(s: Saga) -> str:
        try:
            return f"got {await s.run(charge)}"
        except TimeoutError as error:
            return f"caught {error}"

    async with Orchestrator(url, sagas=[body]) as orchestrator:
        handle = await orchestrator.start(body)
        with pytest.raises(SagaStuck):
            await handle.result()
        await orchestrator.resolve(handle.id, "charge", happened=happened, result="r" if happened else None)
        assert await handle.result() == ("got r" if happened else "caught t")
    assert world == ["charge"]


@pytest.mark.parametrize(
    "make", [lambda w, e: act(w, "x", e, at=lookup), lambda w, e: act(w, "x", e, compensation=None, because="r")]
)
@pytest.mark.parametrize("error", [TimeoutError("t"), ConnectionError("c")], ids=names)
async def test_where_there_is_nothing_to_settle_unknown_counts_as_failed(
    url: str, world: list[str], make: Any, error: Exception
):
    """A lookup, and a step with `compensation=None`, has nothing to settle: unknown counts as failed."""
    end, info = await told(url, make(world, error))
    assert (end, steps(info)) == (f"caught {type(error).__name__} {error}", {"x": "failed"})


async def test_a_retriable_is_simply_retried(url: str, world: list[str]):
    """A `@retriable` is simply retried, whatever it raises."""
    errors = [TimeoutError(), Broken(), ConnectionError(), httpx.ReadError(""), Declined()]
    end, _ = await told(url, act(world, "confirm", *errors, "sent", at=retriable))
    assert (end, len(world)) == ("sent", 6)


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


async def test_a_thread_that_times_out_is_waited_for_and_its_late_result_counts(url: str, world: list[str]):
    """A thread cannot be stopped: timed out at once, but retry, probe and undo wait; its late result is the outcome."""
    gate, inside = threading.Event(), threading.Event()

    @step(timeout=5, retry=3)
    def slow() -> str:
        world.append("begin")
        inside.set()
        gate.wait(10)
        world.append("end")
        return "late"

    @slow.compensate
    def undo(result: str) -> None:
        world.append(f"undo {result}")

    @slow.probe
    def find() -> str | None:
        world.append("probe")

    @saga("slow", version=1)
    async def body(s: Saga) -> str:
        return await s.run(slow)

    clock = ManualClock()
    async with Orchestrator(url, sagas=[body], clock=clock) as orchestrator:
        handle = await orchestrator.start(body)
        await until(inside.is_set)
        await clock.advance(6)
        while not any("timed" in f"{entry.kind} {entry.note} {entry.error}" for entry in await handle.history()):
            await asyncio.sleep(0.005)
        assert world == ["begin"], "retry and probe wait until it has returned"
        gate.set()
        assert await handle.result() == "late"
    assert world == ["begin", "end"]


async def test_code_that_swallows_cancellation_is_waited_for(url: str, world: list[str]):
    """An attempt that swallows cancellation: retry waits until it has returned.

    A late failure leaves the doubt, retried.
    """
    gate = asyncio.Event()

    @step(timeout=5, retry=Retry(2, first=0))
    async def stubborn() -> str:
        world.append("begin")
        if current().attempt > 1:
            return "second"
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                world.append("swallowed")
        world.append("end")
        raise Broken

    @stubborn.compensate
    async def undo(result: str) -> None:
        world.append(f"undo {result}")

    @saga("stubborn", version=1)
    async def body(s: Saga) -> str:
        return await s.run(stubborn)

    clock = ManualClock()
    async with Orchestrator(url, sagas=[body], clock=clock) as orchestrator:
        handle = await orchestrator.start(body)
        await until(lambda: world)
        advancing = asyncio.ensure_future(clock.advance(6))
        await until(lambda: "swallowed" in world)
        await asyncio.sleep(0.02)
        assert world == ["begin", "swallowed"]
        gate.set()
        await advancing
        await clock.advance(1)
        assert await handle.result() == "second"
    assert world == ["begin", "swallowed", "end", "begin"]


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


def test_the_errors_of_a_cut_step_are_types_of_their_own():
    """After a crash the body of an `at_most_once` step sees `StepInterrupted`; after a timeout `StepTimeout`."""
    assert not issubclass(StepInterrupted, TimeoutError)
    assert issubclass(StepInterrupted, Exception)
