"""Types that their users have told us how to store: ``register_type`` adds one, together with its subclasses.

Invariant: a registered type is stored by its user's functions wherever a declaration names it, and nowhere otherwise.
"""

import weakref
from collections.abc import Callable
from types import NoneType
from typing import Any, Final, TypeVar

import attrs

from durable_core.errors import DefinitionError

T = TypeVar("T")
_JSON: Final = (object, NoneType, bool, int, float, str, list, tuple, dict, set, frozenset)
"""Types whose form is JSON's own; a type derived from one may be registered."""


@attrs.frozen
class Registered:
    """How one type is stored."""

    type: type
    encode: Callable[[Any], object]
    """From a value to plain data, or to anything else that can be stored."""
    decode: Callable[[Any], Any]
    """From that plain data to the value."""


_known: Final[dict[type, Registered]] = {}
_settled: Final["weakref.WeakSet[type]"] = weakref.WeakSet()
"""Classes that a declaration uses already, stored by our own means."""


def register_type(type: type[T], *, encode: Callable[[T], object], decode: Callable[[Any], T]) -> None:
    """Say how values of ``type``, and of its subclasses, are stored.

    Call it before any saga that uses the type is registered. To register a type again replaces its functions: they
    must read what the earlier ones wrote.

    Args:
        type: a class; one of a library, for instance.
        encode: a value as plain data: text, numbers, lists, dicts, or any other type that can be stored.
        decode: the value from that plain data, as JSON gives it back.

    Raises:
        DefinitionError: it is no class, or JSON's own; or a saga uses it already, and stores it in another way.

    Examples:
        >>> from fractions import Fraction
        >>> register_type(Fraction, encode=str, decode=Fraction)
    """
    given: Any = type
    if not isinstance(given, _type) or given in _JSON:
        raise DefinitionError(f"codec.register({given!r}): give a class of yours or of a library; nothing was changed")
    functions: tuple[Any, ...] = (encode, decode)
    if not all(map(callable, functions)):
        raise DefinitionError(f"codec.register({given.__qualname__}): encode= and decode= must be functions")
    if given not in _known:
        used = next((cls for cls in _settled if issubclass(cls, given)), None)
        if used is not None:
            raise DefinitionError(
                f"codec.register({given.__qualname__}): {used.__module__}.{used.__qualname__} is used already by "
                "a step or saga that is registered, and stored in another way there",
                "Register the type before the sagas",
            )
    _known[given] = Registered(given, encode, decode)


def registered(cls: type) -> Registered | None:
    """The nearest registered base of ``cls``, or None."""
    if not _known:
        return None
    return next((_known[base] for base in cls.__mro__ if base in _known), None)


def named(address: str) -> Registered:
    """The type registered under ``module:qualname``.

    Raises:
        LookupError: there is none here.
    """
    for cls, known in _known.items():
        if f"{cls.__module__}:{cls.__qualname__}" == address:
            return known
    raise LookupError(f"no codec is registered for {address}; call sagas.codec.register for it")


def settle(cls: type) -> None:
    """Remember that values of ``cls`` are stored by our own means from now on."""
    _settled.add(cls)


_type: Final = type
