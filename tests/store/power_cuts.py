"""The disk images that a power cut could leave, made of what was recorded.

What came before a file's last sync, or the directory's, is durable. Of everything since, each write, length and name is
kept, dropped or torn, whatever became of those before and after it: a disk writes in any order. A torn write keeps
its first half, its second half, or, where it makes the file longer, only the length, filled with zeros. SQLite assumes
that bytes beside a write stay as they are (``SQLITE_IOCAP_POWERSAFE_OVERWRITE``), and so do these images.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import attrs

from tests.store.disk import Acknowledged, Cut, DirectorySynced, Named, Op, Synced, Written

Tear = Literal["", "first half", "second half", "zeros"]
TEARS: tuple[Tear, ...] = ("first half", "second half", "zeros")
Kept = tuple[tuple[int, Tear], ...]
"""Positions of the operations since the last syncs that reached the disk."""


@attrs.frozen
class Base:
    """What is durable for sure."""

    names: dict[str, int]
    contents: dict[int, bytes]


@attrs.frozen
class Image:
    """One state of the disk after a power cut, and how much had been acknowledged before it."""

    base: Base = attrs.field(repr=False)
    ops: Sequence[Op] = attrs.field(repr=False)
    kept: Kept
    acknowledged: int
    cut_after: int
    """The position of the last operation before the cut."""

    def files(self) -> dict[str, bytes]:
        names = dict(self.base.names)
        contents = {file: bytearray(data) for file, data in self.base.contents.items()}
        for position, tear in self.kept:
            apply(self.ops[position], names, contents, tear)
        return {name: bytes(contents.get(file, b"")) for name, file in names.items()}

    def lay(self, directory: Path) -> None:
        """Make ``directory`` this image."""
        for path in directory.iterdir():
            path.unlink()
        for name, data in self.files().items():
            (directory / name).write_bytes(data)


def apply(op: Op, names: dict[str, int], contents: dict[int, bytearray], tear: Tear = "") -> None:
    """Do ``op``, or the part of it that ``tear`` leaves."""
    match op:
        case Named(name=name, file=None):
            names.pop(name, None)
        case Named(name=name, file=int(file)):
            names[name] = file
        case Cut(file=file, size=size):
            content = contents.setdefault(file, bytearray())
            content[size:] = b"" if len(content) >= size else bytes(size - len(content))
        case Written(file=file, offset=offset, data=data):
            content = contents.setdefault(file, bytearray())
            before, end = len(content), offset + len(data)
            content.extend(bytes(max(0, end - before)))
            half = len(data) // 2 if len(data) < 1024 else len(data) // 1024 * 512
            first = half if tear == "second half" else 0
            last = (
                half
                if tear == "first half"
                else min(len(data), max(0, before - offset))
                if tear == "zeros"
                else len(data)
            )
            content[offset + first : offset + last] = data[first:last]
        case _:
            raise AssertionError(op)


def images(ops: Sequence[Op], *, thorough: bool = False) -> list[Image]:
    """Every image that the rules of ``choices`` give at any moment, each once, with the most that was acknowledged."""
    found: dict[tuple[int, Kept], Image] = {}
    base, pending, acknowledged, bases = Base({}, {}), list[int](), 0, 0
    rng = random.Random(len(ops))
    for position, op in enumerate(ops):
        if isinstance(op, Acknowledged):
            acknowledged = op.count
        elif isinstance(op, Synced | DirectorySynced):
            settled = [at for at in pending if settles(op, ops[at])]
            if settled:
                base, bases = settle(base, [ops[at] for at in settled]), bases + 1
                pending = [at for at in pending if at not in settled]
        else:
            pending.append(position)
        following = ops[position + 1] if position + 1 < len(ops) else None
        whole = following is None or isinstance(op, Acknowledged) or isinstance(following, Synced | DirectorySynced)
        for kept in choices(ops, pending, whole=whole, thorough=thorough, rng=rng):
            found[bases, kept] = Image(base, ops, kept, acknowledged, position)
    return list(found.values())


def settles(sync: Op, op: Op) -> bool:
    """Whether ``sync`` makes ``op`` durable."""
    if isinstance(op, Named):
        return isinstance(sync, DirectorySynced)
    return isinstance(sync, Synced) and isinstance(op, Written | Cut) and sync.file == op.file


def settle(base: Base, ops: Iterable[Op]) -> Base:
    names = dict(base.names)
    touched = {op.file: bytearray(base.contents.get(op.file, b"")) for op in ops if isinstance(op, Written | Cut)}
    for op in ops:
        apply(op, names, touched)
    return Base(names, base.contents | {file: bytes(content) for file, content in touched.items()})


def choices(
    ops: Sequence[Op], pending: Sequence[int], *, whole: bool, thorough: bool, rng: random.Random
) -> Iterator[Kept]:
    """What may be kept of ``pending``: all; the last torn; and, right before a sync, each of it torn, dropped or alone.

    Writes are torn in one way each; ``thorough`` tears them in all ways, and adds images at random.
    """
    every: Kept = tuple((at, "") for at in pending)
    yield every
    for index, at in enumerate(pending):
        if whole or at == pending[-1]:
            rest = every[:index], every[index + 1 :]
            if isinstance(ops[at], Written):
                for tear in TEARS if thorough else (TEARS[at % len(TEARS)],):
                    yield rest[0] + ((at, tear),) + rest[1]
            if whole:
                yield rest[0] + rest[1]
                yield (every[index],)
    if whole:
        yield ()
        for _ in range(20 if thorough and pending else 0):
            some = (at for at in pending if rng.random() < 0.7)
            yield tuple((at, rng.choice(("", *TEARS)) if isinstance(ops[at], Written) else "") for at in some)
