"""Random sagas, drawn from a number: the same number gives the same saga, in its body and in its steps.

Invariant: what a participant does depends on the saga's number, the place of the step in it and the attempt alone, and
once the world has healed every call succeeds.
"""

import asyncio
import time
from functools import cache
from random import Random
from typing import Any

import attrs

from sagas import (
    CallbackTimeout,
    DidNotHappen,
    Happened,
    Retry,
    Saga,
    SagaCompensated,
    StepInterrupted,
    StepTimeout,
    Unknown,
    lookup,
    pivot,
    resource,
    retriable,
    saga,
    step,
)
from tests.replay.random_world import Timeline

MOST = 100
"""Parts of a saga, at most."""
OFTEN = Retry(attempts=3, first=0.001, jitter=False)
ONCE = Retry(attempts=1)
SICK: set[int] = set()
"""Sagas of which the code that is loaded now has a fault: it awaits something foreign, or raises after its pivot."""


class Refused(Exception):
    """The participant's own answer: no."""


class Broken(Exception):
    """Nothing happened."""


class BodyFailed(Exception):
    """The body's own error."""


CAUGHT = (Refused, Broken, TimeoutError, StepTimeout, StepInterrupted, BodyFailed)

# -- plans ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Part:
    """One part of a saga."""

    no: int
    kind: str
    outcomes: tuple[str, ...] = ("ok",)
    """What each attempt does; the last for all that follow."""
    undo: tuple[str, ...] = ("ok",)
    span_ms: float = 0
    """How long a call takes."""
    caught: bool = False
    parts: tuple[tuple["Part", ...], ...] = ()
    """Of a block: its branches; of a savepoint or child: one."""
    fails: bool = False
    """A savepoint, child or body that raises at its end."""


@attrs.frozen
class Plan:
    """A whole saga."""

    parts: tuple[Part, ...]
    fails: bool
    every: dict[int, Part] = attrs.field(factory=dict[int, Part])


SINGLE = ("act", "act", "blind", "blind", "bare", "probed", "once", "threaded", "stubborn", "look")
BLOCKS = ("parallel", "parallel", "map", "savepoint", "child")
WAITS = ("sleep", "callback")


@cache
def plan_of(seed: int) -> Plan:
    """The saga of this number."""
    return _Drawing(Random(seed)).plan()


class _Drawing:
    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.every: dict[int, Part] = {}

    def plan(self) -> Plan:
        rng = self.rng
        parts = [self.part(depth=0) for _ in range(rng.randint(1, 4))]
        if rng.random() < 0.15:
            parts.insert(rng.randint(0, len(parts)), self.keep(kind="foreign"))
        fails = rng.random() < 0.25
        if not fails and rng.random() < 0.6:
            parts.append(self.single(rng.choice(("pay", "pay", "pay_probed"))))
            parts += [self.single(rng.choice(("ship", "look"))) for _ in range(rng.randint(0, 2))]
            if rng.random() < 0.1:
                parts.append(self.keep(kind="raises"))
        return Plan(tuple(parts), fails, self.every)

    def keep(self, **about: Any) -> Part:
        part = Part(no=len(self.every), **about)
        self.every[part.no] = part
        return part

    def part(self, *, depth: int) -> Part:
        rng = self.rng
        drawn = rng.random()
        if depth < 2 and drawn < 0.3:
            return self.block(rng.choice(BLOCKS), depth=depth)
        if drawn < 0.42:
            return self.keep(kind=rng.choice(WAITS), span_ms=rng.choice((0, 1, 3, 20)))
        return self.single(rng.choice(SINGLE))

    def block(self, kind: str, *, depth: int) -> Part:
        rng = self.rng
        if kind == "map":
            step_kind = rng.choice(("act", "blind", "probed"))
            items = tuple((self.single(step_kind),) for _ in range(rng.randint(1, 3)))
            if rng.random() < 0.4:  # all are in doubt at once, and are undone at once, by and by
                items = tuple(
                    (
                        self.keep(
                            kind="blind", outcomes=("lost",), undo=("broken", "ok"), span_ms=rng.choice((0, 0.5, 1))
                        ),
                    )
                    for _ in range(2)
                )
            return self.keep(kind=kind, parts=items, caught=rng.random() < 0.3)
        branches = rng.randint(2, 3) if kind == "parallel" else 1
        parts = tuple(tuple(self.part(depth=depth + 1) for _ in range(rng.randint(1, 2))) for _ in range(branches))
        if kind == "parallel" and rng.random() < 0.3:
            parts = (*parts, (self.single("look"), self.keep(kind="foreign")))
        return self.keep(
            kind=kind, parts=parts, caught=rng.random() < 0.5, fails=kind != "parallel" and rng.random() < 0.3
        )

    def single(self, kind: str) -> Part:
        rng = self.rng
        bad = ("refused", "broken", "lost", "silent", "slow") if kind != "ship" else ("broken", "lost", "silent")
        outcomes = ("ok",)
        drawn = rng.random()
        if drawn < 0.35:
            outcomes = (*(rng.choice(bad) for _ in range(rng.randint(1, 2))), rng.choice(("ok", rng.choice(bad))))
        undo = ("ok",)
        if rng.random() < 0.3:
            undo = (
                *(rng.choice(("broken", "lost")) for _ in range(rng.randint(1, 2))),
                rng.choice(("ok", "ok", "broken")),
            )
        span_ms = rng.choice((0, 0, 0.5, 2, 6, 30, 80))
        return self.keep(kind=kind, outcomes=outcomes, undo=undo, span_ms=span_ms, caught=rng.random() < 0.4)


# -- participants ---------------------------------------------------------------------------------------------------


def _part(ref: int) -> Part:
    return plan_of(ref // MOST).every[ref % MOST]


def _outcome(world: Timeline, part: Part, role: str, attempt: int) -> str:
    if world.healed:
        return "ok"
    outcomes = part.outcomes if role == "step" else part.undo if role == "undo" else ("ok",)
    return outcomes[min(attempt, len(outcomes)) - 1]


async def _play(world: Timeline, ref: int, *, stubborn: bool = False) -> None:
    part = _part(ref)
    with world.watched(ref) as call:
        outcome = _outcome(world, part, call.role, call.attempt)
        span_s = part.span_ms / 1000
        if outcome == "slow" and stubborn:
            span_s = 0.02
        if stubborn:
            await _stubbornly(span_s)
        elif span_s:
            await asyncio.sleep(span_s)
        _end(world, call, outcome)


async def _stubbornly(span_s: float) -> None:
    """Code that swallows its cancellation and goes on."""
    until_s = time.monotonic() + span_s
    while (left_s := until_s - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left_s)
        except asyncio.CancelledError:
            continue


def _play_on_thread(world: Timeline, ref: int) -> None:
    part = _part(ref)
    with world.watched(ref) as call:
        time.sleep(min(part.span_ms, 6) / 1000)
        _end(world, call, _outcome(world, part, call.role, call.attempt))


def _end(world: Timeline, call: Any, outcome: str) -> None:
    match outcome:
        case "refused" if call.step_key not in world.live:  # who has done it does not say that it did not
            raise Refused(call.key)
        case "broken":
            raise Broken(call.key)
        case "lost":
            raise TimeoutError("no answer")
        case "silent":
            world.effect(call)
            raise TimeoutError("no answer")
        case _:
            world.effect(call)


@step(retry=OFTEN, rejects=(Refused,))
async def act(ref: int, *, world: Timeline = resource()) -> int:
    await _play(world, ref)
    return ref


@act.compensate(retry=OFTEN)
async def undo_act(done: int, ref: int, *, world: Timeline = resource()) -> None:
    assert done == ref
    await _play(world, ref)


@step(retry=OFTEN, rejects=(Refused,))
async def blind(ref: int, *, world: Timeline = resource()) -> int:
    await _play(world, ref)
    return ref


@blind.compensate(retry=OFTEN)
async def undo_blind(done: int | Unknown, ref: int, *, world: Timeline = resource()) -> None:
    await _play(world, ref)


@step(rejects=(Refused,), compensation=None, because="a mail cannot be taken back")
async def bare(ref: int, *, world: Timeline = resource()) -> int:
    await _play(world, ref)
    return ref


@step(retry=OFTEN, rejects=(Refused,))
async def probed(ref: int, *, world: Timeline = resource()) -> int:
    await _play(world, ref)
    return ref


@probed.compensate(retry=OFTEN)
async def undo_probed(done: int, ref: int, *, world: Timeline = resource()) -> None:
    await _play(world, ref)


@probed.probe(retry=OFTEN)
async def find_probed(ref: int, *, world: Timeline = resource()) -> Happened[int] | DidNotHappen:
    with world.watched(ref) as call:
        return Happened(ref) if call.step_key in world.live else DidNotHappen()


@step(rejects=(Refused,), at_most_once=True)
async def once(ref: int, *, world: Timeline = resource()) -> int:
    await _play(world, ref)
    return ref


@once.compensate(retry=OFTEN)
async def undo_once(done: int | Unknown, ref: int, *, world: Timeline = resource()) -> None:
    await _play(world, ref)


@step(retry=OFTEN, rejects=(Refused,))
def threaded(ref: int, *, world: Timeline = resource()) -> int:
    _play_on_thread(world, ref)
    return ref


@threaded.compensate(retry=OFTEN)
def undo_threaded(done: int | Unknown, ref: int, *, world: Timeline = resource()) -> None:
    _play_on_thread(world, ref)


@step(retry=OFTEN, rejects=(Refused,), timeout=0.005)
async def stubborn(ref: int, *, world: Timeline = resource()) -> int:
    await _play(world, ref, stubborn=True)
    return ref


@stubborn.compensate(retry=OFTEN)
async def undo_stubborn(done: int | Unknown, ref: int, *, world: Timeline = resource()) -> None:
    await _play(world, ref, stubborn=True)


@lookup(retry=OFTEN, rejects=(Refused,))
async def look(ref: int, *, world: Timeline = resource()) -> int:
    await _play(world, ref)
    return ref


@pivot(retry=OFTEN, rejects=(Refused,))
async def pay(ref: int, *, world: Timeline = resource()) -> int:
    await _play(world, ref)
    return ref


@pivot(retry=OFTEN, rejects=(Refused,))
async def pay_probed(ref: int, *, world: Timeline = resource()) -> int:
    await _play(world, ref)
    return ref


@pay_probed.probe(retry=OFTEN)
async def find_payment(ref: int, *, world: Timeline = resource()) -> Happened[int] | DidNotHappen:
    with world.watched(ref) as call:
        return Happened(ref) if call.step_key in world.live else DidNotHappen()


@retriable(retry=OFTEN)
async def ship(ref: int, *, world: Timeline = resource()) -> int:
    await _play(world, ref)
    return ref


STEPS: dict[str, Any] = {
    each.name: each for each in (act, blind, bare, probed, once, threaded, stubborn, look, pay, pay_probed, ship)
}
NO_EFFECT = ("bare", "look")
"""Kinds of steps of which nothing needs to be undone."""

# -- the body -------------------------------------------------------------------------------------------------------


@saga("random", version=1)
async def random_saga(s: Saga, seed: int) -> str:
    plan = plan_of(seed)
    await _run_all(s, seed, plan.parts)
    if plan.fails:
        raise BodyFailed("of its own accord")
    return "done"


@saga("random-child", version=1)
async def random_child(s: Saga, seed: int, no: int) -> str:
    part = plan_of(seed).every[no]
    await _run_all(s, seed, part.parts[0])
    if part.fails:
        raise BodyFailed("the child")
    return "done"


async def random_branch(s: Saga, seed: int, no: int, place: int) -> None:
    await _run_all(s, seed, plan_of(seed).every[no].parts[place])


async def _run_all(s: Saga, seed: int, parts: tuple[Part, ...]) -> None:
    for part in parts:
        if not part.caught:
            await _run(s, seed, part)
            continue
        try:
            await _run(s, seed, part)
        except (*CAUGHT, SagaCompensated):
            s.log.debug("caught")


async def _run(s: Saga, seed: int, part: Part) -> None:  # noqa: C901, PLR0912 - one case for each kind of part
    match part.kind:
        case "sleep":
            await s.sleep(part.span_ms / 1000)
        case "callback":
            await _call_back(s, part)
        case "foreign":
            if seed in SICK:
                await asyncio.sleep(0)
        case "raises":
            if seed in SICK:
                raise BodyFailed("after the pivot")
        case "parallel":
            async with s.parallel() as p:
                for place in range(len(part.parts)):
                    p.run(random_branch, seed, part.no, place)
        case "map":
            refs = [seed * MOST + item[0].no for item in part.parts]
            await s.map(STEPS[part.parts[0][0].kind], refs)
        case "savepoint":
            async with s.savepoint(f"savepoint-{part.no}"):
                await _run_all(s, seed, part.parts[0])
                if part.fails:
                    raise BodyFailed("the savepoint")
        case "child":
            await s.run(random_child, seed, part.no)
        case kind:
            await s.run(STEPS[kind], seed * MOST + part.no)


async def _call_back(s: Saga, part: Part) -> None:
    callback = await s.callback(f"callback-{part.no}", str, timeout=None if part.span_ms else 0.02)
    try:
        await callback.result()
    except CallbackTimeout:
        s.log.debug("nobody answered in time")
