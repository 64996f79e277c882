"""The event loop that an engine lives on: its coroutines run there, and refuse to run anywhere else.

Invariant: a call from elsewhere is refused before it has touched anything: the engine's objects are not made for two
threads, and futures of one loop are not answered on another.
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
    """Where an engine was entered."""

    __slots__ = ("_loop",)

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> None:
        """From here on calls belong to the running loop."""
        self._loop = asyncio.get_running_loop()

    def leave(self) -> None:
        """The engine was left: whoever calls it is told so by the call itself."""
        self._loop = None

    def check(self, what: str) -> None:
        """Refuse a call from elsewhere.

        Raises:
            WrongLoop: ``what`` was called on another loop, or on none.
            ForeignAwaitError: it was called by a body.
        """
        if self._loop is None:
            return
        try:
            running: object = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            return
        if isinstance(running, LoopGuard):
            raise running.refuse(what)
        raise WrongLoop(
            f"{what} was called on another event loop, perhaps in another thread, than the one that its engine was "
            "entered on; nothing was done. Await it on that loop: from another thread, "
            "`asyncio.run_coroutine_threadsafe(call, loop)` does"
        )


def at_home(where: str) -> Callable[[C], C]:
    """Have every public coroutine of a class refuse calls from elsewhere, also one that is added later.

    Args:
        where: how an instance finds its ``Home``: ``engine.home``.
    """
    home: Callable[[object], Home] = attrgetter(where)

    def guarded(method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        @functools.wraps(method)
        async def call(self: object, *args: Any, **kwargs: Any) -> Any:
            # When it runs, and not when it is made, which may be done anywhere.
            home(self).check(f"{type(self).__name__}.{method.__name__}")
            return await method(self, *args, **kwargs)

        return call

    def guard(cls: C) -> C:
        for name, member in list(vars(cls).items()):
            if iscoroutinefunction(member) and (not name.startswith("_") or name in ENTRANCES):
                setattr(cls, name, guarded(member))
        return cls

    return guard
