"""The connections of one store to its schema of PostgreSQL, and how questions are asked on them.

There is a connection for commits, one for questions, and one for questions that take long; a worker has another one,
for its lease.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, TypeVar

from durable_core.errors import StoreError
from durable_core.model.outage import Outage
from durable_core.stores.postgres import refusals, schema
from durable_core.stores.postgres.address import Place
from durable_core.stores.postgres.coalesced import Coalesced
from durable_core.stores.postgres.connect import Connecting
from durable_core.stores.postgres.connection import CAUGHT, LONG_S, Connection, Row
from durable_core.stores.postgres.listen import Listener
from durable_core.stores.postgres.nul import escaped, plain
from durable_core.stores.postgres.offset import steady_s
from durable_core.stores.postgres.statements import Statements
from durable_core.stores.questions import Dialect, Question, Questions, Reads

log = logging.getLogger("durable_core")

T = TypeVar("T")

QUESTIONS = Questions(Dialect(greatest="greatest", escaped=escaped, plain=plain))
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
MET: tuple[type[Exception], ...] = (*CAUGHT, StoreError)
"""What a question may raise: the driver's errors, and those that have been explained already."""


class PostgresDatabase:
    """A schema of a PostgreSQL database.

    Args:
        place: its address.
        patience_s: how long a question waits while the database cannot be reached.
    """

    statements: Statements
    """Known once it is connected."""
    listener: Listener

    def __init__(self, place: Place, *, patience_s: float) -> None:
        self.place = place
        self.patience_s = patience_s
        self.away_s = -math.inf
        """When the database was last found away, by the steady clock."""
        self._outage = Outage()
        self.on_change: Callable[[], None] = lambda: None
        self.ready: schema.Ready | None = None
        """The schema; None unless the store is open."""
        self.commits, self.questions = Connecting(place.dsn), Connecting(place.dsn)
        self.at_length = Connecting(place.dsn, command_s=LONG_S)
        self._together: dict[str, Coalesced[Any, dict[Any, list[Row]]]] = {}

    def check_open(self) -> schema.Ready:
        """The schema; raises ``StoreError`` unless the store is open."""
        if self.ready is None:
            raise StoreError(
                f"the store {self.place.shown} is not open", "Await open() first, and use it before close()"
            )
        return self.ready

    async def connect(self, *, create: bool) -> schema.Ready:
        """Check the tables; make them if there are none and ``create`` says so."""
        ready = await self.run(
            "open the store",
            lambda c: schema.made_ready(c, self.place, create=create),
            on=self.commits,
            outcome="",
        )
        self.statements = Statements(ready.quoted)
        self.listener = Listener(self.statements, ready.schema, notify=self._notified)
        self.questions = Connecting(self.place.dsn, prepare=self.listener.attach)
        self._together.clear()
        return ready

    def _notified(self) -> None:
        self.on_change()

    async def close(self) -> None:
        """Close the connections."""
        self.ready = None
        for each in (self.commits, self.questions, self.at_length):
            await each.close()

    def drop(self) -> None:
        """Drop the connections as the end of the process would."""
        self.ready = None
        for each in (self.commits, self.questions, self.at_length):
            each.drop()

    async def ask(self, question: Question[T]) -> T:
        """The answer to ``question``; questions of one text about few keys are asked together."""
        self.check_open()
        text = self.statements.of(question.text)
        if question.keys is None:
            on = self.at_length if question.reads is Reads.ALL else self.questions
            told = await self.run(question.doing, lambda c: c.fetch(text, *question.values), on=on, outcome="")
            return question.read(told)
        if not question.keys:
            return question.read([])
        together = self._together.get(text)
        if together is None:
            how = partial(self._rows_by_key, question.doing, text, question.by)
            together = self._together[text] = Coalesced[Any, dict[Any, list[Row]]](how)
        rows = await together.about(question.keys)
        return question.read([row for key in question.keys for row in rows.get(key, ())])

    async def _rows_by_key(self, doing: str, text: str, by: int, keys: Collection[Any]) -> dict[Any, list[Row]]:
        found: dict[Any, list[Row]] = {}
        for row in await self.run(doing, lambda c: c.fetch(text, list(keys)), outcome=""):
            found.setdefault(row[by], []).append(row)
        return found

    def failed(self, error: StoreError) -> None:
        """The database did not answer; how long that lasts is logged here, and by nobody else."""
        self.away_s = steady_s()
        error.logged = True
        if self._outage.met(self.away_s):
            log.warning("%s. Trying again until it answers", error.message)

    def answered(self) -> None:
        """The database has answered."""
        if (away_s := self._outage.over(steady_s())) is not None:
            log.warning("%s answers again; it was away for %.1f s", self.place.shown, away_s)

    async def run(
        self,
        doing: str,
        call: Callable[[Connection], Awaitable[T]],
        *,
        on: Connecting | None = None,
        outcome: str = "nothing was changed",
        repeat: bool = True,
        patience_s: float | None = None,
    ) -> T:
        """Make a call on a connection, and again while the database cannot be reached, for as long as patience lasts.

        Args:
            doing: for the error, what this is about.
            call: made with a connection.
            on: which connection; default the one for questions.
            outcome: for the error, what is left if the connection is lost amid the call; empty for a question.
            repeat: whether it may be made again if nobody knows what became of it. If it may not, the connection
                is tried first: it may have ended while nobody used it.
            patience_s: instead of the store's own; 0 tries once.
        """
        on = on or self.questions
        loop = asyncio.get_running_loop()
        patience_s = self.patience_s if patience_s is None else patience_s
        until_s, pause_s = loop.time() + patience_s, FIRST_PAUSE_S
        while True:
            asked = False
            try:
                async with on.use() as connection:
                    if not repeat:
                        await connection.execute("SELECT 1")
                    asked = True
                    answer = await call(connection)
            except MET as error:
                known = outcome if asked or repeat else refusals.NOTHING_ASKED
                explained = refusals.as_store_error(error, place=self.place.shown, doing=doing, outcome=known)
                if explained.transient:
                    self.failed(explained)
                if not (explained.transient and (repeat or not asked) and loop.time() < until_s):
                    if explained is error:
                        raise
                    raise explained from error
            else:
                self.answered()
                return answer
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
