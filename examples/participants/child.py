"""The child's side of the launcher: report that the process is ready, and end when the parent ends.

Invariant: no child outlives its parent, however the parent ended: the socket between them closes with it.
"""

import os
import signal
import socket
import threading
from typing import Any

import msgspec


def report_ready(parent_fd: int | None, **facts: Any) -> None:
    """Report to the launcher that this process is serving, and watch the launcher; does nothing if started by hand.

    Args:
        parent_fd: this end of the launcher's socket pair, as given with ``--parent-fd``.
        facts: what the launcher needs to know, such as ``port``; must be JSON.
    """
    if parent_fd is None:
        return
    parent = socket.socket(fileno=parent_fd)
    parent.sendall(msgspec.json.encode(facts) + b"\n")
    threading.Thread(target=_end_with, args=(parent,), name="parent-watch", daemon=True).start()


def _end_with(parent: socket.socket) -> None:
    while parent.recv(64):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
