"""What any body may do, whatever layer it is written for: ask for the time and for chance, wait, and be answered."""

from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from durable_core.bodies.callback import Callback
from durable_core.bodies.operation import Operation, watched
from durable_core.errors import DefinitionError, Fault
from durable_core.model.duration import Duration, shown
from durable_core.replay.host_context import HostContext

if TYPE_CHECKING:
    import logging

T = TypeVar("T")


class BodyContext:
    """The operations that every body has. A layer adds its own: ``Context`` adds steps, ``sagas.Saga`` sagas' ones."""

    __slots__ = ("_core",)

    def __init__(self, core: HostContext) -> None:
        self._core = core

    @property
    def id(self) -> str:
        """The run's id."""
        return self._core.id

    @property
    def version(self) -> int:
        """The version that this run is pinned to."""
        return self._core.version

    @property
    def log(self) -> "logging.LoggerAdapter[logging.Logger]":
        """A logger that is silent while replaying."""
        return self._core.log

    @watched
    def now(self) -> datetime:
        """The time of the last checkpoint (aware, UTC), the same on every replay."""
        return self._core.now()

    @watched
    def uuid(self) -> UUID:
        """A random UUID, the same on every replay."""
        return self._core.uuid()

    @watched
    def random(self) -> float:
        """A number in [0, 1), the same on every replay."""
        return self._core.random()

    @watched
    def patched(self, name: str) -> bool:
        """True for runs that begin, or first come here, with the changed code; False for those that passed before."""
        return self._core.patched(name)

    def sleep(self, span: Duration) -> Coroutine[Any, Any, None]:
        """Wait for ``span`` (a timedelta, or seconds, from 0); durable."""
        return Operation(self._core, f"{self._core.word}.sleep(...)", self._sleep, (span,))

    async def _sleep(self, span: Duration) -> None:
        await self._core.sleep(span)

    def sleep_until(self, when: datetime) -> Coroutine[Any, Any, None]:
        """Wait until ``when`` (aware), and not at all where that is past; durable."""
        return Operation(self._core, f"{self._core.word}.sleep_until(...)", self._sleep_until, (when,))

    async def _sleep_until(self, when: datetime) -> None:
        await self._core.sleep_until(when)

    def callback(
        self, name: str, type: type[T], *, timeout: Duration | None = None, heartbeat: Duration | None = None
    ) -> Coroutine[Any, Any, Callback[T]]:
        """Create a callback that somebody outside will answer with a value of ``type``.

        Its ``token`` may be given to a step that hands it out.

        Args:
            name: what it is called, also by who answers it by name; a second use of a name is ``approval#2``.
            type: what answers must be; others are refused to their sender.
            timeout: how long to wait, a timedelta or seconds, from here; nothing extends it.
            heartbeat: also give up where neither an answer nor a heartbeat comes within this span, from here and from
                each heartbeat.

        A name or duration that cannot be used, and a ``type`` whose answers could not be read, are faults of the code:
        the run is stuck, and nothing was journalled.
        """
        what = f"{self._core.word}.callback({shown(name)}, ...)"
        return Operation(self._core, what, self._callback, (name, type, timeout, heartbeat))

    async def _callback(
        self, name: str, declared: Any, timeout: Duration | None, heartbeat: Duration | None
    ) -> Callback[Any]:
        return Callback(self._core, self._core.callback(name, declared, timeout=timeout, heartbeat=heartbeat))

    def first(self, *callbacks: Callback[Any]) -> Coroutine[Any, Any, Callback[Any]]:
        """Wait until one of ``callbacks`` is answered, or times out; returns that one."""
        return Operation(self._core, f"{self._core.word}.first(...)", self._first, (callbacks,))

    async def _first(self, callbacks: Sequence[Any]) -> Callback[Any]:
        core = self._core
        for each in callbacks:
            if not isinstance(each, Callback):
                core.mistake(
                    DefinitionError(
                        f"{core.word}.first(...) was given {shown(each)}; give it what "
                        f"`await {core.word}.callback(...)` returned"
                    )
                )
        if not callbacks:
            core.refuse(
                Fault(
                    f"run {core.id}: {core.word}.first() was given no callback, so it would wait for ever; "
                    "give it one, then retry the run"
                )
            )
        first: Callback[Any] = callbacks[await core.wait_for_first([callback.pending for callback in callbacks])]
        return first
