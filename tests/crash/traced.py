"""A saga for workers that are killed while they are traced: its second step waits for a file, its last one refuses."""

import time
from pathlib import Path

from opentelemetry import trace

from sagas import Saga, current, saga, step


class Refused(Exception):
    """No."""


@step
def first(place: str) -> str:
    with trace.get_tracer("participant").start_as_current_span(f"call {current().step}"):
        return place


@first.compensate
def undo_first(place: str) -> None:
    with trace.get_tracer("participant").start_as_current_span("call back"):
        Path(place, "undone").touch()


@step(compensation=None, because="it only waits")
def second(place: str) -> None:
    Path(place, f"entered-{current().attempt}").touch()
    while not Path(place, "go").exists():
        time.sleep(0.005)  # a thread of a process that is about to be killed


@step(compensation=None, because="it refuses", rejects=(Refused,))
def third(place: str) -> None:
    raise Refused(f"the password is hunter2 at {place}")


@saga("traced", version=1)
async def traced(s: Saga, place: str, secret: str) -> None:
    """``secret`` must be in no span."""
    assert secret
    await s.run(first, place)
    await s.run(second, place)
    await s.run(third, place)
