"""Locks between processes: one for the writer, one for each live worker.

Both are ``flock`` locks: the kernel drops them when their holder dies, however it dies, so that a lock that is free
is proof of death and nobody waits for a lease. They belong to the open file, not to the process, so that two stores
in one process exclude each other too.

Invariant: files of worker locks are made, tried and removed only while the write lock is held. That is why nobody
can remove a file that somebody else has just locked.
"""

import contextlib
import fcntl
import hashlib
import os
import time
import weakref
from pathlib import Path
from urllib.parse import quote

LONGEST_NAME = 100
"""Of a worker, in a file's name; a longer one is hashed."""

_FIRST_PAUSE_S = 0.000_05
_LONGEST_PAUSE_S = 0.002


class FileLock:
    """An exclusive lock on the file at ``path``, which is made if it does not exist, readable by its owner only."""

    __slots__ = ("__weakref__", "_fd", "held", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.held = False
        self._fd: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free now; never blocks. Raises ``OSError`` where the file cannot be made."""
        while not self.held:
            if self._fd is None:
                self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                _open_locks.add(self)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            # The last one to leave removes the file. A lock on a file without a name excludes nobody: take a new one.
            if self.has_name():
                self.held = True
            else:
                self.close()
        return True

    def acquire(self, timeout_s: float) -> bool:
        """Take the lock, waiting up to ``timeout_s`` for it. Blocks the thread."""
        # flock has no time limit of its own, and a holder may be stopped for ever: so ask again and again, as SQLite's
        # own busy handler does. The pauses stay short, since holders keep the lock for one fsync at most.
        give_up_at = time.monotonic() + timeout_s
        pause_s = _FIRST_PAUSE_S
        while not self.try_acquire():
            if time.monotonic() >= give_up_at:
                return False
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        return True

    def release(self) -> None:
        """Let the next one in. Harmless where the lock is not held."""
        if self.held and self._fd is not None:
            self.held = False
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def remove(self) -> None:
        """Remove the file and let go of it. Only its holder may."""
        if self.held:
            Path(self.path).unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file, and with it of the lock; the file stays. Safe to repeat."""
        if self._fd is not None:
            os.close(self._fd)
        self._forget()

    def has_name(self) -> bool:
        """Whether the file is still in its directory, so that others meet this lock."""
        return self._fd is not None and os.fstat(self._fd).st_nlink > 0

    def __del__(self) -> None:
        """A store that was dropped without ``close`` lives no more, though its process does."""
        self.close()

    def _forget(self) -> None:
        self._fd = None
        self.held = False
        _open_locks.discard(self)

    def close_in_child(self) -> None:
        """In a forked child: give up the copy of the parent's file, else the lock would outlive the parent."""
        if self._fd is not None:
            with contextlib.suppress(OSError):  # the child may have closed all its files already
                os.close(self._fd)
        self._forget()


_open_locks: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for lock in list(_open_locks):
        lock.close_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)


class WriteLock:
    """The lock that every writer and checkpoint of ``database`` goes under, with a queue for those waiting.

    A writer first takes the place at the head of the queue, and gives it up on getting the lock. Without the
    queue, a process that commits all the time takes the lock again before anybody else has woken up: measured,
    another one waited for 300 commits to pass.
    """

    __slots__ = ("_line", "_lock", "path")

    def __init__(self, database: str) -> None:
        self.path = f"{database}-lock"
        self._lock = FileLock(self.path)
        self._line = FileLock(f"{database}-line")

    def try_acquire(self) -> bool:
        """Take the lock if it is free and nobody waits for it; never blocks."""
        if self._lock.held:
            return True
        if not self._line.try_acquire():
            return False
        try:
            return self._lock.try_acquire()
        finally:
            self._line.release()

    def acquire(self, timeout_s: float) -> bool:
        """Take the lock when it is this one's turn, waiting up to ``timeout_s``. Blocks the thread."""
        give_up_at = time.monotonic() + timeout_s
        if self._lock.held:
            return True
        if not self._line.acquire(timeout_s):
            return False
        try:
            return self._lock.acquire(max(0.0, give_up_at - time.monotonic()))
        finally:
            self._line.release()

    def release(self) -> None:
        """Let the next one in. Harmless where the lock is not held."""
        self._lock.release()

    def remove(self) -> None:
        """Remove the files, as far as nobody else uses them, and let go of them."""
        if self._lock.held and self._line.try_acquire():
            self._line.remove()
        self._lock.remove()
        self._line.close()

    def close(self) -> None:
        """Let go of the files, and with them of the lock; they stay. Safe to repeat."""
        self._lock.close()
        self._line.close()


def worker_lock(database: str, worker: str) -> FileLock:
    """The lock that ``worker`` holds while it lives."""
    return FileLock(worker_path(database, worker))


def worker_path(database: str, worker: str) -> str:
    """The file of that lock."""
    name = quote(worker, safe="", errors="surrogatepass")
    if len(name) > LONGEST_NAME:
        name = hashlib.blake2b(worker.encode(errors="surrogatepass"), digest_size=20).hexdigest()
    return f"{database}-worker-{name}"


def is_held(path: str) -> bool:
    """Whether somebody holds the lock on the file at ``path``, without making it or keeping others from it.

    For an instant it is asked for as a shared lock, so a worker that is just then looked for counts as alive once more.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
