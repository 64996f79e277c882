"""What a run in memory waits for: what its row keeps of that once nobody drives it."""

from collections.abc import Iterable, Mapping

from durable_core.model.awaited import PERSON, Awaited, write_awaits
from durable_core.replay.parts import Step, StuckFiber, Wait


def waiting_on(steps: Iterable[Step], waits: Mapping[str, Wait]) -> str | None:
    """The waits and retries of a waiting run, from its steps and its waits by key."""
    retries = (step for step in steps if step.waiting and step.due_at_ns is not None)
    found = [Awaited("retry", step.key, step.due_at_ns, step.attempt) for step in retries]
    found += [Awaited(wait.timed, key, wait.due_at_ns) for key, wait in waits.items() if not wait.over]
    return write_awaits(found)


def stuck_on(fibers: Iterable[StuckFiber], faulted: Iterable[str]) -> str | None:
    """The steps that a stuck run is stuck on: those of its fibers that wait for a person, and those of its fault."""
    keys = [*(step for each in fibers for step in each.steps), *faulted]
    return write_awaits(Awaited(PERSON, key) for key in dict.fromkeys(keys))
