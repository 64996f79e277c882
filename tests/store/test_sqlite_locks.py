"""The locks between processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from durable_core.stores.sqlite.locks import FileLock, worker_lock
from tests import forked


def test_one_holder_at_a_time(tmp_path: Path):
    """A second lock on the file is refused, also within a process, until the first is released."""
    one, two = FileLock(str(tmp_path / "lock")), FileLock(str(tmp_path / "lock"))
    assert one.try_acquire()
    assert one.try_acquire(), "its holder may ask again"
    assert not two.try_acquire()
    assert not two.acquire(0.01)
    one.release()
    assert two.acquire(0.01)
    two.close()
    assert one.try_acquire()
    one.close()


def test_only_the_owner_of_the_file_may_read_it(tmp_path: Path):
    """Its mode is 0600."""
    lock = FileLock(str(tmp_path / "lock"))
    assert lock.try_acquire()
    assert Path(lock.path).stat().st_mode & 0o777 == 0o600
    lock.close()


def test_a_lock_on_a_removed_file_counts_for_nothing(tmp_path: Path):
    """Who had opened the file before it was removed locks the new one of that name, as everybody else."""
    one, two, three = (FileLock(str(tmp_path / "lock")) for _ in range(3))
    assert one.try_acquire()
    assert not two.try_acquire()
    one.remove()
    assert not one.has_name()
    assert two.try_acquire()
    assert not three.try_acquire()
    assert two.has_name()
    two.remove()
    three.close()
    assert not Path(two.path).exists()


def test_only_its_holder_removes_the_file(tmp_path: Path):
    """``remove`` without the lock just lets go."""
    one, two = FileLock(str(tmp_path / "lock")), FileLock(str(tmp_path / "lock"))
    assert one.try_acquire()
    assert not two.try_acquire()
    two.remove()
    assert one.has_name()
    one.close()


def test_a_dropped_lock_is_free(tmp_path: Path):
    """A store that was forgotten without ``close`` does not look alive."""
    one = FileLock(str(tmp_path / "lock"))
    assert one.try_acquire()
    del one
    two = FileLock(str(tmp_path / "lock"))
    assert two.try_acquire()
    two.close()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path):
    """The lock dies with its holder, although a child that it forked lives on."""
    code = """
import os, sys, time
from durable_core.stores.sqlite.locks import FileLock
lock = FileLock(sys.argv[1])
assert lock.try_acquire()
if os.fork() == 0:
    print("child", flush=True)
    sys.stdin.read()
    os._exit(0)
os._exit(0)
"""
    path = str(tmp_path / "lock")
    with forked.Process(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "child\n"
        parent.wait()  # the child still runs: it waits for the end of its input
        lock = FileLock(path)
        assert lock.acquire(5)
        lock.close()


@pytest.mark.parametrize("worker", ["w1", "../w", "a/b", "x" * 5000, "é", "\0", "\udc80", ""])
def test_a_workers_file_is_beside_the_database(tmp_path: Path, worker: str):
    """Whatever its name, the file is in the database's directory, and different from others'."""
    lock = worker_lock(str(tmp_path / "x.db"), worker)
    assert lock.try_acquire()
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("x.db-worker-")
    other = worker_lock(str(tmp_path / "x.db"), worker + "2")
    assert other.path != lock.path
    lock.remove()
