"""Makes the attempts of a worker, each from its call as bytes, as hosts send it.

Invariant: an attempt that was made says so by ``Done``; ``NotLoaded`` says that nothing was called.
"""

import msgspec
from msgspec import Raw

from durable_core import DefinitionError, PayloadError
from durable_core.layer import Clocked, Done, StepCall, SystemClock, SystemIds, attempt, capture
from sagas.hosts.shared import Registry


class NotLoaded(Exception):
    """This worker does not know the step; nothing was called, and another worker may know it."""


class Attempts:
    """Makes the attempts of one worker."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._clocked = Clocked(SystemClock().now_ns, SystemIds().draw)

    async def make(self, stored: bytes) -> Done:
        """How the attempt ended.

        Raises:
            NotLoaded: it was not made.
        """
        call = msgspec.json.decode(stored, type=StepCall)
        function = self._registry.functions.get((call.name, call.version))
        if function is None:
            raise NotLoaded(
                f"saga {call.run}: this worker does not serve {call.name!r} v{call.version}; nothing was called"
            )
        try:
            return await attempt(function, call, self._clocked)
        except DefinitionError as unknown:
            raise NotLoaded(unknown.message) from None
        except PayloadError as refused:  # its arguments no longer fit
            return not_made(refused, self._clocked.now_ns())


def not_made(why: Exception, at_ns: int) -> Done:
    """The end of an attempt that cannot be made, now or later; nothing was called."""
    return Done(at=at_ns, began=at_ns, error=Raw(capture(why)), repeatable=False)
