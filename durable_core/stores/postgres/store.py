"""The PostgreSQL store: many workers on many machines.

Each store has a connection for its commits and one for its questions; a worker has a third one, for its lease.

Invariants: every write of a worker is refused once the database has forgotten it, so that two workers never both write
a run. A commit whose outcome is not known is settled before the next one is made. What a method has returned, every
later read sees.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from functools import partial

from durable_core.errors import StoreError
from durable_core.model.checkup import Checkup
from durable_core.model.entry import Entry
from durable_core.model.run import RunQuery, RunRecord, RunRef
from durable_core.model.tombstone import EndedRun, Swept, Tombstone
from durable_core.model.version import Announced, Offer, Tally, news, replaced
from durable_core.ports import Batch, Signal
from durable_core.stores.postgres import batch as batches
from durable_core.stores.postgres import refusals
from durable_core.stores.postgres.address import Place
from durable_core.stores.postgres.checkup import check_up
from durable_core.stores.postgres.coalesced import Coalesced
from durable_core.stores.postgres.connection import CAUGHT, Connection, in_transaction
from durable_core.stores.postgres.in_doubt import InDoubtCommit, let_stray_go
from durable_core.stores.postgres.session import LEASE_S, PATIENCE_S, PostgresSession
from durable_core.stores.postgres.signals import Letter, Letterbox
from durable_core.stores.postgres.statements import CANDIDATES

log = logging.getLogger("durable_core")

CLAIMS = 5
"""How often a claim looks again where other workers hold all that it has found."""


MOST_REMEMBERED = 50_000
"""Runs of which it is remembered that they were signalled."""


class PostgresStore(PostgresSession):
    """A ``Store`` in a schema of a PostgreSQL database; ``open`` makes its tables where there are none.

    Args:
        place: where it is.
        lease_s: how long a silent worker keeps its runs.
        patience_s: how long a question waits while the database cannot be reached.
    """

    def __init__(self, place: Place, *, lease_s: float = LEASE_S, patience_s: float = PATIENCE_S) -> None:
        super().__init__(place, lease_s=lease_s, patience_s=patience_s)
        self._journals = Coalesced[int, dict[int, list[Entry]]](self._load)
        self._by_id = Coalesced[str, list[RunRecord]](self._find)
        self._by_num = Coalesced[int, list[RunRecord]](self._find_nums)
        self._waiting = Coalesced[int, list[Signal]](self._signals)
        self._letterbox = Letterbox(self._ask, lambda: self._post)

    # -- writing ---------------------------------------------------------------------------------------------------

    async def commit(self, batch: Batch) -> frozenset[int]:
        """Write ``batch``; see ``Store.commit``. Where the connection is lost, it is found out what became of it.

        Raises:
            LeaseLost: this worker was taken for dead. Nothing of the batch was written.
        """
        self._check_open()
        if not batch:
            return frozenset()
        async with self._turn:
            if self._doubt is not None:
                refused = await self._settled(batch)
                if refused is not None:
                    self._cut = None
                    return refused
            try:
                refused = await self._heeding(batch)
            except StoreError:
                if self._doubt is None:
                    raise
                refused = await self._settled(batch)
                if refused is None:
                    refused = await self._heeding(batch)
            self._cut = None
        if self._numbers.low:
            await self._reserve()
        return refused

    async def _heeding(self, batch: Batch) -> frozenset[int]:
        """Write ``batch`` without what signals have overtaken; the count of batches tells that some were left since."""
        while True:
            part, left_out = self._part_of(batch)
            kept, more = part.yielding(await self._waiting_for(part))
            if more:
                part, left_out = kept, left_out | more
                self._cut = batch, part, left_out
            try:
                return await self._commit(part) | left_out
            except batches.Refused:
                continue  # and look which signals these are

    def _part_of(self, batch: Batch) -> tuple[Batch, frozenset[int]]:
        """What is left of ``batch`` since signals have overtaken some of its runs, and which these are."""
        if self._cut is not None and self._cut[0] is batch:
            return self._cut[1], self._cut[2]
        return batch, frozenset()

    async def _waiting_for(self, batch: Batch) -> set[int]:
        """The runs that decide something with ``batch`` and for which a signal waits that it does not consume.

        Which runs of this worker were signalled is remembered beyond this batch: the others' come later.
        """
        if self._unread:
            rows = await self._ask(
                "look for signals", lambda c: c.fetch(self._texts["heeded"], self._worker), link=self._commits
            )
            self._signalled.update(int(row[0]) for row in rows)
            self._unread = False
        asked = sorted(batch.deciding() & self._signalled) if self._signalled else []
        if not asked:
            return set()
        rows = await self._ask(
            "look for signals", lambda c: c.fetch(self._texts["signalled"], asked), link=self._commits
        )
        found = {int(run) for num, run in rows if num not in batch.consumed}
        self._signalled -= set(asked) - {int(run) for _, run in rows}
        return found

    async def _commit(self, batch: Batch) -> frozenset[int]:
        number, sent = self._number + 1, False
        # Whoever left a signal may wait to hear that it was taken up.
        notify = bool(batch.consumed) or batches.concerns_others(batch, self._blocks)
        sender = batches.Sender(self._worker, number, self._listener.channel, self._listener.token, notify)
        try:
            async with self._commits.use() as connection:
                sent = True
                refused = await batches.write(connection, self._texts, batch, sender)
        except batches.Refused:
            await self._explain_refusal()
            raise
        except CAUGHT as error:
            if getattr(error, "sqlstate", None) == batches.NO_SUCH_RUN:
                raise batches.no_such_run(batch, self.place.shown) from error
            unknown = sent and self._commits.lost
            if unknown:
                self._doubt = InDoubtCommit.about(batch, number)
            raise refusals.explain_commit(
                error, place=self.place.shown, rows=len(batch), sent=sent, in_doubt=unknown
            ) from error
        except asyncio.CancelledError:
            self._doubt = InDoubtCommit.about(batch, number) if sent else None
            raise
        self._number = number
        if refused and self._worker is None:  # no count fences its echoes: one may have begun these
            refused -= {run.num for run in await self._find_nums(refused)}
        return refused

    async def _settled(self, batch: Batch) -> frozenset[int] | None:
        """Settle the doubt: the refused starts where it was about ``batch``, and that was written; else None."""
        doubt = self._doubt
        if doubt is None:
            return None
        worker = self._worker
        batch, left_out = self._part_of(batch)
        try:
            verdict = await self._ask(
                "find out what became of a commit",
                lambda c: doubt.settle(c, self._texts, worker),
                link=self._commits,
                outcome=refusals.NOT_KNOWN,
                patience_s=0,  # the writer has patience of its own
            )
        except StoreError as error:
            error.in_doubt = doubt.batch is batch
            error.transient = True  # it is not about the batch, and until it is known nothing can be written
            raise
        if verdict.number is None:
            self._doubt = None
            if verdict.written and doubt.batch is batch:
                return frozenset({start.num for start in batch.starts} - verdict.begun) | left_out
            raise self._lease_lost()
        log.info("a commit whose connection was lost was %s", "written" if verdict.written else "not written")
        same = doubt.batch is batch
        wanted = {start.num for start in batch.starts} if same else set[int]()
        stray = sorted(verdict.begun - wanted)
        if stray and worker is not None:
            await self._ask("free runs", lambda c: let_stray_go(c, self._texts, stray, worker), link=self._commits)
        self._doubt, self._number = None, verdict.number
        return frozenset(wanted - verdict.begun) | left_out if verdict.written and same else None

    async def _explain_refusal(self) -> None:
        """The worker's row is not as it was left: raise ``LeaseLost`` where it is gone, else take up its count."""
        self._unread = True  # before the flag is put out: whoever is cut off in between looks all the same
        count = await self._ask("look for the worker", lambda c: c.fetchval(self._texts["count"], self._worker))
        if count is None:
            raise self._lease_lost()
        self._number = int(count)

    async def signal(self, run: int, name: str, payload: bytes, *, now_ns: int, ended: bool = False) -> bool:
        """Leave a signal for ``run``; durable on return. See ``Store.signal``."""
        self._check_open()
        left = await self._letterbox.leave(Letter(run, name, payload, now_ns, ended))
        if left is None:
            if await self._ask("find a run", lambda c: self._purger.is_buried(c, run)):
                return False
            raise StoreError(
                f"there is no run of number {run} in {self.place.shown}, so the signal {name!r} was not stored; "
                "look the run up by its id first"
            )
        return left

    async def announce(self, offers: Collection[Offer], *, now_ns: int) -> list[Offer]:
        """Note what this worker serves; see ``Store.announce``. Writes nothing where all of it is known."""
        self._check_open()
        worker = self._worker
        if worker is None:
            raise StoreError(
                f"the store {self.place.shown} was opened without a worker, so nothing is served; open it with one"
            )
        known = await self.announced()
        new = news(known, worker, offers)
        if new:
            await self._ask(
                "announce what is served", partial(self._announce, worker=worker, offers=new, now_ns=now_ns)
            )
        return replaced(known, new)

    async def _announce(self, connection: Connection, *, worker: str, offers: Sequence[Offer], now_ns: int) -> None:
        async with in_transaction(connection):
            if not await connection.fetchval(self._texts["alive"], worker):
                raise self._lease_lost()
            await self._versions.announce(connection, worker, offers, now_ns=now_ns)

    # -- claiming --------------------------------------------------------------------------------------------------

    async def claim(
        self, worker: str, served: Collection[tuple[str, int]], *, now_ns: int, limit: int
    ) -> list[RunRecord]:
        """Take due runs; see ``Store.claim``. Of each function its share, the longest due first."""
        self._check_open()
        if not served or limit < 1:
            return []
        names, versions = [name for name, _ in served], [version for _, version in served]
        due = (names, versions, now_ns)
        for _ in range(CLAIMS):
            if not self._claiming and not await self._ask("look for due runs", partial(self._any_due, due=due)):
                return []
            if taken := await self._ask("claim runs", partial(self._claim, worker=worker, due=due, limit=limit)):
                return taken
        return []

    async def _any_due(self, connection: Connection, *, due: tuple[object, ...]) -> bool:
        return bool(await connection.fetchval(self._texts["any_due"], *due, 1))

    async def _claim(
        self, connection: Connection, *, worker: str, due: tuple[object, ...], limit: int
    ) -> list[RunRecord]:
        async with in_transaction(connection):
            if self._claiming:  # the connection was lost amid that claim: what it has taken is ours, and nobody knows
                rows = await connection.fetch(self._texts["claimed"], worker, self._claiming)
            else:
                if self._worker is not None and not await connection.fetchval(self._texts["alive"], self._worker):
                    raise self._lease_lost()
                rows = await connection.fetch(self._texts["due"], *due, limit * CANDIDATES, limit)
                self._claiming = [int(row[0]) for row in rows]
                if rows:
                    await connection.execute(self._texts["claim"], worker, self._claiming)
        self._claiming = []
        return self._as_claimed(rows, worker)

    async def release_dead(self) -> int:
        """Free the runs of workers whose lease has ended; see ``Store.release_dead``."""
        self._check_open()
        return await self._ask("release dead workers", self._bury_workers)

    async def next_wake_ns(self, *, after_ns: int) -> int | None:
        """When the next unowned open run that is not paused falls due; see ``Store.next_wake_ns``."""
        self._check_open()
        found = await self._ask("look for the next wake", lambda c: c.fetchval(self._texts["next_wake"], after_ns))
        return None if found is None else int(found)

    async def changed(self) -> bool:
        """Whether another store has written; see ``Store.changed``. Now and then yes without a reason.

        Raises:
            LeaseLost: this worker was taken for dead.
        """
        self._check_open()
        if self._lease is not None and self._lease.lost:
            raise self._lease_lost()
        await self._ask("ask for the time", self._measure)  # what was told before the answer was sent has been heard
        return self._listener.changed()

    # -- asking ----------------------------------------------------------------------------------------------------

    async def load(self, nums: Sequence[int]) -> dict[int, list[Entry]]:
        """The journals of these runs; see ``Store.load``."""
        self._check_open()
        journals = await self._journals.about(nums)
        return {num: journals[num] for num in nums}

    async def _load(self, nums: Collection[int]) -> dict[int, list[Entry]]:
        return await self._ask("read journals", lambda c: self._reader.load(c, nums))

    async def announced(self) -> list[Announced]:
        """What any worker has announced; see ``Store.announced``."""
        self._check_open()
        return await self._ask("read what is announced", self._versions.announced)

    async def unserved(self, *, now_ns: int) -> list[RunRef]:
        """The runs that wait in vain; see ``Store.unserved``."""
        self._check_open()
        return await self._ask("look for runs that wait in vain", partial(self._versions.unserved, now_ns=now_ns))

    async def tally(self, name: str | None = None) -> list[Tally]:
        """How many runs stand how, by version; see ``Store.tally``."""
        self._check_open()
        return await self._ask("count runs", partial(self._versions.tally, name=name), link=self._at_length)

    async def find(self, ids: Sequence[str]) -> list[RunRecord]:
        """The runs of these ids; see ``Store.find``."""
        self._check_open()
        asked = frozenset(ids)
        return [run for run in await self._by_id.about(asked) if run.id in asked]

    async def _find(self, ids: Collection[str]) -> list[RunRecord]:
        return await self._ask("find runs", lambda c: self._reader.find(c, ids))

    async def find_num(self, num: int) -> RunRecord | None:
        """The run of this number; see ``Store.find_num``."""
        self._check_open()
        if not -(2**63) <= num < 2**63:  # no number of ours, and none that could be bound
            return None
        return next((run for run in await self._by_num.about([num]) if run.num == num), None)

    async def select(self, query: RunQuery) -> list[RunRecord]:
        """The runs that ``query`` describes; see ``Store.select``."""
        self._check_open()
        return await self._ask("list runs", lambda c: self._reader.select(c, query), link=self._at_length)

    async def count(self, query: RunQuery) -> int:
        """How many runs ``query`` describes; see ``Store.count``."""
        self._check_open()
        return await self._ask("count runs", lambda c: self._reader.count(c, query), link=self._at_length)

    async def signals(self, runs: Collection[int]) -> list[Signal]:
        """The signals that wait for these runs; see ``Store.signals``."""
        self._check_open()
        if not runs:
            return []
        asked = frozenset(runs)
        return [signal for signal in await self._waiting.about(asked) if signal.run in asked]

    async def _signals(self, runs: Collection[int]) -> list[Signal]:
        found = await self._ask("read signals", lambda c: self._reader.signals(c, runs))
        self._signalled.update(signal.run for signal in found)  # those left while nobody owned the run raised no flag
        if len(self._signalled) > MOST_REMEMBERED:  # runs that others drive by now are among them: ask anew
            self._signalled.clear()
            self._unread = True
        return found

    # -- purging and looking from outside --------------------------------------------------------------------------

    async def check_up(self, *, now_ns: int, deep: bool) -> Checkup:
        """Look at it from outside; see ``Store.check_up``."""
        return await check_up(self.place, now_ns=now_ns, deep=deep)

    async def ended(
        self, *, before_ns: int, name: str | None = None, after: EndedRun | None = None, limit: int = 100
    ) -> list[EndedRun]:
        """Runs that may be purged; see ``Store.ended``."""
        self._check_open()
        how = partial(self._purger.ended, before_ns=before_ns, name=name, after=after, limit=limit)
        return await self._ask("look for ended runs", how, link=self._at_length)

    async def bury(self, runs: Sequence[EndedRun], *, now_ns: int, until_ns: int | None) -> list[int]:
        """Put tombstones in the place of runs; see ``Store.bury``."""
        self._check_open()
        how = partial(
            self._purger.bury,
            runs=runs,
            now_ns=now_ns,
            until_ns=until_ns,
            channel=self._listener.channel,
            token=self._listener.token,
        )
        return await self._ask("purge runs", how, link=self._at_length) if runs else []

    async def sweep(self, *, limit: int) -> Swept:
        """Remove what is left of purged journals; see ``Store.sweep``."""
        self._check_open()
        how = partial(self._purger.sweep, limit=limit)
        return await self._ask("remove the journals of purged runs", how, link=self._at_length)

    async def tombstones(self, ids: Sequence[str]) -> list[Tombstone]:
        """What is left of purged runs; see ``Store.tombstones``."""
        self._check_open()
        return await self._ask("find purged runs", lambda c: self._purger.tombstones(c, ids))

    async def forget(self, *, now_ns: int, limit: int) -> int:
        """Drop tombstones whose time has come; see ``Store.forget``."""
        self._check_open()
        how = partial(self._purger.forget, now_ns=now_ns, limit=limit)
        return await self._ask("forget purged runs", how, link=self._at_length)

    # -- spans -----------------------------------------------------------------------------------------------------

    async def owe(self, worker: str) -> int:
        """Let ``worker`` owe the spans of what it writes; see ``SpanLedger.owe``."""
        self._check_open()
        return await self._ask("note what is owed of spans", lambda c: self._spans.owe(c, worker))

    async def owed(self, worker: str) -> dict[str, int]:
        """What is owed by ``worker`` and by the dead; see ``SpanLedger.owed``."""
        self._check_open()
        return await self._ask("look for spans that are owed", lambda c: self._spans.owed(c, worker))

    async def adopt(self, debtor: str, *, worker: str) -> bool:
        """Let ``worker`` alone pay; see ``SpanLedger.adopt``."""
        self._check_open()
        return await self._ask("take over spans that are owed", lambda c: self._spans.adopt(c, debtor, worker))

    async def pay(self, worker: str, pos: int | None) -> None:
        """Note what has been exported; see ``SpanLedger.pay``."""
        self._check_open()
        await self._ask("note which spans were exported", lambda c: self._spans.pay(c, worker, pos))

    async def written(self, worker: str, *, after: int, limit: int) -> list[tuple[int, Entry]]:
        """What ``worker`` has written; see ``SpanLedger.written``."""
        self._check_open()
        how = partial(self._spans.written, worker=worker, after=after, limit=limit)
        return await self._ask("read what was written", how, link=self._at_length)

    async def unbegun_since_ns(self) -> int | None:
        """Since when a run has waited to be begun; see ``SpanLedger.unbegun_since_ns``."""
        return await self._ask("look for the unbegun", self._spans.unbegun_since_ns, link=self._at_length)

    async def find_nums(self, nums: Sequence[int]) -> list[RunRecord]:
        """The runs of these numbers; see ``SpanLedger.find_nums``."""
        self._check_open()
        asked = frozenset(nums)
        return [run for run in await self._by_num.about(asked) if run.num in asked]

    async def _find_nums(self, nums: Collection[int]) -> list[RunRecord]:
        return await self._ask("find runs", lambda c: self._spans.find_nums(c, nums))
