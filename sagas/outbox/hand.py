"""Hands entries on to an orchestrator, and says what became of each.

Invariant: handing an entry on twice has the effect of once. A start repeats its id, an answer itself, and a cancel is
taken for the first one.
"""

import logging
from typing import Any

import attrs

from durable_core import StoreError
from durable_core.layer import COMPLETED, FAILED, Answer, CallbackAddress, CallbackDelivery, Client, called_by
from sagas.errors import SagasError
from sagas.model.verbs import OperatorAction
from sagas.outbox.entries import Answered, Cancelled, Entry, HandedOn, NotNow, Refused, Start, Verb, Verdict, lane_of

log = logging.getLogger("sagas")


@attrs.frozen
class ClientHand:
    """The calls of one orchestrator."""

    client: Client[Any, Any]

    async def lane(self, entry: Entry) -> str:
        """The saga that an entry is about; a lane of its own where none has its token.

        Raises:
            StoreError: the store cannot be asked now.
        """
        if entry.saga_id is not None:
            return lane_of(entry.saga_id)
        try:
            request = entry.read()
            token = request.token if isinstance(request, Answered) else None
            record, _ = await CallbackDelivery(self.client.runtime).by_token(token or "")
        except StoreError:
            raise
        except (SagasError, ValueError):  # handing it on says why
            return f"/{entry.id}"
        return lane_of(record.id)

    async def hand_on(self, entry: Entry) -> Verdict:
        """Do what an entry asks for; durable in the store where it was handed on."""
        try:
            with called_by(entry.traceparent):
                await self._do(entry)
        except StoreError as error:
            return NotNow(error)
        except (SagasError, ValueError) as error:
            return Refused(str(error))
        except Exception as error:  # a border: whatever is wrong with one entry, the others must go on
            log.exception("entry %d of an outbox was not handed on, for a reason that nobody foresaw", entry.id)
            return Refused(f"unexpected {type(error).__name__}: {error}")
        return HandedOn()

    async def _do(self, entry: Entry) -> None:
        request, saga_id = entry.read(), entry.saga_id or ""
        match request:
            case Start(saga=name, version=version, input=payload):
                await self.client.begin_encoded(
                    name,
                    bytes(payload),
                    id=saga_id,
                    version=version,
                    deadline_ns=request.deadline_ns,
                    trace=request.trace,
                    traceparent=entry.traceparent,
                    tags=request.tags,
                )
            case Answered(token=token, name=name):
                kind = COMPLETED if entry.verb == Verb.COMPLETE else FAILED
                address = CallbackAddress(token=token, run_id=entry.saga_id, name=name)
                await self.client.answer(address, Answer("", kind, request.value, request.actor, request.note))
            case Cancelled(reason=reason, actor=actor, note=note):
                await self.client.act(saga_id, "cancel", OperatorAction(reason=reason, actor=actor, note=note))
