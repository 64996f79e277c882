"""The disk below SQLite: a VFS that records what is written and synced, or refuses the n-th call.

It is put before the VFS of the very SQLite that Python uses, found by its loaded library. Only calls that read or
change a file's content or name come here; locks go where they always go. Our own calls on names and directories are
recorded where ``os`` makes them. Not recorded: ``-shm`` files, which SQLite makes anew after a power cut, and lock
files, which hold nothing.
"""

import ctypes as c
import functools
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

# -- what is recorded --------------------------------------------------------------------------------------------------


@attrs.frozen
class Named:
    """A name in the directory leads to another file now: ``file`` is None where it was removed."""

    name: str
    file: int | None


@attrs.frozen(eq=False)
class Written:
    file: int
    offset: int
    data: bytes = attrs.field(repr=len)


@attrs.frozen(eq=False)
class Cut:
    """The file's length was set."""

    file: int
    size: int


@attrs.frozen
class Synced:
    file: int


@attrs.frozen
class DirectorySynced:
    """All names are durable."""


@attrs.frozen
class Acknowledged:
    """The store has said that this much is durable."""

    count: int


Op = Named | Written | Cut | Synced | DirectorySynced | Acknowledged


@attrs.define
class Recorder:
    """What happens to the files of one directory, in order."""

    directory: str
    ops: list[Op] = attrs.field(factory=list[Op])
    acknowledged: int = 0
    _files: dict[str, int] = attrs.field(factory=dict[str, int])
    _made: int = 0

    def acknowledge(self) -> None:
        self.acknowledged += 1
        self.ops.append(Acknowledged(self.acknowledged))

    def file(self, path: str) -> int:
        """The file that is at ``path`` now; one not seen before is new, and empty."""
        if path not in self._files:
            self._made += 1
            self._files[path] = self._made
            self.ops.append(Named(Path(path).name, self._made))
        return self._files[path]

    def removed(self, path: str) -> None:
        if self._files.pop(path, None) is not None:
            self.ops.append(Named(Path(path).name, None))

    def renamed(self, old: str, new: str) -> None:
        if old in self._files:
            self._files[new] = self._files.pop(old)
            self.ops += [Named(Path(new).name, self._files[new]), Named(Path(old).name, None)]

    def is_own(self, descriptor: int) -> bool:
        """Whether that is the directory."""
        return os.path.samestat(os.fstat(descriptor), Path(self.directory).stat())


# -- SQLite's interface to a disk, https://www.sqlite.org/c3ref/vfs.html and io_methods.html ---------------------------

OPEN = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_void_p, c.c_void_p, c.c_int, c.c_void_p)
DELETE = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_char_p, c.c_int)
CLOSE = c.CFUNCTYPE(c.c_int, c.c_void_p)
MOVE = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_void_p, c.c_int, c.c_int64)
TRUNCATE = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int64)
SYNC = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int)
SYNC_DIRECTORY_OF = 0x00080000 | 0x00000800 | 0x00004000
"""SQLite syncs the directory with the first sync of a file that it made as one of these: a log or a journal."""
CREATES = 0x00000004
OK = 0


class Vfs(c.Structure):
    _fields_ = (
        ("iVersion", c.c_int),
        ("szOsFile", c.c_int),
        ("mxPathname", c.c_int),
        ("pNext", c.c_void_p),
        ("zName", c.c_char_p),
        ("pAppData", c.c_void_p),
        ("xOpen", OPEN),
        ("xDelete", DELETE),
        ("others", c.c_void_p * 16),
    )


class Methods(c.Structure):
    _fields_ = (
        ("iVersion", c.c_int),
        ("xClose", CLOSE),
        ("xRead", MOVE),
        ("xWrite", MOVE),
        ("xTruncate", TRUNCATE),
        ("xSync", SYNC),
        ("others", c.c_void_p * 13),
    )


class File(c.Structure):
    _fields_ = (("pMethods", c.POINTER(Methods)),)


@functools.cache
def library() -> c.CDLL:
    """The library that Python's ``sqlite3`` is linked to; a Python that has SQLite built in skips the test."""
    import sqlite3  # noqa: F401, PLC0415 - loads it

    loaded = Path("/proc/self/maps")
    found = (
        {line.split()[-1] for line in loaded.read_text().splitlines() if "libsqlite3" in line}
        if loaded.exists()
        else set()
    )
    if len(found) != 1:
        pytest.skip("this Python's SQLite is no library of its own, so no disk can be put below it")
    loaded_library = c.CDLL(found.pop())
    loaded_library.sqlite3_vfs_find.restype = c.POINTER(Vfs)
    return loaded_library


Refusing = Callable[[str], int]
"""Given a call's name (``write``), the result code to give instead of making it, or 0."""


@attrs.define
class Shim:
    """The VFS in front of the real one, while ``below_sqlite`` is entered."""

    recorder: Recorder | None
    refusing: Refusing
    real: Vfs
    vfs: Vfs = attrs.field(init=False)
    _files: dict[int, tuple[int, int]] = attrs.field(factory=dict[int, tuple[int, int]])
    """By address: the file's number and the flags that it was opened with."""
    _methods: dict[int, tuple[Methods, Methods]] = attrs.field(factory=dict[int, tuple[Methods, Methods]])
    """By the address of the real methods: a copy of them, and ours."""
    _real_of: dict[int, Methods] = attrs.field(factory=dict[int, Methods])
    errors: list[BaseException] = attrs.field(factory=list[BaseException])

    def __attrs_post_init__(self) -> None:
        self.vfs = Vfs.from_buffer_copy(self.real)
        self.vfs.zName = b"recorded"
        self.vfs.pNext = None
        self.vfs.xOpen = OPEN(self._guarded(self._open))
        self.vfs.xDelete = DELETE(self._guarded(self._delete))

    def _guarded(self, call: Callable[..., int]) -> Callable[..., int]:
        """An exception cannot pass through SQLite: it is kept, and the call fails."""

        def guarded(*args: Any) -> int:
            try:
                return call(*args)
            except BaseException as error:  # noqa: BLE001 - raised when the test leaves
                self.errors.append(error)
                return 1

        return guarded

    def _open(self, vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
        if (refused := self.refusing("open")) and flags & CREATES:
            return refused
        code = self.real.xOpen(vfs, name, file, flags, out)
        opened = c.cast(file, c.POINTER(File)).contents
        if code == OK and name is not None and opened.pMethods:
            path = os.fsdecode(c.string_at(name))
            if self.recorder is not None and Path(path).parent == Path(self.recorder.directory):
                number = self.recorder.file(path)
            else:
                number = 0
            self._files[file] = (number, flags)
            real, ours = self._wrapped(c.addressof(opened.pMethods.contents))
            self._real_of[file] = real
            opened.pMethods = c.pointer(ours)
        return code

    def _wrapped(self, address: int) -> tuple[Methods, Methods]:
        if address not in self._methods:
            real = Methods.from_address(address)
            size = c.sizeof(Methods) if real.iVersion >= 3 else c.sizeof(Methods) - 2 * c.sizeof(c.c_void_p)
            ours = Methods()
            c.memmove(c.addressof(ours), address, size)
            ours.xClose = CLOSE(self._guarded(self._close))
            ours.xRead = MOVE(self._guarded(self._read))
            ours.xWrite = MOVE(self._guarded(self._write))
            ours.xTruncate = TRUNCATE(self._guarded(self._truncate))
            ours.xSync = SYNC(self._guarded(self._sync))
            self._methods[address] = (real, ours)
        return self._methods[address]

    def _record(self, file: int, op: Callable[[int], Op]) -> None:
        number, _ = self._files[file]
        if self.recorder is not None and number:
            self.recorder.ops.append(op(number))

    def _delete(self, vfs: int, name: bytes, sync: int) -> int:
        if refused := self.refusing("delete"):
            return refused
        code = self.real.xDelete(vfs, name, sync)
        if code == OK and self.recorder is not None:
            self.recorder.removed(os.fsdecode(name))
            if sync:
                self.recorder.ops.append(DirectorySynced())
        return code

    def _close(self, file: int) -> int:
        self._files.pop(file)
        return self._real_of.pop(file).xClose(file)

    def _read(self, file: int, into: int, amount: int, offset: int) -> int:
        return self.refusing("read") or self._real_of[file].xRead(file, into, amount, offset)

    def _write(self, file: int, data: int, amount: int, offset: int) -> int:
        if refused := self.refusing("write"):
            return refused
        code = self._real_of[file].xWrite(file, data, amount, offset)
        if code == OK:
            self._record(file, lambda number: Written(number, offset, c.string_at(data, amount)))
        return code

    def _truncate(self, file: int, size: int) -> int:
        if refused := self.refusing("truncate"):
            return refused
        code = self._real_of[file].xTruncate(file, size)
        if code == OK:
            self._record(file, lambda number: Cut(number, size))
        return code

    def _sync(self, file: int, flags: int) -> int:
        if refused := self.refusing("sync"):
            return refused
        code = self._real_of[file].xSync(file, flags)
        if code == OK:
            self._record(file, Synced)
            number, opened = self._files[file]
            if opened & SYNC_DIRECTORY_OF and opened & CREATES:
                self._files[file] = (number, opened & ~CREATES)
                if self.recorder is not None and number:
                    self.recorder.ops.append(DirectorySynced())
        return code


def never(call: str) -> int:
    """Refuses nothing."""
    return OK


@contextmanager
def below_sqlite(recorder: Recorder | None = None, refusing: Refusing = never) -> Generator[Shim]:
    """Put the disk below every connection that is opened meanwhile; all must be closed before this is left."""
    sqlite = library()
    default = sqlite.sqlite3_vfs_find(None)
    shim = Shim(recorder, refusing, Vfs.from_buffer_copy(default.contents))
    assert sqlite.sqlite3_vfs_register(c.byref(shim.vfs), 1) == OK
    patch = pytest.MonkeyPatch()
    if recorder is not None:
        _record_names(patch, recorder)
    try:
        yield shim
    finally:
        patch.undo()
        assert sqlite.sqlite3_vfs_register(default, 1) == OK
        assert sqlite.sqlite3_vfs_unregister(c.byref(shim.vfs)) == OK
        left = list(shim._files)
    assert not left, "a connection is still open, and its disk is gone"
    if shim.errors:
        raise shim.errors[0]


def _record_names(patch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    replace, unlink, fsync = os.replace, os.unlink, os.fsync

    def replace_recorded(old: Any, new: Any, **options: Any) -> None:
        replace(old, new, **options)
        recorder.renamed(os.fspath(old), os.fspath(new))

    def unlink_recorded(path: Any, **options: Any) -> None:
        unlink(path, **options)
        with suppress(TypeError):
            recorder.removed(os.fspath(path))

    def fsync_recorded(descriptor: int) -> None:
        fsync(descriptor)
        if recorder.is_own(descriptor):
            recorder.ops.append(DirectorySynced())

    patch.setattr(os, "replace", replace_recorded)
    patch.setattr(os, "unlink", unlink_recorded)
    patch.setattr(os, "fsync", fsync_recorded)
