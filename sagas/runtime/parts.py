"""The parts of a saga that have a deadline of their own: children declared with ``deadline=``.

Invariant: the deadline counts from its place in the journal on, and once. It is void as soon as its part is over or is
being closed for another reason, and as soon as the pivot has succeeded.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from durable_core.layer import Branches, ChildBlock, derived
from sagas.model.children import EXPIRED

if TYPE_CHECKING:
    from sagas.runtime.driver import Driver

DEADLINE = "deadline"


class PartExpired(Exception):
    """The deadline of a child has passed; ``__cause__`` is what its body raised when it was closed."""


class Part:
    """A child under way."""

    __slots__ = ("_branches", "_deadline", "_driver", "_expired", "_key", "_late")

    def __init__(self, driver: "Driver", child: ChildBlock, due_at_ns: int) -> None:
        self._driver = driver
        self._key = child.key
        self._branches: Branches = driver.ctx.group()
        self._deadline = driver.ctx.deadline(derived(child.key, DEADLINE), due_at_ns, self._due)
        self._expired = False
        self._late = False
        """The deadline has passed while the pivot was in flight."""

    async def run(self, body: Coroutine[Any, Any, Any]) -> Any:
        """Run the body until it returns, raises or is closed.

        Raises:
            PartExpired: the deadline has passed.
        """
        parts = self._driver.parts
        parts.append(self)
        branch = self._branches.spawn(body, block=False)  # the pivot may be in a child
        try:
            await self._branches.join()
        except Exception as error:
            if self._expired:
                raise PartExpired from error
            raise
        finally:
            self._deadline.void()
            parts.remove(self)
        if self._expired:
            raise PartExpired
        return branch.result()

    def expire(self) -> None:
        """Nothing new begins in it; waits end at once, what is in flight ends and is recorded; then it is closed."""
        self._expired = True
        self._driver.ctx.mark(f"{EXPIRED}{self._key}")
        self._branches.stop()

    def pivot_failed(self) -> bool:
        """A deadline that has passed while the pivot was in flight counts now. True where there is one."""
        if self._late:
            self.expire()
        return self._late

    def pivot_succeeded(self) -> None:
        """The deadline is void; one that has passed meanwhile came too late."""
        self._deadline.void()
        if self._late:
            self._driver.ctx.mark(f"too-late:{DEADLINE}", {"child": self._key})

    def _due(self) -> None:
        """The deadline has passed; called at its place in the journal, live and on replay."""
        if self._branches.stopped:
            return
        if self._driver.at_pivot:
            self._late = True
            self._driver.hurry_pivot()
        else:
            self.expire()
