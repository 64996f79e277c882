"""What a person may do to a run, and what the world outside may tell it.

Invariant: a verb is kept in the journal with actor and note, is safe to repeat, and is refused where it makes no sense.
"""

import msgspec

from durable_core.engine.callback_delivery import CallbackDelivery
from durable_core.engine.home import at_home
from durable_core.errors import DefinitionError, WrongState
from durable_core.model.callback import COMPLETED, FAILED, HEARTBEAT, Answer
from durable_core.model.run import ENDS, RunRecord
from durable_core.model.verbs import Accept, Asked, Refuse, Repeat, faulted_on, judge
from durable_core.observer import Observer


@at_home("runs.home")
class Operators(Observer):
    """The verbs of an engine."""

    async def retry(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Have a stuck run try again what it is stuck on, with a fresh policy; durable on return.

        Raises:
            RunNotFound: there is no such run.
            WrongState: it is not stuck.
        """
        await self._verb(id, "retry", Asked(actor, note))

    async def kill(self, id: str, *, actor: str = "", note: str = "") -> None:
        """End it here and now; what is in flight is kept as evidence only. Durable on return.

        Raises:
            RunNotFound: there is no such run.
            WrongState: it has ended otherwise.
        """
        await self._verb(id, "kill", Asked(actor, note))

    async def pause(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Start no further step until ``resume``; what is in flight ends and is recorded. Durable on return.

        Raises:
            RunNotFound: there is no such run.
            WrongState: it has ended.
        """
        await self._verb(id, "pause", Asked(actor, note))

    async def resume(self, id: str, *, actor: str = "", note: str = "") -> None:
        """Go on after ``pause``. Durable on return.

        Raises:
            RunNotFound: there is no such run.
            WrongState: it has ended.
        """
        await self._verb(id, "resume", Asked(actor, note))

    async def _verb(self, id: str, verb: str, asked: Asked) -> None:
        while not await self._judged(id, verb, asked):
            pass  # the run moved on while it was judged: look again

    async def _judged(self, id: str, verb: str, asked: Asked) -> bool:
        """Signal the run where the verb makes sense as it stands now; False where it has moved on meanwhile."""
        await self.runs.flushed()
        record = await self.runs.find(id)
        paused = await self.runs.will_pause(record) if verb in ("pause", "resume") else record.paused
        match judge(verb, record, paused=paused):
            case Repeat():
                return True
            case Refuse(why=why):
                raise WrongState(why, run_id=id, status=record.status)
            case Accept():
                label, since = "", 0
                if verb == "retry":
                    label, since = faulted_on(await self.runs.journal(record.num))
                return await self.runs.signal(record, verb, msgspec.json.encode(asked), label=label, since=since)

    # -- callbacks -------------------------------------------------------------------------------------------------

    async def complete_callback(
        self,
        token: str | None = None,
        value: object = None,
        *,
        run_id: str | None = None,
        name: str | None = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Answer a callback with ``value``; the answer is durable on return. Repeating it is harmless.

        Args:
            token: what ``callback.token`` was; or, instead,
            value: of the type that the callback was declared with: checked before it is accepted.
            run_id: the run, together with
            name: the callback's key: its name, ``approval#2`` for a second use, ``load/approval`` within a child.
            actor: who answers; kept in the journal beside the answer. The same answer by somebody else is a repetition.
            note: why; likewise.

        Raises:
            CallbackNotFound: unknown or forged.
            CallbackAlreadyAnswered: another answer came first.
            CallbackClosed: the wait was given up: timeout, a failure beside it, or the end.
            PayloadError: the value is not of the declared type, or ``actor`` or ``note`` is no text that can be stored;
                the run keeps waiting.
        """
        payload = self.runs.codec.encode_ordered(value, what="the answer to a callback")
        await self._answer(token, run_id, name, Answer("", COMPLETED, msgspec.Raw(payload), actor, note))

    async def fail_callback(
        self,
        token: str | None = None,
        message: str = "",
        *,
        run_id: str | None = None,
        name: str | None = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Answer a callback with a failure: the body sees ``CallbackFailed``. As ``complete_callback`` otherwise."""
        payload = msgspec.json.encode(str(message))
        await self._answer(token, run_id, name, Answer("", FAILED, msgspec.Raw(payload), actor, note))

    async def heartbeat_callback(
        self, token: str | None = None, *, run_id: str | None = None, name: str | None = None
    ) -> None:
        """Say that whoever will answer a callback is still at it; durable on return.

        The callback then waits for at least another span of its ``heartbeat=``, and never beyond its ``timeout=``. For
        one that asks for no heartbeats this changes nothing.

        Raises:
            CallbackNotFound: unknown or forged.
            CallbackAlreadyAnswered: the callback has its answer; no more heartbeats are needed.
            CallbackClosed: the wait was given up: timeout, a heartbeat too late, a failure beside it, or the end.
        """
        await self._answer(token, run_id, name, Answer("", HEARTBEAT))

    async def _answer(self, token: str | None, run_id: str | None, name: str | None, answer: Answer) -> None:
        """Give ``answer``, whose key is still open, to the callback that is named so."""
        answers = CallbackDelivery(self.runs)
        if token is not None and run_id is None and name is None:
            record, key = await answers.by_token(token)
        elif token is None and run_id is not None and name is not None:
            record, key = await self.runs.find(run_id), name
        else:
            raise DefinitionError("name the callback by its token, or by run_id= and name=; nothing was changed")
        await answers.give(record, msgspec.structs.replace(answer, key=key), closed=_ended)


def _ended(record: RunRecord) -> bool:
    return record.status in ENDS
