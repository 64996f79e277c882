"""The coroutines of one run and how they are driven: fibers, groups of fibers, and a scheduler that sends them answers.

It is not asyncio: a fiber yields a command, and is sent the answer once the journal holds it.

Invariants: a group has ended only when every fiber in it has; a fiber is closed only when everything it started outside
has ended and is recorded. So no step is undone while its sibling is still changing the world.
"""

import contextvars
import logging
from collections.abc import Coroutine, Generator
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from durable_core.errors import Closed, Fault, SiblingFailed
from durable_core.model.keys import Scope

log = logging.getLogger("durable_core")

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Body = Coroutine[Any, Any, Any]

REFUSALS = 50
"""How often a closed body may go on asking before it is dropped."""


class Command(Generic[R_co]):
    """An operation that a body awaits: it yields itself to the scheduler, which sends the answer."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, R_co]:
        """Hand this command to the scheduler."""
        return (yield self)  # type: ignore[no-any-return]

    def issue(self, run: Any, fiber: "Fiber") -> None:  # noqa: ARG002 - each command has its own
        """Carry it out for ``fiber`` of ``run``: journal it or find it in the journal, and set what it waits for."""
        raise TypeError(f"{type(self).__name__} cannot be awaited in a body")


class Waiting(Protocol):
    """What a fiber waits for: a step, a wait, a callback, the end of a group."""

    def interrupt(self) -> bool:
        """Its fiber is being closed: end now if nothing has begun outside; False where the end must be awaited."""
        ...


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
        "interrupt",
        "nesting",
        "pending",
        "refusals",
        "scope",
        "shield",
        "value",
        "wait",
    )

    def __init__(self, coro: Body | None, scope: Scope, group: "Group | None") -> None:
        self.coro = coro
        self.scope = scope
        self.group = group
        self.groups: tuple[Group, ...] = ()
        """Groups that this fiber has opened and not yet joined, innermost last."""
        self.wait: Waiting | None = None
        """What it waits for; None while it is ready or has ended."""
        self.interrupt: Closed | None = None
        """Set once it is being closed or interrupted: thrown at every command until the block is left."""
        self.shield = 0
        """While above zero nothing closes it: it is undoing what it did."""
        self.pending: Closed | None = None
        """What will close it once it is no longer shielded."""
        self.refusals = 0
        self.nesting = 0
        """How many blocks it is in."""
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.generator: Random | None = None


class Group:
    """Fibers that one fiber has opened and will join.

    After the first failure, or ``Scheduler.stop``, nothing new begins in it: waits end at once, steps in flight end and
    are recorded, and the fibers are closed.
    """

    __slots__ = ("alive", "cancelled", "failure", "fibers", "joined", "joiner", "owner", "stopped")

    def __init__(self, owner: Fiber) -> None:
        self.owner = owner
        self.fibers: list[Fiber] = []
        self.alive = 0
        self.failure: BaseException | None = None
        """The first recorded failure: the join raises it."""
        self.stopped = False
        self.joined = False
        """Its owner waits for its end, or has seen it: only its own fibers may begin more in it."""
        self.cancelled = False
        """Stopped from outside, and not by a failure within."""
        self.joiner: Fiber | None = None


class Branch(Generic[R]):
    """One branch of a parallel block; ``p.run(...)`` gives it."""

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


class Driven(Protocol):
    """The run, as its scheduler sees it."""

    dead: bool
    fault: Fault | None
    """Why the engine refuses to go on; None: it does not."""

    @property
    def label(self) -> str:
        """The run's id and name, for the log."""
        ...

    def is_faulted(self) -> bool:
        """Whether the engine refuses to go on, also where the body has swallowed the fault."""
        ...

    def issue(self, fiber: Fiber, command: Any) -> None:
        """Carry out what the fiber has yielded."""
        ...

    def fail(self, raised: BaseException) -> None:
        """Record a fault where ``raised`` is one: the body let it out."""
        ...

    def finished(self, value: Any, error: BaseException | None) -> None:
        """The root body has returned or raised."""
        ...


class Scheduler:
    """The fibers of one run, and which of them have an answer to take."""

    __slots__ = ("context", "current", "ready", "root", "thrown", "undriven")

    def __init__(self) -> None:
        self.root: Fiber | None = None
        self.current: Fiber | None = None
        """The fiber that is being driven."""
        self.ready: list[tuple[Fiber, Any, BaseException | None]] = []
        """Fibers with an answer to take: a value, or an error."""
        self.thrown: list[BaseException] = []
        """The errors that were given to the body as the outcome of something."""
        self.undriven = False
        """The body has not been driven since the last input."""
        self.context = contextvars.copy_context()

    def begin(self, coro: Body) -> None:
        """Make the root fiber; it begins when the run is driven."""
        self.root = Fiber(coro, Scope(), None)
        self.ready.append((self.root, None, None))

    # -- driving ---------------------------------------------------------------------------------------------------

    def send_ready(self, run: Driven) -> None:
        """Send each ready fiber its answer, until none is left or the run has a fault."""
        ready = self.ready
        while ready and run.fault is None:
            fiber, value, error = ready.pop(0)  # rarely more than one, so a list is the smaller and faster queue
            if fiber.done or (error is not fiber.interrupt and isinstance(error, Closed)):
                continue  # an interrupt that has been dealt with since
            if fiber.interrupt is not None and error is not fiber.interrupt:
                self.advance(fiber)
                continue
            coro = fiber.coro
            self.current = fiber
            fiber.wait = None
            try:
                command = coro.send(value) if error is None else coro.throw(error)  # type: ignore[union-attr]
            except StopIteration as stop:
                self._finish(run, fiber, stop.value, None)
            except KeyboardInterrupt:
                raise
            except BaseException as raised:  # noqa: BLE001 - the border of the user's body: what it raises is its outcome
                self._raised(run, fiber, raised)
            else:
                run.issue(fiber, command)

    def _raised(self, run: Driven, fiber: Fiber, raised: BaseException) -> None:
        """The body of ``fiber`` let an exception out."""
        if isinstance(raised, Closed):
            raised.with_traceback(None)  # its frames know the fiber, and the fiber knows its interrupt
            self._finish(run, fiber, None, None if fiber.interrupt is not None else raised)
            return
        run.fail(raised)
        if isinstance(raised, Exception):
            self._finish(run, fiber, None, raised)

    def _finish(self, run: Driven, fiber: Fiber, value: Any, error: BaseException | None) -> None:
        if run.is_faulted():
            return
        fiber.done = True
        fiber.coro = None
        fiber.value = value
        fiber.error = error
        if fiber.group is not None:
            self._ended(fiber, fiber.group)
        elif not run.dead:
            run.finished(value, error)

    def refuse(self, run: Driven, fiber: Fiber) -> None:
        """A closed body asks for more: throw again, and drop it where it never stops asking."""
        fiber.refusals += 1
        if fiber.refusals < REFUSALS:
            self.ready.append((fiber, None, fiber.interrupt))
            return
        log.warning(
            "%s: the body swallowed its closing %d times and is dropped; let BaseException pass in its except blocks",
            run.label,
            REFUSALS,
        )
        self._finish(run, fiber, None, None)

    # -- fibers ----------------------------------------------------------------------------------------------------

    def resume(self, fiber: Fiber, value: object, error: BaseException | None = None) -> None:
        """Give ``fiber`` what it waited for; one that is being closed gets its interrupt instead."""
        fiber.wait = None
        if error is not None:
            self.thrown += [error] if error.__cause__ is None else [error, error.__cause__]
        if fiber.interrupt is not None:
            self.advance(fiber)
        else:
            self.ready.append((fiber, value, error))

    def interrupt(self, fiber: Fiber, interrupt: Closed) -> None:
        """Throw ``interrupt`` into ``fiber`` once what it started outside has ended; its waits end now.

        A shielded fiber is undoing what it did: it finishes that first.
        """
        if fiber.done:
            return
        before = fiber.pending if fiber.shield else fiber.interrupt
        if before is not None and not _outranks(fiber, interrupt, before):
            return
        if fiber.shield:
            fiber.pending = interrupt
            return
        fiber.interrupt = interrupt
        for group in _within(fiber, interrupt):
            self.stop(group, failed=isinstance(interrupt, SiblingFailed))
        wait = fiber.wait
        if wait is not None and wait.interrupt():
            fiber.wait = None
        if fiber is not self.current or wait is not None:
            self.advance(fiber)

    def advance(self, fiber: Fiber) -> None:
        """Throw the fiber's interrupt if nothing of it is in flight any more."""
        interrupt = fiber.interrupt
        if interrupt is None or fiber.done or fiber.wait is not None:
            return
        if all(not group.alive for group in _within(fiber, interrupt)):
            self.ready.append((fiber, None, interrupt))

    def unshield(self, fiber: Fiber) -> None:
        """Lower the fiber's shield; an interrupt that came meanwhile closes it now."""
        fiber.shield -= 1
        pending = fiber.pending
        if fiber.shield == 0 and pending is not None:
            fiber.pending = None
            self.interrupt(fiber, pending)

    # -- groups ----------------------------------------------------------------------------------------------------

    def spawn(self, group: Group, coro: Body, scope: Scope) -> Fiber:
        """A fiber in ``group``, ready to run once its owner next awaits. In a stopped group it never begins."""
        fiber = Fiber(coro, scope, group)
        fiber.nesting = group.owner.nesting + len(group.owner.groups)
        group.fibers.append(fiber)
        group.alive += 1
        if group.stopped:
            fiber.interrupt = Closed() if group.cancelled else SiblingFailed()
        self.ready.append((fiber, None, fiber.interrupt))
        return fiber

    def stop(self, group: Group, *, failed: bool = False) -> None:
        """Let nothing new begin in ``group``, and close its fibers as soon as what they have in flight has ended.

        Args:
            group: what to stop.
            failed: whether a failure beside it is why, so that what is around it may go on.
        """
        if group.stopped and (failed or group.cancelled):
            return
        group.stopped = True
        group.cancelled = not failed
        for fiber in list(group.fibers):
            self.interrupt(fiber, SiblingFailed() if failed else Closed())
        if group.failure is not None and group.joiner is None:
            self.interrupt(group.owner, Interrupted(group))

    def _ended(self, fiber: Fiber, group: Group) -> None:
        """A fiber of a group has ended: the first failure stops the group, the last end lets its owner go on."""
        group.alive -= 1
        if fiber.error is not None and not isinstance(fiber.error, Closed) and group.failure is None:
            group.failure = fiber.error
            self.stop(group, failed=True)
        if group.alive:
            return
        group.fibers.clear()
        joiner, group.joiner = group.joiner, None
        if joiner is not None:
            joined(joiner, group)
            self.resume(joiner, None, group.failure)
        elif group.owner.interrupt is not None:
            self.advance(group.owner)

    # -- leaving ---------------------------------------------------------------------------------------------------

    def alive(self) -> list[Fiber]:
        """Every fiber that has not ended, innermost first."""
        found: list[Fiber] = []
        todo = [self.root] if self.root is not None else []
        while todo:
            fiber = todo.pop()
            if not fiber.done:
                found.append(fiber)
            for group in fiber.groups:
                todo.extend(group.fibers)
        return found[::-1]

    def close(self, fiber: Fiber) -> None:
        """Close a coroutine for good, without a trace: everything that it asks for is refused."""
        coro, fiber.coro = fiber.coro, None
        fiber.done = True
        if coro is None:
            return
        self.current = fiber
        interrupt = fiber.interrupt = Closed()
        for _ in range(REFUSALS):
            try:
                coro.throw(interrupt)
            except BaseException:  # noqa: BLE001 - the body is gone; nobody takes what it raises on its way out
                break
        # Cut the cycles: a waiting run is evicted so that it costs a row and no memory, and not one collection later.
        interrupt.with_traceback(None)
        fiber.wait = fiber.group = None
        fiber.groups = ()

    def release(self) -> None:
        """Cut the cycles between run, fibers and coroutines, so that the collector need not find them."""
        self.undriven = False
        self.root = self.current = None
        self.ready.clear()
        self.thrown.clear()


def open_group(owner: Fiber) -> Group:
    """A group within ``owner``, innermost so far. Where the owner is being closed, nothing begins in it."""
    group = Group(owner)
    if owner.interrupt is not None:
        group.stopped = True
        group.cancelled = not isinstance(owner.interrupt, SiblingFailed)
    owner.groups += (group,)
    return group


def joined(owner: Fiber, group: Group) -> None:
    """``owner`` has seen the end of ``group``."""
    owner.groups = tuple(each for each in owner.groups if each is not group)


def leave(fiber: Fiber, group: Group) -> None:
    """The interrupted block is left: its owner may go on."""
    if isinstance(fiber.interrupt, Interrupted) and fiber.interrupt.group is group:
        fiber.interrupt = None
        fiber.refusals = 0


def shield(fiber: Fiber) -> None:
    """Let nothing close ``fiber`` until ``Scheduler.unshield``; what is closing it already waits meanwhile."""
    fiber.shield += 1
    if fiber.shield == 1:
        fiber.pending, fiber.interrupt = fiber.interrupt, None


def _outranks(fiber: Fiber, interrupt: Closed, before: Closed) -> bool:
    """Whether ``interrupt`` closes more than ``before`` does: the outer block, the whole fiber, the whole run."""
    if isinstance(interrupt, Interrupted):
        return isinstance(before, Interrupted) and fiber.groups.index(interrupt.group) < fiber.groups.index(
            before.group
        )
    if isinstance(interrupt, SiblingFailed):
        return isinstance(before, Interrupted)
    return isinstance(before, SiblingFailed)


def _within(fiber: Fiber, interrupt: Closed) -> tuple[Group, ...]:
    """The groups that must have ended before ``interrupt`` may be thrown: all, or those inside the interrupted one."""
    if isinstance(interrupt, Interrupted):
        return fiber.groups[fiber.groups.index(interrupt.group) + 1 :]
    return fiber.groups
