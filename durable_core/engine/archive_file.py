"""The file that purged runs are kept in: one line of JSON for each, on disk before its run is deleted.

Invariant: what was written before ``sync`` returned is on disk; a line that a crash has cut short is ended before the
next one, so that it spoils no other.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from stat import S_ISREG

from durable_core.errors import StoreError
from durable_core.model.archive import line_of
from durable_core.model.entry import Entry
from durable_core.model.run import RunRecord

HEAD = b'{"archive":'
"""What every archive begins with, as far as the first line got."""
CLOSED = -1
"""No file has this number."""


class ArchiveFile:
    """The archive at ``path``, appended to; made where there is none, readable by its owner only.

    Raises:
        StoreError: it cannot be written, or another process writes to it. Nothing was purged for it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # A purge that is cancelled leaves its thread at work, and a number of a closed file may soon be another file's.
        self._turn = threading.Lock()
        with self._told():
            made = not Path(path).exists()
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            self._prepare(made=made)
        except BaseException:
            os.close(self._fd)
            raise

    def _prepare(self, *, made: bool) -> None:
        with self._told():
            if not S_ISREG(os.fstat(self._fd).st_mode):
                raise OSError("it is no ordinary file")
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if made:
                _sync_directory(self.path)
            self._size = os.fstat(self._fd).st_size
            head = os.pread(self._fd, len(HEAD), 0)
            if not HEAD.startswith(head):  # a slip of the hand must not spoil another file, such as the database
                raise OSError("it holds something else than an archive")
            if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
                self._write(b"\n")

    def write(self, record: RunRecord, entries: Sequence[Entry]) -> None:
        """Write the line of a run, which is on disk after ``sync``. Raises ``StoreError``, and leaves no part of it."""
        line = line_of(record, entries)
        with self._turn, self._told():
            try:
                self._write(line)
            except OSError:
                with contextlib.suppress(OSError):  # the next one to open the file ends the line
                    os.ftruncate(self._fd, self._size)
                raise
            self._size = os.fstat(self._fd).st_size

    def sync(self) -> None:
        """Return once all lines are on disk, under the file's name."""
        with self._turn, self._told():
            os.fsync(self._fd)
            if not os.fstat(self._fd).st_nlink:
                raise OSError("it was removed meanwhile")

    def close(self) -> None:
        """Let go of the file, once what a thread still does to it is done. What comes later fails."""
        with self._turn:
            os.close(self._fd)
            self._fd = CLOSED

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        while left:
            left = left[os.write(self._fd, left) :]

    @contextlib.contextmanager
    def _told(self) -> Generator[None]:
        try:
            yield
        except BlockingIOError as error:
            raise StoreError(
                f"another process writes to the archive {self.path}; nothing was purged. Wait for it, or name another"
            ) from error
        except (OSError, UnicodeEncodeError) as error:
            raise StoreError(
                f"the archive {self.path} cannot be written ({error}), so what was to be in it was not purged; "
                "name a file on a disk with room, in a directory that this user may write"
            ) from error


def _sync_directory(path: str) -> None:
    directory = os.open(Path(path).absolute().parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
