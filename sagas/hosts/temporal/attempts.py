"""Makes attempts in activities, and reads how they ended.

Invariant: an attempt that was made says so by an envelope of ours; without one its process is dead.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import (
    RawValue,
)
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from durable_core.layer import Done, in_words, rebuild
from sagas.hosts.attempts import Attempts, NotLoaded
from sagas.hosts.temporal.limits import LEASE

CALL = b"call"
"""Marks arguments in our own form, which has those by keyword too."""
NOT_LOADED = "StepNotLoaded"
"""The type of the error of an attempt whose worker does not know the step: nothing was called."""


def raw(data: bytes, mark: bytes = b"") -> RawValue:
    """JSON as Temporal keeps it; ``mark`` says that it is of a form of ours."""
    return RawValue(Payload(metadata={"encoding": b"json/plain", **({"sagas": mark} if mark else {})}, data=data))


async def make(attempts: Attempts, args: Sequence[RawValue]) -> RawValue:
    """The attempt that a workflow asks for. It heartbeats, so that the death of this process is noticed."""
    beating = asyncio.create_task(_beat())
    try:
        done = await attempts.make(args[0].payload.data)
    except NotLoaded as unknown:
        raise ApplicationError(str(unknown), type=NOT_LOADED) from None
    finally:
        beating.cancel()
    if not bytes(done.error):
        return raw(msgspec.json.encode(done))
    error = rebuild(bytes(done.error))
    raise ApplicationError(  # so that Temporal's own views show a failed attempt as failed
        in_words(error),
        raw(msgspec.json.encode(done)),
        type=type(error).__name__,
        non_retryable=True,
        category=ApplicationErrorCategory.BENIGN,
    )


async def _beat() -> None:
    span = activity.info().heartbeat_timeout or LEASE
    while True:
        activity.heartbeat()
        await asyncio.sleep(span.total_seconds() / 3)


def end_of(handle: "workflow.ActivityHandle[Any]") -> Done | str | None:
    """How an attempt ended by its envelope; the type of an error that has none; None where its process is dead."""
    error = handle.exception()
    if error is None:
        return msgspec.json.decode(handle.result().payload.data, type=Done)
    cause = error.__cause__
    if not isinstance(cause, ApplicationError):
        return None
    if cause.type == NOT_LOADED:
        return NOT_LOADED
    try:
        return msgspec.json.decode(msgspec.json.encode(cause.details[0]), type=Done)
    except (IndexError, msgspec.MsgspecError):  # Temporal's own, such as that of a worker that shut down
        return None
