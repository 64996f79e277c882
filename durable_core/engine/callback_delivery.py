"""Delivers answers to callbacks from outside, and returns what became of each.

Invariant: an answer is accepted once it is in the journal; the first one there counts, whoever sent it. An answer that
no worker takes up for a while is kept in the store; of several kept ones the first is taken up first.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import attrs
import msgspec

from durable_core.engine.runtime import Runtime
from durable_core.errors import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackError,
    CallbackNotFound,
    DefinitionError,
)
from durable_core.model.callback import (
    COMPLETED,
    HEARTBEAT,
    Answer,
    CallbackState,
    Taken,
    key_of,
    run_of,
    same,
    state_of,
)
from durable_core.model.entry import TOO_LATE, Entry, EntryKind, effective, held
from durable_core.model.masking import revealed
from durable_core.model.run import ENDS, RunRecord
from durable_core.replay.callbacks import PendingCallback, misfit

KEPT_AFTER_S = 3.0
"""How long to wait for a worker to take an answer up. A living one does so within milliseconds."""
LOOK_S = 0.02
"""How often to check whether it has, if the store does not report changes."""


@attrs.frozen
class _Kept:
    """An answer that waits for a worker."""

    answer: Answer
    num: int | None
    """The number of its signal; None if it waits in the journal of a run that is stuck on its code."""


class CallbackDelivery:
    """The callbacks of one engine's store."""

    def __init__(self, engine: Runtime) -> None:
        self._engine = engine

    async def by_token(self, token: str) -> tuple[RunRecord, str]:
        """The run and the key of the callback that has this token.

        Raises:
            CallbackNotFound: the token is forged, truncated, or of another store.
        """
        if not isinstance(token, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"a token is a text, and this is a {type(token).__name__}; nothing was changed")
        engine = self._engine
        num = run_of(token)
        record = None if num is None else await engine.store.runs.find_num(num)
        if record is not None:
            key = key_of(engine.secret, record.num, record.uid, await engine.journal(record.num), token)
            if key is not None:
                return record, key
        raise CallbackNotFound("no callback has this token", "Check that it was copied whole, and the store")

    async def give(self, record: RunRecord, answer: Answer, *, closed: Callable[[RunRecord], bool]) -> Taken:
        """Answer a callback, or send its heartbeat; durable on return.

        Args:
            record: the run as it was found.
            answer: the answer, with the key of its callback.
            closed: whether a run has given up its callbacks.

        Returns:
            Whether it is accepted, or kept until a worker takes it up.

        Raises:
            CallbackNotFound: the run has no callback of this key.
            CallbackClosed: the callback was given up: timed out, cancelled, or its run has ended.
            CallbackAlreadyAnswered: another answer came first.
            PayloadError: the value is not of the declared type; the run keeps waiting.
        """
        while (taken := await self._given(record, answer, closed)) is None:
            record = await self._engine.find(record.id)  # it has changed meanwhile: look again
        return taken

    async def _given(self, record: RunRecord, answer: Answer, closed: Callable[[RunRecord], bool]) -> Taken | None:
        """What became of the answer; None if the run has changed meanwhile."""
        engine = self._engine
        await engine.flushed()
        entries = await self._entries(record)
        if self._settled(record, entries, answer, closed=closed(record)) or self._needless(entries, answer):
            return Taken.ACCEPTED
        pending = engine.waiting_for(record.num, answer.key)
        if isinstance(pending, PendingCallback):
            return await self._hand_over(pending, record, answer, closed)  # pyright: ignore[reportUnknownArgumentType]
        self._check_by_name(record, entries, answer)
        kept = await self._kept(record, answer)
        if not any(one.answer.repeats(answer) for one in kept):
            if kept and answer.kind != HEARTBEAT:
                return await self._come_second(record, answer)
            if not await engine.signal(record, answer.signal, msgspec.json.encode(answer)):
                return None
        return await self._taken(record, entries, answer, closed)

    async def _hand_over(
        self,
        pending: PendingCallback[Any],
        record: RunRecord,
        answer: Answer,
        closed: Callable[[RunRecord], bool],
    ) -> Taken | None:
        """Answer a callback of a run in this process's memory."""
        if answer.kind == COMPLETED:
            pending.check(bytes(answer.value))
        run = pending.run
        run.settle()
        if not run.dead and pending.shut and not pending.over:
            raise _closed(self._title(record), answer)
        if not run.dead and not pending.over:
            pending.accept(answer)
        await self._engine.flushed()
        fresh = await self._engine.find(record.id)
        entries = await self._entries(fresh)
        if self._settled(fresh, entries, answer, closed=closed(fresh)) or self._needless(entries, answer):
            return Taken.ACCEPTED
        return None

    async def _taken(
        self, record: RunRecord, before: list[Entry], answer: Answer, closed: Callable[[RunRecord], bool]
    ) -> Taken | None:
        """Wait for a while until a worker has taken the stored answer up; what became of it."""
        waits = await self._watch(record, answer)
        kept = await self._kept(record, answer)
        fresh = await self._engine.find(record.id)
        entries = await self._entries(fresh)  # read after the kept answers: those that are gone from there are in here
        mine = [one.num for one in kept if one.answer.repeats(answer) and one.num is not None]
        try:
            if self._settled(fresh, entries, answer, closed=closed(fresh)):
                return Taken.ACCEPTED
        except CallbackError:
            await self._engine.withdraw(mine)
            raise
        if kept and kept[0].answer.repeats(answer):
            return Taken.KEPT if waits else None
        if mine:
            return await self._come_second(record, answer)
        since = before[-1].seq if before else 0
        if any(_too_late(entry, answer) for entry in entries if entry.seq > since):
            raise _closed(self._title(record), answer)
        if answer.kind == HEARTBEAT:
            return Taken.ACCEPTED
        raise misfit(self._engine.noun, record.id, answer.key)

    async def _come_second(self, record: RunRecord, answer: Answer) -> Taken | None:
        """Another answer waits for a worker: wait for a while until that one is taken up or withdrawn."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + KEPT_AFTER_S
        while True:
            kept = await self._kept(record, answer)
            if not kept or kept[0].answer.repeats(answer):
                return None
            if loop.time() >= until_s:
                await self._engine.withdraw(
                    [one.num for one in kept if one.answer.repeats(answer) and one.num is not None]
                )
                raise _second(self._title(record), answer)
            await self._engine.changes.next(LOOK_S)

    async def _watch(self, record: RunRecord, answer: Answer) -> bool:
        """Whether the stored answer still waits for a worker after a while; returns early if not, or if none lives."""
        loop = asyncio.get_running_loop()
        if await self._engine.unserved([await self._engine.find(record.id)]):
            return True
        until_s = loop.time() + KEPT_AFTER_S
        while any(one.answer.repeats(answer) for one in await self._stored(record, answer)):
            state = state_of(await self._entries(record), answer.key)
            if state is not None and state.ended is not None:
                return False
            if loop.time() >= until_s:
                return True
            await self._engine.changes.next(LOOK_S)
        return any(one.answer.repeats(answer) for one in await self._kept(record, answer))

    async def _entries(self, record: RunRecord) -> list[Entry]:
        """The run's journal, with the tokens of its callbacks."""
        engine = self._engine
        entries = await engine.journal(record.num)
        return list(revealed(engine.secret, record.num, record.uid, entries))

    def _title(self, record: RunRecord) -> str:
        """What the layer calls the run, and its id, for messages."""
        return f"{self._engine.noun} {record.id}"

    async def _kept(self, record: RunRecord, answer: Answer) -> list[_Kept]:
        """The answers to the same callback that wait for a worker, the first first."""
        stored = await self._stored(record, answer)
        entries = await self._entries(record)
        held_back = [_kept(entry.payload, None) for entry in held(entries) if entry.key == answer.signal]
        return [one for one in (*held_back, *stored) if one.answer.key == answer.key]

    async def _stored(self, record: RunRecord, answer: Answer) -> list[_Kept]:
        """The answers of the same kind among the run's signals, the first first."""
        stored = await self._engine.store.signals.waiting([record.num])
        return [_kept(signal.payload, signal.num) for signal in stored if signal.name == answer.signal]

    def _settled(self, record: RunRecord, entries: list[Entry], answer: Answer, *, closed: bool) -> bool:
        """Whether this very answer has been accepted already; raises if it no longer can be."""
        state = state_of(effective(entries), answer.key)
        if state is None:
            raise CallbackNotFound(
                f"{self._title(record)} has no callback {answer.key!r}; nothing was changed. Its callbacks are in its "
                "history"
            )
        if state.ended is not None:
            if same(state.ended, answer):
                return True
            _refuse(self._title(record), state.ended, answer)
        if closed or record.status in ENDS:
            raise _closed(self._title(record), answer)
        return False

    def _needless(self, entries: list[Entry], answer: Answer) -> bool:
        """Whether it is a heartbeat that changes nothing: none is required, or a journalled one covers it."""
        if answer.kind != HEARTBEAT:
            return False
        state = state_of(effective(entries), answer.key)
        pulse = None if state is None else state.pulse
        return pulse is None or pulse.beat(self._engine.clock.now_ns()) is None

    def _check_by_name(self, record: RunRecord, entries: list[Entry], answer: Answer) -> None:
        """Check a value against the declared type, if that type is loaded here."""
        state = state_of(entries, answer.key)
        if state is None or answer.kind != COMPLETED:
            return
        declared = _type_of(state, own=self._engine.serves(record))
        if declared is None:
            return
        try:
            self._engine.codec.decoder(declared)(bytes(answer.value))
        except Exception as error:  # a user's model validates itself and may raise anything
            raise misfit(self._engine.noun, record.id, answer.key, error) from error


def _kept(payload: bytes | None, num: int | None) -> _Kept:
    return _Kept(msgspec.json.decode(payload or b"", type=Answer), num)


def _too_late(entry: Entry, answer: Answer) -> bool:
    return entry.kind == EntryKind.NOTED and entry.label == TOO_LATE and entry.key == answer.key


def _refuse(title: str, ended: Entry, answer: Answer) -> NoReturn:
    if ended.kind == EntryKind.ANSWERED:
        raise _second(title, answer)
    raise _closed(title, answer)


def _second(title: str, answer: Answer) -> CallbackAlreadyAnswered:
    about = f"{title}: callback {answer.key!r}"
    if answer.kind == HEARTBEAT:
        return CallbackAlreadyAnswered(f"{about} has its answer already; it needs no more heartbeats")
    return CallbackAlreadyAnswered(f"{about} has another answer already; this one was not accepted")


def _closed(title: str, answer: Answer) -> CallbackClosed:
    what = "heartbeat" if answer.kind == HEARTBEAT else "answer"
    return CallbackClosed(f"{title}: callback {answer.key!r} was given up; the {what} was not accepted")


def _type_of(state: CallbackState, *, own: bool) -> Any:
    """The declared type, if it is loaded here. Another program's ``__main__`` is not ours."""
    module, _, qualname = state.declared.type.partition(":")
    if module == "__main__" and not own:
        return None
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, type) else None
