"""Looks at runs: their rows and journals as their users see them."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from durable_core.engine.home import at_home
from durable_core.engine.runs import Runs
from durable_core.engine.waiters import RunOutcome
from durable_core.errors import DefinitionError, RunKilled, RunStuck
from durable_core.model.duration import ns_of
from durable_core.model.entry import Entry
from durable_core.model.failure import rebuild
from durable_core.model.info import RunInfo, plain_input, run_info
from durable_core.model.run import RunQuery, RunRecord, RunRef, RunStatus
from durable_core.model.verbs import faulted_on


@at_home("runs.home")
class Observer:
    """What can be asked about the runs of a store."""

    runs: Runs
    """The low-level calls, for whoever builds another layer on the same store."""

    async def list(
        self,
        *,
        status: RunStatus | str | None = None,
        name: str | None = None,
        version: int | None = None,
        since: datetime | None = None,
        limit: int | None = 100,
        attention: bool = False,
    ) -> "list[RunInfo]":
        """Runs, newest first.

        Args:
            status: only those of this status.
            name: only those of this durable function.
            version: only those of this version.
            since: only those started at or after this time (aware).
            limit: at most so many; None is all.
            attention: only those that need a person: stuck, or failing again and again.
        """
        records = await self.runs.select(_query(status, name, version, since, limit, attention=attention))
        journals = await self.runs.journals([record.num for record in records])
        return [self._info(record, journals[record.num]) for record in records]

    async def count(
        self,
        *,
        status: RunStatus | str | None = None,
        name: str | None = None,
        version: int | None = None,
        since: datetime | None = None,
        attention: bool = False,
    ) -> int:
        """How many runs there are of that description; see ``list``."""
        return await self.runs.count(_query(status, name, version, since, None, attention=attention))

    async def info(self, id: str) -> RunInfo:
        """A run as it stands, as far as it is durable.

        Raises:
            RunNotFound: there is none.
        """
        record = await self.runs.find(id)
        return self._info(record, await self.runs.journal(record.num))

    def _info(self, record: RunRecord, entries: Sequence[Entry]) -> RunInfo:
        known = self.runs.registry.find(record.name, record.version)
        read_result: Callable[[bytes], Any] = msgspec.json.decode
        if known is not None:
            read_result = partial(known.shape.decode_result, what=f"run {record.id!r}: the result")
        read_input = plain_input if known is None else known.shape.as_mapping
        return run_info(record, entries, read_input=read_input, read_result=read_result)

    async def answer(self, ref: RunRef, outcome: RunOutcome) -> Any:
        """The result of a run that has ended; raises what tells how it stands where that is not its result."""
        match outcome.status:
            case RunStatus.COMPLETED:
                known = self.runs.registry.find(ref.name, ref.version)
                stored = outcome.output or b"null"
                if known is None:
                    return msgspec.json.decode(stored)
                return known.shape.decode_result(stored, what=f"run {ref.id!r}: the result")
            case RunStatus.STUCK:
                reason = outcome.reason or "no reason recorded"
                step, _ = faulted_on(await self.runs.journal(ref.num))
                steps = (step,) if step else ()
                raise RunStuck(f"run {ref.id!r} is stuck: {reason}", run_id=ref.id, reason=reason, steps=steps)
            case RunStatus.KILLED:
                raise RunKilled(f"run {ref.id!r} was killed by an operator; nothing was undone", run_id=ref.id)
            case _:
                raise rebuild(outcome.error or b"{}")


def _query(
    status: RunStatus | str | None,
    name: str | None,
    version: int | None,
    since: datetime | None,
    limit: int | None,
    *,
    attention: bool,
) -> RunQuery:
    if since is not None and since.tzinfo is None:
        raise DefinitionError(f"since={since!r}: give a datetime with a time zone")
    return RunQuery(
        statuses=None if status is None else frozenset({_status(status)}),
        name=name,
        version=version,
        since_ns=None if since is None else ns_of(since),
        limit=limit,
        attention=attention,
    )


def _status(status: RunStatus | str) -> RunStatus:
    try:
        return RunStatus(status)
    except ValueError:
        raise DefinitionError(f"{status!r} is no status of a run; use one of {', '.join(RunStatus)}") from None
