"""What is said when the engine refuses to go on with a run: what happened, to which run, and what to do."""

from typing import TYPE_CHECKING

from durable_core.errors import Fault
from durable_core.model.entry import Entry

if TYPE_CHECKING:
    from durable_core.runtime.run import Run


def internal(run: "Run", bug: Exception) -> Fault:
    """The engine has a bug."""
    return Fault(f"run {run.id}: internal error of the engine ({bug!r}); please report it, then retry the run")


def bad_signal(run: "Run", entry: Entry, bug: Exception) -> Fault:
    """The layer above could not take a signal up."""
    return Fault(
        f"run {run.id}: the signal {entry.key!r} could not be taken up ({bug!r}); please report it, then retry the run"
    )


def no_exception(run: "Run", raised: BaseException) -> Fault:
    """What left the body: an engine's fault as it stands; a signal of the user's own is refused."""
    if isinstance(raised, Fault):
        return raised
    return Fault(
        f"run {run.id} of {run.definition.name}: the body raised {type(raised).__name__}, which is no Exception, "
        "so it is taken neither for a result nor for a failure. Raise an Exception instead, then retry the run"
    )
