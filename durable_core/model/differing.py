"""Where two calls' stored arguments differ, told without the values: these may be secret, and a message is logged.

Invariant: nothing of a value leaves this module but a digest under a key that only the store has. Names of parameters
and of fields do leave it: they are all that tells a person where to look.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any

import msgspec

Json = dict[str, Any] | list[Any] | str | int | float | bool | None
MOST = 5
"""Places that are told."""
LONGEST = 40
"""Characters of a field's name."""


def digest(payload: bytes | None, *, key: bytes) -> str:
    """10 hex digits that are the same for the same arguments of one run; without ``key`` nothing can be tried out."""
    return blake2b(payload or b"", key=key, digest_size=5).hexdigest()


def differing(recorded: bytes | None, asked: bytes | None) -> tuple[str, ...]:
    """The places at which two encoded calls differ, such as ``args[0].amount``: at most ``MOST``, and then ``...``."""
    try:
        found = list(islice(_places(_call(recorded), _call(asked), ""), MOST + 1))
    except (msgspec.DecodeError, RecursionError):
        found = []
    return tuple([*found[:MOST], "..."] if len(found) > MOST else found) or ("the encoding",)


def _call(payload: bytes | None) -> dict[str, Any]:
    """Positional arguments under ``args``, the others under their names."""
    call: Json = msgspec.json.decode(payload or b"[]")
    return {"args": call.get("args"), **call.get("kwargs", {})} if isinstance(call, dict) else {"args": call}


def _places(one: Json, other: Json, path: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        yield from _in_objects(one, other, path)
    elif isinstance(one, list) and isinstance(other, list):
        yield from _in_arrays(one, other, path)
    elif type(one) is not type(other) or one != other:
        yield path


def _in_arrays(one: Sequence[Any], other: Sequence[Any], path: str) -> Iterator[str]:
    for place in range(max(len(one), len(other))):
        where = f"{path}[{place}]"
        if place >= len(one) or place >= len(other):
            yield f"{where} (only in {'the code' if place >= len(one) else 'the journal'})"
        else:
            yield from _places(one[place], other[place], where)


def _in_objects(one: Mapping[str, Any], other: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in sorted({*one, *other}):
        where = _field(path, name)
        if name not in one or name not in other:
            yield f"{where} (only in {'the journal' if name in one else 'the code'})"
        else:
            yield from _places(one[name], other[name], where)


def _field(path: str, name: str) -> str:
    short = name if len(name) <= LONGEST else f"{name[:LONGEST]}…"
    if not short.isidentifier():
        return f"{path}[{short!r}]"
    return f"{path}.{short}" if path else short
