"""Purging in memory: the rules of ``Store.bury`` and its kin, in dicts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from durable_core.model.tombstone import EndedRun, Swept, Tombstone

if TYPE_CHECKING:
    from durable_core.stores.memory import MemoryData


class Purging:
    """The part of the memory store that purges."""

    data: "MemoryData"

    def _check_open(self) -> None:
        raise NotImplementedError

    def _committed(self) -> None:
        raise NotImplementedError

    def _last_seq(self, num: int) -> int:
        return max(self.data.journals.get(num, ()), default=0)

    async def ended(
        self, *, before_ns: int, name: str | None = None, after: EndedRun | None = None, limit: int = 100
    ) -> list[EndedRun]:
        """Runs that may be purged; see ``Store.ended``."""
        self._check_open()
        last = (-1, -1) if after is None else (after.ended_at_ns, after.num)
        found = sorted(
            (run.ended_at_ns, run.num)
            for run in self.data.runs.values()
            if run.ended_at_ns is not None
            and run.ended_at_ns < before_ns
            and (name is None or run.name == name)
            and run.owner not in self.data.workers
        )
        return [
            EndedRun(num, self.data.runs[num].id, ended_at_ns, self._last_seq(num))
            for ended_at_ns, num in [place for place in found if place > last][: max(limit, 0)]
        ]

    async def bury(self, runs: Sequence[EndedRun], *, now_ns: int, until_ns: int | None) -> list[int]:
        """Put tombstones in the place of runs; see ``Store.bury``."""
        self._check_open()
        buried: list[int] = []
        for found in runs:
            run = self.data.runs.get(found.num)
            if run is None or run.ended_at_ns != found.ended_at_ns or self._last_seq(run.num) != found.last_seq:
                continue
            if run.owner in self.data.workers:
                continue  # an attempt of it has not returned
            ends = (run.status.value, run.phase, run.created_at_ns, found.ended_at_ns, now_ns, until_ns)
            self.data.tombstones[run.id] = Tombstone(run.num, run.id, run.name, run.version, *ends)
            self.data.unswept.add(run.num)
            del self.data.runs[run.num], self.data.nums[run.id]
            for num in [signal.num for signal in self.data.signals.values() if signal.run == run.num]:
                del self.data.signals[num]
            buried.append(run.num)
        if buried:
            self._committed()
        return buried

    async def sweep(self, *, limit: int) -> Swept:
        """Remove what is left of purged journals; see ``Store.sweep``."""
        self._check_open()
        removed = 0
        while self.data.unswept and removed < limit:
            num = min(self.data.unswept)
            journal = self.data.journals.get(num, {})
            for seq in list(journal)[: limit - removed]:
                del journal[seq]
                removed += 1
            if not journal:
                self.data.journals.pop(num, None)
                self.data.unswept.discard(num)
            self._committed()
        return Swept(removed, left=bool(self.data.unswept))

    async def tombstones(self, ids: Sequence[str]) -> list[Tombstone]:
        """What is left of purged runs; see ``Store.tombstones``."""
        self._check_open()
        return [self.data.tombstones[id_] for id_ in dict.fromkeys(ids) if id_ in self.data.tombstones]

    async def forget(self, *, now_ns: int, limit: int) -> int:
        """Drop tombstones whose time has come; see ``Store.forget``."""
        self._check_open()
        due = sorted(
            (stone.until_ns, stone.id)
            for stone in self.data.tombstones.values()
            if stone.until_ns is not None and stone.until_ns <= now_ns and stone.num not in self.data.unswept
        )
        dropped = 0
        for _, id_ in due[: max(limit, 0)]:
            num = self.data.tombstones[id_].num
            if num in self.data.journals:  # something late was noted since
                self.data.unswept.add(num)
            else:
                del self.data.tombstones[id_]
                dropped += 1
        if due:
            self._committed()
        return dropped

    def _is_buried(self, num: int) -> bool:
        return any(stone.num == num for stone in self.data.tombstones.values())
