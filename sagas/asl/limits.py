"""The service's limits: names, payloads, the definition's size, and the events of one execution.

https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from sagas.asl.policy import FOREVER, MOST_ATTEMPTS, State

MOST_EVENTS = 25_000
LARGEST_PAYLOAD = 256 << 10
LARGEST_DEFINITION = 1 << 20
FEWEST_ATTEMPTS = 100
"""A step that is retried for ever needs room for at least so many."""

OF_TASK, OF_ATTEMPT, OF_PARALLEL, OF_OTHER, OF_EXECUTION = 5, 3, 4, 2, 2
"""Events: entered, scheduled, started, succeeded, exited; those of a further attempt; of a Parallel; of the others."""


def states_of(program: State) -> Iterator[tuple[str, State]]:
    """All states, also those of branches."""
    todo = [program]
    while todo:
        for name, state in todo.pop()["States"].items():
            yield name, state
            todo.extend(state.get("Branches", ()))


def events(program: State) -> int:
    """The most events of one execution, without the attempts of steps that are retried for ever.

    Every state counts once, with all its attempts: no execution enters one twice.
    """
    return OF_EXECUTION + sum(_of_state(state) for _, state in states_of(program))


def _of_state(state: State) -> int:
    match state["Type"]:
        case "Task":
            retries: int = sum(max(0, each["MaxAttempts"]) for each in state.get("Retry", ()))
            return OF_TASK + OF_ATTEMPT * retries
        case "Parallel":
            return OF_PARALLEL
        case _:
            return OF_OTHER


def bound(program: State, used: int) -> str | None:
    """Give what is retried for ever the attempts for which the events of one execution last.

    Returns:
        Why they do not last; None if they do.
    """
    forever = [
        each for _, state in states_of(program) for each in state.get("Retry", ()) if each["MaxAttempts"] == FOREVER
    ]
    if not forever:
        return None
    attempts = (MOST_EVENTS - used) // (OF_ATTEMPT * len(forever))
    for each in forever:
        each["MaxAttempts"] = min(attempts, MOST_ATTEMPTS)
    if attempts >= FEWEST_ATTEMPTS:
        return None
    return (
        f"of the {MOST_EVENTS:,} events of one execution, {len(forever)} steps that are retried for ever would have "
        f"{attempts} attempts each. Give them `attempts=`, or divide the graph"
    )


def faults(program: State, used: int, text: bytes) -> Iterator[str]:
    """Which limits the machine does not keep.

    Args:
        program: the machine.
        used: its events.
        text: as it is written.
    """
    if used > MOST_EVENTS:
        yield (
            f"one execution may have {used:,} events, and the service ends it at {MOST_EVENTS:,}. Lower the attempts "
            "of steps and compensations, or divide the graph"
        )
    if len(text) > LARGEST_DEFINITION:
        yield f"the definition has {len(text):,} bytes, and the service takes {LARGEST_DEFINITION:,}. Divide the graph"
    for name, state in states_of(program):
        size = len(_json(state.get("Parameters", {})))
        if size > LARGEST_PAYLOAD:
            yield (
                f"state {name!r} is given {size:,} bytes of plain values, and the service passes on "
                f"{LARGEST_PAYLOAD:,}. Put them where the step can read them"
            )


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
