"""A trip of five steps with a pivot, a callback and a parallel block, at parties that may be broken on purpose."""

import contextlib
from collections import Counter
from datetime import timedelta
from typing import Any

import attrs

from sagas import (
    DidNotHappen,
    Happened,
    Retry,
    Saga,
    SagaDef,
    SagaGraph,
    SagaInfo,
    Unknown,
    current,
    pivot,
    resource,
    retriable,
    saga,
    step,
)

PROMPT = Retry(attempts=3, first=1, jitter=False)


class NoRoom(Exception):
    """The hotel's own answer."""


class Declined(Exception):
    """The bank's own answer."""


@attrs.define
class Parties:
    """What the parties have, by the idempotency key of the step that brought it about."""

    live: dict[str, str] = attrs.field(factory=dict[str, str])
    fenced: set[str] = attrs.field(factory=set[str])
    """Keys whose undo came: a step that comes later under one of them does nothing."""
    released: Counter[str] = attrs.field(factory=Counter[str])
    """How often each was released, by a party that does not recognise a repeated undo."""
    broken: str = ""
    """What is wrong with them: ``forgets``, ``releases twice``, ``ignores keys``."""

    def do(self, what: str) -> None:
        """The effect of the step that runs here."""
        key = current().idempotency_key
        if self.broken == "ignores keys" and what == "flight":
            key = f"{key}-{len(self.live)}"
        if key not in self.fenced:
            self.live[key] = what

    def undo(self, what: str) -> None:
        """Take the effect back."""
        key = current().forward_key or ""
        self.fenced.add(key)
        if self.broken == "forgets" and what == "hotel":
            return
        self.live.pop(key, None)
        if self.broken == "releases twice" and what == "flight":
            self.released[what] += 1

    def known(self) -> bool:
        """Whether the step that is probed here has happened."""
        return current().forward_key in self.live


def make_world() -> list[object]:
    """Parties that do as they should."""
    return [Parties()]


def broken(how: str) -> Any:
    """Makes parties with one mistake."""
    return lambda: [Parties(broken=how)]


def reversible(name: str, **options: Any) -> Any:
    """A step at the party ``name``."""

    @step(name=name, **options)
    async def act(about: str, *, parties: Parties = resource()) -> str:
        parties.do(name)
        return about

    @act.compensate
    async def undo(_: str | Unknown, about: str, *, parties: Parties = resource()) -> None:
        parties.undo(name)

    return act


hotel = reversible("hotel", rejects=(NoRoom,), retry=PROMPT)
flight = reversible("flight")
ask = reversible("ask")


@pivot(rejects=(Declined,))
async def pay(about: str, *, parties: Parties = resource()) -> str:
    parties.do("pay")
    return about


@pay.probe
async def find_payment(about: str, *, parties: Parties = resource()) -> Happened[str] | DidNotHappen:
    return Happened(about) if parties.known() else DidNotHappen()


@retriable
async def mail(about: str, *, parties: Parties = resource()) -> str:
    parties.do("mail")
    return about


@saga("trip", version=1)
async def trip(s: Saga, about: str) -> str:
    async with s.parallel() as p:
        p.run(hotel, about)
        p.run(flight, about)
    approval = await s.callback("approval", bool, timeout=timedelta(days=1))
    await s.run(ask, about)
    if not await approval.result():
        raise Declined(about)
    await s.run(pay, about)
    return await s.run(mail, about)


@saga("hasty", version=1)
async def hasty(s: Saga, about: str) -> str:
    """Its pivot is in the wrong place: it pays before the approval, and cannot go back when there is none."""
    await s.run(hotel, about)
    await s.run(pay, about)
    approval = await s.callback("approval", bool, timeout=timedelta(days=1))
    await approval.result()
    return await s.run(mail, about)


@saga("careless", version=1)
async def careless(s: Saga, about: str) -> str:
    """Its body swallows what went wrong, and goes on as if nothing had."""
    await s.run(hotel, about)
    with contextlib.suppress(Exception):  # the mistake
        await s.run(flight, about)
    await s.run(pay, about)
    return await s.run(mail, about)


def graph() -> SagaDef[..., Any]:
    """The trip as a graph."""
    g = SagaGraph("trip-graph", version=1, input=str)
    room, seat = g.step(hotel, g.input), g.step(flight, g.input)
    paid = g.pivot(pay, g.input, after=[room, seat])
    mailed = g.retriable(mail, paid)
    g.returns(mailed)
    return g


def check(world: list[Any], info: SagaInfo) -> None:
    """All of the trip or nothing, and nobody is given back twice what was taken once."""
    parties: Parties = world[0]
    kept = sorted(parties.live.values())
    assert info.status in {"completed", "compensated"}, f"{info.status}: {info.reason}"
    if info.status == "completed":
        done = sorted(state.name for state in info.steps if state.kind not in {"callback", "sleep"})
        assert kept == done, f"completed with {kept} instead of {done}"
    else:
        assert kept == [], f"compensated, and left {kept}"
    assert not [what for what, times in parties.released.items() if times > 1], f"released {parties.released}"
