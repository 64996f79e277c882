"""Commits to PostgreSQL, and the numbers of new runs.

Invariants: every write of a worker is refused once the database has removed it, so that two workers never both write
a run. A commit whose outcome is not known is settled before the next one is made.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence

from durable_core.errors import StoreError
from durable_core.model.entry import Entry
from durable_core.ports import Batch
from durable_core.stores.numbers import RunNumbers
from durable_core.stores.postgres import batch as batches
from durable_core.stores.postgres import refusals
from durable_core.stores.postgres.columns import NUMBERS
from durable_core.stores.postgres.connection import CAUGHT
from durable_core.stores.postgres.database import QUESTIONS, PostgresDatabase
from durable_core.stores.postgres.in_doubt import InDoubtCommit, let_stray_go
from durable_core.stores.postgres.membership import Membership

log = logging.getLogger("durable_core")

MOST_REMEMBERED = 50_000
"""Runs of which it is remembered that they were signalled."""


class PostgresJournal:
    """``Journal`` of a schema of PostgreSQL."""

    def __init__(self, database: PostgresDatabase, membership: Membership) -> None:
        self._database = database
        self._membership = membership
        self._number = 0
        """Of this worker's last batch."""
        self._doubt: InDoubtCommit | None = None
        self._cut: tuple[Batch, Batch, frozenset[int]] | None = None
        """The batch that is being written, what is left of it, and the runs that signals have overtaken."""
        self._signalled: set[int] = set()
        """Runs of this worker for which signals may wait: it was notified, and has not found out otherwise."""
        self._unread = False
        """Whether signals were sent since it last asked which."""
        self._blocks: list[range] = []
        self._numbers = RunNumbers(database.place.shown)

    # -- numbers ---------------------------------------------------------------------------------------------------

    def next_num(self) -> int:
        """A run number that is this store's alone. Reserved ahead, by blocks; commits reserve the next block."""
        self._database.check_open()
        return self._numbers.take()

    async def begin(self) -> None:
        """Reserve the first block of numbers."""
        self._numbers.begin(await self._block())

    async def _block(self) -> range:
        text = self._database.statements["numbers"]
        first = int(await self._database.run("reserve numbers", lambda c: c.fetchval(text)))
        block = range(first, first + NUMBERS)
        self._blocks.append(block)
        return block

    async def _reserve(self) -> None:
        """Reserve the next block. If that fails, the next commit tries again."""
        try:
            self._numbers.add(await self._block())
        except StoreError as error:
            if not error.logged:
                log.warning("no numbers could be reserved; trying again: %s", error)

    # -- commits ---------------------------------------------------------------------------------------------------

    def entered(self) -> None:
        """The worker has entered under a new name: its count begins anew, and no doubt is left."""
        self._number, self._doubt = 0, None

    async def load(self, nums: Sequence[int]) -> dict[int, list[Entry]]:
        """See ``Journal.load``."""
        return await self._database.ask(QUESTIONS.load(nums))

    async def commit(self, batch: Batch) -> frozenset[int]:
        """Write ``batch``; see ``Journal.commit``. If the connection is lost, the outcome is found out.

        Raises:
            LeaseLost: this worker was taken for dead. Nothing of the batch was written.
        """
        self._database.check_open()
        if not batch:
            return frozenset()
        async with self._membership.turn:
            if self._doubt is not None:
                refused = await self._settled(batch)
                if refused is not None:
                    self._cut = None
                    return refused
            try:
                refused = await self._yielding(batch)
            except StoreError:
                if self._doubt is None:
                    raise
                refused = await self._settled(batch)
                if refused is None:
                    refused = await self._yielding(batch)
            self._cut = None
        if self._numbers.low:
            await self._reserve()
        return refused

    async def _yielding(self, batch: Batch) -> frozenset[int]:
        """Write ``batch`` without what signals have overtaken; the count of batches says if more were sent since."""
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

    def remember(self, signalled: Iterable[int]) -> None:
        """Signals wait for these runs; one that was sent while nobody owned the run has raised no flag."""
        self._signalled.update(signalled)
        if len(self._signalled) > MOST_REMEMBERED:  # runs that others drive by now are among them: ask anew
            self._signalled.clear()
            self._unread = True

    async def _waiting_for(self, batch: Batch) -> set[int]:
        """The runs that decide something with ``batch`` and for which a signal waits that it does not consume.

        Which runs of this worker were signalled is remembered beyond this batch: the others' come later.
        """
        statements, commits = self._database.statements, self._database.commits
        if self._unread:
            text, worker = statements["signalled_of_worker"], self._membership.worker
            rows = await self._database.run("look for signals", lambda c: c.fetch(text, worker), on=commits)
            self._signalled.update(int(row[0]) for row in rows)
            self._unread = False
        asked = sorted(batch.deciding() & self._signalled) if self._signalled else []
        if not asked:
            return set()
        text = statements["signalled"]
        rows = await self._database.run("look for signals", lambda c: c.fetch(text, asked), on=commits)
        found = {int(run) for num, run in rows if num not in batch.consumed}
        self._signalled -= set(asked) - {int(run) for _, run in rows}
        return found

    async def _commit(self, batch: Batch) -> frozenset[int]:
        database, worker = self._database, self._membership.worker
        number, sent = self._number + 1, False
        # The sender of a signal may wait until it is taken up.
        notify = bool(batch.consumed) or batches.concerns_others(batch, self._blocks)
        sender = batches.Sender(worker, number, database.listener.channel, database.listener.token, notify)
        try:
            async with database.commits.use() as connection:
                sent = True
                refused = await batches.write(connection, database.statements, batch, sender)
        except batches.Refused:
            await self._explain_refusal()
            raise
        except CAUGHT as error:
            if getattr(error, "sqlstate", None) == batches.NO_SUCH_RUN:
                raise batches.no_such_run(batch, database.place.shown) from error
            unknown = sent and database.commits.lost
            if unknown:
                self._doubt = InDoubtCommit.about(batch, number)
            explained = refusals.explain_commit(
                error, place=database.place.shown, rows=len(batch), sent=sent, in_doubt=unknown
            )
            if explained.transient:
                database.failed(explained)
            raise explained from error
        except asyncio.CancelledError:
            self._doubt = InDoubtCommit.about(batch, number) if sent else None
            raise
        database.answered()
        self._number = number
        if refused and worker is None:  # no count fences its echoes: one may have begun these
            refused -= {run.num for run in await database.ask(QUESTIONS.find_nums(refused))}
        return refused

    async def _settled(self, batch: Batch) -> frozenset[int] | None:
        """Settle the doubt: the refused starts if it was about ``batch``, and that was written; else None."""
        doubt = self._doubt
        if doubt is None:
            return None
        database, worker = self._database, self._membership.worker
        batch, left_out = self._part_of(batch)
        try:
            outcome = await database.run(
                "find out what became of a commit",
                lambda c: doubt.settle(c, database.statements, worker),
                on=database.commits,
                outcome=refusals.NOT_KNOWN,
                patience_s=0,  # the writer has patience of its own
            )
        except StoreError as error:
            error.in_doubt = doubt.batch is batch
            error.transient = True  # it is not about the batch, and until it is known nothing can be written
            raise
        if outcome.number is None:
            self._doubt = None
            if outcome.written and doubt.batch is batch:
                return frozenset({start.num for start in batch.starts} - outcome.begun) | left_out
            raise self._membership.lost()
        log.info("a commit whose connection was lost was %s", "written" if outcome.written else "not written")
        same = doubt.batch is batch
        wanted = {start.num for start in batch.starts} if same else set[int]()
        stray = sorted(outcome.begun - wanted)
        if stray and worker is not None:
            await database.run(
                "release what it does not drive",
                lambda c: let_stray_go(c, database.statements, stray, worker),
                on=database.commits,
            )
        self._doubt, self._number = None, outcome.number
        return frozenset(wanted - outcome.begun) | left_out if outcome.written and same else None

    async def _explain_refusal(self) -> None:
        """The worker's row is not as it was left: raise ``LeaseLost`` if it is gone, else take up its count."""
        self._unread = True  # before the flag is cleared: a caller cancelled in between looks all the same
        text, worker = self._database.statements["count"], self._membership.worker
        count = await self._database.run("look for the worker", lambda c: c.fetchval(text, worker))
        if count is None:
            raise self._membership.lost()
        self._number = int(count)
