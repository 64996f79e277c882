"""An attempt as data: what is to be called, and how it ended; for hosts that call steps in another process.

Invariant: these bytes are all that a call needs, and all that a later re-drive of its run needs of it.
"""

import msgspec
from msgspec import Raw

NOTHING = Raw()
"""Stands for no value; left out where it is written."""


class StepCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attempt of a step, to be made anywhere."""

    run: str
    uid: bytes
    name: str
    """The durable function's name."""
    version: int
    key: str
    kind: str
    attempt: int
    started_seq: int
    """The journal entry of its intent: its span derives from it."""
    args: Raw
    """The step's arguments, JSON. Of a compensation or probe: its step's own, as far as it takes them."""
    forward: Raw = NOTHING
    """Of a compensation: the result of the step that it undoes, JSON; empty if that is not known."""
    traceparent: str | None = None
    """What the run's row says of its trace."""
    doubt: Raw = NOTHING
    """Of a compensation: why it is not known whether its step happened, as journals keep failures."""
    edition: int = 0
    """How often its step was begun anew: its idempotency key depends on it."""


class Done(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an attempt ended, as the host keeps it."""

    at: int
    """When it had ended, in ns since the epoch."""
    began: int
    """When its function was called."""
    value: Raw = NOTHING
    """What it returned, JSON; empty if it raised."""
    error: Raw = NOTHING
    """What it raised, in the form in which journals keep failures; empty if it returned."""
    doubtful: bool = False
    """Whether its effect is in doubt whatever the error's type says: a timeout, a result that cannot be stored."""
    repeatable: bool = True
    """Whether another attempt may help."""
    draw: float = 0.5
    """A number in [0, 1) for the jitter of the next delay, drawn once."""
    seq: int = 0
    """How many inputs had been fed when it came: for hosts that do not keep the order in which results come."""
