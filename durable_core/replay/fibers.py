"""Fibers: the coroutines of one run, driven by ``send``; and groups: fibers that begin and end together.

Invariant: a group has ended only when every fiber in it has, and a fiber is closed only when whatever it had under way
outside has ended and is recorded. So nobody undoes a step whose sibling is still changing the world.
"""

from collections.abc import Coroutine
from random import Random
from typing import Any, Generic, TypeVar

from durable_core.errors import Closed, SiblingFailed
from durable_core.model.keys import Scope

R = TypeVar("R")
Body = Coroutine[Any, Any, Any]

REFUSALS = 50
"""How often a closed body may go on asking before it is dropped."""


class Interrupted(SiblingFailed):
    """Thrown at what a block's own body awaits, when a branch of that block has failed."""

    def __init__(self, group: "Group") -> None:
        super().__init__()
        self.group = group


class Fiber:
    """One coroutine of a run."""

    __slots__ = (
        "__weakref__",
        "coro",
        "done",
        "error",
        "generator",
        "group",
        "groups",
        "nesting",
        "pending",
        "refusals",
        "scope",
        "shield",
        "signal",
        "started",
        "value",
        "wait",
    )

    def __init__(self, coro: Body | None, scope: Scope, group: "Group | None") -> None:
        self.coro = coro
        self.scope = scope
        self.group = group
        self.groups: tuple[Group, ...] = ()
        """Groups that this fiber has opened and not yet joined, innermost last."""
        self.wait: Any = None
        """What it waits for: a step, a wait, a group; None while it is ready or has ended."""
        self.signal: Closed | None = None
        """Set once it is being closed or interrupted: thrown at every command until the block is left."""
        self.shield = 0
        """While above zero nothing closes it: it is undoing what it did."""
        self.pending: Closed | None = None
        """What will close it once it is no longer shielded."""
        self.refusals = 0
        self.nesting = 0
        """How many blocks it is in."""
        self.started = False
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.generator: Random | None = None


class Group:
    """Fibers that one fiber has opened and will join.

    After the first failure, or ``stop``, nothing new begins in it: waits end at once, steps in flight end and are
    recorded, and the fibers are closed.
    """

    __slots__ = ("alive", "cancelled", "failure", "fibers", "joined", "joiner", "owner", "stopped")

    def __init__(self, owner: Fiber) -> None:
        self.owner = owner
        self.fibers: list[Fiber] = []
        self.alive = 0
        self.failure: BaseException | None = None
        """The first recorded failure: the one that the join raises."""
        self.stopped = False
        self.joined = False
        """Its owner waits for its end, or has seen it: nothing more may begin in it."""
        self.cancelled = False
        """Stopped from outside, and not by a failure within."""
        self.joiner: Fiber | None = None


class Branch(Generic[R]):
    """A fiber as its owner sees it."""

    __slots__ = ("_fiber",)

    def __init__(self, fiber: Fiber) -> None:
        self._fiber = fiber

    def done(self) -> bool:
        """Whether it has ended."""
        return self._fiber.done

    def result(self) -> R:
        """Its value once the block has been left; raises what it raised.

        Raises:
            RuntimeError: it has not ended; leave the block first.
        """
        fiber = self._fiber
        if not fiber.done:
            raise RuntimeError("this branch has not ended: read its result after the `async with` block")
        if fiber.error is not None:
            raise fiber.error
        return fiber.value  # type: ignore[no-any-return]
