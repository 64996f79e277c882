"""The errors of the durable core.

    DurableError
    ├── DefinitionError        the code declares something that cannot work
    ├── WrongLoop              a call from another event loop than the engine's own
    ├── PayloadError           a value cannot be stored, or not be read back
    ├── StoreError             the database refused; ``transient`` says whether trying again may help
    │   ├── StoreFull          no room left on the disk
    │   ├── StoreNotFound      no such database, or not one that can be opened
    │   ├── LeaseLost          this worker was taken for dead; others drive its runs now
    │   └── StoreFormatError   another program's file, or a newer stored format
    ├── RunExists              the id is taken by a run with other input, or was by a purged one
    ├── RunNotFound            no such run
    ├── RunStuck               the run needs a person
    ├── RunKilled              an operator ended the run
    ├── WrongState             the verb does not apply in this state
    ├── StepTimeout            (also TimeoutError) an attempt passed its timeout
    ├── StepInterrupted        the process died in an ``at_most_once`` step
    ├── StepCrashed            a step took its process down too often
    ├── StepExited             a step raised something that is no Exception, such as ``SystemExit``
    ├── CallbackError          about a callback; its run continues
    │   ├── CallbackTimeout    (also TimeoutError) nobody answered in time
    │   ├── CallbackFailed     somebody answered with a failure
    │   ├── CallbackClosed     the answer came after the wait was given up
    │   ├── CallbackNotFound   there is no such callback
    │   └── CallbackAlreadyAnswered  another answer came first
    └── RemoteError            an exception whose class is not imported here

Signals derive from ``BaseException``, so that ``except Exception`` in a body never catches them:

    Fault                      the engine refuses to continue this run; nothing was done and nothing is undone
    ├── NonDeterminismError    the code asks for something else than its journal holds
    └── ForeignAwaitError      the body awaited something that is not one of its operations
    Closed                     the body is being closed: cancelled or evicted
    └── SiblingFailed          the body is being closed because something beside it has failed

An error has a ``text`` (what happened, to which run and step) and an ``advice`` (what to do). Its message is both, then
its code and the address of the code's page.
"""

import re
from collections.abc import Callable
from types import BuiltinMethodType
from typing import Any, TypeVar, cast

PAGES = "https://durable-sagas.readthedocs.io/errors"
"""Where the pages of the codes are published."""
_OURS = re.compile(r"(?:DC|SG)\d{3}")
_CODE = re.compile(rf" \[{_OURS.pattern}\](?: https?://\S+)?$")


def sentences(*parts: str) -> str:
    """The parts that say something, one after the other, each a sentence or several."""
    said = ""
    for part in filter(None, parts):
        said += f"{' ' if said[-1] in '.?!' else '. '}{part[0].upper()}{part[1:]}" if said else part
    return said


def in_words(error: BaseException) -> str:
    """An exception as a part of another message: its class and what it says, without a code of ours."""
    ours = isinstance(error, _Explained) and type(error).__str__ is _Explained.__str__
    said = _message_of(error).removesuffix(".") if ours else str(error)
    return f"{type(error).__name__}: {one_line(said)}" if said else type(error).__name__


def one_line(text: str) -> str:
    """``text`` without its line breaks, as a part of a message of ours."""
    return " ".join(filter(None, map(str.strip, text.splitlines()))) if "\n" in text else text


def without_code(message: str) -> str:
    """A stored message without its code and the address of the code's page."""
    return _CODE.sub("", message)


def _text_of(error: BaseException) -> str:
    text = str(error.args[0]) if error.args else ""
    bare = without_code(text)  # an older release stored the code with the text
    return bare if text[len(bare) :].startswith(f" [{getattr(error, 'code', '')}]") else text


def _advice_of(error: BaseException) -> str:
    return str(error.args[1]) if len(error.args) > 1 else ""


def _message_of(error: BaseException) -> str:
    return sentences(_text_of(error), _advice_of(error))


E = TypeVar("E", bound=BaseException)
_Values = dict[str, Any] | None


def bare(cls: type[E], args: tuple[Any, ...]) -> E:
    """A new exception with these ``args``; no code of ``cls`` is called, as its constructor may want anything."""
    news = [vars(base)["__new__"] for base in cls.__mro__ if "__new__" in vars(base)]
    make: Callable[..., E] = next(new for new in news if isinstance(new, BuiltinMethodType))
    error = make(cls, *(args if issubclass(cls, BaseExceptionGroup) else ()))  # an OSError would read them
    vars(BaseException)["args"].__set__(error, args)
    return error


class _Derived:
    """An attribute that is made of the error's arguments; one that a user's subclass sets comes first."""

    def __init__(self, make: Callable[[Any], str]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __get__(self, error: BaseException | None, owner: object = None) -> str:
        return "" if error is None else self._make(error)


class _Explained(BaseException):
    """What all errors and faults say.

    Args:
        text: what happened, to which run and step; no full stop at its end.
        advice: what to do, as sentences, the last one without its full stop; empty if there is nothing to do.
    """

    code: str = "DC000"
    text = _Derived(_text_of)
    """What happened, to which run and step."""
    advice = _Derived(_advice_of)
    """What to do; empty if the text says it, or if there is nothing to do."""
    message = _Derived(_message_of)
    """Text and advice, without the code."""
    page = _Derived(lambda error: f"{PAGES}/{error.code}" if _OURS.fullmatch(str(error.code)) else "")
    """The address of the page about this kind of error; empty if a user's subclass has a code of its own."""

    def __init__(self, text: str, advice: str = "") -> None:
        # Not `super()`: of two arguments OSError would make an errno and its text.
        BaseException.__init__(self, *((text, advice) if advice else (text,)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled without its constructor, which has arguments that are not in ``args``."""
        return bare, (type(self), self.args), self.__getstate__()

    def __setstate__(self, state: Any) -> None:
        parts = cast("tuple[_Values, _Values]", state if isinstance(state, tuple) else (state, None))
        attributes, slots = parts
        vars(self).update(attributes or {})
        for name, value in (slots or {}).items():
            object.__setattr__(self, name, value)  # a frozen class refuses its own way of setting them

    def __str__(self) -> str:
        message = _message_of(self)
        page = f" {PAGES}/{self.code}" if _OURS.fullmatch(str(self.code)) else ""
        return f"{message} [{self.code}]{page}" if message else ""


class DurableError(_Explained, Exception):
    """Root of all errors that these packages raise. Its message ends with its code and the address of the code's page.

    Attributes:
        text: what happened, to which run and step.
        advice: what to do; empty if the text says it.
        code: such as ``DC001``.
    """

    code = "DC000"


class DefinitionError(DurableError):
    """The code declares or calls something that cannot work; found before any effect."""

    code = "DC001"


class WrongLoop(DurableError):
    """A coroutine of an engine was called on another event loop than the one it was entered on. Nothing was done."""

    code = "DC003"


class PayloadError(DurableError):
    """A value cannot be stored as JSON, or not be read back as the type it was declared with."""

    code = "DC002"


class StoreError(DurableError):
    """The store refused or could not be reached.

    Attributes:
        transient: whether trying again may help.
        in_doubt: whether it is unknown if the rows in question were written. Repeating the call is harmless.
        logged: whether the store itself logs how long this lasts.
    """

    code = "DC010"
    in_doubt = False
    logged = False

    def __init__(self, text: str, advice: str = "", *, transient: bool = False) -> None:
        super().__init__(text, advice)
        self.transient = transient


class StoreFull(StoreError):
    """The disk or the database's size limit is reached. Running sagas wait, and continue once there is room."""

    code = "DC013"


class StoreNotFound(StoreError):
    """There is no database at this address, or it cannot be opened."""

    code = "DC011"


class StoreFormatError(StoreError):
    """The file is another program's, or of a stored format this release cannot read."""

    code = "DC012"


class LeaseLost(StoreError):
    """This worker was silent for longer than its lease: others drive its runs now, and its late rows are refused.

    ``worker`` is the identity that was lost. A worker drops its runs, takes a new identity and continues by itself.
    """

    code = "DC014"

    def __init__(self, text: str, advice: str = "", *, transient: bool = False, worker: str = "") -> None:
        super().__init__(text, advice, transient=transient)
        self.worker = worker


class _AboutRun:
    """An error about one run."""

    run_id: str

    @property
    def saga_id(self) -> str:
        """The same id, as the users of sagas call it."""
        return self.run_id


class RunExists(_AboutRun, DurableError):
    """The id is taken by a run of another definition or with other input, or by one that was purged.

    ``purged_at_ns`` is the time of the purge, if it was purged.
    """

    code = "DC020"

    def __init__(self, text: str, advice: str = "", *, run_id: str, purged_at_ns: int | None = None) -> None:
        super().__init__(text, advice)
        self.run_id = run_id
        self.purged_at_ns = purged_at_ns


class RunNotFound(_AboutRun, DurableError):
    """No run has this id, or no longer has: ``purged_at_ns`` is the time of the purge, if it was purged."""

    code = "DC021"

    def __init__(self, text: str, advice: str = "", *, run_id: str, purged_at_ns: int | None = None) -> None:
        super().__init__(text, advice)
        self.run_id = run_id
        self.purged_at_ns = purged_at_ns


class RunStuck(_AboutRun, DurableError):
    """The run needs a person.

    Attributes:
        run_id: which run.
        reason: why.
        steps: the keys of the steps that are concerned.
    """

    code = "DC022"

    def __init__(self, text: str, advice: str = "", *, run_id: str, reason: str, steps: tuple[str, ...] = ()) -> None:
        super().__init__(text, advice)
        self.run_id = run_id
        self.reason = reason
        self.steps = steps


class RunKilled(_AboutRun, DurableError):
    """An operator ended the run; nothing was undone."""

    code = "DC023"

    def __init__(self, text: str, advice: str = "", *, run_id: str) -> None:
        super().__init__(text, advice)
        self.run_id = run_id


class WrongState(_AboutRun, DurableError):
    """The verb does not apply in the state that the run is in; nothing changed.

    Attributes:
        run_id: which run.
        status: the status that it is in.
    """

    code = "DC024"

    def __init__(self, text: str, advice: str = "", *, run_id: str, status: str) -> None:
        super().__init__(text, advice)
        self.run_id = run_id
        self.status = status


class StepTimeout(DurableError, TimeoutError):
    """An attempt exceeded its timeout. Whether its effect happened is not known. It is a ``TimeoutError`` too."""

    code = "DC030"


class StepInterrupted(DurableError):
    """The process died while an ``at_most_once`` step ran; it is not run again."""

    code = "DC031"


class StepCrashed(DurableError):
    """The process died in this step more often than ``max_crashes`` allows."""

    code = "DC032"


class StepExited(DurableError):
    """A step raised something that is no Exception, such as ``SystemExit`` (``__cause__``): that attempt has failed."""

    code = "DC035"


class RemoteError(DurableError):
    """An exception was stored whose class is not imported in this process. ``args`` keeps its message.

    Attributes:
        type_name: the dotted name of the original class.
    """

    code = "DC033"

    def __init__(self, text: str, advice: str = "", *, type_name: str = "") -> None:
        super().__init__(text, advice)
        self.type_name = type_name


class CallbackError(DurableError):
    """Root of the errors about callbacks."""

    code = "DC040"


class CallbackTimeout(CallbackError, TimeoutError):
    """Nobody answered within the callback's timeout, or no heartbeat came in time. Raised in the body."""

    code = "DC041"


class CallbackFailed(CallbackError):
    """Somebody answered with a failure. Raised in the body.

    Attributes:
        answer: the sender's message.
    """

    code = "DC042"

    def __init__(self, text: str, advice: str = "", *, answer: str = "") -> None:
        super().__init__(text, advice)
        self.answer = answer


class CallbackClosed(CallbackError):
    """The answer came after the wait was given up: by its timeout, a cancel, or the end. Raised to the sender."""

    code = "DC043"


class CallbackNotFound(CallbackError):
    """The token is unknown or forged, or the run has no such callback. Raised to the sender."""

    code = "DC044"


class CallbackAlreadyAnswered(CallbackError):
    """Another answer was accepted before. Raised to the sender."""

    code = "DC045"


class EngineSignal(BaseException):
    """Root of what the engine throws into a body. Never catch it: let it pass, as with ``GeneratorExit``.

    Wrong, because it also swallows the engine's signals::

        try:
            await ctx.step(charge, order)
        except BaseException:
            ...

    Right::

        except CardDeclined:
            ...
    """


class Closed(EngineSignal):
    """The body is being closed. The operations in its ``finally`` blocks are refused and leave no trace."""


class SiblingFailed(Closed):
    """The body is being closed because something that runs beside it has failed; the block around it may continue."""


class Fault(_Explained, EngineSignal):
    """The engine refuses to continue this run. It is stuck; nothing is done and nothing undone."""

    code = "DC100"

    step: str = ""
    """The step to attempt again on a retry; empty if the body itself is run again."""
    since: int = 0
    """The first journal entry that a retry makes void."""
    about: tuple[str, ...] = ()
    """The keys of the steps or children concerned, if not ``step`` alone."""


class NonDeterminismError(Fault):
    """The code asks for something else than the journal of this run holds at that place.

    Attributes:
        seq: the journal's entry.
        recorded: what it holds.
        asked: what the code asks for there.
        differing: where the arguments differ, if nothing else does: ``args[0].amount``. No values: they may be secret.
    """

    code = "DC101"

    def __init__(
        self, text: str, advice: str = "", *, seq: int, recorded: str, asked: str, differing: tuple[str, ...] = ()
    ) -> None:
        super().__init__(text, advice)
        self.differing = differing
        self.seq = seq
        self.recorded = recorded
        self.asked = asked


class ForeignAwaitError(Fault):
    """A body awaited something that is not one of its own operations."""

    code = "DC102"
