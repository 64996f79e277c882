"""Looks at sagas: their rows and journals as their users see them."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import attrs
import msgspec

from durable_core import (
    CallShape,
    DefinitionError,
    JournalEntry,
    RunNotFound,
    RunOutcome,
    RunQuery,
    RunRecord,
    RunRef,
    Runs,
    RunStatus,
    at_home,
    is_text,
    ns_of,
    plain_input,
    rebuild,
)
from sagas.errors import SagaCompensated, SagaKilled, SagaNotFound, SagaStuck
from sagas.model.children import child_info, status_of_child, undone_in, within
from sagas.model.definition import SagaDef
from sagas.model.info import SagaInfo, SagaStatus, cause_of, info_of, is_saga, query_of, status_of
from sagas.model.stuck import why
from sagas.model.versions import VersionInfo, versions_of


@at_home("engine.home")
class Observer:
    """What can be asked about the sagas of a store."""

    engine: Runs
    _registered: dict[tuple[str, int], SagaDef[..., Any]]

    async def versions(self, saga: str | None = None) -> list[VersionInfo]:
        """Every version that a worker has announced or that has sagas, by name, the newest first.

        Args:
            saga: only those of this name.
        """
        return versions_of(*await self.engine.versions(saga))

    async def list(
        self,
        *,
        status: SagaStatus | str | None = None,
        saga: str | None = None,
        version: int | None = None,
        since: datetime | None = None,
        limit: int | None = 100,
        attention: bool = False,
    ) -> "list[SagaInfo]":
        """Sagas, newest first.

        Args:
            status: only those of this status.
            saga: only those of this name.
            version: only those of this version.
            since: only those started at or after this time (aware).
            limit: at most so many; None is all.
            attention: only those that need a person: stuck, failing again and again, or waiting in vain for a
                version that no worker serves.
        """
        found = await self.engine.select(_query(status, saga, version, since, limit, attention=attention))
        records = [record for record in found if is_saga(record)]
        journals = await self.engine.journals([record.num for record in records])
        vain = await self.engine.in_vain(records)
        whole = [self._whole(record, journals[record.num], in_vain=record.num in vain) for record in records]
        return [
            attrs.evolve(info, steps=within(info, journals[record.num], prefix=""))
            for info, record in zip(whole, records, strict=True)
        ]

    async def count(
        self,
        *,
        status: SagaStatus | str | None = None,
        saga: str | None = None,
        version: int | None = None,
        since: datetime | None = None,
        attention: bool = False,
    ) -> int:
        """How many sagas there are of that description; see ``list``."""
        return await self.engine.count(_query(status, saga, version, since, None, attention=attention))

    async def info(self, id: str) -> SagaInfo:
        """A saga as it stands, as far as it is durable; also a child saga, by ``<parent id>/<step key>``.

        Raises:
            SagaNotFound: there is none, or none any more.
        """
        await asyncio.sleep(0)  # who polls in a loop lets others have their turn, though SQLite answers at once
        record, key = await self._find_with_child(id)
        entries = await self.engine.journal(record.num)
        info = self._whole(record, entries, in_vain=bool(await self.engine.in_vain([record])))
        if not key:
            return attrs.evolve(info, steps=within(info, entries, prefix=""))
        child = child_info(info, entries, key)
        if child is None:
            raise not_found(id)
        return child

    async def status_of(self, ref: RunRef, child: str) -> SagaStatus:
        """How a saga stands: one row is read, and of a child saga (its key) the journal too.

        Raises:
            SagaNotFound: it was purged.
        """
        await asyncio.sleep(0)  # as in ``info``
        record = await self._find_num(ref)
        status = status_of(record.status, record.phase)
        if not child:
            return status
        found = status_of_child(status, await self.engine.journal(ref.num), child)
        if found is None:
            raise not_found(f"{ref.id}/{child}")
        return found

    async def _find(self, id: str) -> RunRecord:
        try:
            return await self.engine.find(id)
        except RunNotFound as missing:
            raise not_found(id, missing) from None

    async def _find_num(self, ref: RunRef) -> RunRecord:
        record = await self.engine.store.runs.find_num(ref.num)
        if record is None:
            raise not_found(ref.id, await self.engine.missing([ref.id]))
        return record

    async def _find_with_child(self, id: str) -> tuple[RunRecord, str]:
        return await find_with_child(self.engine, id)

    def _shape(self, name: str, version: int) -> CallShape | None:
        """How arguments and result are read, where the saga is registered here."""
        if (name, version) not in self._registered:
            return None
        return self.engine.registry.get(name, version).shape

    def _whole(self, record: RunRecord, entries: Sequence[JournalEntry], *, in_vain: bool = False) -> SagaInfo:
        shape = self._shape(record.name, record.version)
        read_result: Callable[[bytes], Any] = msgspec.json.decode
        if shape is not None:
            read_result = partial(shape.decode_result, what=f"saga {record.id!r}: the result")
        info = info_of(
            record,
            entries,
            read_input=shape.as_mapping if shape else plain_input,
            read_result=read_result,
        )
        if not in_vain:
            return info
        return attrs.evolve(info, reason=_in_vain(record, self.engine.clock.now_ns()), unserved=True)

    async def answer_of_child(self, ref: RunRef, key: str, outcome: RunOutcome) -> Any:
        """The result of a child saga once its root has ended or is stuck; plain JSON."""
        child = await self.info(f"{ref.id}/{key}")
        if child.status is SagaStatus.COMPLETED:
            return child.result
        if child.status is SagaStatus.COMPENSATED:
            undone, skipped = undone_in(await self.engine.journal(ref.num), key)
            raise _rolled_back(
                child.id,
                status=child.status.value,
                cause=child.cause or "failed",
                error=child.error,
                undone=undone,
                skipped=skipped,
            )
        return await self.answer(ref, outcome)

    async def answer(self, ref: RunRef, outcome: RunOutcome) -> Any:
        """The result of a saga that has ended; raises what tells how it stands where that is not its result."""
        match outcome.status:
            case RunStatus.COMPLETED:
                shape = self._shape(ref.name, ref.version)
                stored = outcome.output or b"null"
                if shape is None:
                    return msgspec.json.decode(stored)
                return shape.decode_result(stored, what=f"saga {ref.id!r}: the result")
            case RunStatus.STUCK:
                reason = outcome.reason or "no reason recorded"
                record = await self._find_num(ref)
                steps = self._whole(record, await self.engine.journal(record.num)).stuck_on
                raise SagaStuck(
                    f"saga {ref.id!r} is stuck: {why(ref.id, reason)}", run_id=ref.id, reason=reason, steps=steps
                )
            case RunStatus.KILLED:
                raise SagaKilled(f"saga {ref.id!r} was killed by an operator; nothing was undone", run_id=ref.id)
            case _:
                raise _compensated(ref, outcome)


def _compensated(ref: RunRef, outcome: RunOutcome) -> SagaCompensated:
    told: dict[str, list[str]] = msgspec.json.decode(outcome.output or b"{}")
    return _rolled_back(
        ref.id,
        status=status_of(outcome.status, outcome.phase).value,
        cause=cause_of(outcome.phase) or "failed",
        error=None if outcome.error is None else rebuild(outcome.error),
        undone=told.get("compensated", []),
        skipped=told.get("skipped", []),
    )


def _rolled_back(
    id: str, *, status: str, cause: str, error: BaseException | None, undone: Sequence[str], skipped: Sequence[str]
) -> SagaCompensated:
    why = f"{type(error).__name__}: {error}" if error is not None else cause
    raised = SagaCompensated(
        f"saga {id!r} was rolled back ({why}); undone: {', '.join(undone) or 'nothing had to be'}",
        saga_id=id,
        status=status,
        cause=cause,
        compensated=undone,
        skipped=skipped,
    )
    raised.__cause__ = error
    return raised


def _in_vain(record: RunRecord, now_ns: int) -> str:
    """Why somebody should look at a saga that no worker can go on with. Not in its row: the next worker ends it."""
    overdue = record.deadline_at_ns is not None and record.deadline_at_ns <= now_ns and not record.phase
    told = (
        f"saga {record.id}: waits for version {record.version} of {record.name!r}, which no worker serves; start a "
        "worker that has this version (`sagas versions` shows who serves what)"
    )
    if overdue:
        told += ". Its deadline has passed, and it cannot be undone before there is one"
    return told if record.reason is None else f"{told}. Before that: {record.reason}"


def not_found(id: str, missing: RunNotFound | None = None) -> SagaNotFound:
    """The error for a saga that is not there; where ``missing`` says that it was purged, so does this."""
    if missing is not None and missing.purged_at_ns is not None:
        return SagaNotFound(f"saga {plain(missing)}", run_id=id, purged_at_ns=missing.purged_at_ns)
    return SagaNotFound(f"no saga has the id {id!r} in this store; `sagas list` shows those there are", run_id=id)


def plain(error: Any) -> str:
    """An error's message without its code."""
    return str(error.args[0]).rpartition(" [")[0]


def _query(
    status: SagaStatus | str | None,
    saga: str | None,
    version: int | None,
    since: datetime | None,
    limit: int | None,
    *,
    attention: bool,
) -> RunQuery:
    statuses, phases = (None, None) if status is None else query_of(_status(status))
    if since is not None and since.tzinfo is None:
        raise DefinitionError(f"since={since!r}: give a datetime with a time zone")
    since_ns = None if since is None else ns_of(since)
    query = RunQuery(statuses=statuses, phases=phases, name=saga, version=version, since_ns=since_ns, limit=limit)
    return attrs.evolve(query, attention=attention)


def _status(status: SagaStatus | str) -> SagaStatus:
    try:
        return SagaStatus(status)
    except ValueError:
        raise DefinitionError(f"{status!r} is no status of a saga; use one of {', '.join(SagaStatus)}") from None


async def find_with_child(engine: Runs, id: str) -> tuple[RunRecord, str]:
    """The run of this id, or the run whose child it is and the child's key.

    Raises:
        SagaNotFound: there is none.
    """
    parts = id.split("/")
    ids = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
    found = {
        record.id: record for record in await engine.store.runs.find(list(filter(is_text, ids))) if is_saga(record)
    }
    for known in ids:
        if known in found:
            return found[known], id[len(known) + 1 :]
    raise not_found(id, await engine.missing(ids))
