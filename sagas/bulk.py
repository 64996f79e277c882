"""One operator's verb on all sagas that a filter finds: each in a commit of its own.

Invariant: what was done stays done. A walk that was cut can be begun again, and does only what is left.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import attrs
import msgspec

from durable_core import DefinitionError, StoreError
from durable_core.layer import OPEN, Client, Codec, RunQuery, Standing
from sagas.errors import SagasError
from sagas.model.info import SagaInfo
from sagas.model.phases import SAGA_ENDS, SagaStatus
from sagas.model.verbs import VERBS, OperatorAction

RESTART = "restart"
AT_ONCE = 32
"""Sagas that are told at once: so many that a store commits them together, so few that others come in between."""
PAGE = 512
OF_A_STEP = frozenset({"retry", "skip", "resolve"})
"""The verbs that take a step."""
AGAIN = "~restarted"
"""Behind the id of a saga that was restarted among many: so a walk that is begun again restarts none twice."""


@attrs.frozen
class BulkReport:
    """What a verb on many sagas has come to."""

    matched: int
    """How many sagas the filter found."""
    done: int
    """How many of them have taken the verb, or had it already; 0 in a dry run."""
    refused: dict[str, str]
    """Why the others did not, by id."""


@attrs.frozen(kw_only=True)
class BulkVerb:
    """A verb for many sagas."""

    verb: str
    step: str | None = None
    happened: bool | None = None
    actor: str = ""
    note: str = ""

    def action(self) -> OperatorAction:
        """The verb as each saga gets it.

        Raises:
            DefinitionError: there is no such verb, or it lacks what it needs.
            PayloadError: actor or note cannot be stored.
        """
        if self.verb not in VERBS and self.verb != RESTART:
            known = ", ".join((*VERBS, RESTART))
            raise DefinitionError(f"apply({self.verb!r}): there is no such verb", f"Use one of {known}")
        if self.step is None and self.verb in ("skip", "resolve"):
            raise DefinitionError(f"apply({self.verb!r}) needs step=, the key of the step; nothing was changed")
        if self.step is not None and self.verb not in OF_A_STEP:
            raise DefinitionError(f"apply({self.verb!r}) takes no step=; nothing was changed")
        if (self.happened is None) == (self.verb == "resolve"):
            raise DefinitionError(
                f"apply({self.verb!r}): happened= is for resolve, which needs it; nothing was changed"
            )
        result = msgspec.Raw(Codec().encode(None, what="the result"))
        return OperatorAction(step=self.step, happened=self.happened, result=result, actor=self.actor, note=self.note)


def chosen(query: RunQuery, filters: Mapping[str, Any], verb: str) -> RunQuery:
    """The sagas that a verb is for. Those that have ended only where a status names them.

    Raises:
        DefinitionError: there is no filter; or the verb is about ended sagas, and no status says which.
    """
    if not any(filters.values()):
        raise DefinitionError(
            f"apply({verb!r}) without any filter would reach every saga; nothing was changed",
            "Give status=, saga=, version=, since=, tags= or attention=",
        )
    if query.statuses is not None:
        return query
    if verb == RESTART:
        ends = ", ".join(sorted(SAGA_ENDS))
        raise DefinitionError(f"apply({RESTART!r}) is for ended sagas; nothing was changed", f"Give status=: {ends}")
    return attrs.evolve(query, statuses=OPEN)


async def apply(client: Client[SagaInfo, SagaStatus], query: RunQuery, order: BulkVerb, *, dry_run: bool) -> BulkReport:
    """Give a verb to all sagas that match; each is durable on return.

    Raises:
        StoreError: the store failed. What was done stays done: call it again for the rest.
    """
    action = order.action()
    if dry_run:
        return BulkReport(matched=await client.runtime.count(query), done=0, refused={})
    matched, refused = 0, dict[str, str]()
    async for page in client.pages(query, size=PAGE):
        for start in range(0, len(page), AT_ONCE):
            some = page[start : start + AT_ONCE]
            matched += len(some)
            refused |= await _told(client, some, order, action)
    return BulkReport(matched=matched, done=matched - len(refused), refused=refused)


async def _told(
    client: Client[SagaInfo, SagaStatus], some: Sequence[Standing], order: BulkVerb, action: OperatorAction
) -> dict[str, str]:
    """Give the verb to a few sagas; why it was refused, by id."""

    def tell(standing: Standing) -> Awaitable[object]:
        if order.verb == RESTART:
            return _restart(client, standing, order)
        return client.act(standing.record.id, order.verb, action)

    reasons = await asyncio.gather(*(refusal(tell(each)) for each in some), return_exceptions=True)
    refused: dict[str, str] = {}
    for standing, reason in zip(some, reasons, strict=True):
        if isinstance(reason, BaseException):
            raise reason
        if reason is not None:
            refused[standing.record.id] = reason
    return refused


async def refusal(told: Awaitable[object]) -> str | None:
    """Why a saga refuses what it is told; None if it does not.

    Raises:
        StoreError: the store failed, which is no answer of the saga's.
    """
    try:
        await told
    except StoreError:
        raise
    except SagasError as error:
        return error.text
    return None


async def _restart(client: Client[SagaInfo, SagaStatus], standing: Standing, order: BulkVerb) -> None:
    """Restart a saga, unless this was done before."""
    id = standing.record.id
    if f"{id}{AGAIN}" not in standing.restarted_as:
        await client.restart(id, new_id=f"{id}{AGAIN}", actor=order.actor, note=order.note)
