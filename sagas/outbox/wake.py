"""Wakes a relay when PostgreSQL notifies of a commit with entries. Without it the relay only looks twice a second.

Invariant: nothing depends on it. A notification that is missed, or a driver that is not known here, costs the time
until the next look.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Connection

from sagas.outbox.database import Database
from sagas.outbox.kinds import async_engine
from sagas.outbox.session import AUTOCOMMIT, CHANNEL

log = logging.getLogger("sagas")

AGAIN_S = 5.0
"""How long to wait before listening anew once the connection is lost."""


async def listen(database: Database, threads: ThreadPoolExecutor, ring: Callable[[], None]) -> None:
    """Call ``ring`` with each notification, until cancelled; returns at once where the database has none."""
    if database.sync.dialect.name != "postgresql":
        return
    while True:
        try:
            await _listen_once(database, threads, ring)
        except (AttributeError, NotImplementedError) as why:
            log.info("the outbox of %s is looked at twice a second: its driver cannot listen (%s)", database.place, why)
            return
        except Exception as error:  # noqa: BLE001 - a border: the user's driver may raise anything, and looking goes on
            log.debug("notifications for the outbox of %s do not arrive: %s", database.place, error)
        await asyncio.sleep(AGAIN_S)


async def _listen_once(database: Database, threads: ThreadPoolExecutor, ring: Callable[[], None]) -> None:
    """Listen on one connection until it is lost."""
    engine = async_engine(database.engine)
    if engine is not None:
        asynchronous = await engine.connect()
        try:
            driver = await asynchronous.run_sync(_own)
            try:
                await _until_lost(driver, ring)
            finally:
                with contextlib.suppress(Exception):  # it may be lost, and must not hide that this was cancelled
                    await asynchronous.close()
                    await driver.close()  # SQLAlchemy leaves that to us for some drivers, once it is detached
        finally:
            with contextlib.suppress(Exception):
                await asynchronous.close()
        return
    loop = asyncio.get_running_loop()
    connection = await loop.run_in_executor(threads, database.sync.connect)
    try:
        await _until_lost(await loop.run_in_executor(threads, _own, connection), ring)
    finally:
        with contextlib.suppress(Exception):
            await loop.run_in_executor(threads, connection.close)


def _own(connection: Connection) -> Any:
    """The driver's connection. It listens, and the pool, which may be small, no longer counts it."""
    driver: Any = connection.connection.driver_connection
    if not hasattr(driver, "add_listener"):
        connection.execution_options(isolation_level=AUTOCOMMIT)
        connection.exec_driver_sql(f"LISTEN {CHANNEL}")
    connection.detach()
    return driver


async def _until_lost(driver: Any, ring: Callable[[], None]) -> None:
    """Call ``ring`` with each notification; returns once the connection is lost."""
    lost = asyncio.Event()
    if hasattr(driver, "add_listener"):  # asyncpg

        def heard(_connection: object, _pid: int, _channel: str, _payload: str) -> None:
            ring()

        def ended(_connection: object) -> None:
            lost.set()

        driver.add_termination_listener(ended)
        await driver.add_listener(CHANNEL, heard)
        ring()  # for what was committed before it listened
        await lost.wait()
        return

    def readable() -> None:
        try:
            if _notified(driver):
                ring()
        except Exception:  # noqa: BLE001 - the driver's own error, whose class is not known here: it ends the listening
            lost.set()

    loop, file = asyncio.get_running_loop(), driver.fileno()
    loop.add_reader(file, readable)
    ring()
    try:
        await lost.wait()
    finally:
        loop.remove_reader(file)


def _notified(driver: Any) -> bool:
    """Whether notifications have arrived: of psycopg, or of psycopg2."""
    if hasattr(driver, "pgconn"):
        driver.pgconn.consume_input()
        found = False
        while driver.pgconn.notifies() is not None:
            found = True
        return found
    driver.poll()
    found = bool(driver.notifies)
    driver.notifies.clear()
    return found
