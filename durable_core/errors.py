"""The errors of the durable core.

    DurableError
    ├── DefinitionError        the code declares something that cannot work
    ├── WrongLoop              a call from another event loop than the engine's own
    ├── PayloadError           a value cannot be stored, or not be read back
    ├── StoreError             the database said no; ``transient`` tells whether asking again may help
    │   ├── StoreFull          no room left on the disk
    │   ├── StoreNotFound      no such database, or not one that can be opened
    │   ├── LeaseLost          this worker was taken for dead; others drive its runs now
    │   └── StoreFormatError   another program's file, or a newer stored format
    ├── RunExists              the id is taken by a run with other input, or was by a purged one
    ├── RunNotFound            no such run
    ├── RunStuck               the run needs a person
    ├── RunKilled              an operator ended the run
    ├── WrongState             the verb makes no sense in this state
    ├── StepTimeout            (also TimeoutError) an attempt passed its timeout
    ├── StepInterrupted        the process died in an ``at_most_once`` step
    ├── StepCrashed            a step took its process down too often
    ├── StepExited             a step raised something that is no Exception, such as ``SystemExit``
    ├── CallbackError          about a callback: its run goes on or has gone on
    │   ├── CallbackTimeout    (also TimeoutError) nobody answered in time
    │   ├── CallbackFailed     somebody answered with a failure
    │   ├── CallbackClosed     the answer came after the wait was given up
    │   ├── CallbackNotFound   there is no such callback
    │   └── CallbackAlreadyAnswered  another answer came first
    └── RemoteError            an exception whose class is not imported here

Signals derive from ``BaseException``, so that ``except Exception`` in a body never takes one for a failure:

    Fault                      the engine refuses to go on with this run; nothing was done and nothing is undone
    ├── NonDeterminismError    the code asks for something else than its journal holds
    └── ForeignAwaitError      the body awaited something that is not one of its operations
    Closed                     the body is being closed: cancelled or evicted
    └── SiblingFailed          the body is being closed because something beside it has failed

Every message says what happened, to which run and step, and what to do next, and ends with its code.
"""

from typing import ClassVar


class DurableError(Exception):
    """Root of all errors that cross the border of this package."""

    code: ClassVar[str] = "DC000"

    def __init__(self, message: str) -> None:
        super().__init__(f"{message} [{self.code}]")


class DefinitionError(DurableError):
    """The code declares something that cannot work; found before any effect."""

    code = "DC001"


class WrongLoop(DurableError):
    """A coroutine of an engine was called on another event loop than the one it was entered on. Nothing was done."""

    code = "DC003"


class PayloadError(DurableError):
    """A value cannot be stored as JSON, or not be read back as the type it was declared with."""

    code = "DC002"


class StoreError(DurableError):
    """The store refused or could not be reached. ``transient`` is True where asking again may help.

    ``in_doubt`` is True where nobody knows yet whether what was to be written was written.
    """

    code = "DC010"
    in_doubt = False

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class StoreFull(StoreError):
    """The disk or the database's size limit is reached. Running sagas wait and go on once there is room."""

    code = "DC013"


class StoreNotFound(StoreError):
    """There is no database at this address, or it cannot be opened."""

    code = "DC011"


class StoreFormatError(StoreError):
    """The file is another program's, or of a stored format this release cannot read."""

    code = "DC012"


class LeaseLost(StoreError):
    """This worker was silent for longer than its lease: others drive its runs now, and its late rows are refused.

    ``worker`` is the identity that was lost. A worker drops its runs, takes another one and goes on by itself.
    """

    code = "DC014"

    def __init__(self, message: str, *, transient: bool = False, worker: str = "") -> None:
        super().__init__(message, transient=transient)
        self.worker = worker


class RunExists(DurableError):
    """The id is taken by a run of another definition or with other input, or by one that was purged.

    ``purged_at_ns`` is when, where it was.
    """

    code = "DC020"

    def __init__(self, message: str, *, run_id: str, purged_at_ns: int | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.purged_at_ns = purged_at_ns


class RunNotFound(DurableError):
    """No run has this id, or none any more: ``purged_at_ns`` is when it was purged, where it was."""

    code = "DC021"

    def __init__(self, message: str, *, run_id: str, purged_at_ns: int | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.purged_at_ns = purged_at_ns


class RunStuck(DurableError):
    """The run needs a person: ``reason`` says why, ``steps`` on what."""

    code = "DC022"

    def __init__(self, message: str, *, run_id: str, reason: str, steps: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.reason = reason
        self.steps = steps


class RunKilled(DurableError):
    """An operator ended the run; nothing was undone."""

    code = "DC023"

    def __init__(self, message: str, *, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class WrongState(DurableError):
    """The verb makes no sense in the state that the run is in; nothing changed."""

    code = "DC024"

    def __init__(self, message: str, *, run_id: str, status: str) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.status = status


class StepTimeout(DurableError, TimeoutError):
    """An attempt passed its timeout. Whether its effect happened is not known."""

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
    """An exception was stored whose class is not imported in this process.

    ``type_name`` is the dotted name of the original, ``args`` keeps its message.
    """

    code = "DC033"

    def __init__(self, message: str, *, type_name: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name


class CallbackError(DurableError):
    """Root of what can go wrong with a callback."""

    code = "DC040"


class CallbackTimeout(CallbackError, TimeoutError):
    """Nobody answered within the callback's timeout, or no heartbeat came within its span. Raised in the body."""

    code = "DC041"


class CallbackFailed(CallbackError):
    """Somebody answered with a failure; ``answer`` is their message. Raised in the body."""

    code = "DC042"

    def __init__(self, message: str, *, answer: str = "") -> None:
        super().__init__(message)
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
    """The body is being closed. What its ``finally`` asks for is refused and leaves no trace."""


class SiblingFailed(Closed):
    """The body is being closed because something that runs beside it has failed; what is around may go on."""


class Fault(EngineSignal):
    """The engine refuses to go on with this run. It is parked as stuck; nothing is done and nothing undone."""

    code: ClassVar[str] = "DC100"

    step: str = ""
    """The step to attempt again once it is mended; empty where the body itself is run again."""
    since: int = 0
    """The journal entry from which on all is void then."""
    about: tuple[str, ...] = ()
    """The keys of what it is about, where that is not ``step`` alone: a child, say."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message} [{self.code}]")


class NonDeterminismError(Fault):
    """The code asks for something else than the journal of this run holds at that place.

    Attributes:
        seq: the journal's entry.
        recorded: what it holds.
        asked: what the code asks for there.
        differing: where the arguments differ, if that is all: ``args[0].amount``. No values: they may be secret.
    """

    code = "DC101"

    def __init__(self, message: str, *, seq: int, recorded: str, asked: str, differing: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.differing = differing
        self.seq = seq
        self.recorded = recorded
        self.asked = asked


class ForeignAwaitError(Fault):
    """A body awaited something that is not one of its own operations."""

    code = "DC102"
