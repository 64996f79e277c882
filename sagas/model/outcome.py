"""What a probe may answer, and what a compensation is given where nobody knows whether its step happened."""

from typing import Generic, TypeVar

import attrs

R = TypeVar("R")


@attrs.frozen
class Happened(Generic[R]):
    """The step's effect took place, with this result: the step has succeeded."""

    value: R


@attrs.frozen
class DidNotHappen:
    """The step's effect did not take place, and no longer can."""


@attrs.frozen
class StillUnknown:
    """It cannot be told yet; the probe is asked again by its retry policy."""


@attrs.frozen
class Unknown:
    """Given to a compensation instead of a result, where it admits it: the step may or may not have happened.

    Such a compensation must be harmless where nothing happened, and must keep a late effect from happening.
    """


UNKNOWN = Unknown()
"""The one that a compensation is given."""
