"""Operators' verbs: each is journalled with actor and note, safe to repeat, and refused where it makes no sense.

``purge`` is the exception: it is about ended sagas, of which nothing is left to journal it in.
"""

import contextlib
from pathlib import Path

import attrs
import msgspec

from durable_core import (
    CallShape,
    Codec,
    Duration,
    EntryKind,
    JournalEntry,
    PayloadError,
    PurgeReport,
    RunRecord,
    RunStatus,
    WrongState,
    at_home,
    faulted_on,
    name_of,
    to_ns,
)
from sagas.errors import SagaPastPivot
from sagas.model.definition import check_age
from sagas.model.info import SagaStatus
from sagas.model.stuck import ABANDON, parked
from sagas.model.verbs import VERBS, Accept, Refuse, Repeat, judge
from sagas.observer import Observer
from sagas.runtime.binding import Binder
from sagas.runtime.operator import OperatorAction, verdict_named, verdict_of

TOLD_LAST = {"kill": SagaStatus.KILLED, "rollback": SagaStatus.COMPENSATING}
"""How a saga stands once it has taken up a verb that says so by itself."""
Reopening = tuple[str, int]
"""A label and an entry: which part of the journal is void once the verb acts; see ``EntryKind.SIGNALLED``."""


@at_home("engine.home")
class Operators(Observer):
    """What a person may do to a saga."""

    _binder: Binder

    async def cancel(self, id: str, *, reason: str = "", actor: str = "", note: str = "") -> None:
        """Ask for a rollback; durable on return. What is in flight ends first, then everything is undone.

        Raises:
            SagaPastPivot: nothing can be undone any more.
            WrongState: it has ended otherwise.
        """
        await self._verb(id, "cancel", OperatorAction(reason=reason, actor=actor, note=note))

    async def retry(self, id: str, step: str | None = None, *, actor: str = "", note: str = "") -> None:
        """Have a stuck saga try again what it is stuck on, with a fresh policy; durable on return.

        Args:
            id: the saga.
            step: only this step; default whatever it is stuck on.
            actor: who asks.
            note: why.

        Raises:
            WrongState: it is not stuck.
        """
        await self._verb(id, "retry", OperatorAction(step=step, actor=actor, note=note))

    async def skip(self, id: str, step: str, *, actor: str = "", note: str = "") -> None:
        """Count the compensation of ``step`` as done, because a person has undone it; durable on return.

        Raises:
            WrongState: the saga is not stuck, or that step's compensation was not given up.
        """
        await self._verb(id, "skip", OperatorAction(step=step, actor=actor, note=note))

    async def resolve(
        self,
        id: str,
        step: str,
        *,
        happened: bool,
        result: object = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Settle an unknown outcome: ``step`` has succeeded with ``result``, or never happened; durable on return.

        Raises:
            WrongState: the saga is not stuck, or that step's outcome is not unknown.
            PayloadError: the result cannot be stored.
        """
        stored = Codec().encode(result, what=f"saga {id}, step {step!r}: the result given to resolve")
        verdict = OperatorAction(step=step, happened=happened, result=msgspec.Raw(stored), actor=actor, note=note)
        if happened and result is not None:
            record, child = await self._find_with_child(id)
            shape = self._step_shape(record, f"{child}/{step}" if child else step)
            with contextlib.suppress(PayloadError):  # told once it is known that the verb makes sense
                typed = stored if shape is None else shape.encode_result(result, what="")
                verdict.result = msgspec.Raw(typed)
        await self._verb(id, "resolve", verdict)

    def _check_result(self, record: RunRecord, key: str, stored: bytes) -> None:
        """Refuse a result that is not one of the step's type, where the saga is known here."""
        shape = self._step_shape(record, key)
        if shape is not None:
            shape.decode_result(stored, what=f"saga {record.id}, step {key!r}: the result given to resolve")

    def _step_shape(self, record: RunRecord, key: str) -> CallShape | None:
        """How the step at ``key`` is stored, where the saga is known here."""
        definition = self._registered.get((record.name, record.version))
        return None if definition is None else self._binder.step_shape(name_of(key), definition)

    async def kill(self, id: str, *, actor: str = "", note: str = "") -> None:
        """End it here and now and undo nothing; what is in flight is kept as evidence only. Durable on return."""
        await self._verb(id, "kill", OperatorAction(actor=actor, note=note))

    async def pause(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Start no further step until ``resume``; its deadline runs on. Durable on return."""
        await self._verb(id, "pause", OperatorAction(actor=actor, note=note))

    async def resume(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Go on after ``pause``. Durable on return."""
        await self._verb(id, "resume", OperatorAction(actor=actor, note=note))

    async def rollback(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Undo what a stuck or killed saga has done; durable on return.

        Raises:
            SagaPastPivot: nothing can be undone any more.
            WrongState: it is neither stuck nor killed.
        """
        await self._verb(id, "rollback", OperatorAction(actor=actor, note=note))

    async def purge(
        self,
        *,
        older_than: Duration,
        saga: str | None = None,
        limit: int | None = None,
        archive: str | Path | None = None,
        dry_run: bool = False,
    ) -> PurgeReport:
        """Remove sagas that ended at least ``older_than`` ago, the longest ended first; durable on return.

        Open and stuck sagas are never removed. A killed one is: it can no longer be rolled back then. It is done in
        small transactions, so that sagas that run wait no longer for it than for any other commit.

        Args:
            older_than: since their end; a timedelta or seconds.
            saga: only those of this name.
            limit: at most so many; None is all.
            archive: a file to append each to, as a line of JSON that is on disk before the saga is removed.
            dry_run: only count them.

        Raises:
            DefinitionError: ``older_than`` or ``limit`` makes no sense.
            StoreError: the store or the archive failed; what is not in the archive was not removed.
        """
        age_ns = to_ns(check_age(older_than, "purge(older_than=)"))
        return await self.engine.purge(
            before_ns=self.engine.clock.now_ns() - age_ns + 1,
            name=saga,
            limit=limit,
            archive=None if archive is None else str(archive),
            dry_run=dry_run,
        )

    async def _verb(self, id: str, verb: str, verdict: OperatorAction) -> None:
        record, child = await self._find_with_child(id)
        if child and verdict.step is None:
            raise WrongState(
                f"{id!r} is a child of saga {record.id!r} and ends with it; give the id of that saga. "
                "Nothing was changed",
                run_id=id,
                status=record.status,
            )
        if child:
            verdict.step = f"{child}/{verdict.step}"
        while not await self._judged(record, verb, verdict):
            record = await self._find(record.id)  # the saga moved on while it was judged: look again

    async def _judged(self, found: RunRecord, verb: str, verdict: OperatorAction) -> bool:
        """Signal the saga where the verb makes sense as it stands now; False where it has moved on meanwhile.

        The signals are read before the row and the journal, and again after them: where none was taken up in between,
        each verb that was accepted is either still waiting or in both.
        """
        await self.engine.flushed()
        waiting = await self._waiting(found)
        record = await self._find(found.id)
        entries = await self.engine.journal(record.num)
        if record.num != found.num or await self._waiting(found) != waiting:
            return False
        match await self._judgement(record, entries, waiting, verb, verdict):
            case Repeat():
                return True
            case Refuse(why=why, past_pivot=True):
                raise SagaPastPivot(why, run_id=record.id, status=record.status)
            case Refuse(why=why):
                raise WrongState(why, run_id=record.id, status=record.status)
            case Accept():
                if verdict.happened and verdict.step is not None:
                    self._check_result(record, verdict.step, bytes(verdict.result))
                label, since = _reopening(verb, entries)
                undoing = record.phase.startswith("compensating") and record.ended_at_ns is None
                if verb == "rollback" and undoing and _told_last(waiting) != "kill":
                    verb, label = "retry", ""  # it is being undone already: go on with that
                return await self.engine.signal(record, verb, msgspec.json.encode(verdict), label=label, since=since)

    async def _waiting(self, record: RunRecord) -> dict[int, OperatorAction]:
        """The verbs that no worker has taken up yet, by the signal's number, in order."""
        named = {each: each.name.partition(" ")[0] for each in await self.engine.store.signals.waiting([record.num])}
        return {each.num: verdict_named(name, each.payload) for each, name in named.items() if name in VERBS}

    async def _judgement(
        self,
        record: RunRecord,
        entries: list[JournalEntry],
        waiting: dict[int, OperatorAction],
        verb: str,
        verdict: OperatorAction,
    ) -> Accept | Repeat | Refuse:
        """Whether the verb makes sense for the saga as it stands, and as it will with what waits for it."""
        info = self._whole(record, entries)
        if verb in ("pause", "resume"):
            info = attrs.evolve(info, paused=await self.engine.will_pause(record))
        going = record.status in {RunStatus.PENDING, RunStatus.RUNNING, RunStatus.WAITING}
        signalled = going and bool(parked(entries))
        if signalled:  # the journal tells: until a worker has taken a verb up it is stuck on what it was
            info = attrs.evolve(info, status=SagaStatus.STUCK)
        told = TOLD_LAST.get(_told_last(waiting) or "")
        if told is not None:
            info, signalled = attrs.evolve(info, status=told), False
        match judge(verb, info, record.phase, verdict.step):
            case Accept() as found:
                # A cancel shows in no status before what is in flight has ended.
                doubtful = signalled or (verb == "cancel" and going)
            case Refuse(past_pivot=past_pivot) as found:
                doubtful = not signalled and not past_pivot
            case Repeat():
                return Repeat()
        return Repeat() if doubtful and _is_repeated(entries, waiting, verb, verdict) else found


def _told_last(waiting: dict[int, OperatorAction]) -> str | None:
    """Which verb waits to be taken up that says, by itself, how the saga will stand: ``kill`` or ``rollback``."""
    return next((each.verb for each in reversed(waiting.values()) if each.verb in TOLD_LAST), None)


def _is_repeated(
    entries: list[JournalEntry], waiting: dict[int, OperatorAction], verb: str, verdict: OperatorAction
) -> bool:
    """Whether the last that anybody asked for is just this: then it has been done, whoever asks again."""
    given = [verdict_of(entry) for entry in entries if entry.kind == EntryKind.SIGNALLED and entry.key in VERBS]
    given += waiting.values()
    last = given[-1] if given else None
    return last is not None and (last.verb, last.step, last.happened, bytes(last.result)) == (
        verb,
        verdict.step,
        verdict.happened,
        bytes(verdict.result),
    )


def _reopening(verb: str, entries: list[JournalEntry]) -> Reopening:
    if verb == "rollback":
        return ABANDON, 0
    if verb != "retry":
        return "", 0
    return faulted_on(entries)
