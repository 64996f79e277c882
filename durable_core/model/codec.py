"""Payloads are JSON, typed by the declaration they are read back with; never pickle.

Invariant: what ``encode`` accepts, ``decode`` either gives back under the declared type or refuses with a
``PayloadError``. Nothing is altered in silence: NaN, infinities and classes without a JSON form are refused.

The bounds of exactness are those of JSON: under ``Any``, ``object`` or no annotation a value comes back as plain
JSON (a tuple as a list, a UUID as a string); dates keep their offset from UTC in whole minutes, not their zone;
an instance of a subclass comes back as the declared class.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from types import NoneType
from typing import Any, ClassVar, Final, Protocol, TypeGuard, cast

import msgspec

from durable_core.errors import PayloadError

DEFAULT_LIMIT: Final = 1 << 20
"""Bytes that one payload may have, unless told otherwise."""

_SUPPORTED = (
    "plain JSON values, attrs classes, dataclasses, Enum, UUID, date and time types, Decimal, bytes, tuples, sets, "
    "NamedTuple, TypedDict, pydantic and SQLModel models"
)
_NOT_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
"""How MessagePack writes a float that is NaN or infinite (and, by chance, other data)."""


class _Unsupported(TypeError):
    """Raised inside msgspec at the value that has no JSON form."""

    def __init__(self, value: object) -> None:
        # msgspec writes None, booleans and tuples by itself; it asks about them only where they are dict keys.
        kind = kind_name(value)
        role = "a dict key" if isinstance(value, tuple | bool | NoneType) else "a value"
        super().__init__(f"it holds {role} of type {kind}")


def kind_name(value: object) -> str:
    """The class of ``value`` as people write it."""
    return type_name(type(value))


def type_name(declared: object) -> str:
    """A type as people write it: ``orders.Order``, ``int``, ``list[int]``."""
    if isinstance(declared, type) and not hasattr(declared, "__args__"):
        module = declared.__module__
        return declared.__qualname__ if module == "builtins" else f"{module}.{declared.__qualname__}"
    return str(declared)


class _Model(Protocol):
    """What this module asks of a pydantic or SQLModel class, neither of which it imports."""

    model_fields: ClassVar[Mapping[str, object]]

    def model_dump(self, *, mode: str, round_trip: bool, by_alias: bool) -> Any: ...
    @classmethod
    def model_validate(cls, obj: Any) -> object: ...
    @classmethod
    def model_validate_json(cls, json_data: bytes, **options: bool) -> object: ...


def _is_model(cls: type) -> TypeGuard[type[_Model]]:
    return hasattr(cls, "model_validate_json") and hasattr(cls, "model_dump")


@functools.cache
def _takes_names(cls: type[_Model]) -> bool:
    """Whether a model can be validated by its fields' own names where they have aliases (pydantic 2.11 on)."""
    return "by_name" in inspect.signature(cls.model_validate_json).parameters and not hasattr(cls, "__table__")


def _dump(value: object) -> object:
    cls = type(value)
    if not _is_model(cls):
        raise _Unsupported(value)
    model = cast("_Model", value)
    if hasattr(cls, "__table__"):
        # A commit expires the attributes of a row, and ``model_dump`` leaves out what is not loaded. Reading them
        # loads them, or raises where the row has lost its session.
        for name in cls.model_fields:
            getattr(model, name)
    return model.model_dump(mode="json", round_trip=True, by_alias=not _takes_names(cls))


def _dump_in_order(value: object) -> object:
    return _put_in_order(_dump(value), value)


def _load(declared: type, value: object) -> object:
    if declared is object:
        return value
    model = cast("type[_Model]", declared)
    if hasattr(declared, "__table__"):
        return model.model_validate(value)  # the only entrance of a table class that validates
    # By way of JSON, because strict models take the text of a date or a UUID from nowhere else.
    options = {"by_name": True, "by_alias": False} if _takes_names(model) else {}
    return model.model_validate_json(msgspec.json.encode(value), **options)


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


class Codec:
    """Writes values as JSON bytes and reads them back by declared type. Holds no state but a cache of decoders."""

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        """Refuse payloads of more than ``limit`` bytes."""
        self._limit = limit
        self._plain: Callable[[object], bytes] = msgspec.json.Encoder(enc_hook=_dump).encode
        self._ordered: Callable[[object], bytes] = msgspec.json.Encoder(
            enc_hook=_dump_in_order, order="deterministic"
        ).encode
        self._packed: Callable[[object], bytes] = msgspec.msgpack.Encoder(enc_hook=_dump).encode
        self._decoders: dict[Any, Callable[[bytes], Any]] = {}

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

    def decoder(self, declared: Any) -> Callable[[bytes], Any]:
        """The function that reads payloads as ``declared``, made once per type.

        It raises msgspec's or the model's own errors; ``decode`` is the one that explains them.

        Raises:
            PayloadError: Values of this type cannot be read back from JSON; the message says what to use.
        """
        try:
            known = self._decoders.get(declared)
        except TypeError:  # unhashable, such as Annotated[int, [...]]
            return _make_decoder(declared)
        if known is None:
            known = self._decoders[declared] = _make_decoder(declared)
        return known

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
        if suspect and _has_not_finite(msgspec.to_builtins(value, enc_hook=_dump)):
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
        if isinstance(error, _Unsupported):
            detail = str(error)
        elif isinstance(error, RecursionError):
            detail = f"its {kind_name(value)} is nested too deeply, or contains itself"
        else:
            detail = f"writing its {kind_name(value)} raised {type(error).__name__}: {error}"
        return PayloadError(f"{what} cannot be stored as JSON: {detail}. Supported are {_SUPPORTED}.")


def misfit(declared: object, what: str, error: Exception) -> PayloadError:
    """The error for a payload that does not read back as ``declared``; raise it ``from error``."""
    message = (
        f"{what} cannot be read as {type_name(declared)}: {error}. Mend the annotation, or the value "
        "where it is made; for data that an older release wrote, keep the type able to read it."
    )
    return PayloadError(message)


def _make_decoder(declared: Any) -> Callable[[bytes], Any]:
    if declared in (Any, object, inspect.Parameter.empty):
        return cast("Callable[[bytes], Any]", msgspec.json.Decoder().decode)
    try:
        decoder = msgspec.json.Decoder(declared, dec_hook=_load)
        fault = _find_fault(declared)
    except Exception as error:  # evaluating a class's annotations may raise anything
        fault = str(error) if isinstance(error, TypeError) else f"{type(error).__name__}: {error}"
        raise _unusable(declared, fault) from error
    if fault is not None:
        raise _unusable(declared, fault)
    return cast("Callable[[bytes], Any]", decoder.decode)


def _unusable(declared: object, fault: str) -> PayloadError:
    message = (
        f"a value declared as {type_name(declared)} cannot be read back from JSON: {fault}. Supported are {_SUPPORTED}."
    )
    return PayloadError(message)


def _find_fault(declared: Any) -> str | None:
    """What in ``declared`` msgspec accepts but would not read back: a foreign class, or a field it never writes."""
    from msgspec import inspect as structure  # noqa: PLC0415 - needed per declared type, not at import

    seen: set[int] = set()
    todo: list[object] = [structure.type_info(declared)]
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, structure.CustomType) and node.cls is not object and not _is_model(node.cls):
            hint = "; use list[...]" if node.cls.__module__ == "collections.abc" else ""
            return f"{type_name(node.cls)} is not a supported type{hint}"
        if isinstance(node, structure.DataclassType):
            hidden = _hidden_fields(node.cls)
            if hidden:
                return f"fields that begin with an underscore are not written: {hidden[0]!r} of {type_name(node.cls)}"
        if isinstance(node, tuple):
            todo.extend(cast("tuple[object, ...]", node))
        elif isinstance(node, structure.Type | structure.Field):
            todo.extend(getattr(node, name) for name in node.__struct_fields__ if name != "cls")
    return None


def _hidden_fields(cls: type) -> list[str]:
    """The private fields of a class that its constructor takes, so that they are data and not a cache."""
    of_attrs = getattr(cls, "__attrs_attrs__", ())
    of_dataclass = getattr(cls, "__dataclass_fields__", {}).values()
    return [field.name for field in (*of_attrs, *of_dataclass) if field.init and field.name.startswith("_")]


def _has_not_finite(tree: object) -> bool:
    """Whether plain data holds a NaN or an infinity."""
    if isinstance(tree, float):
        return tree - tree != 0
    if isinstance(tree, dict):
        return any(map(_has_not_finite, cast("dict[object, object]", tree).values()))
    return isinstance(tree, list | tuple) and any(map(_has_not_finite, cast("list[object]", tree)))
