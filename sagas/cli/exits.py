"""How a command ends: its exit code, and one message where it was refused.

Invariant: a person who made a mistake reads one message on stderr and no traceback, unless ``SAGAS_DEBUG=1`` asks for
it.
"""

import os
import sys
import traceback

from sagas.errors import SagasError

DONE = 0
FAILED = 1
"""The saga that was shown or waited for has failed: compensated, resolved, stuck or killed."""
FAULTY = 1
"""``check`` has found a fault."""
REFUSED = 2
"""Bad usage, or an error; on stderr is which."""
INTERRUPTED = 130
"""Ctrl-C, as shells count it: 128 and the signal's number."""
UNREAD = 141
"""Whoever read our output has gone, as ``head`` does; 128 and the number of SIGPIPE."""

FAILURES = frozenset({"compensated", "resolved", "stuck", "killed"})
"""Statuses of a saga that did not do what it was started for."""


class CommandError(Exception):
    """What was asked for cannot be done; the message says why, and what to do instead."""


def code_of(status: str) -> int:
    """The exit code for a saga that stands so. One that has not ended yet has not failed."""
    return FAILED if status in FAILURES else DONE


def tell(message: str) -> None:
    """Write one message to stderr."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201 - stderr is where it belongs


def refused(error: Exception) -> int:
    """Tell what went wrong and return the exit code."""
    if os.environ.get("SAGAS_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, CommandError | SagasError):
        tell(f"error: {error}")
    else:
        tell(
            f"error: unexpected {type(error).__name__}: {error}; SAGAS_DEBUG=1 shows where, for a report of it as a bug"
        )
    return REFUSED
