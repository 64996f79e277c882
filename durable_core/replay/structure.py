"""Structured concurrency of fibers: stopping a group, interrupting a fiber, closing what is left.

Invariant: whatever is under way outside is allowed to end and is recorded before the fiber that asked for it is closed.
"""

from typing import TYPE_CHECKING

from durable_core.errors import Closed, SiblingFailed
from durable_core.model.keys import Scope
from durable_core.replay.fibers import REFUSALS, Body, Fiber, Group, Interrupted

if TYPE_CHECKING:
    from durable_core.replay.run import Run


def open_group(owner: Fiber) -> Group:
    """A group within ``owner``, innermost so far. Where the owner is being closed, nothing begins in it."""
    group = Group(owner)
    if owner.signal is not None:
        group.stopped = True
        group.cancelled = not isinstance(owner.signal, SiblingFailed)
    owner.groups += (group,)
    return group


def spawn(run: "Run", group: Group, coro: Body, scope: Scope) -> Fiber:
    """A fiber in ``group``, ready to run once its owner next awaits. In a stopped group it never begins."""
    fiber = Fiber(coro, scope, group)
    fiber.nesting = group.owner.nesting + len(group.owner.groups)
    group.fibers.append(fiber)
    group.alive += 1
    if group.stopped:
        fiber.signal = Closed() if group.cancelled else SiblingFailed()
    run.ready.append((fiber, None, fiber.signal))
    return fiber


def resume(run: "Run", fiber: Fiber, value: object, error: BaseException | None = None) -> None:
    """What ``fiber`` waited for has come; a fiber that is being closed gets its signal instead."""
    fiber.wait = None
    if error is not None:
        run.thrown += [error] if error.__cause__ is None else [error, error.__cause__]
    if fiber.signal is not None:
        advance(run, fiber)
    else:
        run.ready.append((fiber, value, error))


def ended(run: "Run", fiber: Fiber) -> None:
    """A fiber of a group has ended: the first failure stops the group, the last end lets its owner go on."""
    group = fiber.group
    if group is None:
        return
    group.alive -= 1
    if fiber.error is not None and not isinstance(fiber.error, Closed) and group.failure is None:
        group.failure = fiber.error
        stop(run, group, failed=True)
    if group.alive:
        return
    group.fibers.clear()
    joiner, group.joiner = group.joiner, None
    if joiner is not None:
        joined(joiner, group)
        resume(run, joiner, None, group.failure)
    elif group.owner.signal is not None:
        advance(run, group.owner)


def stop(run: "Run", group: Group, *, failed: bool = False) -> None:
    """Let nothing new begin in ``group``, and close its fibers as soon as what they have under way has ended.

    Args:
        run: whose group it is.
        group: what to stop.
        failed: whether a failure beside it is why, so that what is around it may go on.
    """
    if group.stopped and (failed or group.cancelled):
        return
    group.stopped = True
    group.cancelled = not failed
    for fiber in list(group.fibers):
        interrupt(run, fiber, SiblingFailed() if failed else Closed())
    if group.failure is not None and group.joiner is None:
        interrupt(run, group.owner, Interrupted(group))


def interrupt(run: "Run", fiber: Fiber, signal: Closed) -> None:
    """Throw ``signal`` into ``fiber`` once what it has under way has ended; its waits end now.

    A shielded fiber is undoing what it did: it is let finish that first.
    """
    if fiber.done:
        return
    before = fiber.pending if fiber.shield else fiber.signal
    if before is not None and not _outranks(fiber, signal, before):
        return
    if fiber.shield:
        fiber.pending = signal
        return
    fiber.signal = signal
    for group in _within(fiber, signal):
        stop(run, group, failed=isinstance(signal, SiblingFailed))
    wait = fiber.wait
    if wait is not None and wait.interrupt(run):
        fiber.wait = None
    if fiber is not run.current or wait is not None:
        advance(run, fiber)


def shield(fiber: Fiber) -> None:
    """Let nothing close ``fiber`` until ``unshield``; what is closing it already waits meanwhile."""
    fiber.shield += 1
    if fiber.shield == 1:
        fiber.pending, fiber.signal = fiber.signal, None


def unshield(run: "Run", fiber: Fiber) -> None:
    """What came meanwhile closes the fiber now."""
    fiber.shield -= 1
    pending = fiber.pending
    if fiber.shield == 0 and pending is not None:
        fiber.pending = None
        interrupt(run, fiber, pending)


def _outranks(fiber: Fiber, signal: Closed, before: Closed) -> bool:
    """Whether ``signal`` closes more than ``before`` does: the outer block, the whole fiber, the whole run."""
    if isinstance(signal, Interrupted):
        return isinstance(before, Interrupted) and fiber.groups.index(signal.group) < fiber.groups.index(before.group)
    if isinstance(signal, SiblingFailed):
        return isinstance(before, Interrupted)
    return isinstance(before, SiblingFailed)


def joined(owner: Fiber, group: Group) -> None:
    """``owner`` has seen the end of ``group``."""
    owner.groups = tuple(each for each in owner.groups if each is not group)


def _within(fiber: Fiber, signal: Closed) -> tuple[Group, ...]:
    """The groups that must have ended before ``signal`` may be thrown: all, or those inside the interrupted one."""
    if isinstance(signal, Interrupted):
        return fiber.groups[fiber.groups.index(signal.group) + 1 :]
    return fiber.groups


def advance(run: "Run", fiber: Fiber) -> None:
    """Throw the fiber's signal where nothing is under way in it any more."""
    signal = fiber.signal
    if signal is None or fiber.done or fiber.wait is not None:
        return
    if all(not group.alive for group in _within(fiber, signal)):
        run.ready.append((fiber, None, signal))


def leave(fiber: Fiber, group: Group) -> None:
    """The interrupted block is left: its owner may go on."""
    if isinstance(fiber.signal, Interrupted) and fiber.signal.group is group:
        fiber.signal = None
        fiber.refusals = 0


def alive(run: "Run") -> list[Fiber]:
    """Every fiber that has not ended, innermost first."""
    found: list[Fiber] = []
    todo = [run.root] if run.root is not None else []
    while todo:
        fiber = todo.pop()
        if not fiber.done:
            found.append(fiber)
        for group in fiber.groups:
            todo.extend(group.fibers)
    return found[::-1]


def close(run: "Run", fiber: Fiber) -> None:
    """Close a coroutine for good, without a trace: whatever it asks for is refused."""
    coro, fiber.coro = fiber.coro, None
    fiber.done = True
    if coro is None:
        return
    run.current = fiber
    signal = fiber.signal = Closed()
    for _ in range(REFUSALS):
        try:
            coro.throw(signal)
        except BaseException:  # noqa: BLE001 - the body is gone; what it raised on its way out is nobody's outcome
            break
    # Cut the circles: a run that waits is evicted so that it costs a row and no memory, and not one collection later.
    signal.with_traceback(None)
    fiber.wait = fiber.group = None
    fiber.groups = ()
