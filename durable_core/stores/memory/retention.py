"""What happens to ended runs in memory: purges, and the export of their spans."""

from collections.abc import Sequence

from durable_core.model.entry import Entry
from durable_core.model.tombstone import EndedRun, Swept, Tombstone
from durable_core.stores.memory.data import Cursor, MemorySession


class MemoryRetention:
    """``Retention`` in memory."""

    def __init__(self, session: MemorySession) -> None:
        self._session = session

    async def ended(
        self, *, before_ns: int, name: str | None = None, after: EndedRun | None = None, limit: int = 100
    ) -> list[EndedRun]:
        """See ``Retention.ended``."""
        data = self._session.data
        last = (-1, -1) if after is None else (after.ended_at_ns, after.num)
        found = sorted(
            (run.ended_at_ns, run.num)
            for run in data.runs.values()
            if run.ended_at_ns is not None
            and run.ended_at_ns < before_ns
            and (name is None or run.name == name)
            and run.owner not in data.workers
        )
        return [
            EndedRun(num, data.runs[num].id, ended_at_ns, data.last_seq(num))
            for ended_at_ns, num in [place for place in found if place > last][: max(limit, 0)]
        ]

    async def purge(self, runs: Sequence[EndedRun], *, now_ns: int, until_ns: int | None) -> list[int]:
        """See ``Retention.purge``."""
        data = self._session.data
        purged: list[int] = []
        for found in runs:
            run = data.runs.get(found.num)
            if run is None or run.ended_at_ns != found.ended_at_ns or data.last_seq(run.num) != found.last_seq:
                continue
            if run.owner in data.workers:
                continue  # an attempt of it has not returned
            ends = (run.status.value, run.phase, run.created_at_ns, found.ended_at_ns, now_ns, until_ns)
            data.tombstones[run.id] = Tombstone(run.num, run.id, run.name, run.version, *ends)
            data.unswept.add(run.num)
            del data.runs[run.num], data.nums[run.id]
            for num in [signal.num for signal in data.signals.values() if signal.run == run.num]:
                del data.signals[num]
            purged.append(run.num)
        if purged:
            self._session.committed()
        return purged

    async def sweep(self, *, limit: int) -> Swept:
        """See ``Retention.sweep``."""
        data = self._session.data
        removed = 0
        while data.unswept and removed < limit:
            num = min(data.unswept)
            journal = data.journals.get(num, {})
            for seq in list(journal)[: limit - removed]:
                del journal[seq]
                removed += 1
            if not journal:
                data.journals.pop(num, None)
                data.unswept.discard(num)
            self._session.committed()
        return Swept(removed, left=bool(data.unswept))

    async def tombstones(self, ids: Sequence[str]) -> list[Tombstone]:
        """See ``Retention.tombstones``."""
        stones = self._session.data.tombstones
        return [stones[id_] for id_ in dict.fromkeys(ids) if id_ in stones]

    async def forget(self, *, now_ns: int, limit: int) -> int:
        """See ``Retention.forget``."""
        data = self._session.data
        expired = sorted(
            (stone.until_ns, stone.id)
            for stone in data.tombstones.values()
            if stone.until_ns is not None and stone.until_ns <= now_ns and stone.num not in data.unswept
        )
        dropped = 0
        for _, id_ in expired[: max(limit, 0)]:
            num = data.tombstones[id_].num
            if num in data.journals:  # a late entry was written since
                data.unswept.add(num)
            else:
                del data.tombstones[id_]
                dropped += 1
        if expired:
            self._session.committed()
        return dropped


class MemorySpans:
    """``SpanCursors`` in memory."""

    def __init__(self, session: MemorySession) -> None:
        self._session = session

    async def start(self, worker: str) -> int:
        """See ``SpanCursors.start``."""
        data = self._session.data
        return data.cursors.setdefault(worker, Cursor(len(data.order))).pos

    async def cursors(self, worker: str) -> dict[str, int]:
        """See ``SpanCursors.cursors``."""
        data = self._session.data
        others = data.alive() - {worker}
        return {name: cursor.pos for name, cursor in data.cursors.items() if name not in others}

    async def take_over(self, dead: str, *, worker: str) -> bool:
        """See ``SpanCursors.take_over``."""
        data = self._session.data
        cursor = data.cursors.get(dead)
        if cursor is None or cursor.exporter in data.alive() - {worker}:
            return False
        cursor.exporter = worker
        return True

    async def advance(self, worker: str, pos: int | None) -> None:
        """See ``SpanCursors.advance``."""
        cursors = self._session.data.cursors
        if pos is None:
            cursors.pop(worker, None)
        elif worker in cursors:
            cursors[worker].pos = pos

    async def read(self, worker: str, *, after: int, limit: int) -> list[tuple[int, Entry]]:
        """See ``SpanCursors.read``."""
        data = self._session.data
        found: list[tuple[int, Entry]] = []
        for place in range(after, len(data.order)):
            run, seq = data.order[place]
            entry = data.journals.get(run, {}).get(seq)
            if entry is not None and entry.worker == worker:
                found.append((place + 1, entry))
                if len(found) == limit:
                    break
        return found
