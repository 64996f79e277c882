"""Random operators: start random sagas, give verbs at random moments, let workers come and go, and mend at the end.

Invariant: an operator settles by what is so in the world, so a lie in the end is the engine's.
"""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import attrs

from durable_core.layer import EntryKind
from sagas import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackNotFound,
    Orchestrator,
    SagaInfo,
    SagaPastPivot,
    WrongState,
)
from tests.kit import Place
from tests.replay.random_sagas import SICK, plan_of, random_child, random_saga
from tests.replay.random_world import Timeline

ENDS = ("completed", "compensated", "resolved", "killed")
PATIENCE_S = 20.0
"""Longer than any of these sagas takes to come to its end on a busy machine."""
WHOLE_S = 60.0
"""Longer than any seed takes."""
MOST_SAGAS = 1000
"""Numbers of sagas for one seed."""
VERBS = (
    *("cancel", "cancel", "kill", "pause", "pause", "resume"),
    *("rollback", "rollback", "rollback", "retry", "retry", "resolve", "skip"),
)


@attrs.define
class Told:
    """A verb that was given."""

    saga: str
    verb: str
    note: str
    called: int
    """Its place on the line when it was called, and when it returned."""
    returned: int = -1
    refused: str = ""
    status: str = ""
    """How the saga stood right after."""


class Played:
    """One seed: its world, its processes, and all that was told."""

    def __init__(self, seed: int, place: Place) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.place = place
        self.world = Timeline()
        self.told: list[Told] = []
        self.workers: list[Orchestrator] = []
        self.sagas: dict[str, int] = {}
        self.deadlines: dict[str, int] = {}
        """When each saga's deadline falls due, by the engine's clock."""
        self.idle_since: list[tuple[int, int]] = []
        """Moments at which no worker lived: the time by that clock, and the place on the line."""
        self.options: dict[str, Any] = {"concurrency": 1 if self.rng.random() < 0.3 else 1000}
        self.desk = self._process(worker=False)
        self.histories: dict[str, list[Any]] = {}
        self.infos: dict[str, SagaInfo] = {}
        self.journals: dict[str, list[Any]] = {}

    def _process(self, **options: Any) -> Orchestrator:
        world: Any = self.world
        return self.place.orchestrator(random_saga, random_child, world=world, **{**self.options, **options})

    # -- workers ---------------------------------------------------------------------------------------------------

    async def enter(self) -> None:
        """A worker comes."""
        if not self.workers:
            self.idle_since.append((self.desk.engine.clock.now_ns(), len(self.world.line)))
        worker = self._process(grace=self.rng.choice((0.01, 1, 1, 1)) if not self._threads() else 5)
        await worker.__aenter__()
        self.world.watch_commits(worker)
        self.workers.append(worker)
        self.world.note("worker entered", "")

    def _threads(self) -> bool:
        """Whether there are steps that a grace which is over cannot stop."""
        kinds = {part.kind for number in self.sagas.values() for part in plan_of(number).every.values()}
        return bool(kinds & {"threaded", "stubborn"})

    async def leave(self) -> None:
        """A worker goes; it waits for the calls that it has under way."""
        if self.workers:
            worker = self.workers.pop(self.rng.randrange(len(self.workers)))
            self.world.note("worker leaves", "")
            await worker.__aexit__(None, None, None)
            self.world.note("worker left", "")
            if not self.workers and self.world.under_way:
                left = [f"{call.saga}: {call.key} #{call.attempt}" for call in self.world.under_way]
                self.world.faults.append(f"the last worker has left, and under way are {left}")

    # -- verbs -----------------------------------------------------------------------------------------------------

    async def give(self, saga: str, verb: str, by: Orchestrator, **about: Any) -> Told:
        """Give a verb; how it went."""
        told = Told(saga, verb, f"verb {len(self.told)}", len(self.world.line))
        self.told.append(told)
        self.world.note(f"{verb}?", saga, about or None)
        call: Callable[..., Coroutine[Any, Any, None]] = getattr(by, verb)
        try:
            await call(saga, **about, actor="mia", note=told.note)
        except (WrongState, SagaPastPivot) as refused:
            told.refused = str(refused)
        told.returned = self.world.note(f"{verb} {'refused' if told.refused else 'accepted'}", saga, about or None)
        told.status = str((await self.desk.info(saga)).status)
        return told

    async def give_some(self, saga: str) -> None:
        """Give a random verb, by whom and about what as it comes."""
        rng = self.rng
        verb = rng.choice(VERBS)
        by = rng.choice((self.desk, self.desk, *self.workers))
        if verb in ("resolve", "skip"):
            await self.mend(saga, by)
        elif verb == "rollback" and rng.random() < 0.7:
            await self.give(saga, "kill", by)
            for _ in range(rng.choice((0, 0, 3, 30))):
                await asyncio.sleep(0)
            await self.give(saga, "rollback", by)
        else:
            await self.give(saga, verb, by)

    async def mend(self, saga: str, by: Orchestrator) -> bool:
        """Do one thing that the message of a stuck saga names; whether anything was accepted."""
        rng = self.rng
        info = await by.info(saga)
        if info.status != "stuck" or self.world.busy(saga):
            return False
        key = rng.choice(info.stuck_on) if info.stuck_on else None
        reason = info.reason or ""
        if "sagas resolve" in reason and key is not None and rng.random() < 0.8:
            happened = self.world.happened(saga, key)
            ref = self.world.refs[saga, key] if happened else None
            told = await self.give(saga, "resolve", by, step=key, happened=happened, result=ref)
        elif "sagas skip" in reason and key is not None and rng.random() < 0.3:
            key = key.partition("~")[0]
            self.world.undone_by_hand(saga, key)
            how: dict[str, Any] = rng.choice(({"verb": "skip"}, {"verb": "resolve", "happened": True}))
            told = await self.give(saga, by=by, step=key, **how)
        else:
            told = await self.give(saga, "retry", by)
        return not told.refused

    async def answer(self, saga: str) -> None:
        """Answer whatever callback is open."""
        waiting: list[str] = []
        for entry in await self.desk.engine.journal(self.world.nums[saga]):
            if entry.kind == EntryKind.ARMED and "callback" in entry.key:
                waiting.append(entry.key)
            elif entry.key in waiting and entry.kind in (EntryKind.ANSWERED, EntryKind.FIRED, EntryKind.CLOSED):
                waiting.remove(entry.key)
        for key in waiting:
            by = self.rng.choice((self.desk, *self.workers))
            try:
                await by.complete_callback(value="yes", saga_id=saga, name=key)
            except (CallbackAlreadyAnswered, CallbackClosed, CallbackNotFound) as late:
                self.world.note("answer refused", saga, f"{key}: {late}")

    # -- the whole -------------------------------------------------------------------------------------------------

    async def play(self) -> None:
        """Play the seed to its end: every saga has ended when this returns."""
        rng = self.rng
        numbers = [self.seed * MOST_SAGAS + n for n in range(rng.randint(1, 2))]
        SICK.update(numbers)
        await self.desk.__aenter__()
        self.sagas = {f"saga-{number}": number for number in numbers}
        if rng.random() < 0.6:
            await self.enter()
        for saga, number in self.sagas.items():
            by = rng.choice((self.desk, *self.workers))
            deadline = rng.choice((None, None, None, 0.001, 0.03))
            await by.start(random_saga, number, id=saga, deadline=deadline)
            record = await self.desk.engine.find(saga)
            self.world.nums[saga] = record.num
            if record.deadline_at_ns is not None:
                self.deadlines[saga] = record.deadline_at_ns
            self.world.note("started", saga)
        await self._attack()
        await self._heal()
        await self._look()
        await self.desk.__aexit__(None, None, None)

    async def _attack(self) -> None:
        rng = self.rng
        for _ in range(rng.randint(1, 6)):
            await self._moment()
            drawn = rng.random()
            saga = rng.choice(list(self.sagas))
            if drawn < 0.12:
                await self.leave()
            elif drawn < 0.25 and len(self.workers) < 2:
                await self.enter()
            elif drawn < 0.32:
                await self.answer(saga)
            else:
                await self.give_some(saga)

    async def _moment(self) -> None:
        rng = self.rng
        drawn = rng.random()
        if drawn < 0.3:
            return  # back to back
        if drawn < 0.55:
            for _ in range(100):
                if self.world.under_way:
                    return  # while a call is under way
                await asyncio.sleep(0.001)
        if drawn < 0.7:
            for _ in range(rng.randint(1, 30)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(rng.choice((0.001, 0.003, 0.01, 0.06)))

    async def _heal(self) -> None:
        """All faults stop, a fresh worker comes, and operators mend: then every saga comes to an end."""
        while self.workers:
            await self.leave()
        self.world.healed = True
        for number in self.sagas.values():
            SICK.discard(number)
        self.options["concurrency"] = 1000
        self.world.note("healed", "")
        await self.enter()
        for saga in self.sagas:
            await self._end(saga)
        await self.leave()

    async def _end(self, saga: str) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + PATIENCE_S
        mended = 0
        while loop.time() < until_s:
            info = await self.desk.info(saga)
            if info.status in ENDS and not self.world.busy(saga):
                return
            if info.status in ENDS:
                await asyncio.sleep(0.002)
            elif info.paused:
                await self.give(saga, "resume", self.desk)
            elif info.status == "stuck" and not self.world.busy(saga):
                await self._attended(saga, info)
                if await self.mend(saga, self.desk):
                    mended += 1
                elif (await self.desk.info(saga)).status == "stuck" and not self.world.busy(saga):
                    refused = self.told[-1]
                    self.world.faults.append(f"{saga}: {refused.verb} is named by its message and refused: {refused}")
                    return
                if mended > 20:
                    self.world.faults.append(f"{saga}: mended {mended} times, and it does not end: {info.reason}")
                    return
            else:
                await self.answer(saga)
            await asyncio.sleep(0.002)
        self.world.faults.append(f"{saga}: it does not end: {(await self.desk.info(saga)).status}")

    async def _attended(self, saga: str, info: SagaInfo) -> None:
        """What is stuck is listed, and says why."""
        listed = [each.id for each in await self.desk.list(attention=True)]
        if saga not in listed and (await self.desk.info(saga)).status == "stuck":
            self.world.faults.append(f"{saga}: it is stuck and not listed as needing attention")
        if not info.reason:
            self.world.faults.append(f"{saga}: it is stuck and gives no reason")

    async def _look(self) -> None:
        for saga in self.sagas:
            handle = await self.desk.get(saga)
            self.infos[saga] = await handle.info()
            self.histories[saga] = await handle.history()
            self.journals[saga] = await self.desk.engine.journal(self.world.nums[saga])
