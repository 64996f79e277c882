"""Drives an abandoned body along its journal once more, only to learn which step the code means by which key.

Invariant: nothing is written and nothing is called; where code and journal part, the binding ends early.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from durable_core.errors import Closed, Fault
from durable_core.model.entry import ROLES, Entry, EntryKind, Role, effective
from durable_core.model.record import abandoned_at
from durable_core.model.spec import StepSpec
from durable_core.replay.cursor import End
from durable_core.replay.fibers import Fiber
from durable_core.replay.host_context import HostContext
from durable_core.replay.run import Run


class Shadow(Run):
    """A run that is driven as far as its journal goes, and leaves no trace."""

    __slots__ = ()

    def input(self, *_entry: Any, **_columns: Any) -> Entry:
        """The journal is at its end: the body may go no further."""
        raise Closed

    def save(self, *, owner: str | None, wake_at_ns: int | None, end: End | None = None) -> None:
        """Nothing is written."""

    def park(self, fault: Fault) -> None:  # noqa: ARG002 - a shadow
        """The code no longer fits: what was bound so far counts."""
        self.dead = True

    def finish(self, end: End) -> None:  # noqa: ARG002 - a shadow
        """The body has come to its end."""
        self.dead = True

    def driven(self, broken: Exception | None) -> None:
        """No timer is set, and nobody is told."""
        self.unarmed = ()
        if broken is not None or self.fault is not None:
            self.dead = True

    def release(self) -> None:
        """The worker knows nothing of a shadow."""
        self.dead = True

    def _issue(self, fiber: Fiber, command: Any) -> None:
        try:
            super()._issue(fiber, command)
        except Closed:
            self.dead = True
            self.ready.clear()

    def along(self, entries: Sequence[Entry]) -> None:
        """Feed what a replay would feed."""
        self.backlog = deque(effective(entries))
        self.pump()
        while self.backlog and not self.dead and ROLES[EntryKind(self.backlog[0].kind)] is not Role.OUTPUT:
            self.take(self.backlog.popleft())
            self.pump()


def bindings(run: Run, entries: Sequence[Entry], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, StepSpec]:
    """What the code loaded here ran each step key with, for a run whose journal abandons its body; else nothing."""
    place = abandoned_at(entries)
    if place is None:
        return {}
    shadow = Shadow(run.shell, run.definition, num=run.num, id=run.id, uid=run.uid, created_at_ns=run.last_at_ns)
    shadow.begin(run.definition.fn(HostContext(shadow), *args, **kwargs))
    shadow.along(entries[:place])
    found = {key: step.spec for key, step in shadow.steps.items() if step.spec is not None}
    shadow.evict()
    return found
