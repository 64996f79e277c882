"""What is said when the engine refuses to go on with a run: what happened, to which run, and what to do."""

import os
from collections.abc import Collection
from pathlib import Path

from durable_core.errors import DurableError, Fault, sentences
from durable_core.model.entry import Entry
from durable_core.replay.cursor import RunIdentity


def internal(run: RunIdentity, bug: Exception) -> Fault:
    """The engine has a bug."""
    return Fault(f"{run.title}: internal error of the engine ({bug!r}); please report it, then retry the {run.noun}")


def unreadable(run: RunIdentity, damage: Exception) -> Fault:
    """The journal cannot be fed to the run, though its code may be right: a row was changed by hand, or by the disk."""
    why = damage.text if isinstance(damage, DurableError) else repr(damage)
    fault = Fault(
        f"{run.title}: its journal cannot be read ({why})",
        f"Restore the store from a backup, or kill the {run.noun}; if nobody has changed its rows, report it",
    )
    fault.__cause__ = damage
    return fault


OURS = tuple(f"{Path(__file__).parents[2] / name}{os.sep}" for name in ("durable_core", "sagas"))
"""Where our own code lies."""


def of_ours(run: RunIdentity, error: BaseException, *, thrown: Collection[BaseException]) -> Fault | None:
    """The fault where ``error`` was raised by our own code and by no design: it must not look like a failure of a step.

    ``thrown`` are the errors that were given to the body.

    None for what a step or the user's own code raised, and for our documented errors.
    """
    if (
        not isinstance(error, Exception)
        or isinstance(error, DurableError)
        or type(error) is RuntimeError
        or any(error is each for each in thrown)
    ):
        return None
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None or not traceback.tb_frame.f_code.co_filename.startswith(OURS):
        return None
    fault = Fault(
        f"{run.title}: an operation of the body raised {error!r} out of the engine itself",
        f"Check that it was called as documented, or report this; nothing is undone. Then retry the {run.noun}",
    )
    fault.__cause__ = error
    return fault


def mistake(run: RunIdentity, error: DurableError) -> Fault:
    """The code gave an operation something that it cannot take: nothing was done, and nothing is undone."""
    text = error.text.removeprefix(f"{run.title}: ")
    fault = Fault(f"{run.title}: {text}", sentences(error.advice, f"Fix the code, then retry the {run.noun}"))
    fault.__cause__ = error
    return fault


def bad_signal(run: RunIdentity, entry: Entry, bug: Exception) -> Fault:
    """The layer above could not take a signal up."""
    return Fault(
        f"{run.title}: the signal {entry.key!r} could not be taken up ({bug!r}); please report it, then retry the "
        f"{run.noun}"
    )


def no_exception(run: RunIdentity, raised: BaseException) -> Fault:
    """What left the body: an engine's fault as it stands; a signal of the user's own is refused."""
    if isinstance(raised, Fault):
        return raised
    return Fault(
        f"{run.title} of {run.name}: the body raised {type(raised).__name__}, which is no Exception, so it is "
        "taken neither for a result nor for a failure",
        f"Raise an Exception instead, then retry the {run.noun}",
    )
