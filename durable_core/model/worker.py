"""A worker's name: a random part that no other has, then the machine and the process that it is in.

The journal keeps the name with each entry, so who wrote it can be told for as long as the journal is there, also from
elsewhere, and after the worker has gone.
"""

import re

LONGEST_HOST = 40
"""Of a machine's name; a longer one is cut. A name stands in every row of a journal."""

_NAME = re.compile(r"w-[^@]+@([^@:]+):([0-9]{1,18})")
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")


def worker_name(token: str, *, host: str, pid: int) -> str:
    """The name of a worker: ``w-397fc32bfe62d5ac@orders-1:4711``.

    >>> worker_name("397fc32bfe62d5ac", host="orders-1", pid=4711)
    'w-397fc32bfe62d5ac@orders-1:4711'
    """
    return f"w-{token}@{_OTHER.sub('-', host)[:LONGEST_HOST] or 'unknown'}:{pid}"


def place_of(worker: str) -> tuple[str, int] | None:
    """The machine and the process of a worker; None where its name does not say, as in journals of earlier releases.

    >>> place_of("w-397fc32bfe62d5ac@orders-1:4711")
    ('orders-1', 4711)
    """
    found = _NAME.fullmatch(worker)
    return None if found is None else (found[1], int(found[2]))
