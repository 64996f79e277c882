"""Step keys: a name plus its occurrence in its scope, never an index alone.

A key is ``scope/name`` for the first occurrence and ``scope/name#2`` for the second. A step that serves another
(its compensation, its probe) has that one's key and a suffix: ``charge~undo``. Inserting a step into a body therefore
moves no other step's key, except later occurrences of its own name.
"""

import hashlib

from durable_core.errors import DefinitionError
from durable_core.model.duration import shown

LONGEST_NAME = 200
LONGEST_ID = 500
RESERVED = frozenset("/#~")


def check_name(name: object, *, what: str) -> str:
    """Return ``name`` where it can be part of a key; raise ``DefinitionError`` where it cannot."""
    if not isinstance(name, str):
        raise DefinitionError(f"{what} is named {shown(name)}", "Give it a name that is a text")
    if not name or len(name) > LONGEST_NAME:
        raise DefinitionError(f"{what} has a name of {len(name)} characters", f"Give it one of 1 to {LONGEST_NAME}")
    if not name.isprintable() or RESERVED & set(name):
        raise DefinitionError(
            f"{what} is named {name!r}; a name is printable and has none of {' '.join(sorted(RESERVED))}, "
            "which separate the parts of a step's key"
        )
    return name


def check_id(run_id: object) -> None:
    """Refuse an id that cannot be shown, listed or typed again, or that could be the address of a child."""
    if not isinstance(run_id, str) or not run_id or len(run_id) > LONGEST_ID or not run_id.isprintable():
        raise DefinitionError(
            f"the id {str(run_id)[:60]!r} cannot be used: give a text of 1 to {LONGEST_ID} printable characters; "
            "nothing was started"
        )
    if "/" in run_id:
        raise DefinitionError(
            f"the id {run_id[:60]!r} cannot be used: `/` stands between a parent's id and the key of its child",
            "Use another character, such as `-` or `:`; nothing was started",
        )


def name_of(key: str) -> str:
    """The step's name in ``key``: without its scope, occurrence and suffix."""
    return key.rpartition("/")[2].partition("~")[0].partition("#")[0]


def derived(key: str, suffix: str) -> str:
    """The key of a step that serves the step at ``key``."""
    return f"{key}~{suffix}"


def served(key: str) -> str:
    """The key of the step that the step at ``key`` serves; ``key`` itself where it serves none."""
    return key.partition("~")[0]


def idempotency_key(uid: bytes, key: str, edition: int = 0) -> str:
    """32 hex digits, the same for each attempt of one step of one run, and of no other.

    A step that is begun anew has another ``edition``, and with it another key.

    They derive from the run's random ``uid``, not from the user's id, so that an id used again after a purge never
    meets the answers that a participant stored for its first bearer.
    """
    told = derived(key, str(edition + 1)) if edition else key
    return hashlib.blake2b(told.encode(), key=uid, digest_size=16).hexdigest()


class Scope:
    """Hands out keys under one prefix. The order of calls is the body's own, so a replay gets the same keys."""

    __slots__ = ("_counts", "prefix")

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._counts: dict[str, int] = {}

    def key(self, name: str) -> str:
        """The key of the next occurrence of ``name``."""
        count = self._counts.get(name, 0) + 1
        self._counts[name] = count
        return self.prefix + name if count == 1 else f"{self.prefix}{name}#{count}"

    def inner(self, name: str) -> "Scope":
        """A new scope within this one."""
        return Scope(self.key(name) + "/")
