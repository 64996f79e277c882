"""The process that `forked.py` forks from: it has imported our packages, and does what it is asked in its children.

Invariant: it has no thread, and keeps nothing open but its way to the test.
"""

import array
import atexit
import contextlib
import gc
import importlib.util
import io
import json
import os
import signal
import socket
import sys
import threading
import traceback
import types
import warnings
from pathlib import Path
from typing import Any

IMPORTED = (  # no plugin of pytest: it would complain, where it runs in a child
    "aiosqlite",
    "asyncpg",
    "durable_core.stores.postgres.store",
    "durable_core.stores.sqlite.store",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "rich.console",
    "sagas.cli.app",
    "sagas.graph",
    "sagas.orchestrator",
    "sagas.outbox.serving",
    "sagas.participant",
    "sagas.tracing",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.ext.asyncio",
    "sqlmodel",
    "typer.rich_utils",
)
STREAMS = 3


def main(way: socket.socket) -> dict[str, Any]:
    """Fork a child for each job that comes; return a job in the process that is to do it."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    while True:
        head, control, _, _ = way.recvmsg(4, socket.CMSG_SPACE(STREAMS * 4))
        if not head:
            os._exit(0)
        streams = array.array("i")
        streams.frombytes(control[0][2])
        text = way.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
        pid = _grandchild()
        if not pid:
            way.close()
            return json.loads(text) | {"streams": list(streams)}
        for stream in streams:
            os.close(stream)
        way.sendall(pid.to_bytes(8, "big"))


def _grandchild() -> int:
    """Fork a process whose parent ends at once, so that the test's process becomes its parent; its pid, and 0 in it."""
    to_read, to_write = os.pipe()
    between = os.fork()
    if not between:
        pid = os.fork()
        if not pid:
            os.close(to_read)
            os.close(to_write)
            return 0
        os.write(to_write, pid.to_bytes(8, "big"))
        os._exit(0)
    os.close(to_write)
    os.waitpid(between, 0)
    pid = int.from_bytes(os.read(to_read, 8), "big")
    os.close(to_read)
    return pid


def take(job: dict[str, Any]) -> None:
    """Become the process that is asked for: its streams, folder, environment and arguments."""
    for number, stream in enumerate(job["streams"]):
        os.dup2(stream, number)
    for stream in job["streams"]:
        if stream >= STREAMS:
            os.close(stream)
    if job["session"]:
        os.setsid()
    if job["strict"]:
        warnings.simplefilter("error")
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    at_once = "PYTHONUNBUFFERED" in os.environ
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = _writer(1, "strict", lines=os.isatty(1), at_once=at_once)
    sys.stderr = _writer(2, "backslashreplace", lines=True, at_once=at_once)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    paths = os.environ.get("PYTHONPATH", "")
    sys.path[:0] = [str(Path(path).absolute()) for path in paths.split(os.pathsep) if path]


def _writer(number: int, errors: str, *, lines: bool, at_once: bool) -> io.TextIOWrapper:
    raw: Any = os.fdopen(number, "wb", buffering=0 if at_once else -1, closefd=False)
    return io.TextIOWrapper(raw, "utf-8", errors, line_buffering=lines, write_through=at_once)


def program(words: list[str]) -> tuple[types.CodeType, types.ModuleType]:
    """What the interpreter would run with these arguments, and its module; they are set for it."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = __builtins__
    sys.orig_argv = [sys.executable, *words]
    first, *rest = words
    if first == "-c":
        text, *rest = rest
        sys.argv, folder = ["-c", *rest], ""
        code = compile(text, "<string>", "exec")
    elif first == "-m":
        name, *rest = rest
        folder = str(Path.cwd())
        sys.path.insert(0, folder)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
        assert spec is not None, f"No module named {name}"
        assert spec.origin is not None
        sys.path.pop(0)
        module.__spec__, module.__file__, module.__package__ = spec, spec.origin, spec.parent
        sys.argv = [spec.origin, *rest]
        code = spec.loader.get_code(spec.name)  # type: ignore[union-attr]
    else:
        folder, module.__file__ = str(Path(first).resolve().parent), first
        sys.argv = [first, *rest]
        code = compile(Path(first).read_bytes(), first, "exec")
    sys.path.insert(0, folder)
    sys.modules["__main__"] = module
    return code, module


def play(job: dict[str, Any]) -> int:
    """Do the job; its exit code."""
    try:
        take(job)
        code, module = program(job["words"])
        exec(code, module.__dict__)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        return -signal.SIGINT
    except BaseException as error:  # noqa: BLE001 - as the interpreter does
        trace = error.__traceback__
        sys.excepthook(type(error), error, trace and trace.tb_next)
        return 1
    return 0


def end(code: int) -> None:
    """End as the interpreter does, but do not take all that has been imported apart, which takes long."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    end(play(main(socket.socket(fileno=int(sys.argv[1])))))
