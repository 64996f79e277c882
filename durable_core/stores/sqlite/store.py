"""The SQLite store: no server, one file, several processes."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from durable_core.model.version import Offer, replaced
from durable_core.stores.asked import AskedRuns, AskedSpans, AskedVersions
from durable_core.stores.numbers import RunNumbers
from durable_core.stores.sqlite.claims import SqliteClaims
from durable_core.stores.sqlite.database import SqliteDatabase
from durable_core.stores.sqlite.dialect import QUESTIONS, rows_of
from durable_core.stores.sqlite.file import SqliteFile
from durable_core.stores.sqlite.journal import SqliteJournal
from durable_core.stores.sqlite.retention import SqliteRetention
from durable_core.stores.sqlite.signals import SqliteSignals

if TYPE_CHECKING:
    from durable_core.model.checkup import Checkup

Durability = Literal["power", "process"]

SYNCHRONOUS: dict[Durability, str] = {"power": "FULL", "process": "NORMAL"}
_SERVE = """
INSERT INTO served (name, version, fingerprint, at_ns) VALUES (?, ?, ?, ?)
ON CONFLICT (name, version) DO UPDATE SET fingerprint = excluded.fingerprint, at_ns = excluded.at_ns
WHERE excluded.fingerprint NOT IN ('', fingerprint)
"""
_SERVING = "INSERT OR IGNORE INTO serving (name, version, worker) VALUES (?, ?, ?)"


class SqliteStore:
    """A ``Store`` on the SQLite file at ``path``, which ``open`` makes if there is none.

    Args:
        path: of the file; its directory must exist and be writable.
        durability: ``power`` keeps every commit through a power loss; ``process`` only through the end of the
            process, and is faster on a slow disk.
    """

    def __init__(self, path: str, *, durability: Durability = "power") -> None:
        self.path = path
        self._database = database = SqliteDatabase(path, synchronous=SYNCHRONOUS[durability])
        self._numbers = RunNumbers(path)
        self.journal = SqliteJournal(database, self._numbers)
        self.runs = AskedRuns(database, QUESTIONS)
        self.claims = SqliteClaims(database)
        self.signals = SqliteSignals(database)
        self.versions = AskedVersions(database, QUESTIONS, worker=lambda: database.file.worker, announce=self._announce)
        self.retention = SqliteRetention(database)
        self.spans = AskedSpans(database)

    @property
    def secret(self) -> bytes:
        """32 random bytes, made with the store: all its processes share them, and nobody else has them."""
        return self._database.file.secret

    async def open(self, *, worker: str | None) -> None:
        """See ``Store.open``."""
        await self._database.open(worker=worker)
        self._numbers.begin(self._database.file.numbers)

    async def close(self) -> None:
        """See ``Store.close``."""
        await self._database.close()

    def crash(self) -> None:
        """For tests: let go of the file as the end of the process would, so that the worker is found dead."""
        self._database.crash()

    async def rejoin(self, worker: str) -> None:
        """See ``Store.rejoin``; without leases only a test asks for it."""
        await self._database.rejoin(worker)
        self._numbers.begin(self._database.file.numbers)

    def lease_is_safe(self) -> bool:
        """Always: a worker holds a lock file instead of a lease."""
        return True

    def ahead_ns(self) -> int:
        """Nothing: the store has this machine's clock."""
        return 0

    async def changed(self) -> bool:
        """See ``Store.changed``."""
        return await self._database.changed()

    def on_change(self, call: Callable[[], None]) -> None:
        """Never calls back: polling ``changed`` costs less here."""

    async def check_up(self, *, now_ns: int, deep: bool) -> "Checkup":
        """See ``Store.check_up``."""
        from durable_core.stores.sqlite.checkup import check_up  # noqa: PLC0415 - workers do without it

        return await asyncio.to_thread(check_up, self.path, now_ns=now_ns, deep=deep)

    async def _announce(self, worker: str, offers: Sequence[Offer], now_ns: int) -> list[Offer]:
        def write(file: SqliteFile) -> list[Offer]:
            asked = QUESTIONS.announced()
            known = asked.read(rows_of(file.connection, asked))
            file.connection.executemany(_SERVE, [(*offer, now_ns) for offer in offers])
            file.connection.executemany(_SERVING, [(offer.name, offer.version, worker) for offer in offers])
            return replaced(known, offers)

        return await self._database.transact("announce what is served", write, len(offers))
