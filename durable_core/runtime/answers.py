"""Takes answers to callbacks from outside, and says what became of each.

Invariant: an answer is accepted when it is in the journal; the first one there counts, whoever sent it.
"""

import sys
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import msgspec

from durable_core.errors import CallbackAlreadyAnswered, CallbackClosed, CallbackNotFound, PayloadError
from durable_core.model.callback import Answer, CallbackState, key_of, run_of, same, state_of
from durable_core.model.codec import Codec
from durable_core.model.entry import Entry, EntryKind
from durable_core.model.run import ENDS, RunRecord
from durable_core.ports import Store
from durable_core.runtime.callbacks import PendingCallback


class Served(Protocol):
    """The engine, as answers see it."""

    store: Store
    codec: Codec

    async def find(self, run_id: str, /) -> RunRecord:
        """The run's row."""
        ...

    async def journal(self, num: int, /) -> list[Entry]:
        """The run's journal, as far as it is durable."""
        ...

    async def flushed(self) -> None:
        """Return once all that this process has queued is durable."""
        ...

    async def signal(self, record: RunRecord, name: str, payload: bytes, /) -> object:
        """Signal a run; durable on return."""
        ...

    def waiting_for(self, num: int, key: str, /) -> object:
        """What a run in this process's memory waits for at ``key``; None where it is not here."""
        ...

    def serves(self, record: RunRecord, /) -> bool:
        """Whether this process drives runs of that function and version."""
        ...


class Answers:
    """The callbacks of one engine's store."""

    def __init__(self, engine: Served) -> None:
        self._engine = engine

    async def by_token(self, token: str) -> tuple[RunRecord, str]:
        """The run and key that ``token`` is for.

        Raises:
            CallbackNotFound: it is forged, cut short, or of another store.
        """
        num = run_of(token)
        record = None if num is None else await self._engine.store.find_num(num)
        if record is not None:
            entries = await self._engine.journal(record.num)
            key = key_of(self._engine.store.secret, record.num, record.uid, entries, token)
            if key is not None:
                return record, key
        raise CallbackNotFound("no callback has this token; check that it was copied whole, and the store")

    async def give(self, record: RunRecord, answer: Answer, *, closed: Callable[[RunRecord], bool]) -> None:
        """Answer a callback; the answer is durable on return.

        Args:
            record: the run as it was found.
            answer: to which callback, and what.
            closed: whether the run has given up its callbacks.

        Raises:
            CallbackNotFound: the run has no callback of this key.
            CallbackClosed: it was given up: timed out, cancelled, or its run has ended.
            CallbackAlreadyAnswered: another answer came first.
            PayloadError: the value is not of the declared type; the run keeps waiting.
        """
        engine = self._engine
        await engine.flushed()
        if self._settled(record, await engine.journal(record.num), answer, closed=closed(record)):
            return
        pending = engine.waiting_for(record.num, answer.key)
        if isinstance(pending, PendingCallback):
            if answer.kind == "completed":
                pending.check(bytes(answer.value))
            run = pending.run
            if not pending.over:
                run.feed(run.input(EntryKind.ANSWERED, answer.key, 0, answer.kind, bytes(answer.value)))
            await engine.flushed()
        else:
            self._check_by_name(record, await engine.journal(record.num), answer)
            if not await engine.signal(record, "answer", msgspec.json.encode(answer)):
                await self.give(await engine.find(record.id), answer, closed=closed)  # it moved on meanwhile
                return
        fresh = await engine.find(record.id)
        entries = await engine.journal(record.num)
        taken = self._settled(fresh, entries, answer, closed=closed(fresh))
        # One that is not taken up yet is on disk, and judged by the worker that takes it up.
        if not taken and engine.serves(record) and not await engine.store.signals([record.num]):
            raise PayloadError(
                f"run {record.id}: the answer to callback {answer.key!r} is not of its declared type; it was not "
                "accepted, and the run keeps waiting"
            )

    def _settled(self, record: RunRecord, entries: list[Entry], answer: Answer, *, closed: bool) -> bool:
        """Whether this very answer has been accepted already; raises where it no longer can be."""
        state = state_of(entries, answer.key)
        if state is None:
            raise CallbackNotFound(f"run {record.id} has no callback {answer.key!r}; nothing was changed")
        if state.ended is not None:
            if same(state.ended, answer):
                return True
            self._refuse(record, state.ended, answer)
        if closed or record.status in ENDS:
            raise CallbackClosed(f"run {record.id}: callback {answer.key!r} was given up; the answer was not accepted")
        return False

    def _refuse(self, record: RunRecord, ended: Entry, answer: Answer) -> NoReturn:
        if ended.kind == EntryKind.ANSWERED:
            raise CallbackAlreadyAnswered(
                f"run {record.id}: callback {answer.key!r} has another answer already; this one was not accepted"
            )
        raise CallbackClosed(f"run {record.id}: callback {answer.key!r} was given up; the answer was not accepted")

    def _check_by_name(self, record: RunRecord, entries: list[Entry], answer: Answer) -> None:
        """Check a value against the declared type where that type is loaded here."""
        state = state_of(entries, answer.key)
        declared = None if state is None else _type_of(state)
        if declared is not None and answer.kind == "completed":
            what = f"run {record.id}: the answer to callback {answer.key!r}"
            self._engine.codec.decode(bytes(answer.value), declared, what=what)


def _type_of(state: CallbackState) -> Any:
    module, _, qualname = state.declared.type.partition(":")
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found
