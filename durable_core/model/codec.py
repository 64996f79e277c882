"""Payloads are JSON, typed by the declaration they are read back with; never pickle.

Invariant: what ``encode`` accepts, ``decode`` either gives back under the declared type or refuses with a
``PayloadError``. Nothing is altered in silence: NaN, infinities and classes without a JSON form are refused.

The bounds of exactness are those of JSON: under ``Any``, ``object`` or no annotation a value comes back as plain
JSON (a tuple as a list, a UUID as a string); dates keep their offset from UTC in whole minutes, not their zone;
an instance of a subclass comes back as the declared class, and is refused where that would lose a field. ``exchange``
sees to it; ``encode``, which knows no type, cannot.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final, Literal, cast

import attrs
import msgspec

from durable_core.errors import PayloadError, in_words, one_line
from durable_core.model.changed import change
from durable_core.model.fields import Unusable
from durable_core.model.forms import form_of, whole_form
from durable_core.model.plain import NoForm, dump, dump_attributes, kind_name, load, type_name

DEFAULT_LIMIT: Final = 1 << 20
"""Bytes that one payload may have, unless told otherwise."""

_SUPPORTED = (
    "plain JSON values, attrs classes, dataclasses, Enum, UUID, date and time types, Decimal, bytes, tuples, sets, "
    "NamedTuple, TypedDict, pydantic and SQLModel models, unions of these, and types that are registered with a codec"
)
_WHERE = re.compile(r" - at `[^`]*`$")
"""Where in the value, as msgspec says it."""
_EXPECTED = re.compile(r"Expected `[^`]*`, got `(?P<got>[^`]*)`")
"""What msgspec says of a value that is of another type as a whole, and not somewhere within."""
_NOT_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
"""How MessagePack writes a float that is NaN or infinite (and, by chance, other data)."""


def _dump_in_order(value: object) -> object:
    return _put_in_order(dump(value), value)


def _put_in_order(tree: object, raw: object) -> object:
    """Sort in ``tree``, the plain form of ``raw``, the arrays that were sets and the keys of objects."""
    if isinstance(tree, list):
        parts = cast("list[object]", tree)
        sources: Iterable[object] = cast("Iterable[object]", raw) if isinstance(raw, Iterable) else parts
        settled = [_put_in_order(part, source) for part, source in zip(parts, sources, strict=False)]
        return sorted(settled, key=msgspec.json.encode) if isinstance(raw, AbstractSet) else settled
    if isinstance(tree, dict):
        pairs = cast("dict[str, object]", tree)
        if isinstance(raw, Mapping):
            sources = cast("Mapping[object, object]", raw).values()
        else:
            sources = (getattr(raw, key, None) for key in pairs)
        settled_pairs = zip(pairs, map(_put_in_order, pairs.values(), sources), strict=False)
        return dict(sorted(settled_pairs))
    return tree


@attrs.frozen(eq=False)
class Typed:
    """How values of one declared type are stored."""

    declared: Any
    read: Callable[[bytes], Any]
    """From what was stored. It raises msgspec's or the model's own errors."""
    lower: Callable[[Any], object] | None
    """To what can be written; None where a value is written as it stands."""
    open: bool
    """Whether nothing is declared, so that a value comes back as plain JSON."""


PLAIN: Final = Typed(Any, cast("Callable[[bytes], Any]", msgspec.json.Decoder().decode), None, open=True)
"""Where nothing is declared."""


class Codec:
    """Writes values as JSON bytes and reads them back by declared type. Holds no state but a cache of decoders."""

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        """Refuse payloads of more than ``limit`` bytes."""
        self._limit = limit
        self._plain: Callable[[object], bytes] = msgspec.json.Encoder(enc_hook=dump).encode
        self._ordered: Callable[[object], bytes] = msgspec.json.Encoder(
            enc_hook=_dump_in_order, order="deterministic"
        ).encode
        self._packed: Callable[[object], bytes] = msgspec.msgpack.Encoder(enc_hook=dump).encode
        self._typed: dict[Any, Typed] = {}

    def encode(self, value: object, *, what: str) -> bytes:
        """Write ``value``; dicts keep their order.

        Args:
            value: Anything of the supported types, nested at will.
            what: The value's name for messages: ``"step 'charge' of run order-17: the result"``.

        Raises:
            PayloadError: The value has no JSON form, would come back as another one, or is over the limit.
        """
        try:
            payload = self._plain(value)
        except Exception as error:  # a user's model serialises itself and may raise anything
            raise self._unwritable(value, what, error) from error
        if payload.find(b"null") >= 0 or len(payload) > self._limit:  # ``find`` costs half of what ``in`` does
            self._admit(payload, value, what)
        return payload

    def encode_ordered(self, value: object, *, what: str) -> bytes:
        """Write ``value`` so that equal values give equal bytes in every process: for digests of arguments.

        Sets and dicts are written in order. Costs as much as ``encode``, but for values that do not sort by
        themselves (sets of mixed types or of objects, dicts whose keys are not strings, lists in lists): those take
        a slower way, some microseconds and about one more for each element.

        Raises:
            PayloadError: As ``encode`` does.
        """
        try:
            payload = self._ordered(value)
        except Exception:  # noqa: BLE001 - either it does not sort, or ``encode`` says what is wrong
            return self._encode_sorted(value, what)
        # msgspec sorts a set of frozensets by ``<``, which is inclusion and no order at all. Such a set shows as an
        # array in an array; the outermost of a tuple of arguments is not one.
        if payload.find(b"[[", int(type(value) is tuple)) >= 0:
            return self._encode_sorted(value, what)
        if payload.find(b"null") >= 0 or len(payload) > self._limit:
            self._admit(payload, value, what)
        return payload

    def typed(self, declared: Any) -> Typed:
        """How values of a declared type are stored, found out once per type.

        Raises:
            PayloadError: Values of this type cannot be read back from JSON; the message says what to use.
        """
        try:
            known = self._typed.get(declared)
        except TypeError:  # unhashable, such as Annotated[int, [...]]
            return _typed(declared)
        if known is None:
            known = self._typed[declared] = _typed(declared)
        return known

    def decoder(self, declared: Any) -> Callable[[bytes], Any]:
        """The function that reads payloads as ``declared``, made once per type.

        It raises msgspec's or the model's own errors; ``decode`` is the one that explains them.

        Raises:
            PayloadError: Values of this type cannot be read back from JSON; the message says what to use.
        """
        return self.typed(declared).read

    def exchange(self, value: Any, typed: Typed, *, what: str, ordered: bool = False) -> tuple[bytes, Any]:
        """Write ``value`` and read it back: what is stored, and the value that everybody gets from now on.

        Args:
            value: What to store.
            typed: What ``typed`` gave for its declared type.
            what: As for ``encode``.
            ordered: Whether equal values must give equal bytes, as for digests.

        Raises:
            PayloadError: It cannot be stored, is not of its type, or would come back as something else.
        """
        encode = self.encode_ordered if ordered else self.encode
        try:
            payload = encode(value if typed.lower is None else self._lowered(value, typed.lower, what), what=what)
            back = typed.read(payload)
        except Exception as error:  # noqa: BLE001 - a user's model validates itself and may raise anything
            return self._exchange_whole(value, typed, what, error, ordered=ordered)
        lost = None if typed.open else change(value, back)
        return (payload, back) if lost is None else self._exchange_whole(value, typed, what, lost, ordered=ordered)

    def _lowered(self, value: Any, lower: Callable[[Any], object], what: str) -> object:
        try:
            return lower(value)
        except Exception as error:  # a user's own encode may raise anything
            raise self._unwritable(value, what, error) from error

    def _exchange_whole(
        self, value: Any, typed: Typed, what: str, fault: Exception | str, *, ordered: bool
    ) -> tuple[bytes, Any]:
        """Store the value taken apart to its last leaf, and models by their attributes, or say what is lost."""
        try:
            again: tuple[bytes, Any] | Exception | str = self._taken_apart(value, typed, what, ordered=ordered)
        except Exception:  # noqa: BLE001 - as above; what is wrong is known already
            again = fault
        if isinstance(again, tuple):
            return again
        if isinstance(again, PayloadError):
            raise again
        if isinstance(again, Exception):
            raise unfit(typed.declared, what, again) from again
        raise PayloadError(
            f"{what} would not come back as it is: {again}",
            "Declare the type that the value has, or store what can be read back",
        )

    def _taken_apart(self, value: Any, typed: Typed, what: str, *, ordered: bool) -> tuple[bytes, Any] | str:
        lowered = whole_form(typed.declared).lower(value)
        order: Literal["deterministic"] | None = "deterministic" if ordered else None
        tree = msgspec.to_builtins(lowered, enc_hook=dump_attributes, str_keys=True, order=order)
        payload = self.encode(tree, what=what)
        back = typed.read(payload)
        lost = change(value, back)
        return (payload, back) if lost is None else lost

    def decode(self, payload: bytes, declared: Any, *, what: str) -> Any:
        """Read ``payload`` as ``declared``.

        Raises:
            PayloadError: The payload does not fit the type, or the type is unsupported.
        """
        read = self.decoder(declared)
        try:
            return read(payload)
        except Exception as error:  # a user's model validates itself and may raise anything
            raise misfit(declared, what, error) from error

    def _admit(self, payload: bytes, value: object, what: str) -> None:
        """Refuse a payload that is too large, or whose null was NaN or an infinity."""
        if len(payload) > self._limit:
            message = (
                f"{what} is too large: {len(payload):,} bytes as JSON, and {self._limit:,} are allowed. Store the data "
                "elsewhere and pass its key or address, or raise the engine's payload limit."
            )
            raise PayloadError(message)
        if value is None:
            return
        try:
            suspect = _NOT_FINITE.search(self._packed(value)) is not None
        except OverflowError:  # an integer beyond 64 bits, which only JSON can write
            suspect = True
        if suspect and _has_not_finite(msgspec.to_builtins(value, enc_hook=dump)):
            message = (
                f"{what} cannot be stored: it holds a float that is NaN or infinite, which JSON cannot write. "
                "Use None, a string or a Decimal in its place."
            )
            raise PayloadError(message)

    def _encode_sorted(self, value: object, what: str) -> bytes:
        tree = msgspec.json.decode(self.encode(value, what=what))
        return self._plain(_put_in_order(tree, value))

    @staticmethod
    def _unwritable(value: object, what: str, error: Exception) -> PayloadError:
        if isinstance(error, NoForm):
            detail = str(error)
        elif isinstance(error, RecursionError):
            detail = f"its {kind_name(value)} is nested too deeply, or contains itself"
        else:
            detail = f"writing its {kind_name(value)} raised {type(error).__name__}: {_words_of(error)}"
        return PayloadError(f"{what} cannot be stored as JSON: {detail}. Supported are {_SUPPORTED}.")


def _words_of(error: Exception) -> str:
    """What an error of a type's own code says, in one line; of pydantic's without the values, which may be secret."""
    model = error.__cause__ or error  # msgspec raises its own error from that of a model
    faults = getattr(model, "errors", None)
    if not callable(faults) or not type(model).__module__.startswith("pydantic"):
        return one_line(str(error))
    found = cast("list[dict[str, Any]]", faults(include_url=False, include_context=False, include_input=False))
    said = "; ".join(": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"]))) for each in found)
    return said + "".join(_WHERE.findall(str(error)))


def misfit(declared: object, what: str, error: Exception) -> PayloadError:
    """The error for a payload that does not read back as ``declared``; raise it ``from error``."""
    message = (
        f"{what} cannot be read as {type_name(declared)}: {_words_of(error)}. Mend the annotation, or the value "
        "where it is made; for data that an older release wrote, keep the type able to read it."
    )
    return PayloadError(message)


def unfit(declared: object, what: str, error: Exception) -> PayloadError:
    """The error for a value that was given just now and is not ``declared``; raise it ``from error``."""
    plain = _EXPECTED.fullmatch(str(error))
    why = f", and got {plain['got']}" if plain is not None else f": {_words_of(error)}"
    return PayloadError(
        f"{what} must be {type_name(declared)}{why}", "Give a value of that type, or correct the annotation"
    )


def _typed(declared: Any) -> Typed:
    if declared in (Any, object, inspect.Parameter.empty):
        return PLAIN
    try:
        form = form_of(declared)
        if form is None:
            decode = msgspec.json.Decoder(declared, dec_hook=load).decode
            return Typed(declared, cast("Callable[[bytes], Any]", decode), None, open=False)
    except Unusable as error:
        raise _unusable(declared, str(error)) from error
    except Exception as error:  # evaluating a class's annotations may raise anything
        raise _unusable(declared, in_words(error)) from error
    read = form.read
    return Typed(declared, lambda payload: read(PLAIN.read(payload)), form.lower, open=False)


def _unusable(declared: object, fault: str) -> PayloadError:
    message = (
        f"a value declared as {type_name(declared)} cannot be read back from JSON: {fault}. Supported are {_SUPPORTED}"
    )
    return PayloadError(message)


def _has_not_finite(tree: object) -> bool:
    """Whether plain data holds a NaN or an infinity."""
    if isinstance(tree, float):
        return tree - tree != 0
    if isinstance(tree, dict):
        return any(map(_has_not_finite, cast("dict[object, object]", tree).values()))
    return isinstance(tree, list | tuple) and any(map(_has_not_finite, cast("list[object]", tree)))
