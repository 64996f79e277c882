"""A batch that the store refuses for good, written run by run, so that only those suffer whose rows it is about.

Invariant: a run is guilty only where the store takes its row as it stands, and so refuses what was new. A store that
takes nothing is in trouble, and is asked again, whatever it says.
"""

import logging
from collections.abc import Awaitable, Callable

import attrs

from durable_core.errors import LeaseLost, StoreError
from durable_core.model.run import unchanged
from durable_core.ports import Batch, Store

log = logging.getLogger("durable_core")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
"""Between attempts to write while the store is in trouble."""


@attrs.frozen
class OneByOne:
    """How it is written: ``put`` commits a part, ``pause`` waits before the next try, ``guilty`` is told of a run."""

    store: Store
    owner: str | None
    """The worker whose runs these are; None where it is none."""
    put: Callable[[Batch], Awaitable[frozenset[int]]]
    pause: Callable[[float, StoreError], Awaitable[None]]
    guilty: Callable[[int, StoreError], None]

    async def write(self, batch: Batch) -> frozenset[int]:
        """Write what can be written of ``batch``, for as long as it takes; the runs that a signal has overtaken.

        Raises:
            LeaseLost: others drive these runs now.
        """
        whose = {signal: run for signal, (run, _) in batch.taken.items()}
        overtaken: set[int] = set()
        for num in sorted({entry.run for entry in batch.entries} | set(batch.updates)):
            part = Batch(
                entries=[entry for entry in batch.entries if entry.run == num],
                consumed=[signal for signal in batch.consumed if whose.get(signal) == num],
                taken={signal: place for signal, place in batch.taken.items() if place[0] == num},
            )
            if num in batch.updates:
                part.updates[num] = batch.updates[num]
            overtaken |= await self._write(num, part)
        rest = Batch(consumed=[signal for signal in batch.consumed if signal not in whose])
        if rest:
            await self._write(0, rest)
        return frozenset(overtaken)

    async def _write(self, num: int, part: Batch) -> frozenset[int]:
        """Write one run's part, or find the run guilty; its number, where a signal has overtaken it."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self.put(part)
            except LeaseLost:
                raise
            except StoreError as error:
                if not error.transient and await self._takes_others(num):
                    self.guilty(num, error)
                    return frozenset()
                log.warning("run number %d: its rows are not taken; next try in %.2f s: %s", num, pause_s, error)
                await self.pause(pause_s, error)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _takes_others(self, num: int) -> bool:
        """Whether the store takes the run's row as it stands. Only this worker's are tried: nobody else writes them."""
        try:
            record = await self.store.runs.find_num(num)
            if record is not None and record.owner == self.owner is not None and record.ended_at_ns is None:
                await self.put(Batch(updates={num: unchanged(record)}))
        except LeaseLost:
            raise
        except StoreError as also:
            log.warning("run number %d: its row is not taken as it stands either: %s", num, also)
            return False
        return True
