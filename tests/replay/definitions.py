"""The sagas whose journals are kept in ``journals/``. Frozen: new ones are added, and none is ever changed.

Invariant: what a participant does depends on its step's name and attempt alone, so that a replay from anywhere sees
the same world.
"""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import attrs
from opentelemetry import trace

from durable_core.layer import CURRENT
from sagas import (
    CallbackFailed,
    CallbackTimeout,
    DidNotHappen,
    Happened,
    Retry,
    Saga,
    SagaCompensated,
    SagaDef,
    SagaGraph,
    Step,
    StillUnknown,
    Unknown,
    lookup,
    pivot,
    resource,
    retriable,
    saga,
    step,
)

TWICE = Retry(attempts=2, first=10, jitter=False)
THRICE = Retry(attempts=3, first=10, factor=2, jitter=False)


class Refused(Exception):
    """The participant says no."""


class Broken(Exception):
    """The participant fails before anything has happened."""


@attrs.define
class Participants:
    """The participants."""

    plan: dict[str, list[str]] = attrs.field(factory=dict[str, list[str]])
    """What each attempt at a name does: ok, refused, broken, lost; the last of them for ever after."""
    gates: dict[str, asyncio.Event] = attrs.field(factory=dict[str, asyncio.Event])
    """Names that are held up; only while a journal is recorded."""
    threads: dict[str, threading.Event] = attrs.field(factory=dict[str, threading.Event])
    """The same for plain functions."""
    entered: dict[str, asyncio.Event] = attrs.field(factory=dict[str, asyncio.Event])
    """Set when a name that is held up has been called."""
    calls: list[tuple[str, str]] = attrs.field(factory=list[tuple[str, str]])
    """Every call: the journal's key, and the idempotency key."""

    def called(self, name: str) -> None:
        """Note a call, and do what the plan says."""
        info = CURRENT.get()
        self.calls.append((info.key, info.idempotency_key))
        does = self.plan.get(name, ["ok"])
        match does[min(info.attempt, len(does)) - 1]:
            case "refused":
                raise Refused(name)
            case "broken":
                raise Broken(name)
            case "lost":
                raise TimeoutError(f"{name}: no answer")

    async def act(self, name: str) -> None:
        """The participant's part in an attempt at ``name``."""
        if name in self.gates:
            self.entered[name].set()
            await self.gates[name].wait()
        self.called(name)

    def act_on_thread(self, name: str) -> None:
        """The same, for a plain function."""
        if name in self.threads:
            assert self.threads[name].wait(30)
        self.called(name)


def party(name: str, *, retry: Retry | int = 1, undo_retry: Retry | int = 1, **options: Any) -> Step[[str], str]:
    """A step with its compensation."""

    @step(name=name, rejects=(Refused,), retry=retry, **options)
    async def act(about: str, *, world: Participants = resource()) -> str:
        await world.act(name)
        return f"{name} of {about}"

    @act.compensate(retry=undo_retry)
    async def undo(done: str, *, world: Participants = resource()) -> None:
        await world.act(f"undo {name}")

    return act


hotel, flight, car = party("hotel", retry=TWICE), party("flight"), party("car", undo_retry=TWICE)
once = party("once", at_most_once=True)
doubtful = party("doubtful")
probed = party("probed")


@probed.probe(retry=TWICE)
async def ask(about: str, *, world: Participants = resource()) -> Happened[str] | DidNotHappen | StillUnknown:
    await world.act("probe probed")
    return Happened(f"probed of {about}") if about == "seen" else DidNotHappen()


@step(retry=1)
async def fenced(about: str, *, world: Participants = resource()) -> str:
    await world.act("fenced")
    return f"fenced of {about}"


@fenced.compensate
async def fence(done: str | Unknown, *, world: Participants = resource()) -> None:
    await world.act("undo fenced")


@step(timeout=5, retry=1)
def slow(about: str, *, world: Participants = resource()) -> str:
    world.act_on_thread("slow")
    return f"slow of {about}"


@slow.compensate
def undo_slow(done: str, *, world: Participants = resource()) -> None:
    world.act_on_thread("undo slow")


@lookup
async def price(about: str, *, world: Participants = resource()) -> int:
    await world.act("price")
    return len(about)


@pivot(rejects=(Refused,), retry=1)
async def pay(amount: int, *, world: Participants = resource()) -> int:
    await world.act("pay")
    return amount


@retriable(retry=THRICE)
async def mail(about: str, *, world: Participants = resource()) -> str:
    await world.act("mail")
    return f"mailed {about}"


@saga("trip", version=1)
async def trip(s: Saga, about: str) -> dict[str, Any]:
    amount = await s.run(price, about)
    booked = await s.run(hotel, about)
    await s.sleep(timedelta(days=1))
    s.set_status({"drawn": s.random(), "at": s.now().isoformat()})
    await s.run(flight, str(s.uuid()))
    paid = await s.run(pay, amount)
    await s.sleep_until(s.now() + timedelta(hours=1))
    return {"booked": booked, "paid": paid, "mailed": await s.run(mail, about)}


@saga("undone", version=1)
async def undone(s: Saga, about: str) -> None:
    await s.run(hotel, about)
    try:
        async with s.savepoint("rest"):
            await s.run(car, about)
            await s.run(flight, "refused")
    except Refused:
        await s.run(car, "again")
    await s.run(pay, 1)


@saga("doubts", version=1)
async def doubts(s: Saga, about: str) -> list[str]:
    seen = [await s.run(probed, "seen")]
    for tried, given in ((probed, "unseen"), (fenced, about)):
        try:
            seen.append(await s.run(tried, given))
        except TimeoutError:
            seen.append("lost")
    return seen


@saga("person", version=1)
async def person(s: Saga, about: str) -> str:
    await s.run(hotel, about)
    return await s.run(doubtful, about)


@saga("part", version=3)
async def part(s: Saga, about: str) -> str:
    await s.run(car, about)
    if about == "failing":
        raise Broken("part")
    return about


@saga("blocks", version=1)
async def blocks(s: Saga, about: str) -> list[str]:
    async def branch(s: Saga, given: str) -> str:
        await s.run(hotel, given)
        return await s.run(flight, given)

    async with s.parallel() as p:
        one, two = p.run(branch, about), p.run(car, about)
    results = [one.result(), two.result(), await s.run(part, about)]
    try:
        await s.run(part, "failing")
    except SagaCompensated as gone:
        results += gone.compensated
    results += await s.map(probed, ["a", "b", "c"], max_concurrency=2)
    async with s.parallel() as p:
        p.run(dozing, about)
        p.run(fenced, about)
    return results


async def dozing(s: Saga, about: str) -> None:
    await s.sleep(timedelta(days=1))


@saga("answers", version=1)
async def answers(s: Saga, about: str) -> list[str]:
    approval = await s.callback("approval", str, timeout=timedelta(days=2))
    await s.run(flight, approval.token)
    seen = [await approval.result()]
    refusal = await s.callback("approval", str)
    try:
        await refusal.result()
    except CallbackFailed as failed:
        seen.append(failed.answer)
    one, two = await s.callback("one", int), await s.callback("two", int, timeout=3600)
    first = await s.first(one, two)
    seen.append("one" if first is one else "two")
    try:
        await two.result()
    except CallbackTimeout:
        seen.append("late")
    return seen


@saga("heartbeats", version=1)
async def heartbeats(s: Saga, about: str) -> list[str]:
    approval = await s.callback("approval", str, timeout=timedelta(days=2), heartbeat=timedelta(hours=1))
    await s.run(flight, approval.token)
    seen = [await approval.result()]
    silent = await s.callback("silent", str, heartbeat=timedelta(hours=1))
    try:
        await silent.result()
    except CallbackTimeout:
        seen.append("silence")
    return seen


@saga("waits", version=1, deadline=timedelta(days=3))
async def waits(s: Saga, about: str) -> str:
    await s.run(car, about)
    await s.run(hotel, about)
    await s.sleep(timedelta(days=30))
    return "late"


@saga("mended", version=1)
async def mended(s: Saga, about: str) -> None:
    await s.run(car, about)
    await s.run(hotel, about)
    await s.run(flight, about)


@saga("forward", version=1)
async def forward(s: Saga, about: str) -> str:
    await s.run(pay, 1)
    return await s.run(mail, about)


@saga("loops", version=1)
async def loops(s: Saga, about: str) -> list[bool]:
    seen: list[bool] = []
    for _ in range(3):
        await s.run(flight, about)
        seen.append(s.patched("more"))
        if seen[-1]:
            await s.run(price, about)
        if s.patched("never"):
            await s.run(price, "never")
    return seen


@saga("crashes", version=1)
async def crashes(s: Saga, about: str) -> str:
    await s.run(flight, about)
    await s.run(once, about)
    return "settled"


@saga("overrun", version=1)
async def overrun(s: Saga, about: str) -> str:
    return await s.run(slow, about)


@saga("pair", version=1)
async def pair(s: Saga, about: str) -> list[str]:
    async with s.parallel() as p:
        tasks = [p.run(flight, about), p.run(car, about)]
    return [task.result() for task in tasks]


@saga("chain", version=1)
async def chain(s: Saga, about: str) -> list[str]:
    return [await s.run(flight, about), await s.run(car, about), await s.run(hotel, about)]


@step(compensation=None, because="it only talks", retry=TWICE)
async def talk(about: str, *, world: Participants = resource()) -> str:
    span = trace.get_current_span()
    span.set_attributes({"about": about, "words": 3, "sure": True, "share": 0.5, "all": ["one", "two"]})
    span.add_event("talked", {"to": "nobody"})
    await world.act("talk")
    return about


@saga("spoken", version=1)
async def spoken(s: Saga, about: str) -> str:
    await s.run(talk, about)
    await s.run(hotel, about)
    return await s.run(talk, "again")


@saga("tagger", version=1)
async def tagger(s: Saga, about: str) -> str:
    s.tag("about", about)
    await s.run(tagged, about)
    s.tag("about", "again")
    s.tag("stage", "late")
    await s.sleep(60)
    return await s.run(hotel, about)


@saga("tagged", version=1)
async def tagged(s: Saga, about: str) -> str:
    s.tag("about", "the child's own")
    return await s.run(car, about)


@step(compensation=None, because="it only talks")
async def pass_on(token: str | None, *, world: Participants = resource()) -> None:
    await world.act("pass_on")


@lookup
async def is_dear(about: str, *, world: Participants = resource()) -> bool:
    await world.act("is_dear")
    return about == "champagne"


def drawn() -> SagaDef[[str], Any]:
    """A graph: side by side, a child, a condition, a wait, a callback whose token is handed out, a pivot."""
    g = SagaGraph("drawn", version=1, input=str, parallel_compensation=True)
    flown, driven = g.step(flight, g.input), g.step(car, g.input)
    dear = g.lookup(is_dear, g.input)
    asked = g.callback("approval", bool, timeout=timedelta(days=1), when=dear)
    told = g.step(pass_on, asked.token, when=dear)
    slept = g.step(hotel, g.input, after=[flown, g.sleep(60, after=[driven])])
    again = g.step(car, "a second one", after=[slept])
    parted = g.step(part, g.input, after=[driven])
    paid = g.pivot(pay, 1, after=[again, parted, asked, told])
    return g.returns(g.retriable(mail, "done", after=[paid]))


SAGAS: dict[str, SagaDef[..., Any]] = {
    each.name: each
    for each in (
        trip, undone, doubts, person, part, blocks, answers, heartbeats, waits, mended, forward, loops,
        crashes, overrun,
        pair, chain, spoken, tagger, drawn(),
    )
}  # fmt: skip
