"""The block of a ``with once(...)`` or ``with undo(...)``: what is stored when it is entered and left.

Invariant: a block that is left by an exception leaves nothing behind, not even in the transaction around it.
"""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, assert_never

import attrs
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransaction

from durable_core import DefinitionError, StoreError
from sagas.participant.answers import NO_ANSWER, AnswerType, step_type
from sagas.participant.rows import Rows
from sagas.participant.rules import (
    Answer,
    First,
    Kind,
    Record,
    Refuse,
    Repeat,
    UndoIt,
    UndoneBefore,
    on_once,
    on_step_to_undo,
    on_undo,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

T = TypeVar("T")
S = TypeVar("S")
C_co = TypeVar("C_co", covariant=True)
UNSET: Any = object()


@attrs.define
class Outcome(Generic[T]):
    """What is known of a call: whether it is the first, and its answer."""

    first: bool = True
    answer: T = UNSET

    def repeats(self, answer: T) -> None:
        """It was done before, with this answer."""
        self.first, self.answer = False, answer

    @property
    def given(self) -> T | None:
        """The answer, if there is one."""
        return None if self.answer is UNSET else self.answer


class Call(Generic[T]):
    """A step's call, inside ``with once(...)``. ``key`` is its idempotency key."""

    def __init__(self, key: str, what: str, outcome: Outcome[T]) -> None:
        self.key = key
        self._what = what
        self._outcome = outcome

    @property
    def first(self) -> bool:
        """Whether it has to be done now; False: it was, and ``answer`` is what was answered."""
        return self._outcome.first

    @property
    def answer(self) -> T:
        """The answer: on the first call what the block has set, on a repeat what was stored.

        Raises:
            DefinitionError: on the first call it is read before it is set, or on a repeat it is set.
        """
        if self._outcome.answer is UNSET:
            raise DefinitionError(f"{self._what} has no answer yet: set call.answer where call.first is true")
        return self._outcome.answer

    @answer.setter
    def answer(self, value: T) -> None:
        if not self.first:
            raise DefinitionError(
                f"{self._what} is a repeat, and call.answer is what was answered the first time. Act and set it only "
                "where call.first is true; roll back what this block did"
            )
        self._outcome.answer = value


class UndoCall(Call[T | None], Generic[T, S]):
    """An undo's call, inside ``with undo(...)``.

    Attributes:
        of: the key of the step that it undoes.
        step: the step's stored answer; None: the step never came, and from now on it is refused with ``Undone``.
    """

    def __init__(self, key: str, of: str, what: str, outcome: Outcome[T | None]) -> None:
        super().__init__(key, what, outcome)
        self.of = of
        self.step: S | None = None


class Part(Protocol[C_co]):
    """What a block does in its session's transaction."""

    def begin(self, session: Session) -> C_co:
        """Find out what the call is."""
        ...

    def end(self, session: Session) -> None:
        """The block was left in peace: store its answer."""
        ...

    def fail(self, session: Session, error: BaseException) -> None:
        """The block was left by an exception: take back what it did."""
        ...


class _Taken:
    """A key that a block has taken, and the savepoint that its code runs in."""

    def __init__(self, session: Session, key: str, what: str) -> None:
        self._key = key
        self._what = what
        self._ending = False
        self._whole = session.get_transaction()
        self._savepoint: SessionTransaction = session.begin_nested()
        self._rows = Rows.of(session)  # has the session send its SAVEPOINT, which it puts off until then
        event.listen(session, "before_commit", self._refuse_commit)

    def _refuse_commit(self, session: Session) -> None:
        """A commit within the block would store a call without its answer."""
        if not self._ending and session.get_nested_transaction() is self._savepoint:
            raise DefinitionError(f"{self._what}: commit after its block, not within it. Nothing was committed")

    def complete(self, session: Session, answer: Answer) -> None:
        """Store the answer; durable once the caller commits."""
        if not self._savepoint.is_active:
            raise DefinitionError(f"{self._what}: the session was rolled back within its block, so nothing is stored")
        self._ending = True
        self._rows.complete(self._key, answer)
        self._savepoint.commit()
        event.remove(session, "before_commit", self._refuse_commit)

    def give_back(self, session: Session, error: BaseException) -> None:
        """Undo what was done since the key was taken, and the taking; else see that nothing of it is committed."""
        self._ending = True
        event.remove(session, "before_commit", self._refuse_commit)
        if session.get_transaction() is not self._whole:
            return  # the block has rolled all of it back
        try:
            self._savepoint.rollback()
            self._rows.give_back(self._key)
        except SQLAlchemyError as dead:
            event.listen(session, "before_commit", self._refuse_dead)
            error.add_note(f"{self._what}: this transaction cannot be used any more, roll it back: {dead}")

    def _refuse_dead(self, session: Session) -> None:
        """Some databases forget a transaction after an error, and would commit what comes after it alone."""
        if session.get_transaction() is self._whole:
            raise StoreError(
                f"{self._what} failed, and so has its transaction",
                "Roll back and repeat the whole request in a new transaction; nothing was committed",
                transient=True,
            )


class OncePart(Generic[T]):
    """A step's call."""

    def __init__(self, key: str, request: bytes, answer: AnswerType) -> None:
        self._key = key
        self._request = request
        self._type = answer
        self._what = f"once(..., {key!r})"
        self._taken: _Taken | None = None
        self._outcome: Outcome[T] = Outcome()

    def begin(self, session: Session) -> Call[T]:
        """As in ``Part``."""
        self._taken = None
        rows = Rows.of(session)
        found = rows.claim(Record(self._key, Kind.STEP, self._request))
        ruling = on_once(found, self._key, self._request)
        match ruling:
            case First():
                self._taken = _Taken(session, self._key, self._what)
            case Repeat(answer):
                self._outcome.repeats(self._type.read(answer, f"{self._what}: the stored answer"))
            case Refuse(error):
                raise error
            case _:
                assert_never(ruling)
        return Call(self._key, self._what, self._outcome)

    def end(self, session: Session) -> None:
        """As in ``Part``."""
        if self._taken is None:
            return
        value = self._outcome.given
        if value is None and not self._type.admits_none:
            raise DefinitionError(
                f"{self._what} ended without an answer, and {self._type.name} does not admit None. Set call.answer "
                "where call.first is true. Nothing is stored"
            )
        self._taken.complete(session, self._type.store(value, f"{self._what}: the answer"))

    def fail(self, session: Session, error: BaseException) -> None:
        """As in ``Part``."""
        if self._taken is not None:
            self._taken.give_back(session, error)


class UndoPart(Generic[T, S]):
    """An undo's call."""

    def __init__(self, key: str, of: str, answer: AnswerType, step: Any) -> None:
        self._key = key
        self._of = of
        self._type = answer
        self._step = step
        self._what = f"undo(..., {key!r}, of={of!r})"
        self._taken: _Taken | None = None
        self._outcome: Outcome[T | None] = Outcome(answer=None)
        self._call: UndoCall[T, S] = UndoCall(key, of, self._what, self._outcome)

    def begin(self, session: Session) -> UndoCall[T, S]:
        """As in ``Part``."""
        self._taken = None
        rows = Rows.of(session)
        found = rows.claim(Record(self._key, Kind.UNDO, of=self._of))
        ruling = on_undo(found, self._key, self._of)
        match ruling:
            case First():
                self._taken = _Taken(session, self._key, self._what)
                try:
                    self._look(session, rows)
                except BaseException as error:
                    self.fail(session, error)
                    raise
            case Repeat(answer):
                known = rows.find(self._of)
                self._repeat(answer, None if known is None else known.answer)
            case Refuse(error):
                raise error
            case _:
                assert_never(ruling)
        return self._call

    def _look(self, session: Session, rows: Rows) -> None:
        """Find out what there is to undo, and bar the step if it never came."""
        ruling = on_step_to_undo(self._claim_step(rows), self._of)
        match ruling:
            case UndoIt(step):
                self._call.step = None if step is None else self._read_step(step)
            case UndoneBefore(by, step):
                before = rows.find(by)
                answer = NO_ANSWER if before is None or before.answer is None else before.answer
                self._repeat(answer, step)
                if self._taken is not None:
                    self._taken.complete(session, answer)
                    self._taken = None
            case Refuse(error):
                raise error
            case _:
                assert_never(ruling)

    def _claim_step(self, rows: Rows) -> Record | None:
        """What was stored under the step's key before this call, which has marked it as undone."""
        found = rows.claim(Record(self._of, Kind.BARRIER, undone_by=self._key))
        to_mark = isinstance(on_step_to_undo(found, self._of), UndoIt)
        if found is None or not to_mark or rows.mark_undone(self._of, self._key):
            return found
        return rows.find(self._of)  # an undo came first that the claim did not wait for, as on Oracle

    def _repeat(self, answer: Answer, step: Answer | None) -> None:
        stored = self._type.read(answer, f"{self._what}: the stored answer") if answer != NO_ANSWER else None
        self._outcome.repeats(stored)
        self._call.step = None if step is None else self._read_step(step)

    def _read_step(self, step: Answer) -> S:
        read: S = step_type(step, self._step, self._type).read(step, f"{self._what}: the step's answer")
        return read

    def end(self, session: Session) -> None:
        """As in ``Part``."""
        if self._taken is None:
            return
        value = self._outcome.given
        answer = NO_ANSWER if value is None else self._type.store(value, f"{self._what}: the answer")
        self._taken.complete(session, answer)

    def fail(self, session: Session, error: BaseException) -> None:
        """As in ``Part``."""
        if self._taken is not None:
            self._taken.give_back(session, error)


class Block(Generic[C_co]):
    """A context manager whose answer is stored in the transaction of a ``Session``."""

    def __init__(self, session: Session, part: Part[C_co]) -> None:
        self._session = session
        self._part = part

    def __enter__(self) -> C_co:
        """Find out whether the call is the first; may wait for another transaction."""
        return self._part.begin(self._session)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Store the answer, or take everything back; durable once the caller commits."""
        _leave(self._session, self._part, error)


class AsyncBlock(Generic[C_co]):
    """A context manager whose answer is stored in the transaction of an ``AsyncSession``."""

    def __init__(self, session: "AsyncSession", part: Part[C_co]) -> None:
        self._session = session
        self._part = part

    async def __aenter__(self) -> C_co:
        """As ``Block.__enter__``."""
        return await self._session.run_sync(self._part.begin)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As ``Block.__exit__``."""
        await self._session.run_sync(_leave, self._part, error)


def _leave(session: Session, part: Part[Any], error: BaseException | None) -> None:
    if error is not None:
        part.fail(session, error)
        return
    try:
        part.end(session)
    except BaseException as failed:
        part.fail(session, failed)
        raise
