"""How a step ends, row by row of the contract's table, and how a doubt is settled before the body goes on."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import attrs
import httpx
import pytest

from sagas import (
    DidNotHappen,
    Happened,
    PayloadError,
    Retry,
    Saga,
    SagaDef,
    SagaInfo,
    StepInfo,
    StepState,
    StepTimeout,
    StillUnknown,
    Unknown,
    current,
    lookup,
    pivot,
    resource,
    saga,
    step,
)
from tests.kit import End, alone, end_of, journalled, orchestrator, reaches, within

AT_ONCE = Retry(attempts=5, first=0, jitter=False)


class CardDeclined(Exception): ...


@attrs.define
class Participant:
    """Answers as told, one answer a call and the last one for ever; an exception is raised."""

    answers: list[Any]
    found: list[Any] = attrs.field(factory=list[Any])
    """What the probe answers."""
    charged: list[StepInfo] = attrs.field(factory=list[StepInfo])
    probed: list[StepInfo] = attrs.field(factory=list[StepInfo])
    refunded: list[Any] = attrs.field(factory=list[Any])
    """What the compensation was given, each time."""
    released: int = 0
    """How often the step before was undone."""

    def answer(self) -> Any:
        self.charged.append(current())
        return self._next(self.answers)

    def find(self) -> Any:
        self.probed.append(current())
        return self._next(self.found)

    @staticmethod
    def _next(answers: list[Any]) -> Any:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


@step
async def reserve(order: str) -> str:
    return order


@reserve.compensate
async def release(result: str, order: str, *, participant: Participant = resource()) -> None:
    assert result == order
    participant.released += 1


def charging(
    make: Callable[..., Any] = step, *, undo: str = "", probe: bool = False, result: Any = int, **options: Any
) -> SagaDef[..., Any]:
    """A saga of two steps; the second is declared as told."""

    async def charge(order: str, *, participant: Participant = resource()) -> Any:
        return participant.answer()

    charge.__annotations__["return"] = result
    declared = make(**{"rejects": (CardDeclined,), **options})(charge)
    if undo == "result":

        @declared.compensate(retry=AT_ONCE)
        async def refund(result: int, *, participant: Participant = resource()) -> None:
            participant.refunded.append(result)

    elif undo == "unknown":

        @declared.compensate(retry=AT_ONCE)
        async def refund_or_void(result: int | Unknown, *, participant: Participant = resource()) -> None:
            participant.refunded.append(result)

    if probe:

        @declared.probe(retry=AT_ONCE)
        async def find_charge(order: str, *, participant: Participant = resource()) -> Any:
            return participant.find()

    @saga("order", version=1)
    async def order(s: Saga, id: str) -> Any:
        await s.run(reserve, id)
        return await s.run(declared, id)

    return order


def ends(participant: Participant, **options: Any) -> tuple[End, SagaInfo]:
    return alone(charging(**options), "order-1", resources=[participant])


def charge_of(info: SagaInfo) -> StepState:
    return next(state for state in info.steps if state.key == "charge")


DECLINED, TIMEOUT, BUG = CardDeclined(), TimeoutError(), ValueError("bug")
SAID, NO_CONNECTION = httpx.ReadTimeout("x"), httpx.ConnectError("x")
PLAIN = {"undo": "result"}
THRICE = {"undo": "result", "retry": Retry(attempts=3, first=0)}
ONCE = {**THRICE, "at_most_once": True}
HARMLESS = {"compensation": None, "because": "nobody minds"}

ROWS = [
    pytest.param([7], PLAIN, "completed", "succeeded", 1, id="returns"),
    pytest.param([DECLINED], PLAIN, "compensated", "rejected", 1, id="rejected"),
    pytest.param([DECLINED, 7], THRICE, "compensated", "rejected", 1, id="rejected is not retried"),
    pytest.param([TIMEOUT], PLAIN, "stuck", "unknown", 1, id="unknown"),
    pytest.param([ConnectionResetError()], PLAIN, "stuck", "unknown", 1, id="lost connection"),
    pytest.param([ConnectionRefusedError()], PLAIN, "compensated", "failed", 1, id="refused connection"),
    pytest.param([SAID], PLAIN, "stuck", "unknown", 1, id="transport error"),
    pytest.param([NO_CONNECTION], PLAIN, "compensated", "failed", 1, id="nothing was sent"),
    pytest.param([TIMEOUT, 7], THRICE, "completed", "succeeded", 2, id="unknown retried"),
    pytest.param([TIMEOUT], THRICE, "stuck", "unknown", 3, id="unknown given up"),
    pytest.param([BUG], PLAIN, "compensated", "failed", 1, id="failed"),
    pytest.param([BUG, BUG, 7], THRICE, "completed", "succeeded", 3, id="failed retried"),
    pytest.param([BUG], THRICE, "compensated", "failed", 3, id="failed given up"),
    pytest.param([BUG], {**PLAIN, "unknown": (ValueError,)}, "stuck", "unknown", 1, id="the user's own unknown"),
    pytest.param([TIMEOUT, BUG], THRICE, "stuck", "unknown", 3, id="unknown is sticky"),
    pytest.param([TIMEOUT, DECLINED], THRICE, "compensated", "rejected", 2, id="a rejection clears the doubt"),
    pytest.param([TIMEOUT, 7], ONCE, "stuck", "unknown", 1, id="at most once"),
    pytest.param([BUG, 7], ONCE, "completed", "succeeded", 2, id="at most once, and nothing happened"),
    pytest.param([object()], PLAIN, "stuck", "unknown", 1, id="bad result"),
    pytest.param([object(), 7], THRICE, "stuck", "unknown", 1, id="bad result is not retried"),
    pytest.param(["seven", 7], THRICE, "stuck", "unknown", 1, id="result of another type"),
    pytest.param(["x" * 2_000_000], {**PLAIN, "result": str}, "stuck", "unknown", 1, id="result too large"),
    pytest.param([TIMEOUT], HARMLESS, "compensated", "failed", 1, id="nothing to settle"),
    pytest.param([object()], HARMLESS, "compensated", "failed", 1, id="bad result, nothing to settle"),
    pytest.param([TIMEOUT], {"make": lookup}, "compensated", "failed", 1, id="lookup"),
    pytest.param([DECLINED], {"make": lookup}, "compensated", "rejected", 1, id="lookup rejected"),
    pytest.param([DECLINED], {"make": pivot}, "compensated", "rejected", 1, id="pivot rejected"),
    pytest.param([TIMEOUT], {"make": pivot}, "stuck", "unknown", 1, id="pivot unknown"),
    pytest.param([7], {"make": pivot}, "completed", "succeeded", 1, id="pivot"),
]


@pytest.mark.parametrize(("answers", "options", "status", "ended", "calls"), ROWS)
def test_how_a_step_ends(answers: list[Any], options: dict[str, Any], status: str, ended: str, calls: int):
    """What an attempt does decides the outcome, the retries, and whether the saga goes on, goes back or is stuck."""
    participant = Participant(list(answers))
    end, info = ends(participant, **options)
    state = charge_of(info)
    assert (end.status, state.status, len(participant.charged)) == (status, ended, calls)
    assert state.attempts == calls
    assert participant.released == (1 if status == "compensated" else 0)
    assert len({call.idempotency_key for call in participant.charged}) == 1
    if status == "compensated":
        assert end.undone == ("reserve",)
        if isinstance(answers[-1], Exception):
            assert end.error[0] is type(answers[-1])


def test_a_bad_result_is_refused_with_the_step_and_the_type():
    """The error of a result that JSON cannot hold names the run, the step and the type."""
    _, info = ends(Participant([object()]), **PLAIN)
    assert isinstance(info.error, PayloadError)
    assert all(word in str(info.error) for word in ("charge", "one", "object"))


def test_the_body_gets_the_value_after_its_round_trip():
    """A first run sees what a replay would: a tuple declared as a list is a list."""
    end, _ = ends(Participant([(1, 2)]), result=list[int], **PLAIN)
    assert end.value == [1, 2]


# -- probes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [TIMEOUT, BUG, SAID], ids=["timeout", "any other exception", "transport error"])
@pytest.mark.parametrize(
    ("found", "status", "asked"),
    [
        pytest.param([Happened(7)], "completed", 1, id="Happened"),
        pytest.param([7], "completed", 1, id="a bare value"),
        pytest.param([DidNotHappen()], "compensated", 1, id="DidNotHappen"),
        pytest.param([None], "compensated", 1, id="None"),
        pytest.param([StillUnknown(), StillUnknown(), Happened(7)], "completed", 3, id="StillUnknown at first"),
        pytest.param([OSError(), DidNotHappen()], "compensated", 2, id="the probe itself fails at first"),
    ],
)
def test_a_probe_settles_a_doubt_before_the_body_goes_on(failure: Exception, found: list[Any], status: str, asked: int):
    """Happened: it has succeeded so. DidNotHappen: the body sees the exception. StillUnknown: ask again."""
    participant = Participant([failure], list(found))
    end, info = ends(participant, undo="result", probe=True)
    assert (end.status, len(participant.charged), len(participant.probed)) == (status, 1, asked)
    if status == "completed":
        assert end.value == 7
        assert charge_of(info).status == "succeeded"
        assert charge_of(info).result == 7
    else:
        assert end.error[0] is type(failure)
        assert charge_of(info).status == "failed"
        assert end.undone == ("reserve",)
    assert participant.refunded == []


def test_a_settled_step_is_undone_with_the_probes_value():
    """A step that happened, as its probe found out, is undone like any other."""
    participant = Participant([TIMEOUT], [Happened(7)])
    declared = charging(undo="result", probe=True)

    @saga("outer", version=1)
    async def outer(s: Saga, id: str) -> None:
        await declared.body(s, id)
        raise BUG

    end, _ = alone(outer, "order-1", resources=[participant])
    assert (end.status, end.undone, participant.refunded) == ("compensated", ("charge", "reserve"), [7])


def test_a_probe_settles_a_bad_result():
    """The effect happened and only its telling failed: the probe's value is the result."""
    end, _ = ends(Participant([object()], [7]), undo="result", probe=True)
    assert (end.status, end.value) == ("completed", 7)


def test_a_probe_has_a_key_of_its_own_and_knows_its_steps():
    """`forward_key` is the step's idempotency key; a step has none."""
    participant = Participant([TIMEOUT], [7])
    ends(participant, undo="result", probe=True)
    (charged,), (probed,) = participant.charged, participant.probed
    assert charged.forward_key is None
    assert probed.forward_key == charged.idempotency_key
    assert probed.idempotency_key != charged.idempotency_key
    assert not probed.compensating


def test_where_none_is_a_result_only_happened_says_so():
    """A step whose result may be None: Happened(None) is a success; a bare answer could mean either and is refused."""
    end, _ = ends(Participant([TIMEOUT], [Happened(None)]), undo="result", probe=True, result=int | None)
    assert (end.status, end.value) == ("completed", None)
    for bare in (None, 7):
        participant = Participant([TIMEOUT], [bare])
        end, _ = ends(participant, undo="result", probe=True, result=int | None)
        assert end.status == "stuck"
        assert "Happened(value)" in end.error[0]


def test_a_pivot_may_have_a_probe():
    """A pivot that happened, as its probe found out, is passed; one that did not is undone up to."""
    assert ends(Participant([TIMEOUT], [7]), make=pivot, probe=True)[0].value == 7
    assert ends(Participant([TIMEOUT], [DidNotHappen()]), make=pivot, probe=True)[0].undone == ("reserve",)


def test_a_probe_that_gives_up_leaves_the_saga_stuck_until_it_is_asked_again():
    """Stuck, nothing undone; `retry` asks the probe again under a fresh policy, and the saga goes on."""
    participant = Participant([TIMEOUT], [StillUnknown()])
    declared = charging(undo="result", probe=True)

    async def main() -> None:
        async with orchestrator("memory://", declared, resources=[participant]) as running:
            handle = await running.start(declared, "order-1", id="one")
            end = await end_of(handle, running)
            assert end.status == "stuck"
            assert end.error[1] == ("charge",)
            assert "probe" in end.error[0]
            assert (participant.released, len(participant.probed)) == (0, 5)
            participant.found = [StillUnknown(), Happened(7)]
            await running.retry("one")
            assert await within(handle.result(), running) == 7
            assert len(participant.probed) == 7
            assert len(participant.charged) == 1

    asyncio.run(main())


# -- compensations that admit Unknown --------------------------------------------------------------------------------


def test_a_compensation_that_admits_unknown_is_run_at_once():
    """It is given Unknown, before anything else is undone, and not again; the body sees the attempt's exception."""
    participant = Participant([TIMEOUT])
    end, info = ends(participant, undo="unknown")
    assert (end.status, end.error[0], participant.refunded) == ("compensated", TimeoutError, [Unknown()])
    assert end.undone == ("charge", "reserve")
    assert charge_of(info).status == "compensated"


@pytest.mark.parametrize("fails", [False, True])
def test_a_body_may_catch_the_exception_of_a_doubt_that_was_undone(fails: bool):  # noqa: FBT001
    """The body goes on safely: the effect is gone for good, and a later rollback does not undo it again."""
    participant = Participant([TIMEOUT])
    declared = charging(undo="unknown")

    @saga("outer", version=1)
    async def outer(s: Saga, id: str) -> str:
        try:
            await declared.body(s, id)
        except TimeoutError:
            if fails:
                raise BUG from None
        return "on foot"

    end, _ = alone(outer, "order-1", resources=[participant])
    assert participant.refunded == [Unknown()]
    assert (end.status, participant.released) == (("compensated", 1) if fails else ("completed", 0))


def test_a_success_is_undone_with_its_result_though_unknown_were_admitted():
    """Unknown is given only where nobody knows."""
    participant = Participant([7])
    declared = charging(undo="unknown")

    @saga("outer", version=1)
    async def outer(s: Saga, id: str) -> None:
        await declared.body(s, id)
        raise BUG

    end, _ = alone(outer, "order-1", resources=[participant])
    assert (end.undone, participant.refunded) == (("charge", "reserve"), [7])


def test_a_rejection_needs_no_compensation():
    """Nothing happened: not even a compensation that admits Unknown is run."""
    participant = Participant([DECLINED])
    assert ends(participant, undo="unknown")[0].undone == ("reserve",)
    assert participant.refunded == []


# -- a person -------------------------------------------------------------------------------------------------------


def test_a_doubt_that_nobody_settles_makes_the_saga_stuck_and_says_what_to_declare():
    """The message names both ways to settle it; nothing is undone meanwhile; `retry` calls it under its key."""
    participant = Participant([TIMEOUT])
    declared = charging(undo="result")

    async def main() -> None:
        async with orchestrator("memory://", declared, resources=[participant]) as running:
            handle = await running.start(declared, "order-1", id="one")
            end = await end_of(handle, running)
            assert end.status == "stuck"
            assert end.error[1] == ("charge",)
            assert all(word in end.error[0] for word in ("charge", "one", "@charge.probe", "Unknown", "resolve"))
            assert participant.released == 0
            assert (await running.list(status="stuck"))[0].id == "one"
            participant.answers = [7]
            await running.retry("one", actor="ada", note="the bank is back")
            assert await within(handle.result(), running) == 7
            assert len({call.idempotency_key for call in participant.charged}) == 1
            assert [call.attempt for call in participant.charged] == [1, 2]
            (verb,) = [entry for entry in await handle.history() if entry.kind == "signalled"]
            assert (verb.key, verb.actor, verb.note) == ("retry", "ada", "the bank is back")
            info = await handle.info()
            assert (info.status, info.reason) == ("completed", None)

    asyncio.run(main())


# -- timeouts -------------------------------------------------------------------------------------------------------


def test_a_timeout_is_unknown_and_seen_as_step_timeout():
    """A step that can be settled: the probe is asked, and the body sees StepTimeout, which is a TimeoutError."""
    probed: list[str] = []

    @step(timeout=0.01, rejects=(CardDeclined,))
    async def hang(order: str) -> int:
        await asyncio.Event().wait()
        return 0

    @hang.compensate
    async def undo_hang(result: int) -> None: ...

    @hang.probe
    async def find(order: str) -> DidNotHappen:
        probed.append(order)
        return DidNotHappen()

    @saga("hanging", version=1)
    async def hanging(s: Saga) -> str:
        try:
            await s.run(hang, "order-1")
        except TimeoutError as error:
            return type(error).__name__
        return "no"

    end, info = alone(hanging)
    assert (end.value, probed) == (StepTimeout.__name__, ["order-1"])
    assert info.steps[0].status == "failed"


def test_a_lookup_that_times_out_failed():
    """There is nothing to settle: the body sees StepTimeout at once."""

    @lookup(timeout=0.01)
    async def hang() -> int:
        await asyncio.Event().wait()
        return 0

    @saga("hanging", version=1)
    async def hanging(s: Saga) -> int:
        return await s.run(hang)

    end, _ = alone(hanging)
    assert (end.status, end.error[0]) == ("compensated", StepTimeout)


def test_a_rejection_amid_cancellation_counts():
    """A step that was cut by its timeout and still got the participant's own answer was rejected."""

    @step(timeout=0.01, rejects=(CardDeclined,))
    async def stubborn() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            raise CardDeclined
        return 0

    @stubborn.compensate
    async def undo(result: int) -> None: ...

    @saga("stubborn", version=1)
    async def body(s: Saga) -> int:
        return await s.run(stubborn)

    end, info = alone(body)
    assert (end.status, end.error[0], info.steps[0].status) == ("compensated", CardDeclined, "rejected")


@pytest.mark.parametrize("threaded", [True, False], ids=["a thread", "code that swallows cancellation"])
def test_an_attempt_that_outlives_its_timeout_is_waited_for_and_its_late_result_taken(threaded: bool):  # noqa: FBT001
    """The timeout is journalled at once; retry and probe wait; what the attempt returns late is the outcome."""
    go_on = threading.Event()
    calls: list[str] = []

    def slow_thread() -> int:
        calls.append("charge")
        assert go_on.wait(5)
        return 7

    async def slow_task() -> int:
        calls.append("charge")
        while not go_on.is_set():
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                calls.append("cancelled")
        return 7

    declared = step(timeout=0.01, retry=3)(slow_thread if threaded else slow_task)

    @declared.compensate
    async def undo(result: int) -> None:
        calls.append("undo")

    @declared.probe
    async def probe() -> None:
        calls.append("probe")

    @saga("late", version=1)
    async def late(s: Saga) -> int:
        return await s.run(declared)

    async def main() -> None:
        async with orchestrator("memory://", late) as running:
            handle = await running.start(late, id="one")
            await journalled(handle, running, "timed_out")
            assert (await handle.info()).steps[0].status == "running"
            go_on.set()
            assert await within(handle.result(), running) == 7
            assert [entry.kind for entry in await handle.history()][:3] == ["started", "timed_out", "succeeded"]

    try:
        asyncio.run(main())
    finally:
        go_on.set()
    assert calls == (["charge"] if threaded else ["charge", "cancelled"])


def test_a_thread_that_fails_late_is_retried_only_then():
    """Two attempts of one step never overlap, whatever its timeout says."""
    lock = threading.Lock()
    overlaps: list[int] = []
    first_may_end = threading.Event()
    attempts: list[int] = []

    @step(timeout=0.01, retry=Retry(attempts=2, first=0))
    def charge() -> int:
        free = lock.acquire(blocking=False)
        attempts.append(1)
        try:
            if not free:
                overlaps.append(len(attempts))
            if len(attempts) == 1:
                assert first_may_end.wait(5)
                raise BUG
            return 7
        finally:
            if free:
                lock.release()

    @charge.compensate
    def undo(result: int) -> None: ...

    @saga("late", version=1)
    async def late(s: Saga) -> int:
        return await s.run(charge)

    async def main() -> None:
        async with orchestrator("memory://", late) as running:
            handle = await running.start(late, id="one")
            await journalled(handle, running, "timed_out")
            assert len(attempts) == 1
            first_may_end.set()
            assert await within(handle.result(), running) == 7

    try:
        asyncio.run(main())
    finally:
        first_may_end.set()
    assert (len(attempts), overlaps) == (2, [])


# -- compensations --------------------------------------------------------------------------------------------------


def test_a_compensation_is_retried_by_its_own_policy():
    """By default it has ten attempts, all under one key of its own, with the step's as forward key."""
    seen: list[StepInfo] = []

    @step
    async def charge() -> int:
        seen.append(current())
        return 7

    @charge.compensate(retry=Retry(attempts=4, first=0))
    async def refund(result: int) -> None:
        seen.append(current())
        if len(seen) < 5:
            raise TIMEOUT

    @saga("refunding", version=1)
    async def refunding(s: Saga) -> None:
        await s.run(charge)
        raise BUG

    end, info = alone(refunding)
    forward, *undos = seen
    assert (end.status, end.undone, len(undos)) == ("compensated", ("charge",), 4)
    assert {undo.idempotency_key for undo in undos} != {forward.idempotency_key}
    assert {(undo.step, undo.forward_key, undo.compensating) for undo in undos} == {
        ("charge", forward.idempotency_key, True)
    }
    assert [undo.attempt for undo in undos] == [1, 2, 3, 4]
    compensation = info.steps[0].compensation
    assert compensation is not None
    assert (info.steps[0].status, compensation.kind, compensation.attempts) == ("compensated", "compensation", 4)


@pytest.mark.parametrize("halts", [False, True])
def test_a_compensation_that_is_given_up_makes_the_saga_stuck(halts: bool):  # noqa: FBT001
    """The others run nevertheless, or wait with "halt"; `retry` runs the mended one, and the saga ends undone."""
    broken = [True]
    undone: list[str] = []

    @step
    async def charge(name: str) -> str:
        return name

    @charge.compensate(retry=1)
    async def refund(result: str) -> None:
        if result == "b" and broken:
            raise BUG
        undone.append(result)

    @saga("refunding", version=1, on_compensation_failure="halt" if halts else "continue")
    async def refunding(s: Saga) -> None:
        for name in "abc":
            await s.run(charge, name)
        raise BUG

    async def main() -> None:
        async with orchestrator("memory://", refunding) as running:
            handle = await running.start(refunding, id="one")
            end = await end_of(handle, running)
            assert end.status == "stuck"
            assert end.error[1] == ("charge#2",)
            assert all(word in end.error[0] for word in ("charge#2", "retry", "skip", "bug"))
            assert undone == (["c"] if halts else ["c", "a"])
            info = await handle.info()
            assert (info.cause, info.steps[1].status) == ("failed", "compensation_failed")
            broken.clear()
            await running.retry("one")
            end = await end_of(handle, running)
            assert end.status == "compensated"
            assert sorted(undone) == ["a", "b", "c"]
            assert (await reaches(handle, running, "compensated")).reason is None

    asyncio.run(main())
