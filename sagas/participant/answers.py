"""How requests and answers are stored: as JSON by the codec of the journal, and read back by their declared type."""

import sys
from typing import Any

import attrs

from durable_core import PayloadError
from durable_core.layer import Codec
from sagas.participant.rules import Answer

CODEC = Codec()
NOTHING = b"null"


@attrs.frozen
class AnswerType:
    """A declared type of answers."""

    declared: Any

    @classmethod
    def of(cls, declared: Any) -> "AnswerType":
        """The type, where answers of it can be stored.

        Raises:
            PayloadError: they cannot be read back from JSON.
        """
        CODEC.typed(declared)
        return cls(declared)

    @property
    def name(self) -> str:
        """Its name, as it is stored with an answer."""
        return type_name(self.declared)

    @property
    def admits_none(self) -> bool:
        """Whether None is an answer of this type."""
        try:
            CODEC.decode(NOTHING, self.declared, what="")
        except PayloadError:
            return False
        return True

    def store(self, value: object, what: str) -> Answer:
        """Write an answer.

        Raises:
            PayloadError: it is not of this type, cannot be stored, or is too large.
        """
        payload, _ = CODEC.exchange(value, CODEC.typed(self.declared), what=what)
        return Answer(payload, self.name)

    def read(self, stored: Answer, what: str) -> Any:
        """Read an answer.

        Raises:
            PayloadError: it was stored as something else.
        """
        return CODEC.decode(stored.payload, self.declared, what=what)


NO_ANSWER = Answer(NOTHING, "")
"""That of an undo which gave none."""


def request_bytes(request: object, what: str) -> bytes:
    """A request as it is stored and compared: equal requests give equal bytes, whatever the order of their keys.

    Raises:
        PayloadError: it cannot be stored as JSON.
    """
    return CODEC.encode_ordered(request, what=what)


def step_type(stored: Answer, given: Any, own: AnswerType) -> AnswerType:
    """The type to read a step's answer as, for its undo.

    Args:
        stored: the step's answer.
        given: the type that the undo names for it; None if it names none.
        own: the type of the undo's own answer.

    Without a given type it is the one that the step declared, where this process has it; else plain JSON.
    """
    if given is not None:
        return AnswerType.of(given)
    if own.name == stored.declared:
        return own
    return AnswerType(_class_of(stored.declared))


def type_name(declared: object) -> str:
    """``module:qualified name`` of a class; what a union or a generic type prints as."""
    if isinstance(declared, type) and not hasattr(declared, "__origin__"):
        return f"{declared.__module__}:{declared.__qualname__}"
    return repr(declared)


def _class_of(name: str) -> Any:
    """The class of this name, in a module that is imported already; else ``Any``."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and type_name(found) == name else Any
