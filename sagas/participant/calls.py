"""``once``, ``undo`` and ``happened``: what a participant calls in its own transaction."""

from collections.abc import Coroutine
from typing import Any, TypeVar, overload

from sqlalchemy.orm import Session

from durable_core import DefinitionError
from sagas.model.definition import DidNotHappen, Happened
from sagas.participant.answers import AnswerType, request_bytes
from sagas.participant.block import AsyncBlock, Block, Call, OncePart, UndoCall, UndoPart
from sagas.participant.rows import Rows
from sagas.participant.rules import Kind, Record, Refuse, check_key, on_happened
from sagas.participant.sessions import Async, Plain, session_of

T = TypeVar("T")
S = TypeVar("S")


@overload
def once(session: Plain, key: str, *, request: object, answer: type[T]) -> Block[Call[T]]: ...
@overload
def once(session: Plain, key: str, *, request: object, answer: object = None) -> Block[Call[Any]]: ...
@overload
def once(session: Async, key: str, *, request: object, answer: type[T]) -> AsyncBlock[Call[T]]: ...
@overload
def once(session: Async, key: str, *, request: object, answer: object = None) -> AsyncBlock[Call[Any]]: ...
def once(session: Any, key: str, *, request: object, answer: Any = None) -> Any:
    """Do a step's call once. The code that does it is the block of a ``with``.

    The block acts and sets ``call.answer`` where ``call.first`` is true. Effect and answer are durable once the caller
    commits, and not before. A repeat finds the answer, and waits for an open transaction that has the same key. A block
    that raises leaves nothing: a repeat is first again. To have a "no" repeated, store it as an answer.

    Args:
        session: a ``Session``, or an ``AsyncSession`` for ``async with``; its transaction is the caller's.
        key: the caller's idempotency key, 1 to 255 printable characters.
        request: what is asked for, as anything that the codec stores; compared with that of a repeat.
        answer: the type of the answer; None if there is none.

    Raises:
        KeyReused: on entering: the key was used for another request, or for an undo.
        Undone: on entering: ``undo`` or ``happened`` came before this call.
        StoreError: on entering: two transactions collided (``transient``); roll back and repeat the request.
        PayloadError: the request or the answer cannot be stored, or is not of its type.
        DefinitionError: the answer is missing, set on a repeat, or the block commits or rolls back itself.
    """
    what = f"once(..., {check_key(key, 'once(..., key)')!r})"
    part: OncePart[Any] = OncePart(key, request_bytes(request, f"{what}: the request"), AnswerType.of(answer))
    return _block(session, part)


@overload
def undo(session: Plain, key: str, *, of: str, answer: type[T], step: type[S]) -> Block[UndoCall[T, S]]: ...
@overload
def undo(session: Plain, key: str, *, of: str, answer: type[T], step: None = None) -> Block[UndoCall[T, Any]]: ...
@overload
def undo(
    session: Plain, key: str, *, of: str, answer: object = None, step: object = None
) -> Block[UndoCall[Any, Any]]: ...
@overload
def undo(session: Async, key: str, *, of: str, answer: type[T], step: type[S]) -> AsyncBlock[UndoCall[T, S]]: ...
@overload
def undo(session: Async, key: str, *, of: str, answer: type[T], step: None = None) -> AsyncBlock[UndoCall[T, Any]]: ...
@overload
def undo(
    session: Async, key: str, *, of: str, answer: object = None, step: object = None
) -> AsyncBlock[UndoCall[Any, Any]]: ...
def undo(session: Any, key: str, *, of: str, answer: Any = None, step: Any = None) -> Any:
    """Undo a step's call once, and bar it if it never came. The code that undoes it is the block of a ``with``.

    The block acts where ``call.first`` is true and ``call.step``, the step's stored answer, is not None. If it is None,
    the step never came, and once the caller commits it is refused with ``Undone``. A repeat finds the answer, which is
    None where none was set; so does an undo of the same step under another key. Waits for an open transaction that has
    the step's key or the same key. A block that raises leaves nothing.

    Args:
        session: as for ``once``.
        key: the idempotency key of the compensation.
        of: the key of the step, which the compensation knows as ``sagas.current().forward_key``.
        answer: the type of this call's own answer; None if there is none.
        step: the type of the step's answer; by default the class that the step declared if it is imported here, else
            plain JSON.

    Raises:
        KeyReused: on entering: the key was used for another step's undo, or for a step; or ``of`` is an undo's key.
        StoreError: as for ``once``.
        PayloadError: as for ``once``.
        DefinitionError: as for ``once``, but for a missing answer.
    """
    check_key(key, "undo(..., key)")
    if check_key(of, "undo(..., of=)") == key:
        raise DefinitionError(f"undo(..., {key!r}, of={of!r}): an undo needs a key of its own. Nothing was changed")
    part: UndoPart[Any, Any] = UndoPart(key, of, AnswerType.of(answer), step)
    return _block(session, part)


@overload
def happened(session: Plain, forward_key: str, *, answer: type[T]) -> Happened[T] | DidNotHappen: ...
@overload
def happened(session: Plain, forward_key: str, *, answer: object = None) -> Happened[Any] | DidNotHappen: ...
@overload
def happened(
    session: Async, forward_key: str, *, answer: type[T]
) -> Coroutine[Any, Any, Happened[T] | DidNotHappen]: ...
@overload
def happened(
    session: Async, forward_key: str, *, answer: object = None
) -> Coroutine[Any, Any, Happened[Any] | DidNotHappen]: ...
def happened(session: Any, forward_key: str, *, answer: Any = None) -> Any:
    """Tell a probe whether a step's call happened. To be awaited with an ``AsyncSession``.

    Returns ``Happened(answer)``, also for a step that was undone since; or ``DidNotHappen()``, which stays true once
    the caller has committed: the step is then refused with ``Undone``. Commit before you pass the answer on. Waits for
    an open transaction that has the key.

    Args:
        session: as for ``once``.
        forward_key: the key of the step, which the probe knows as ``sagas.current().forward_key``.
        answer: the type of the step's answer.

    Raises:
        KeyReused: the key is an undo's.
        StoreError: as for ``once``.
        PayloadError: the step's answer is not of this type.
    """
    key, declared = check_key(forward_key, "happened(..., forward_key)"), AnswerType.of(answer)

    def ask(plain: Session) -> Happened[Any] | DidNotHappen:
        match on_happened(Rows.of(plain).claim(Record(key, Kind.BARRIER)), key):
            case None:
                return DidNotHappen()
            case Refuse(error):
                raise error
            case stored:
                return Happened(declared.read(stored, f"happened(..., {key!r}): the stored answer"))

    found = session_of(session)
    return ask(found) if isinstance(found, Session) else found.run_sync(ask)


def _block(session: Any, part: Any) -> Block[Any] | AsyncBlock[Any]:
    found = session_of(session)
    return Block(found, part) if isinstance(found, Session) else AsyncBlock(found, part)
