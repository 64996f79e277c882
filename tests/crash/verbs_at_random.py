"""A fleet whose workers are killed and cut at random while its sagas are told verbs at random, and what must hold then.

Invariant: nothing here is judged by the time that it took. What preceded a verb is what the journal had when it had
been accepted; what ran beside what is read off the lines that all processes write to one file.
"""

import asyncio
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

import attrs

from sagas import Entry, Orchestrator, SagaHandle, SagaInfo, SagaKilled, SagaPastPivot, WrongState
from tests.crash.fleet import TOLD_FLEET, check_journal, worker
from tests.crash.verbs_fleet import CUTS, Line, Lines
from tests.crash.verbs_sagas import careful, order, plain_order
from tests.kit import Call, end_of, rung, until

LEASE_S = 2.0
LONGEST_S = 60.0
"""For one saga; much longer than one takes whose worker dies several times on a busy machine."""
BEGINNINGS = ("started", "retried", "reopened")
MIDDLE = {"order": "second", "plain-order": "plain", "careful": "once"}

Intents = frozenset[tuple[str, int]]
"""Keys and attempts that a journal has announced."""


DEATHS = 0.3
"""How many of the sagas that are in flight take their worker with them."""
WAITS = 0.5
"""How many resumes and rollbacks come later."""


@attrs.frozen
class Plan:
    """What is to be done with one saga."""

    of: Any
    verb: str
    """Told first: cancel, pause, kill, or none."""
    moment: str
    """When: ``early`` before any worker, ``at once`` after the start, or while the call of that name is in flight."""
    dies: signal.Signals | None
    """How the worker that has the call in flight ends right then."""
    waits: bool
    """Whether the verb that releases it comes only after others have had their turns."""

    @classmethod
    def drawn(cls, chance: Random, *, early: bool) -> "Plan":
        saga = chance.choice((order, order, plain_order, careful))
        verb = chance.choice(("cancel", "cancel", "pause", "kill", ""))
        middle = MIDDLE[saga.name]
        # What is stuck in doubt of ``once`` does not come to its pivot by itself.
        moment = chance.choice(("at once", "first", middle, middle, middle if saga is careful else "sell"))
        dies = chance.choice((signal.SIGKILL, signal.SIGKILL, *CUTS))
        if early or moment == "at once" or chance.random() > DEATHS:
            dies = None
        return cls(saga, verb, "early" if early else moment, dies, waits=chance.random() < WAITS)


@attrs.frozen
class Told:
    """A verb that was accepted, and what the journal had announced by then."""

    verb: str
    before: Intents
    until: Intents | None = None
    """What it had announced when the verb was given that releases it; None where that is the end."""


@attrs.define
class Fleet:
    """The worker processes: one that ends is followed by another."""

    url: str
    lines: Lines
    processes: "list[subprocess.Popen[str]]"
    deaths: Counter[str] = attrs.field(factory=Counter[str])

    def grow(self) -> None:
        """Another worker begins to start."""
        self.processes.append(worker(self.url, self.lines.directory, lease=LEASE_S, of=TOLD_FLEET))

    async def end(self, pid: int, how: signal.Signals) -> None:
        """Kill that process or cut it from outside, where it has not ended yet."""
        for process in [each for each in self.processes if each.pid == pid]:
            self.processes.remove(process)
            self.grow()
            self.deaths[how.name] += 1
            process.send_signal(how)
            await asyncio.to_thread(process.communicate, timeout=LONGEST_S)
            self.lines.write(Line("dead", pid))

    def lost(self) -> set[int]:
        """The processes that were slow enough to be taken for dead: what they had in flight may have run on."""
        errors = self.lines.directory / "errors"
        return {
            int(line.split()[0]) for line in errors.read_text().splitlines() if "[DC014]" in line and line[0].isdigit()
        }


@attrs.define
class Saga:
    """One saga, from its start to its end."""

    id: str
    plan: Plan
    desk: Orchestrator
    fleet: Fleet
    handle: SagaHandle[Any] = attrs.field(init=False)
    told: list[Told] = attrs.field(factory=list[Told])
    given: list[str] = attrs.field(factory=list[str])
    """The verbs that were accepted, in order."""
    worker: int = 0
    """The process that had the call in flight."""
    info: SagaInfo = attrs.field(init=False)
    history: list[Entry] = attrs.field(factory=list[Entry])

    async def start(self) -> None:
        """Begin it; told early, it is told before any worker lives."""
        self.handle = await self.desk.start(self.plan.of, id=self.id)
        if self.plan.moment == "early":
            await self.tell_first()

    async def play(self) -> None:
        """The rest of it."""
        if self.plan.moment not in ("early", "at once"):
            await until(self.in_flight, self.desk)
        if self.plan.moment != "early":
            await self.tell_first()
        if self.plan.dies is not None:
            await self.fleet.end(self.worker, self.plan.dies)
        if self.told:
            await self.release()
        await self.comes_to_its_end()

    async def in_flight(self) -> bool:
        """Whether the call has begun, and in which process; or never will, as that died when it was announced."""
        for line in self.fleet.lines.of(self.id):
            if line.call is not None and line.call.what == self.plan.moment:
                self.worker = line.pid
                return True
        return self.plan.of is careful and await self.handle.status() == "stuck"

    async def tell_first(self) -> None:
        if self.plan.verb and await self.tell(self.plan.verb):
            self.told.append(Told(self.plan.verb, await self.intents()))

    async def release(self) -> None:
        """Let it run after a pause, roll it back after a kill."""
        verb = {"pause": "resume", "kill": "rollback"}.get(self.plan.verb)
        if verb is not None:
            if self.plan.waits:
                await rung(self.desk, times=1)
            self.told[0] = attrs.evolve(self.told[0], until=await self.intents())
            if await self.tell(verb):
                self.told.append(Told(verb, self.told[0].before))

    async def tell(self, verb: str, **about: Any) -> bool:
        """Give a verb; whether it was accepted."""
        try:
            await getattr(self.desk, verb)(self.id, actor="mia", note="by hand", **about)
        except (WrongState, SagaPastPivot):
            return False
        self.given.append(verb)
        return True

    async def intents(self) -> Intents:
        """What its journal has announced so far."""
        return intents_of(await self.handle.history())

    async def comes_to_its_end(self) -> None:
        """Settle what it is stuck in doubt of, by what is so; killed past its pivot there is nothing to roll back."""
        with suppress(SagaKilled):
            while (await end_of(self.handle, self.desk, deadline_s=LONGEST_S)).status == "stuck":
                info = await self.handle.info()
                if info.stuck_on:
                    await self.settle(info)
                else:
                    assert "kill" in self.given, info
                    assert "its pivot 'sell' has happened" in (info.reason or ""), info
                    assert await self.tell("kill"), info
        self.info, self.history = await self.handle.info(), await self.handle.history()

    async def settle(self, info: SagaInfo) -> None:
        """Say whether the one step that it is stuck on has happened; nothing of it runs any more."""
        (step,) = info.stuck_on
        assert step == "once" or "kill" in self.given, info
        assert step in (info.reason or ""), info
        running = {*self.fleet.lines.under_way(self.id)} - self.fleet.lost()
        assert not running, (info, running)
        happened = step in self.fleet.lines.kept(self.id)
        assert await self.tell("resolve", step=step, happened=happened, result=step if happened else None), info


def intents_of(history: list[Entry]) -> Intents:
    """What a journal has announced, and not withheld."""
    found: set[tuple[str, int]] = set()
    for entry in history:
        if entry.kind in BEGINNINGS:
            found.add((entry.key, entry.attempt))
        elif entry.kind == "withheld":
            found.discard((entry.key, entry.attempt))
    return frozenset(found)


# -- what must hold --------------------------------------------------------------------------------------------------


def broken(saga: Saga) -> list[str]:
    """All that is broken of one saga."""
    promises = (told_first, nothing_beside, no_lie, no_verb_lost, no_ghosts, no_outcome_of_a_cut)
    check_journal(saga.history)
    found = [f"{saga.id}: {promise.__name__}: {why}" for promise in promises for why in promise(saga)]
    return [*found, *_journal(saga)] if found else []


def _journal(saga: Saga) -> Iterator[str]:
    """What was done with it, its journal and its calls."""
    yield f"  {saga.plan}, told {saga.told}"
    for entry in saga.history:
        yield f"    {entry.seq} {entry.kind} {entry.key} #{entry.attempt} {entry.detail or ''} {entry.actor or ''}"
    yield from (f"    {line}" for line in saga.fleet.lines.of(saga.id))


def told_first(saga: Saga) -> Iterator[str]:
    """No step begins after a cancel or a kill was accepted, and nothing at all before what releases the verb.

    What is announced in the batch that takes the verb up is not called.
    """
    called = {(journal_key(call), call.attempt) for call in saga.fleet.lines.calls(saga.id)}
    for told in saga.told:
        until = intents_of(saga.history) if told.until is None else told.until
        new = (until - told.before) & called
        if told.verb in ("cancel", "rollback"):
            known = {key for key, _ in told.before}
            new = {(key, attempt) for key, attempt in new if "~" not in key and key not in known}
        if new and told.verb != "resume":
            yield f"{sorted(new)} was announced after {told.verb} had been accepted, and called"


def journal_key(call: Call) -> str:
    """The key of a call in the journal."""
    return call.step if call.role == "step" else f"{call.step}~{call.role}"


def nothing_beside(saga: Saga) -> Iterator[str]:
    """No call of a saga, whose steps follow each other, begins before the last one has returned or its process died."""
    lost = saga.fleet.lost()
    under_way: dict[int, list[Call]] = {}
    for line in saga.fleet.lines.of(saga.id):
        if line.call is None:
            under_way.pop(line.pid, None)
        elif line.what == "end":
            under_way[line.pid].remove(line.call)
        elif line.what == "begin":
            for pid, calls in under_way.items():
                if calls and pid not in lost:
                    yield f"{line.call} of {line.pid} began beside {calls} of {pid}"
            under_way.setdefault(line.pid, []).append(line.call)
    if any(under_way.values()):
        yield f"it has ended, and under way are {under_way}"


def no_lie(saga: Saga) -> Iterator[str]:
    """The end is the one that the verbs ask for, and says what is so."""
    status, cause = saga.info.status, saga.info.cause
    accepted = saga.told[0] if saga.told else None
    sold = accepted is not None and any(key == "sell" for key, _ in accepted.before)
    undone = accepted is not None and accepted.verb in ("cancel", "kill")
    wanted = {"compensated", "resolved"} if undone else {"completed"}
    if sold and undone:
        wanted |= {"completed", "killed"}  # what was in flight was the point of no return
    if saga.plan.of is careful and "resolve" in saga.given:
        wanted |= {"resolved"}
    if status not in wanted:
        yield f"it is {status}, and told was {saga.given}"
    if accepted is not None and accepted.verb == "cancel" and status == "compensated" and cause != "cancelled":
        yield f"it was cancelled, and its cause is {cause}"
    kept = saga.fleet.lines.kept(saga.id)
    if status != "killed" and kept != (
        sorted(("first", MIDDLE[saga.plan.of.name], "sell")) if status == "completed" else []
    ):
        yield f"it is {status}, and in force are {kept}"


def no_verb_lost(saga: Saga) -> Iterator[str]:
    """Each verb that was accepted is in the history, once."""
    told = [entry.key for entry in saga.history if entry.actor == "mia"]
    if told != saga.given:
        yield f"accepted were {saga.given}, and the history has {told}"


def no_ghosts(saga: Saga) -> Iterator[str]:
    """Each call was announced, and nothing is undone that was never called; but for what a process announced and died.

    Nobody knows then whether the step was called, so it is undone.
    """
    called: set[str] = set()
    announced = intents_of(saga.history)
    in_doubt = {key for key, _ in announced} if saga.fleet.deaths else set[str]()
    for call in saga.fleet.lines.calls(saga.id):
        if (journal_key(call), call.attempt) not in announced:
            yield f"{call} was not announced"
        if call.role == "step":
            called.add(call.key)
        elif call.key not in called and call.step not in in_doubt:
            yield f"{call} was called, and its step never was"


def no_outcome_of_a_cut(saga: Saga) -> Iterator[str]:
    """As no participant fails here, no failure is journalled, but for the doubt of what may not be called twice."""
    if saga.plan.of is careful or "kill" in saga.given:
        return
    for entry in saga.history:
        if entry.kind == "failed" or entry.error:
            yield f"{entry.key} has {entry.kind} {entry.error}"
