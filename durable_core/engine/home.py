"""The event loop that an engine was entered on: its coroutines run there, and refuse to run on another one.

Invariant: a call on another loop is refused before it has any effect, as the engine's objects are not thread-safe and
futures belong to one loop.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction
from operator import attrgetter
from typing import Any, TypeVar

from durable_core.errors import WrongLoop
from durable_core.replay.guard import LoopGuard

C = TypeVar("C", bound=type)
ENTRANCES = ("__aenter__", "__aexit__")


class Home:
    """The loop that an engine was entered on."""

    __slots__ = ("_loop", "not_open")

    def __init__(self, not_open: tuple[str, str]) -> None:
        self.not_open = not_open
        """What is said of a call while there is none, and the advice."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> None:
        """From now on calls must be made on the running loop."""
        self._loop = asyncio.get_running_loop()

    def leave(self) -> None:
        """The engine was left: calls on any loop raise by themselves."""
        self._loop = None

    def is_elsewhere(self) -> bool:
        """Whether the caller runs on another loop than this one, or on none."""
        if self._loop is None:
            return False
        try:
            return asyncio.get_running_loop() is not self._loop
        except RuntimeError:
            return True

    def check(self, what: str) -> None:
        """Refuse a call that is made on another loop.

        Raises:
            WrongLoop: ``what`` was called on another loop, or on none.
            ForeignAwaitError: it was called by a body.
        """
        if not self.is_elsewhere():
            return
        running = _running()
        if isinstance(running, LoopGuard):
            raise running.refuse(what)
        raise WrongLoop(
            f"{what} was called on another event loop, perhaps in another thread, than the one that its engine "
            "was entered on; nothing was done",
            "Await it on that loop: from another thread, `asyncio.run_coroutine_threadsafe(call, loop)` does",
        )


def _running() -> object:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def at_home(where: str) -> Callable[[C], C]:
    """Have every public coroutine of a class refuse calls on another loop.

    Args:
        where: how an instance finds its ``Home``: ``engine.home``.
    """
    home: Callable[[object], Home] = attrgetter(where)

    def guarded(method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        @functools.wraps(method)
        async def call(self: object, *args: Any, **kwargs: Any) -> Any:
            # Checked when the coroutine runs: it may be created anywhere.
            if home(self).is_elsewhere():
                home(self).check(f"{type(self).__name__}.{method.__name__}")
            return await method(self, *args, **kwargs)

        return call

    def guard(cls: C) -> C:
        for name, member in list(vars(cls).items()):
            if iscoroutinefunction(member) and (not name.startswith("_") or name in ENTRANCES):
                setattr(cls, name, guarded(member))
        return cls

    return guard
