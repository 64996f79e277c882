"""A PgBouncer of the tests' own, before the tests' own PostgreSQL, where the program is installed.

It is stopped by its own pid, and ends with this process however that ends.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.postgres_server import Server, end_with_parent

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@attrs.frozen
class Pooler:
    """A PgBouncer that runs."""

    server: Server
    port: int
    process: "subprocess.Popen[bytes]"

    def url(self, schema: str) -> str:
        """The address of a schema through it."""
        return self.server.url(schema=schema, port=self.port)

    def fresh(self) -> str:
        """The address of a schema that does not exist yet."""
        return self.url(self.server.fresh().rpartition("=")[2])


@contextmanager
def pgbouncer(
    server: Server, *, mode: str = "transaction", size: int = 4, port: int = 0, **settings: str
) -> Iterator[Pooler]:
    """Run it before ``server``, with ``size`` connections to it and these settings; ``port`` 0 is a free one."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(prefix="sagas-pgb-") as name:
        folder = Path(name)
        if not port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
        options = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": folder / "users",
            "pool_mode": mode,
            "default_pool_size": size,
            **settings,
        }
        (folder / "users").write_text('"sagas" ""\n')
        lines = [f"{option} = {value}" for option, value in options.items()]
        databases = f"[databases]\npostgres = host=127.0.0.1 port={server.port} dbname=postgres\n"
        (folder / "ini").write_text(f"{databases}[pgbouncer]\n" + "\n".join(lines) + "\n")
        owner: dict[str, int] = {}
        if os.geteuid() == 0:  # which it refuses to run as
            nobody = pwd.getpwnam("nobody")
            owner = {"user": nobody.pw_uid, "group": nobody.pw_gid}
            folder.chmod(0o755)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [PROGRAM, str(folder / "ini")],
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - it calls nothing that a thread could hold a lock of
                **owner,
            )
        try:
            _await_answer(process, port, folder / "log")
            yield Pooler(server, port, process)
        finally:
            process.terminate()
            process.wait(60)


def _await_answer(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + 30
    while True:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        else:
            return
