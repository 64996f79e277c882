"""Python processes of a test that begin at once: each is forked from one that has imported our packages already.

Importing them takes half a second of computing, which most tests that start a process are not about. Such a process is
one like any other: a child of the test's process with its own pid, arguments, environment, folder and streams, that is
killed and waited for as usual. What a fork cannot be like, an interpreter of its own makes: see `_forks`.

Processes whose own start is what a test is about (which modules are loaded, the line that `ps` shows) are made by
`subprocess` instead. What is left out at the end is that the interpreter takes its modules apart.

Invariant: with coverage, and where a process cannot become the parent of its grandchildren, nothing is forked.
"""

import array
import atexit
import ctypes
import functools
import inspect
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PR_SET_CHILD_SUBREAPER = 36
HARMLESS = frozenset(("PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONUTF8", "PYTHONDONTWRITEBYTECODE"))
"""Variables of the interpreter that a fork can do justice to."""
COVERED = ("COVERAGE_PROCESS", "COV_CORE")
"""Variables by which processes that are started are measured too."""
STRICT = ["-W", "error"]
"""The only switches of the interpreter that a fork takes."""
_EXECUTE = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]
"""Its parameters are known by name: there are more of them in some versions of Python."""
_CHANGED = {
    "preexec_fn": None,
    "pass_fds": (),
    "shell": False,
    "gid": None,
    "gids": None,
    "uid": None,
    "umask": -1,
    "process_group": -1,
}
"""What the fork does not do, and its value where nobody asks for it."""
_ONE_AT_A_TIME = threading.Lock()


class Process(subprocess.Popen[Any]):
    """A process as of `subprocess.Popen`; it is forked where that makes no difference."""

    def _execute_child(self, *arguments: Any) -> None:
        asked = _EXECUTE.bind(self, *arguments).arguments
        command = [os.fspath(word) for word in asked["args"]]
        switches = 2 if command[1:3] == STRICT else 0
        if not _forks([command[0], *command[1 + switches :]], asked):
            super()._execute_child(*arguments)  # type: ignore[misc]
            return
        streams = (asked["p2cread"], asked["c2pwrite"], asked["errwrite"])
        environment = os.environ if asked["env"] is None else asked["env"]
        job = {
            "words": command[1 + switches :],
            "strict": bool(switches),
            "folder": os.fspath(asked["cwd"] or Path.cwd()),
            "environment": dict(environment),
            "session": asked["start_new_session"],
        }
        self.pid = _fork(job, [number if stream < 0 else stream for number, stream in enumerate(streams)])
        self._child_created = True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[end] for end in ends))  # type: ignore[attr-defined]


def run(
    args: Sequence[str | os.PathLike[str]], *, check: bool = False, timeout: float | None = None, **options: Any
) -> "subprocess.CompletedProcess[Any]":
    """Run a command to its end, as `subprocess.run` does."""
    if options.pop("capture_output", False):
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Process(args, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    ended = subprocess.CompletedProcess(args, process.returncode, out, err)
    if check:
        ended.check_returncode()
    return ended


def _forks(command: list[str], asked: Mapping[str, Any]) -> bool:
    """Whether a fork is like the process that is asked for: same interpreter, none of its switches."""
    if not sys.platform.startswith("linux") or any(name.startswith(COVERED) for name in os.environ):
        return False
    environment = os.environ if asked["env"] is None else asked["env"]
    own = {name for name in environment if name.startswith("PYTHON") and environment[name] != os.environ.get(name)}
    return (
        command[0] == sys.executable
        and len(command) > 1
        and (command[1] in ("-c", "-m") or not command[1].startswith("-"))
        and own <= HARMLESS
        and all(asked[name] == usual for name, usual in _CHANGED.items())
    )


@functools.cache
def _parent() -> socket.socket:
    """The process that forks, by the way to it; it ends when this one does."""
    assert ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1) == 0, os.strerror(ctypes.get_errno())
    here, there = socket.socketpair()
    with there:
        command = [sys.executable, "-P", Path(__file__).with_name("forking.py"), str(there.fileno())]
        made = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONUTF8": "1"}
        parent = subprocess.Popen(command, pass_fds=[there.fileno()], cwd=ROOT, env=made, stdin=subprocess.DEVNULL)
    parent.returncode = 0  # it outlives every test, and nobody waits for it
    atexit.register(here.close)
    return here


def _fork(job: Mapping[str, Any], streams: list[int]) -> int:
    """The pid of a new child of this process, which does the job."""
    text = json.dumps(job).encode()
    with _ONE_AT_A_TIME:
        to = _parent()
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
        to.sendmsg([len(text).to_bytes(4, "big")], passed)
        to.sendall(text)
        answer = to.recv(8)
    assert len(answer) == 8, "the process that forks has ended"
    return int.from_bytes(answer, "big")
