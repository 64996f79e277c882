"""A store's stay in PostgreSQL, from ``open`` to ``close``: its connections, its worker's entry and lease, its numbers.

Invariant: a worker that has left, or was found dead, is forgotten in the transaction that frees its runs.
"""

import asyncio
import logging
import math
import os
import platform
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from durable_core.errors import LeaseLost, StoreError
from durable_core.model.run import RunRecord
from durable_core.ports import Batch
from durable_core.stores.numbers import RunNumbers
from durable_core.stores.postgres import refusals, schema
from durable_core.stores.postgres.address import Place
from durable_core.stores.postgres.columns import NUMBERS
from durable_core.stores.postgres.connect import Connecting
from durable_core.stores.postgres.connection import CAUGHT, LONG_S, Connection, in_transaction
from durable_core.stores.postgres.in_doubt import InDoubtCommit
from durable_core.stores.postgres.lease import RENEWALS, Lease
from durable_core.stores.postgres.listen import Listener
from durable_core.stores.postgres.offset import Offset, steady_s
from durable_core.stores.postgres.purge import Purger
from durable_core.stores.postgres.reader import Reader, to_run
from durable_core.stores.postgres.signals import Post
from durable_core.stores.postgres.spans import NEWEST, Spans
from durable_core.stores.postgres.statements import Statements
from durable_core.stores.postgres.versions import Versions
from durable_core.stores.postgres.watch import Answered, Leased, Watch

log = logging.getLogger("durable_core")

T = TypeVar("T")

LEASE_S = 15.0
PATIENCE_S = 30.0
"""How long a question waits for a database that cannot be reached."""
MARGIN = 0.2
"""The part of a lease that must be left when a step begins."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
MET: tuple[type[Exception], ...] = (*CAUGHT, StoreError)
"""What a question may raise: the driver's errors, and those that have been explained already."""


class PostgresSession:
    """What a ``PostgresStore`` stands on; see there."""

    def __init__(self, place: Place, *, lease_s: float = LEASE_S, patience_s: float = PATIENCE_S) -> None:
        self.place = place
        self.create = True
        """Whether opening it may make its tables where there are none."""
        self._lease_s = lease_s
        self._patience_s = patience_s
        self._offset = Offset(shown=place.shown)
        self._away_s = -math.inf
        """When the database was last found away, by the steady clock."""
        self._watch = Watch(lease_s, theirs_ns=self._offset.local_ns(), at_s=steady_s())
        self._tell: Callable[[], None] = lambda: None
        self._lease: Lease | None = None
        self._worker: str | None = None
        self._opened: schema.Ready | None = None
        self._turn = asyncio.Lock()
        self._commits, self._questions = Connecting(place.dsn), Connecting(place.dsn)
        self._at_length = Connecting(place.dsn, command_s=LONG_S)
        self._number = 0
        """Of this worker's last batch."""
        self._doubt: InDoubtCommit | None = None
        self._cut: tuple[Batch, Batch, frozenset[int]] | None = None
        """The batch that is being written, what is left of it, and the runs that signals have overtaken."""
        self._signalled: set[int] = set()
        """Runs of this worker's for which signals may wait: it was told so, and has not found out otherwise."""
        self._unread = False
        """Whether signals were left since it was last asked which."""
        self._claiming: list[int] = []
        """Runs that a claim was about to take: ours perhaps, until it is known how that claim ended."""
        self._blocks: list[range] = []
        self._numbers = RunNumbers(place.shown)

    @property
    def secret(self) -> bytes:
        """32 random bytes, made with the store."""
        return self._ready.secret

    @property
    def _ready(self) -> schema.Ready:
        if self._opened is None:
            raise StoreError(f"the store {self.place.shown} is not open; await open() first, and use it before close()")
        return self._opened

    def _check_open(self) -> None:
        self._ready  # noqa: B018 - it raises

    # -- life ------------------------------------------------------------------------------------------------------

    async def open(self, *, worker: str | None) -> None:
        """Make or check the tables, announce ``worker`` and release the runs of the dead. See ``Store.open``."""
        if self._opened is not None:
            raise StoreError(f"the store {self.place.shown} is open already; close it first, or make another one")
        try:
            ready = await self._ask(
                "open the store",
                lambda c: schema.made_ready(c, self.place, create=self.create),
                link=self._commits,
                outcome="no run was changed",
            )
            self._texts = Statements(ready.quoted)
            self._reader = Reader(self._texts)
            self._purger = Purger(self._texts)
            self._versions = Versions(self._texts)
            self._spans = Spans(self._texts)
            self._listener = Listener(self._texts, ready.schema, tell=self._told)
            self._post = Post(self._texts, self._listener.channel, self._listener.token)
            self._questions = Connecting(self.place.dsn, prepare=self._listener.attach)
            await self._ask("release dead workers", self._bury_workers)
            self._numbers.begin(await self._block())
            await self._ask("ask for the time", self._measure)
            if worker is not None:
                await self._enter(worker)
                # The driver looks up on each connection how arrays of these are sent: 10 ms, now and not amid a burst.
                for link in (self._commits, self._questions):
                    await self._ask(
                        "look up types", lambda c: c.fetchval("SELECT $1::int8[], $2::bytea[]", [], []), link=link
                    )
            self._opened = ready
        except BaseException:
            await self._shut()
            raise

    async def _enter(self, worker: str) -> None:
        facts = (worker, os.getpid(), platform.node(), round(self._lease_s * 1e9))
        began_s: float | None = None

        async def enter(connection: Connection) -> bool:
            nonlocal began_s
            repeated, began_s = began_s is not None, steady_s()
            if await connection.fetchval(self._texts["enter"], *facts):
                return True
            # An attempt whose answer was lost may have entered.
            return repeated and bool(await connection.fetchval(self._texts["entered"], *facts))

        if not await self._ask("announce the worker", enter) or began_s is None:
            raise StoreError(
                f"a worker named {worker!r} already runs on {self.place.shown}; give this one another name, or end "
                "that one"
            )
        self._worker, self._number, self._doubt, self._claiming = worker, 0, None, []
        self._lease = Lease(
            self.place.dsn,
            self._texts["renew"],
            worker=worker,
            lease_s=self._lease_s,
            granted_at_s=began_s,
            offset=self._offset,
        )

    async def rejoin(self, worker: str) -> None:
        """Enter again under a new name; see ``Store.rejoin``."""
        async with self._turn:
            self._check_open()
            await self._end_lease()
            # An earlier attempt to enter under this name, which nobody else has, may have succeeded unheard.
            await self._ask("leave", lambda c: c.execute(self._texts["leave"], worker))
            await self._enter(worker)

    async def close(self) -> None:
        """Free this worker's runs, forget it and close the connections. Safe to call twice."""
        async with self._turn:
            if self._opened is None:
                return
            await self._end_lease()
            try:
                if self._worker is not None:
                    async with self._commits.use() as connection, in_transaction(connection):
                        await connection.execute(self._texts["leave"], self._worker)
                        await self._free(connection, [self._worker])
            except CAUGHT as error:
                # Nothing is lost, and the caller can do nothing: a worker that did not sign off is found dead.
                log.warning(
                    "%s: this worker could not sign off, so others release its runs when its lease ends: %s",
                    self.place.shown,
                    refusals.explain(error, place=self.place.shown, doing="sign off"),
                )
            await self._shut()

    async def _end_lease(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            await asyncio.get_running_loop().run_in_executor(None, lease.stop)

    async def _shut(self) -> None:
        await self._end_lease()
        self._opened = self._worker = None
        for link in (self._commits, self._questions, self._at_length):
            await link.close()

    def crash(self) -> None:
        """For tests: let go of everything as the end of the process would. The lease runs on to its end."""
        self._opened = self._worker = None
        if self._lease is not None:
            self._lease.stop()
        for link in (self._commits, self._questions, self._at_length):
            link.drop()

    def on_change(self, call: Callable[[], None]) -> None:
        """Have ``call`` made when another store is heard; see ``Store.on_change``."""
        self._tell = call

    def _told(self) -> None:
        self._tell()

    # -- lease and clock -------------------------------------------------------------------------------------------

    def lease_is_safe(self) -> bool:
        """Whether the lease has a margin left; see ``Store.lease_is_safe``."""
        return self._lease is None or self._lease.left_s() > self._lease_s * MARGIN

    def ahead_ns(self) -> int:
        """How far the database's clock is ahead of this machine's, as last measured."""
        return self._offset.ahead_of_wall_ns()

    async def last_seen_ns(self) -> int | None:
        """The last time that was written; see ``Store.last_seen_ns``."""
        newest = NEWEST.replace("{s}", self._texts.schema)
        found = await self._ask("read the last time", lambda connection: connection.fetchval(newest))
        return None if found is None else int(found)

    async def _measure(self, connection: Connection) -> None:
        sent_ns = self._offset.local_ns()
        theirs_ns = int(await connection.fetchval(self._texts["clock"]))
        self._offset.measured(theirs_ns, sent_ns=sent_ns, got_ns=self._offset.local_ns())

    def _lease_lost(self) -> LeaseLost:
        if self._lease is not None:
            self._lease.lost = True
        return LeaseLost(
            f"worker {self._worker} was silent for longer than its lease of {self._lease_s:g} s, so others drive its "
            "runs now; nothing of what it wrote late was kept. It takes another name and goes on; where this happens "
            "often, give it more processor time or a longer lease=",
            worker=self._worker or "",
        )

    async def _bury_workers(self, connection: Connection) -> int:
        """Forget the workers whose lease has ended, and free their runs; return how many runs.

        Not right after the database was away: the others could not renew either, and are about to.
        """
        sent_s = steady_s()
        calm = sent_s - self._away_s > self._lease_s / RENEWALS and (self._lease is None or self._lease.calm())
        rows = await connection.fetch(self._texts["leases"], self._worker)
        if not rows:
            return 0
        leased = [Leased(str(row[0]), int(row[1])) for row in rows]
        answer = Answered(int(rows[0][2]), up_since_ns=int(rows[0][3]), sent_s=sent_s, got_s=steady_s())
        dead = self._watch.dead(leased, answer)
        if not dead or not calm:
            return 0
        async with in_transaction(connection):
            found = [each.worker for each in dead], [each.until_ns for each in dead]
            return await self._free(
                connection, [str(row[0]) for row in await connection.fetch(self._texts["bury"], *found)]
            )

    async def _free(self, connection: Connection, workers: Sequence[str]) -> int:
        await connection.execute(self._texts["serves_no_more"], list(workers))
        nums = [int(row[0]) for row in await connection.fetch(self._texts["release"], list(workers))]
        if nums:
            await connection.execute(self._texts["wake"], nums)
            await connection.execute(self._texts["notify"], self._listener.channel, self._listener.token)
        return len(nums)

    def _as_claimed(self, rows: Sequence[Sequence[Any]], worker: str) -> list[RunRecord]:
        """The records of the runs just claimed, the longest due first."""
        runs = sorted(map(to_run, rows), key=lambda run: (run.wake_at_ns or run.updated_at_ns, run.num))
        return [run.claimed_by(worker) for run in runs]

    # -- numbers ---------------------------------------------------------------------------------------------------

    def next_num(self) -> int:
        """A run number that is this store's alone. Reserved ahead, by blocks; commits reserve the next block."""
        self._check_open()
        return self._numbers.take()

    async def _block(self) -> range:
        first = int(await self._ask("reserve run numbers", lambda c: c.fetchval(self._texts["numbers"])))
        block = range(first, first + NUMBERS)
        self._blocks.append(block)
        return block

    async def _reserve(self) -> None:
        """Reserve the next block. Where that fails, the next commit tries again."""
        try:
            self._numbers.add(await self._block())
        except StoreError as error:
            log.warning("no run numbers could be reserved; trying again: %s", error)

    # -- asking ----------------------------------------------------------------------------------------------------

    async def _ask(
        self,
        doing: str,
        question: Callable[[Connection], Awaitable[T]],
        *,
        link: Connecting | None = None,
        outcome: str = "nothing was changed",
        repeat: bool = True,
        patience_s: float | None = None,
    ) -> T:
        """Ask, and again while the database cannot be reached, for as long as patience lasts.

        Args:
            doing: for the error, what this is about.
            question: asked on a connection.
            link: which connection; default the one for questions.
            outcome: for the error, what is left where the connection is lost amid the question.
            repeat: whether it may be asked again where nobody knows what became of it. Where it may not, the connection
                is tried first: it may have ended while nobody used it.
            patience_s: instead of the store's own; 0 asks once.
        """
        link = link or self._questions
        loop = asyncio.get_running_loop()
        patience_s = self._patience_s if patience_s is None else patience_s
        until_s, pause_s = loop.time() + patience_s, FIRST_PAUSE_S
        while True:
            asked = False
            try:
                async with link.use() as connection:
                    if not repeat:
                        await connection.execute("SELECT 1")
                    asked = True
                    return await question(connection)
            except MET as error:
                known = outcome if asked or repeat else refusals.NOTHING_ASKED
                told = refusals.told(error, place=self.place.shown, doing=doing, outcome=known)
                if not (told.transient and (repeat or not asked) and loop.time() < until_s):
                    if told is error:
                        raise
                    raise told from error
                self._away_s = steady_s()
                log.warning("%s; asking again", told)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
