"""Relays that die anywhere, on an outbox in memory: the relay's own code, and ports that fail."""

import asyncio
import os
from collections.abc import Sequence
from random import Random
from typing import Any

import attrs
import pytest

from sagas.outbox import lease, relay
from sagas.outbox.entries import Entry, HandedOn, NotNow, OutboxStats, Verdict, lane_of
from sagas.outbox.lease import Lease
from sagas.outbox.relay import Relay
from tests.kit import until

SEEDS = range(int(os.environ.get("SAGAS_SOAK", "12")))
FREE = Lease("", 0)


def entry(number: int, saga_id: str) -> Entry:
    return Entry(number, "start", saga_id, "{}", None, 0)


class Died(BaseException):
    """The process of a relay was killed there."""


@attrs.define
class World:
    """An outbox that outlives its relays, and the store that they hand on to."""

    chance: Random
    rows: dict[int, Entry] = attrs.field(factory=dict[int, Entry])
    lease: Lease = FREE
    first: list[int] = attrs.field(factory=list[int])
    """The entries that took effect, in order; a repetition has none."""
    deaths: int = 0
    troubles: int = 0

    async def point(self) -> None:
        """Others have their turn; and at times the process ends here, or a database does not answer."""
        await asyncio.sleep(0)
        draw = self.chance.random()
        if draw < 0.03 and self.deaths < 6:
            self.deaths += 1
            raise Died
        if draw < 0.1 and self.troubles < 20:
            self.troubles += 1
            raise ConnectionError("the database is away")


@attrs.define
class Glance:
    lease: Lease
    waiting: bool


@attrs.define
class Rows:
    """The port of one relay to that outbox."""

    world: World
    place: str = "a test"

    async def look(self) -> Glance:
        await self.world.point()
        return Glance(self.world.lease, bool(self.world.rows))

    async def take(self, expected: Lease, owner: str) -> Lease | None:
        await self.world.point()
        if self.world.lease != expected:
            return None
        self.world.lease = Lease(owner, expected.beat + 1)
        written = self.world.lease
        await self.world.point()
        return written

    async def read(self, limit: int) -> list[Entry]:
        await self.world.point()
        return sorted(self.world.rows.values(), key=lambda each: each.id)[:limit]

    async def settle(self, done: Sequence[int], refused: Sequence[tuple[int, str]]) -> list[int]:
        await self.world.point()
        for number in done:
            self.world.rows.pop(number, None)
        await self.world.point()
        return []

    async def stats(self) -> OutboxStats:
        raise NotImplementedError


@attrs.define
class Hand:
    """The port of one relay to the store."""

    world: World

    async def lane(self, entry: Entry) -> str:
        return lane_of(entry.saga_id or "")

    async def hand_on(self, entry: Entry) -> Verdict:
        try:
            await self.world.point()
            if entry.id not in self.world.first:
                self.world.first.append(entry.id)
            await self.world.point()
        except ConnectionError as error:
            return NotNow(error)
        return HandedOn()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same relation between the spans of time, far shorter."""
    for module, name in ((lease, "HOLD_S"), (lease, "TAKEOVER_S"), (relay, "BEAT_S"), (relay, "POLL_S")):
        monkeypatch.setattr(module, name, getattr(module, name) / 300)
    monkeypatch.setattr(relay, "LONGEST_S", 0.01)
    monkeypatch.setattr(relay, "AT_ONCE", 3)
    monkeypatch.setattr(relay, "BATCH", 7)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("seed", SEEDS)
def test_relays_that_die_anywhere_keep_the_order_of_each_saga(seed: int):
    """Two relays at a time, each replaced when it dies: all is handed on, each saga's entries in their order."""

    async def one(world: World, name: str) -> None:
        for life in range(20):
            running = Relay(Rows(world), Hand(world), owner=f"{name} {life}")
            try:
                await running.once()
            except (Died, ConnectionError):
                continue
            return

    async def main() -> None:
        chance = Random(seed)
        world = World(chance)
        world.rows = {number: entry(number, chance.choice("abc")) for number in range(1, 25)}
        whole = dict(world.rows)
        await asyncio.wait_for(asyncio.gather(one(world, "first"), one(world, "second")), 60)
        assert world.rows == {}
        assert sorted(world.first) == sorted(whole)
        for saga_id in "abc":
            own = [number for number in world.first if whole[number].saga_id == saga_id]
            assert own == sorted(own)

    asyncio.run(main())


@pytest.mark.usefixtures("impatient")
def test_a_relay_goes_on_after_trouble_and_stops_when_asked(caplog: pytest.LogCaptureFixture):
    """A relay survives whatever a database raises, says so once, hands on in the end, and gives the lease up."""

    async def main() -> Any:
        world = World(Random(3), deaths=99)
        world.rows = {number: entry(number, "a") for number in range(1, 9)}
        running = Relay(Rows(world), Hand(world), owner="one")
        task = asyncio.create_task(running.run())
        await until(lambda: not world.rows)
        world.troubles = 99
        running.stop()
        await task
        return world

    world = asyncio.run(main())
    assert world.first == list(range(1, 9))
    assert world.lease.owner == ""
    assert "cannot be handed on now" in caplog.text
