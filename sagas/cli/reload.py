"""``worker --reload``: the worker as a child process, which begins anew whenever a Python file changes.

Invariant: one worker at a time; the next one begins when the one before has ended, as it would after SIGTERM.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING

from sagas.cli.output import CommandError

if TYPE_CHECKING:
    from watchfiles.main import FileChange

OPTION = "--reload"
QUIET_MS = 300
"""An editor that writes several files has ended when nothing has changed for so long."""


def folders_of(modules: Sequence[str]) -> list[Path]:
    """What is watched: the current directory, and the folders of files that lie elsewhere."""
    here = Path.cwd()
    files = [Path(name).resolve().parent for name in modules if name.endswith(".py")]
    return [here, *sorted({folder for folder in files if not folder.is_relative_to(here)})]


def supervise(arguments: Sequence[str], folders: Sequence[Path], say: Callable[[str], None]) -> int:
    """Run ``sagas`` with these arguments until SIGTERM or Ctrl-C, anew at each change; returns its last exit code.

    A worker that ends by itself, as one does whose module cannot be imported, is started again at the next change.

    Raises:
        CommandError: `watchfiles` is not installed.
    """
    try:
        from watchfiles import PythonFilter, watch  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise CommandError(f"{OPTION} needs watchfiles: pip install 'durable-sagas[reload]'") from error
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it reports each change, as this function does
    command = [sys.executable, "-m", "sagas", *(each for each in arguments if each != OPTION)]
    asked = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    worker = _begin(command)
    for changes in watch(*folders, watch_filter=PythonFilter(), debounce=QUIET_MS, stop_event=asked):
        _end(worker)
        say(f"{_names(changes)} changed: starting the worker again")
        worker = _begin(command)
    return _end(worker)


def _begin(command: Sequence[str]) -> Popen[bytes]:
    # Bytecode is kept by a source's size and second: after two changes in one second it would be that of the first.
    fresh = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return Popen(command, env=fresh)  # noqa: S603 - the same program, with the arguments that it was given


def _end(worker: Popen[bytes]) -> int:
    worker.terminate()
    return worker.wait()


def _names(changes: "set[FileChange]") -> str:
    first, *more = sorted({Path(path).name for _, path in changes})
    return f"{first} and {len(more)} more" if more else first
