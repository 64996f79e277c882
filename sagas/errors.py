"""The errors of sagas. Those of the durable core that users meet are the same classes, under the same names.

Those about one saga have its ``saga_id``.

SagasError                 root of them all (the core's ``DurableError``)
├── DefinitionError        a declaration that cannot work
├── PayloadError           a value that cannot be stored or read back
├── WrongLoop              a call from another event loop than the orchestrator's own
├── StoreError             the store refused or could not be reached
├── SagaExists             the id is taken by a saga with other input, or was by a purged one
├── SagaNotFound           no saga has this id
├── SagaCompensated        the saga was undone: ``cause``, ``compensated``, ``__cause__``
├── SagaStuck              the saga needs a person: ``reason``, ``steps``
├── SagaKilled             an operator ended it without undoing anything
├── WrongState             the verb does not apply in this state
│   └── SagaPastPivot      nothing can be undone after the pivot
├── KeyReused              a participant's idempotency key was used for another request before
├── Undone                 a step's call came to its participant after its undo
├── Unsupported            the engine below has no such call; the message names its own means
├── StepTimeout            an attempt passed its timeout
├── StepExited             a step raised something that is no Exception, such as ``SystemExit``
├── StepInterrupted        the process died in an ``at_most_once`` step
└── RemoteError            an exception whose class is not imported here
"""

from collections.abc import Sequence

from durable_core import DurableError as SagasError
from durable_core import RunExists, RunKilled, RunNotFound, RunStuck, WrongState

__all__ = [
    "KeyReused",
    "SagaCompensated",
    "SagaExists",
    "SagaKilled",
    "SagaNotFound",
    "SagaPastPivot",
    "SagaStuck",
    "SagasError",
    "Undone",
    "Unsupported",
]


class SagaExists(RunExists):
    """The id is taken by another saga, or by the same saga with other input. Nothing was started.

    Attributes:
        saga_id: the id.
        purged_at_ns: if the saga that had it was purged: when, in nanoseconds since the epoch.
    """

    code = "SG001"


class SagaNotFound(RunNotFound):
    """No saga has this id, or no longer has.

    Attributes:
        saga_id: the id.
        purged_at_ns: if it was purged: when, in nanoseconds since the epoch.
    """

    code = "SG002"


class SagaCompensated(SagasError):
    """The saga was rolled back: every step that had completed was undone.

    Attributes:
        saga_id: which saga.
        status: ``compensated``, or ``resolved`` if an operator skipped or settled something.
        cause: ``failed``, ``cancelled`` or ``deadline``.
        compensated: the keys of the undone steps, in the order in which they were undone.
        skipped: the keys of the steps whose compensation an operator skipped.
        __cause__: the exception that left the body, if the cause is ``failed``.
    """

    code = "SG003"

    def __init__(
        self,
        text: str,
        advice: str = "",
        *,
        saga_id: str = "",
        status: str = "compensated",
        cause: str = "failed",
        compensated: Sequence[str] = (),
        skipped: Sequence[str] = (),
    ) -> None:
        super().__init__(text, advice)
        self.saga_id = saga_id
        self.status = status
        self.cause = cause
        self.compensated = list(compensated)
        self.skipped = list(skipped)


class SagaStuck(RunStuck):
    """The saga needs a person to continue. Nothing was lost; an operator's verb makes it go on.

    Attributes:
        saga_id: which saga.
        reason: why, and what to do.
        steps: the keys of the steps that are concerned.
    """

    code = "SG004"


class SagaKilled(RunKilled):
    """An operator ended the saga; nothing was undone. ``rollback`` still can.

    Attributes:
        saga_id: which saga.
    """

    code = "SG005"


class SagaPastPivot(WrongState):
    """The saga has passed its pivot: it only goes forward, and nothing is undone any more.

    Attributes:
        saga_id: which saga.
        status: its status.
    """

    code = "SG006"


class KeyReused(SagasError):
    """A participant was called under an idempotency ``key`` that was used for another request, or another purpose.

    Nothing was done.
    """

    code = "SG007"

    def __init__(self, text: str, advice: str = "", *, key: str = "") -> None:
        super().__init__(text, advice)
        self.key = key


class Undone(SagasError):
    """A step's call came to its participant too late: its ``key`` was undone, or settled as not having happened.

    Nothing was done, and nothing ever will be under this key.
    """

    code = "SG008"

    def __init__(self, text: str, advice: str = "", *, key: str = "") -> None:
        super().__init__(text, advice)
        self.key = key


class Unsupported(SagasError):
    """The engine that the saga runs on cannot do this. The message names the engine's own means; nothing changed."""

    code = "SG009"
