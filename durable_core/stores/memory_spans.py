"""What is owed of spans, in memory: the rules of ``SpanLedger``, in dicts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from durable_core.model.entry import Entry
from durable_core.model.run import RunRecord, RunStatus

if TYPE_CHECKING:
    from durable_core.stores.memory import MemoryData


class Owing:
    """The part of the memory store that knows which spans are still to be exported."""

    data: "MemoryData"

    def _check_open(self) -> None:
        raise NotImplementedError

    async def find_nums(self, nums: Sequence[int]) -> list[RunRecord]:
        """The runs of these numbers; see ``SpanLedger.find_nums``."""
        self._check_open()
        return [self.data.runs[num] for num in dict.fromkeys(nums) if num in self.data.runs]

    async def unbegun_since_ns(self) -> int | None:
        """Since when a run has waited to be begun; see ``SpanLedger.unbegun_since_ns``."""
        self._check_open()
        return min(
            (
                run.created_at_ns
                for run in self.data.runs.values()
                if run.status is RunStatus.PENDING
                and run.owner is None
                and not run.paused
                and not self.data.journals.get(run.num)
            ),
            default=None,
        )

    async def owe(self, worker: str) -> int:
        """Let ``worker`` owe the spans of what it writes; see ``SpanLedger.owe``."""
        self._check_open()
        return self.data.traced.setdefault(worker, len(self.data.order))

    async def owed(self, worker: str) -> dict[str, int]:
        """What is owed by ``worker`` and by the dead; see ``SpanLedger.owed``."""
        self._check_open()
        alive = {name for name, store in self.data.workers.items() if store.alive} - {worker}
        return {name: pos for name, pos in self.data.traced.items() if name not in alive}

    async def adopt(self, debtor: str, *, worker: str) -> bool:
        """Let ``worker`` alone pay; see ``SpanLedger.adopt``."""
        self._check_open()
        payer = self.data.workers.get(self.data.payers.get(debtor, worker))
        if debtor not in self.data.traced or (payer is not None and payer.alive and payer is not self):
            return False
        self.data.payers[debtor] = worker
        return True

    async def pay(self, worker: str, pos: int | None) -> None:
        """Note what has been exported; see ``SpanLedger.pay``."""
        self._check_open()
        if pos is None:
            self.data.traced.pop(worker, None)
        else:
            self.data.traced[worker] = pos

    async def written(self, worker: str, *, after: int, limit: int) -> list[tuple[int, Entry]]:
        """What ``worker`` has written; see ``SpanLedger.written``."""
        self._check_open()
        found: list[tuple[int, Entry]] = []
        for place in range(after, len(self.data.order)):
            run, seq = self.data.order[place]
            entry = self.data.journals.get(run, {}).get(seq)
            if entry is not None and entry.worker == worker:
                found.append((place + 1, entry))
                if len(found) == limit:
                    break
        return found
