"""The smallest host: it keeps inputs in a list, calls steps as tasks, and derives its run anew for each input.

Invariant: the run is derived from the kept inputs alone, so every input is also a re-drive of everything before it.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import attrs
import msgspec

from durable_core.hosts.attempt import Clocked, attempt_here
from durable_core.hosts.hosted import CallStep, HostedRun, Want
from durable_core.model.callback import COMPLETED, FAILED, Answer
from durable_core.model.calls import Done
from durable_core.model.codec import Codec
from durable_core.model.entry import Entry
from durable_core.model.spec import DurableFunction

BEGAN_NS = 1_900_000_000_000_000_000
TICK_NS = 1_000_000


class NotAlike(AssertionError):
    """A re-drive has derived another journal, or an operation was begun twice."""


@attrs.define
class MemoryHost:
    """Runs one durable function; time passes only when nothing else can happen."""

    function: DurableFunction
    codec: Codec
    arguments: tuple[Any, ...] = ()
    id: str = "r1"
    calls_here: Callable[[CallStep, Clocked], Any] = lambda want, clocked: attempt_here(want.step, clocked)
    """Makes an attempt; replace it to have calls made elsewhere, or to lose them."""
    kept: list[Callable[[HostedRun], None]] = attrs.field(factory=list[Callable[[HostedRun], None]])
    """The inputs so far, in order: all that a host has to keep."""
    begun: list[str] = attrs.field(factory=list[str])
    """The calls that were begun, by operation."""
    journal: list[Entry] = attrs.field(factory=list[Entry])
    now_ns: int = BEGAN_NS
    _tasks: "dict[str, asyncio.Task[Done]]" = attrs.field(factory=dict[str, "asyncio.Task[Done]"])

    def derive(self, inputs: int | None = None) -> HostedRun:
        """The run after so many inputs; default all."""
        run = HostedRun(
            self.function,
            self.function.shape.encode(self.arguments, {}, what="the arguments"),
            id=self.id,
            uid=b"memory-host-0001",
            at_ns=BEGAN_NS,
            codec=self.codec,
            token=lambda key: f"{self.id}:{key}",
        )
        for feed in self.kept[:inputs]:
            feed(run)
        return run

    async def drive(self, until: str | None = None) -> HostedRun:
        """Let everything happen until the run ends, is stuck or waits; or wants the operation ``until``."""
        while True:
            run = self.derive()
            if run.journal[: len(self.journal)] != self.journal:
                raise NotAlike(f"{run.journal} does not begin with {self.journal}")
            self.journal = list(run.journal)
            wants = run.wants()
            self._begin(wants)
            if until in wants or run.end is not None:
                return run
            if self._tasks:
                await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
                self._keep_returned()
            elif not self._ring(wants):
                return run

    def _begin(self, wants: Mapping[str, Want]) -> None:
        clocked = Clocked(lambda: self.now_ns, lambda: 0.5)
        for op, want in wants.items():
            if isinstance(want, CallStep) and op not in self._tasks:
                if op in self.begun:
                    raise NotAlike(f"{op} is to be called a second time")
                self.begun.append(op)
                self._tasks[op] = asyncio.ensure_future(self.calls_here(want, clocked))

    def _keep_returned(self) -> None:
        for op, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[op]
                self._keep(partial(HostedRun.returned, op=op, done=task.result()))

    def _ring(self, wants: Mapping[str, Want]) -> bool:
        """Let time pass up to the next timer; False where there is none."""
        due = [
            (want.due_ns, op)
            for op, want in wants.items()
            if not isinstance(want, CallStep) and want.due_ns is not None
        ]
        if not due:
            return False
        due_ns, op = min(due)
        self.now_ns = max(self.now_ns, due_ns)
        self._keep(lambda run: run.rang(op))
        return True

    def _keep(self, feed: Callable[[HostedRun], None]) -> None:
        self.kept.append(feed)
        self.now_ns += TICK_NS

    # -- from outside ----------------------------------------------------------------------------------------------

    def tell(self, verb: str, **payload: Any) -> None:
        """Send a signal."""
        at_ns, stored = self.now_ns, msgspec.json.encode(payload)
        self._keep(lambda run: run.told(verb, stored, at_ns))

    def answer(self, key: str, value: Any, *, failed: bool = False) -> None:
        """Answer a callback."""
        at_ns = self.now_ns
        answer = Answer(key, FAILED if failed else COMPLETED, msgspec.Raw(msgspec.json.encode(value)))
        self._keep(lambda run: run.answered(answer, at_ns))

    async def lose(self, op: str) -> None:
        """The process of this call dies: it is never heard of again."""
        at_ns = self.now_ns
        await self._drop(op)
        self._keep(lambda run: run.cut(op, at_ns))

    async def drop_calls(self) -> None:
        """The process of all calls dies, and the host does not know yet."""
        for op in list(self._tasks):
            await self._drop(op)

    async def _drop(self, op: str) -> None:
        task = self._tasks.pop(op)
        task.cancel()
        await asyncio.wait({task})
