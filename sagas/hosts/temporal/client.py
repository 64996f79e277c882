"""The client: Temporal as ``HostClient`` needs it."""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from temporalio import client as temporal_client
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.common import (
    RawValue,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from durable_core import PayloadError, RunStatus, StoreError
from durable_core.layer import (
    sentences,
)
from sagas.hosts.calls import HostClient, not_found
from sagas.hosts.declared import TEMPORAL
from sagas.hosts.shared import (
    Begin,
    Ended,
    Snapshot,
)
from sagas.hosts.temporal.attempts import CALL, raw
from sagas.hosts.temporal.limits import LARGEST_PAYLOAD
from sagas.hosts.tokens import forged, id_of
from sagas.model.definition import SagaDef
from sagas.model.verbs import VERBS, OperatorAction

log = logging.getLogger("sagas")

QUERY_S = 10
"""How long a worker has to derive a saga."""
AGLANCE_S = 2
"""The same where it is looked at again and again."""
OF_CODE = frozenset(
    {
        WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNSPECIFIED,
        WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE,
        WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR,
    }
)
MISFIT_STATUS = frozenset({RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.INVALID_ARGUMENT})
TASK_ENDS = frozenset(
    {
        EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
        EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
    }
)
ENDED_BY_HOST = "the execution was ended by Temporal itself ({why}); nothing was undone"
DOES_NOT_FIT = (
    "saga {id}: the code that is loaded does not fit its history, or no version of it is served ({why}). Nothing was "
    "done. Start a worker with the code that began it: Temporal goes on by itself"
)
MISFITS = 2
"""Workers in a row that could not derive a saga, before it counts as stuck: others may serve its version."""


class Client(HostClient):
    """The calls of ``Orchestrator`` for sagas on Temporal; coroutines.

    What Temporal has by its own means raises ``Unsupported``, which names them.

    Args:
        client: connected to the namespace.
        task_queue: the queue of the workers.
        sagas: sagas whose arguments and results are known by type here; others are plain JSON.
    """

    host = TEMPORAL

    def __init__(
        self, client: temporal_client.Client, *, task_queue: str, sagas: Sequence[SagaDef[..., Any]] = ()
    ) -> None:
        super().__init__(_Port(client, task_queue), sagas)


class _Port:
    """Temporal, as ``HostClient`` needs it."""

    def __init__(self, client: temporal_client.Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue

    def digest(self, input: bytes) -> str:
        return hashlib.blake2b(input, digest_size=16).hexdigest()

    async def begin(self, id: str, saga: str, input: bytes, begin: Begin) -> bool:
        if len(input) > LARGEST_PAYLOAD:
            raise PayloadError(
                f"saga {id}: its arguments have {len(input):,} bytes, and Temporal takes {LARGEST_PAYLOAD:,}; nothing "
                "was started",
                "Store them, and pass where they are",
            )
        try:
            await self._client.start_workflow(
                saga,
                raw(input, CALL),
                id=id,
                task_queue=self._task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={"sagas": raw(msgspec.json.encode(begin))},
            )
        except WorkflowAlreadyStartedError:
            return False
        except RPCError as error:
            raise _lost(error, f"saga {id} could not be started") from error
        return True

    async def find(self, id: str) -> tuple[str, Begin] | None:
        try:
            found = await self._client.get_workflow_handle(id).describe()
            kept = await found.memo_value("sagas", {})
        except RPCError as error:
            if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
                return None
            raise _lost(error, f"saga {id} could not be looked up") from error
        return found.workflow_type, msgspec.convert(kept, type=Begin)

    async def look(self, id: str) -> Snapshot:
        found: RawValue = await self._query(id, "journal", RawValue)
        return msgspec.json.decode(found.payload.data, type=Snapshot)

    async def _query(self, id: str, name: str, result: Any, *args: Any) -> Any:
        try:
            return await self._ask(id, name, result, *args, limit_s=QUERY_S)
        except _DoesNotFit as error:
            text = f"saga {id}: the code that a worker has loaded cannot derive it: {error}"
            raise StoreError(text, "Start a worker with the code that began the saga", transient=True) from error

    async def _ask(self, id: str, name: str, result: Any, *args: Any, limit_s: float) -> Any:
        """Ask the workflow. A query that got lost as the execution changed hands is asked again."""
        handle = self._client.get_workflow_handle(id)
        left_s = limit_s
        while True:
            span_s = min(left_s, AGLANCE_S) if left_s == limit_s else left_s
            left_s -= span_s
            try:
                limit = timedelta(seconds=span_s)
                return await handle.query(name, args=args, result_type=result, rpc_timeout=limit)
            except temporal_client.WorkflowQueryFailedError as error:
                raise _DoesNotFit(str(error)) from error
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    raise not_found(id, Client.host.name) from error
                if error.status in MISFIT_STATUS:
                    raise _DoesNotFit(error.message) from error
                if left_s <= 0:
                    raise _lost(error, f"saga {id}: no worker answered", "Start a worker on its task queue") from error

    async def outcome(self, id: str) -> Ended:
        """A stuck saga's execution stays open, so it is looked at from time to time."""
        waiting = asyncio.ensure_future(self._result(id))
        pause_s, misfits = 0.1, 0
        try:
            while True:
                await asyncio.wait({waiting}, timeout=pause_s)
                if waiting.done():
                    return await waiting
                found = await self._standing(id)
                misfits = misfits + 1 if isinstance(found, str) else 0
                if misfits == MISFITS:
                    return Ended(RunStatus.STUCK, reason=DOES_NOT_FIT.format(id=id, why=found))
                if isinstance(found, Ended) and found.status is RunStatus.STUCK:
                    return found
                pause_s = min(2.0, pause_s * 1.5)
        finally:
            waiting.cancel()

    async def _standing(self, id: str) -> Ended | str | None:
        """How a run stands; why the worker's code cannot derive it; None where no worker answers."""
        try:
            found: RawValue = await self._ask(id, "journal", RawValue, limit_s=AGLANCE_S)
            return Ended.of(msgspec.json.decode(found.payload.data, type=Snapshot).record)
        except _DoesNotFit as error:
            return str(error)
        except StoreError:
            return await self._failing(id)

    async def _failing(self, id: str) -> str | None:
        """Why the last workflow task failed; None where it did not, or a worker died in it."""
        why: str | None = None
        try:
            async for event in self._client.get_workflow_handle(id).fetch_history_events():
                if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                    failed = event.workflow_task_failed_event_attributes
                    why = failed.failure.message or "its workflow task fails" if failed.cause in OF_CODE else None
                elif event.event_type in TASK_ENDS:
                    why = None
        except RPCError as error:
            log.debug("saga %s: its history cannot be read: %s", id, error)
        return why

    async def _result(self, id: str) -> Ended:
        handle = self._client.get_workflow_handle(id, result_type=RawValue)
        try:
            found: RawValue | None = None
            while found is None:
                with contextlib.suppress(RuntimeError):  # a server that ends its long poll with nothing
                    found = await handle.result()
        except temporal_client.WorkflowFailureError as failed:
            cause = failed.cause
            if isinstance(cause, ApplicationError) and cause.details:
                return msgspec.convert(cause.details[0], type=Ended)
            if isinstance(cause, ApplicationError):  # refused before it began
                raise PayloadError(f"saga {id} was not begun: {cause.message}") from failed
            return Ended(RunStatus.KILLED, reason=ENDED_BY_HOST.format(why=type(cause).__name__))
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise not_found(id, Client.host.name) from error
            raise _lost(error, f"saga {id} could not be awaited") from error
        return Ended(RunStatus.COMPLETED, output=found.payload.data)

    async def cancel(self, id: str, action: OperatorAction) -> bool:
        """Temporal's own cancel brings a reason; an actor and a note are said in it."""
        said = [action.reason, f"by {action.actor}" if action.actor else "", action.note]
        try:
            await self._client.get_workflow_handle(id).cancel(reason=sentences(*said))
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise _lost(error, f"saga {id} could not be cancelled") from error
        return True

    async def tell(self, id: str, verb: str, payload: bytes) -> bool:
        name = "operator" if verb in VERBS else "answer"
        if name == "operator":
            payload = msgspec.json.encode({**msgspec.json.decode(payload), "verb": verb})
        try:
            await self._client.get_workflow_handle(id).signal(name, raw(payload))
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise _lost(error, f"saga {id} could not be told to {verb}") from error
        return True

    async def locate(self, token: str) -> tuple[str, str]:
        id = id_of(token)
        if await self.find(id) is None:
            raise forged()
        key: str | None = await self._query(id, "callback", None, token)
        if key is None:
            raise forged()
        return id, key


class _DoesNotFit(Exception):
    """A worker answered, and its code cannot derive the saga."""


def _lost(error: RPCError, what: str, advice: str = "Check the connection to Temporal, then try again") -> StoreError:
    return StoreError(f"{what}: {error.message}", advice, transient=True)
