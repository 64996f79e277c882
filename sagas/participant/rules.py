"""What a call under an idempotency key is, as a function of what is stored under that key.

    a step's key      nothing -> answered (once) -> answered, undone (undo)
                      nothing -> barred (happened, undo)

Invariant: a key has one answer, or is barred, for ever; and a step is undone by one key. This is the barrier of
sub-transactions as in DTM and Seata (docs/adr/0023-participants.md): the unique key decides which call came first.
"""

from enum import StrEnum

import attrs

from durable_core import DefinitionError
from sagas.errors import KeyReused, SagasError, Undone

LONGEST_KEY = 255
"""Characters that a key may have."""


class Kind(StrEnum):
    """What a key was used for. Stored by value."""

    STEP = "step"
    BARRIER = "barrier"
    """A step's key, taken before the step came: it is refused from now on."""
    UNDO = "undo"


@attrs.frozen
class Answer:
    """An answer as it is stored."""

    payload: bytes
    """JSON."""
    declared: str
    """The name of the type that it was declared as."""


@attrs.frozen
class Record:
    """What is stored under a key."""

    key: str
    kind: Kind
    request: bytes | None = None
    """The step's request as JSON, keys in order."""
    answer: Answer | None = None
    """None for a barrier, and while the call has not ended."""
    of: str | None = None
    """The key of the step that this undo is about."""
    undone_by: str | None = None
    """The key of the undo of this step or barrier."""


@attrs.frozen
class First:
    """Nothing was done under this key: the caller's code does it now."""


@attrs.frozen
class Repeat:
    """It was done: this is its answer."""

    answer: Answer


@attrs.frozen
class Refuse:
    """The call must not be done."""

    error: SagasError


@attrs.frozen
class UndoIt:
    """The step was not undone before."""

    step: Answer | None
    """What the step answered; None: it never came."""


@attrs.frozen
class UndoneBefore:
    """Another undo of this step came first."""

    by: str
    step: Answer | None


def on_once(found: Record | None, key: str, request: bytes) -> First | Repeat | Refuse:
    """Answer what a step's call is.

    Args:
        found: what another call has stored under ``key``; None: nothing, and the key is now this call's.
        key: the call's idempotency key.
        request: its request, as in ``Record``.
    """
    match found:
        case None:
            return First()
        case Record(kind=Kind.BARRIER):
            return Refuse(_undone(key))
        case Record(kind=Kind.UNDO):
            return Refuse(_used_for(found, "a step"))
        case Record(answer=None):
            return Refuse(_open(key))
        case Record(answer=Answer() as answer) if found.request == request:
            return Repeat(answer)
        case _:
            return Refuse(_reused(key, found.request or b"", request))


def on_undo(found: Record | None, key: str, of: str) -> First | Repeat | Refuse:
    """Answer what an undo's call is, as for ``on_once``; ``of`` is the key of the step that it is about."""
    match found:
        case None:
            return First()
        case Record(kind=Kind.STEP | Kind.BARRIER):
            return Refuse(_used_for(found, "an undo"))
        case Record(answer=None):
            return Refuse(_open(key))
        case Record(answer=Answer() as answer) if found.of == of:
            return Repeat(answer)
        case _:
            text = f"idempotency key {key!r} was used for the undo of {found.of!r}, and now for that of {of!r}"
            return Refuse(KeyReused(text, _ADVICE, key=key))


def on_step_to_undo(found: Record | None, of: str) -> UndoIt | UndoneBefore | Refuse:
    """Answer what there is to undo.

    Args:
        found: what is stored under the step's key; None: nothing, and there is a barrier now.
        of: the step's key.
    """
    match found:
        case None:
            return UndoIt(None)
        case Record(kind=Kind.UNDO):
            return Refuse(_used_for(found, "a step that is to be undone"))
        case Record(kind=Kind.STEP, answer=None):
            return Refuse(_open(of))
        case Record(undone_by=by):
            return UndoIt(found.answer) if by is None else UndoneBefore(by, found.answer)


def on_happened(found: Record | None, key: str) -> Answer | Refuse | None:
    """Answer whether a step happened: its answer; None: it did not, and it is barred now. ``found`` as above."""
    match found:
        case None | Record(kind=Kind.BARRIER):
            return None
        case Record(kind=Kind.UNDO):
            return Refuse(_used_for(found, "a step that is asked about"))
        case Record(answer=None):
            return Refuse(_open(key))
        case Record(answer=answer):
            return answer


def check_key(key: object, what: str) -> str:
    """Return ``key``, if it can be one.

    Raises:
        DefinitionError: it is no text of 1 to 255 characters, or has characters that databases change or refuse.
    """
    if isinstance(key, str) and 0 < len(key) <= LONGEST_KEY and key.isprintable() and key == key.strip():
        return key
    shown = key if not isinstance(key, str) or len(key) <= LONGEST_KEY else f"{key[:20]}... ({len(key)} characters)"
    raise DefinitionError(
        f"{what} is {shown!r}; give a text of 1 to {LONGEST_KEY} printable characters, without a space around it, "
        "such as sagas.current().idempotency_key. Nothing was changed"
    )


_ADVICE = "Nothing was done. Use a key of its own for each call, such as sagas.current().idempotency_key"
_SHOWN = 200


def _undone(key: str) -> Undone:
    text = f"the call under idempotency key {key!r} came too late: it was undone, or was said not to have happened"
    return Undone(text, "Nothing was done. Do not repeat the call; a new one needs a new key", key=key)


def _used_for(found: Record, now: str) -> KeyReused:
    before = "an undo" if found.kind is Kind.UNDO else "a step"
    return KeyReused(f"idempotency key {found.key!r} was used for {before}, and now for {now}", _ADVICE, key=found.key)


def _reused(key: str, first: bytes, now: bytes) -> KeyReused:
    text = f"idempotency key {key!r} was first used for the request {_start(first)}, and now for {_start(now)}"
    return KeyReused(text, _ADVICE, key=key)


def _start(payload: bytes) -> str:
    text = payload.decode(errors="replace")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _open(key: str) -> DefinitionError:
    return DefinitionError(
        f"the call under idempotency key {key!r} has not ended in this very transaction. End its block before the key "
        "is used again"
    )
