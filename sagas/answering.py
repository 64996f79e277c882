"""Answers to callbacks, from outside: by token, or by saga and name."""

import msgspec

from durable_core import Answer, Answers, DefinitionError, RunRecord
from sagas.operators import Operators


class Answering(Operators):
    """What the world outside may tell a waiting saga."""

    async def complete_callback(
        self, token: str | None = None, value: object = None, *, saga_id: str | None = None, name: str | None = None
    ) -> None:
        """Answer a callback with ``value``; the answer is durable on return. Repeating it is harmless.

        Args:
            token: what ``callback.token`` was; or, instead,
            value: of the type that the callback was declared with: checked before it is accepted.
            saga_id: the saga, together with
            name: the callback's name; a second use of a name is ``approval#2``.

        Raises:
            CallbackNotFound: unknown or forged.
            CallbackAlreadyAnswered: another answer came first.
            CallbackClosed: the wait was given up: timeout, cancel, or the end.
            PayloadError: the value is not of the declared type; the saga keeps waiting.
        """
        payload = self.engine.codec.encode(value, what="the answer to a callback")
        await self._answer(token, saga_id, name, "completed", payload)

    async def fail_callback(
        self, token: str | None = None, message: str = "", *, saga_id: str | None = None, name: str | None = None
    ) -> None:
        """Answer a callback with a failure: the body sees ``CallbackFailed``. As ``complete_callback`` otherwise."""
        await self._answer(token, saga_id, name, "failed", msgspec.json.encode(str(message)))

    async def _answer(
        self, token: str | None, saga_id: str | None, name: str | None, kind: str, payload: bytes
    ) -> None:
        answers = Answers(self.engine)
        if token is not None and saga_id is None and name is None:
            record, key = await answers.by_token(token)
        elif token is None and saga_id is not None and name is not None:
            record, child = await self._find_with_child(saga_id)
            key = f"{child}/{name}" if child else name
        else:
            raise DefinitionError("name the callback by its token, or by saga_id= and name=; nothing was changed")
        await answers.give(record, Answer(key, kind, msgspec.Raw(payload)), closed=_closed)


def _closed(record: RunRecord) -> bool:
    """Whether the saga has given up its callbacks: it is being, or was, rolled back."""
    return record.phase.startswith(("compensating", "compensated", "resolved"))
