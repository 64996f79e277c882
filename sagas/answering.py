"""Answers to callbacks, from outside: by token, or by saga and name."""

import attrs
import msgspec

from durable_core import Answer, CallbackDelivery, DefinitionError, RunRecord, Taken, at_home
from sagas.observer import find_with_child
from sagas.operators import Operators


@attrs.frozen(kw_only=True)
class Asked:
    """Which callback somebody means: by its token, or by its saga and name."""

    token: str | None = attrs.field(default=None, repr=False)
    saga_id: str | None = None
    name: str | None = None

    def __attrs_post_init__(self) -> None:
        by_token = self.token is not None and self.saga_id is None and self.name is None
        by_name = self.token is None and isinstance(self.saga_id, str) and isinstance(self.name, str)
        if not by_token and not by_name:
            raise DefinitionError("name the callback by its token, or by saga_id= and name=; nothing was changed")


@attrs.frozen
class Told:
    """What became of an answer or heartbeat that was not refused."""

    saga_id: str
    key: str
    """The callback's key in its saga."""
    taken: Taken


@at_home("engine.home")
class Answering(Operators):
    """What the world outside may tell a waiting saga."""

    async def complete_callback(
        self,
        token: str | None = None,
        value: object = None,
        *,
        saga_id: str | None = None,
        name: str | None = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Answer a callback with ``value``; the answer is durable on return. Repeating it is harmless.

        Where no worker runs, the answer is kept for the next one, which then checks its type.

        Args:
            token: what ``callback.token`` was; or, instead,
            value: of the type that the callback was declared with: checked before it is accepted.
            saga_id: the saga, together with
            name: the callback's name; a second use of a name is ``approval#2``.
            actor: who answers; kept in the journal beside the answer. The same answer by somebody else is a repetition.
            note: why; likewise.

        Raises:
            CallbackNotFound: unknown or forged.
            CallbackAlreadyAnswered: another answer came first.
            CallbackClosed: the wait was given up: timeout, cancel, or the end.
            PayloadError: the value is not of the declared type, or ``actor`` or ``note`` is no text that can be stored;
                the saga keeps waiting.
            SagaNotFound: no saga has this id.
        """
        await complete(self, Asked(token=token, saga_id=saga_id, name=name), value, actor=actor, note=note)

    async def fail_callback(
        self,
        token: str | None = None,
        message: str = "",
        *,
        saga_id: str | None = None,
        name: str | None = None,
        actor: str = "",
        note: str = "",
    ) -> None:
        """Answer a callback with a failure: the body sees ``CallbackFailed``. As ``complete_callback`` otherwise."""
        await fail(self, Asked(token=token, saga_id=saga_id, name=name), message, actor=actor, note=note)

    async def heartbeat_callback(
        self, token: str | None = None, *, saga_id: str | None = None, name: str | None = None
    ) -> None:
        """Say that whoever will answer a callback is still at it; durable on return.

        The callback then waits for at least another span of its ``heartbeat=``, and never beyond its ``timeout=``. For
        one that asks for no heartbeats this changes nothing.

        Raises:
            CallbackNotFound: unknown or forged.
            CallbackAlreadyAnswered: the callback has its answer; no more heartbeats are needed.
            CallbackClosed: the wait was given up: timeout, a heartbeat too late, cancel, or the end.
            SagaNotFound: no saga has this id.
        """
        await beat(self, Asked(token=token, saga_id=saga_id, name=name))


async def complete(orchestrator: Answering, asked: Asked, value: object, *, actor: str = "", note: str = "") -> Told:
    """Answer a callback with ``value``; see ``Answering.complete_callback``."""
    payload = orchestrator.engine.codec.encode_ordered(value, what="the answer to a callback")
    return await _give(orchestrator, asked, Answer("", "completed", msgspec.Raw(payload), actor, note))


async def fail(orchestrator: Answering, asked: Asked, message: str, *, actor: str = "", note: str = "") -> Told:
    """Answer a callback with a failure; see ``Answering.fail_callback``."""
    payload = orchestrator.engine.codec.encode(str(message), what="the message that fails a callback")
    return await _give(orchestrator, asked, Answer("", "failed", msgspec.Raw(payload), actor, note))


async def beat(orchestrator: Answering, asked: Asked) -> Told:
    """Send a heartbeat; see ``Answering.heartbeat_callback``."""
    return await _give(orchestrator, asked, Answer("", "heartbeat"))


async def _give(orchestrator: Answering, asked: Asked, answer: Answer) -> Told:
    """Give ``answer``, whose key is still open, to the callback that is meant."""
    orchestrator.engine.home.check("answering a callback")  # whoever else than ``Answering`` asks: an app, say
    answers = CallbackDelivery(orchestrator.engine)
    if asked.token is not None:
        record, key = await answers.by_token(asked.token)
    else:
        record, key = await _named(orchestrator, asked.saga_id or "", asked.name or "")
    taken = await answers.give(record, msgspec.structs.replace(answer, key=key), closed=_closed)
    return Told(record.id, key, taken)


async def _named(orchestrator: Answering, saga_id: str, name: str) -> tuple[RunRecord, str]:
    record, child = await find_with_child(orchestrator.engine, saga_id)
    return record, f"{child}/{name}" if child else name


def _closed(record: RunRecord) -> bool:
    """Whether the saga has given up its callbacks: it is being, or was, rolled back."""
    return record.phase.startswith(("compensating", "compensated", "resolved"))
