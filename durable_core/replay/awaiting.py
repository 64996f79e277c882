"""What a run in memory waits for: what its row keeps of that once nobody drives it."""

from collections.abc import Iterable, Mapping

from durable_core.model.awaited import PERSON, Awaited, write_awaits
from durable_core.model.run import RunStatus
from durable_core.replay.cursor import Row
from durable_core.replay.parts import Step, StuckFiber, Wait


def awaits_of(row: Row, *, stuck: Iterable[StuckFiber], steps: Iterable[Step], waits: Mapping[str, Wait]) -> str | None:
    """The waits and retries of a waiting run, or the steps that a stuck one is stuck on; None for any other.

    Args:
        row: of the run.
        stuck: its fibers that wait for a person.
        steps: those that have begun.
        waits: by key.
    """
    match row.status:
        case RunStatus.STUCK:
            keys = [*(step for each in stuck for step in each.steps), *row.stuck_on]
            return write_awaits(Awaited(PERSON, key) for key in dict.fromkeys(keys))
        case RunStatus.WAITING:
            retries = (step for step in steps if step.waiting and step.due_at_ns is not None)
            found = [Awaited("retry", step.key, step.due_at_ns, step.attempt) for step in retries]
            found += [Awaited(wait.timed, key, wait.due_at_ns) for key, wait in waits.items() if not wait.over]
            return write_awaits(found)
        case _:
            return None
