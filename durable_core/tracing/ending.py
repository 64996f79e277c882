"""Shuts something down at the end of the process, and waits for it only so long.

A library's own hook may wait for half a minute for a collector that is down. Invariant: the process ends, even if
the shutdown hangs. The thread that does it is there from the beginning: Python 3.12 makes none at the end.
"""

import atexit
import contextlib
import os
import threading
from collections.abc import Callable


class AtExit:
    """Calls ``shut_down`` once, on a thread of its own; nobody waits for it for longer than ``within_s``."""

    def __init__(self, shut_down: Callable[[], object], *, within_s: float) -> None:
        self._shut_down = shut_down
        self._within_s = within_s
        self._begin()
        atexit.register(self)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Have a thread wait for the end; a fork has none of its parent's."""
        self._asked, self._done = threading.Event(), threading.Event()
        threading.Thread(target=self._wait, args=(self._asked, self._done), name="last-spans", daemon=True).start()

    def _wait(self, asked: threading.Event, done: threading.Event) -> None:
        asked.wait()
        with contextlib.suppress(Exception):  # the process is at its end: nobody is left to read it
            self._shut_down()
        done.set()

    def __call__(self) -> None:
        """Shut it down; the first call alone waits."""
        if not self._asked.is_set():
            self._asked.set()
            self._done.wait(self._within_s)
