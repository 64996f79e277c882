"""What ``--json`` writes: plain dicts whose keys are part of the public contract.

Invariant: payloads are in them only where they were asked for.
"""

import sys
from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from durable_core import Codec
from sagas.cli.looking import Seen
from sagas.cli.remedies import remedies
from sagas.model.info import Entry, SagaInfo, StepState

OF_A_SAGA = (
    "id", "saga", "version", "status", "cause", "paused", "reason", "stuck_on",
    "created_at", "updated_at", "ended_at", "wake_at",
)  # fmt: skip
OF_A_STEP = ("key", "name", "kind", "status", "attempts", "error", "started_at", "ended_at")


def summary(info: SagaInfo) -> dict[str, Any]:
    """A saga in a list."""
    return {name: getattr(info, name) for name in OF_A_SAGA}


def whole(seen: Seen, *, payloads: bool, option: str) -> dict[str, Any]:
    """A saga with its steps, and the commands that mend it, each with ``option`` at its end."""
    info = seen.info
    found = summary(info) | {
        "error": seen.error,
        "status_detail": info.status_detail,
        "mend": [{"command": remedy.command, "effect": remedy.effect} for remedy in remedies(seen, option=option)],
    }
    if payloads:
        found |= {"input": plain(info.input), "result": plain(info.result)}
    return found | {"steps": [step(each, payloads=payloads) for each in info.steps]}


def step(state: StepState, *, payloads: bool) -> dict[str, Any]:
    """A step with its compensation."""
    found: dict[str, Any] = {name: getattr(state, name) for name in OF_A_STEP}
    if payloads:
        found["result"] = state.result
    undo = state.compensation
    return found | {"compensation": None if undo is None else step(undo, payloads=payloads)}


def history(saga_id: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """A journal."""
    return {"id": saga_id, "entries": [attrs.asdict(entry) for entry in entries]}


def plain(value: Any) -> Any:
    """A value as it is stored, for it may be an instance of the user's own class."""
    return msgspec.json.decode(Codec(limit=sys.maxsize).encode(value, what="the value to show"))
