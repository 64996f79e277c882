"""Hands the entries of one outbox on, in order, for as long as it holds the outbox's lease.

Invariant: an entry is settled, in its outbox, only after the store has it or has refused it; and what comes after an
entry that must wait is not handed on before it, where both are about one saga. A death anywhere repeats at most the
entries of one wave.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import attrs

from sagas.outbox.entries import Entry, Laned, OutboxStats, Settled, Verdict, settled, waves
from sagas.outbox.lease import BEAT_S, Lease, Take, Wait, Watch, decide

log = logging.getLogger("sagas")

POLL_S = 0.5
"""How often to look for entries where no commit wakes it up."""
BATCH = 500
"""Entries read at a time."""
AT_ONCE = 100
"""Entries of different sagas that are handed on together, which the store then commits together."""
LONGEST_S = 5.0
"""The longest wait between two tries while a database cannot be reached."""
GAUGE_S = 10.0


class Glance(Protocol):
    """What is looked at twice a second."""

    @property
    def lease(self) -> Lease:
        """The lease."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether there are entries to hand on."""
        ...


class Rows(Protocol):
    """The outbox. All of it may raise whatever the user's database raises."""

    @property
    def place(self) -> str:
        """The database, for messages."""
        ...

    async def look(self) -> Glance:
        """The lease, and whether entries wait."""
        ...

    async def take(self, expected: Lease, owner: str) -> Lease | None:
        """Write the lease where it still is as expected; None where it is not."""
        ...

    async def read(self, limit: int) -> list[Entry]:
        """The first entries that wait."""
        ...

    async def settle(self, done: Sequence[int], refused: Sequence[tuple[int, str]]) -> list[int]:
        """Delete entries and mark others; gives those that were not marked before. In one commit."""
        ...

    async def stats(self) -> OutboxStats:
        """How the outbox stands."""
        ...


class Hand(Protocol):
    """Where entries go."""

    async def lane(self, entry: Entry) -> str:
        """The saga that it is about."""
        ...

    async def hand_on(self, entry: Entry) -> Verdict:
        """Do what it asks for."""
        ...


@attrs.frozen
class Turn:
    """What one look came to."""

    idle: bool
    """Nothing waits to be handed on."""
    pause_s: float
    """How long to wait before the next one."""


def backoff_s(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    return min(LONGEST_S, 0.05 * 2.0 ** min(failures, 10))


class Relay:
    """One relay of one outbox.

    Args:
        rows: the outbox.
        hand: where its entries go.
        owner: a name that no other relay has, or ever had.
        gauge: is given the state of the outbox now and then.
    """

    def __init__(
        self, rows: Rows, hand: Hand, *, owner: str, gauge: Callable[[OutboxStats], None] | None = None
    ) -> None:
        self._rows = rows
        self._hand = hand
        self._owner = owner
        self._gauge = gauge
        self._gauged_s = float("-inf")
        self._watch = Watch()
        self._bell = asyncio.Event()
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.handed = 0
        """How many entries this relay has handed on."""
        self.refused = 0
        """How many it has set aside."""

    # -- from outside ------------------------------------------------------------------------------------------------

    def ring(self) -> None:
        """Look at once: something was committed."""
        self._bell.set()

    def ring_from_thread(self) -> None:
        """The same from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and this relay with it
            self._loop.call_soon_threadsafe(self._bell.set)

    def stop(self) -> None:
        """Begin no further wave."""
        self._stopping.set()
        self._bell.set()

    async def run(self) -> None:
        """Hand on until it is stopped; then give the lease up."""
        failures = 0
        while not self._stopping.is_set():
            try:
                turn = await self._turn()
            except Exception as error:  # noqa: BLE001 - a border: two databases and a driver of the user's may raise anything
                failures += 1
                self._tell(error, failures)
                await self._pause(backoff_s(failures), self._stopping)
                continue
            if failures:
                log.info("the outbox of %s is handed on again", self._rows.place)
            failures = 0
            await self._pause(turn.pause_s, self._bell)
        await self._give_up()

    async def once(self) -> None:
        """Return once nothing waits; then give the lease up. Raises what a database raises."""
        try:
            while not (turn := await self._turn()).idle:
                await self._pause(turn.pause_s, self._bell)
        finally:
            await self._give_up()

    # -- the work ----------------------------------------------------------------------------------------------------

    async def _turn(self) -> Turn:
        """Look once, and hand on what waits, if it is this relay's turn."""
        self._bell.clear()
        glance = await self._rows.look()
        self._watch = self._watch.saw(glance.lease, now_s=self._loop.time())
        await self._tell_gauge()
        if not glance.waiting:
            return Turn(idle=True, pause_s=POLL_S)
        match decide(self._watch, glance.lease, owner=self._owner, now_s=self._loop.time()):
            case Wait(for_s=for_s):
                return Turn(idle=False, pause_s=min(for_s, POLL_S))
            case Take(expected=expected) if not await self._write(expected, self._owner):
                return Turn(idle=False, pause_s=0.0)  # another relay was faster
            case _:
                await self._hand_on()
                return Turn(idle=False, pause_s=0.0)

    async def _hand_on(self) -> None:
        """Hand on what is there, wave by wave, for as long as the lease is held."""
        async with self._beating():
            entries = await self._rows.read(BATCH)
            laned = [Laned(entry, await self._hand.lane(entry)) for entry in entries]
            for wave in waves(laned, most=AT_ONCE):
                if self._stopping.is_set() or not self._watch.holds(now_s=self._loop.time()):
                    return
                await self._wave(wave)

    async def _wave(self, wave: Sequence[Entry]) -> None:
        verdicts = await asyncio.gather(*map(self._hand.hand_on, wave))
        came_to = settled(list(zip(wave, verdicts, strict=True)))
        await self._settle(came_to)
        if came_to.failure is not None:
            raise came_to.failure

    async def _settle(self, came_to: Settled) -> None:
        refused = [(entry.id, reason) for entry, reason in came_to.refused]
        marked = await self._rows.settle(came_to.done, refused) if came_to.done or refused else []
        self.handed += len(came_to.done)
        for entry, reason in came_to.refused:
            if entry.id in marked:
                self.refused += 1
                about = "a saga that its token names" if entry.saga_id is None else f"saga {entry.saga_id!r}"
                log.error(
                    "entry %d of the outbox of %s, %s of %s, was refused and set aside: %s. outbox.refused() lists "
                    "it; outbox.retry(%d) hands it on again, outbox.drop(%d) deletes it",
                    *(entry.id, self._rows.place, entry.verb, about, reason, entry.id, entry.id),
                )

    # -- the lease ---------------------------------------------------------------------------------------------------

    async def _write(self, expected: Lease, owner: str) -> bool:
        """Write the lease; False where another relay was faster."""
        asked_s = self._loop.time()
        written = await self._rows.take(expected, owner)
        self._watch = self._watch.lost() if written is None else self._watch.wrote(written, asked_s=asked_s)
        return written is not None

    @asynccontextmanager
    async def _beating(self) -> AsyncGenerator[None]:
        """Renew the lease in the meantime. Where that fails, the holder stops once its time is over."""
        over = asyncio.Event()
        beats = asyncio.create_task(self._beat(over))
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(beats, return_exceptions=True)

    async def _beat(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self._pause(BEAT_S, over)
            held = self._watch.held
            if over.is_set() or held is None or not await self._write(held, self._owner):
                return

    async def _give_up(self) -> None:
        """Let another relay begin at once. It does so after a while anyway."""
        held = self._watch.held
        if held is not None:
            with contextlib.suppress(Exception):
                await self._write(held, "")

    # -- besides -----------------------------------------------------------------------------------------------------

    async def _pause(self, for_s: float, until: asyncio.Event) -> None:
        if for_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(for_s):
                    await until.wait()

    def _tell(self, error: Exception, failures: int) -> None:
        if failures == 1:
            log.warning(
                "the outbox of %s cannot be handed on now, and is tried again, in order: %s", self._rows.place, error
            )

    async def _tell_gauge(self) -> None:
        if self._gauge is not None and self._loop.time() - self._gauged_s >= GAUGE_S:
            self._gauged_s = self._loop.time()
            self._gauge(await self._rows.stats())
