"""Values that JSON has no form for, as plain data and back: models, users' own types, subclasses of builtin types.

Invariant: what has no form here raises ``NoForm``, and is never written in part. A secret has no form.
"""

import functools
import inspect
import numbers
import typing
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any, ClassVar, Final, Protocol, TypeGuard, cast

import msgspec

from durable_core.model.registered import named, registered

_ATTRIBUTES: Final = "$attributes"
"""Marks a model that is stored by its attributes, because its own JSON would come back as something else."""
_BYTES: Final = "$bytes"
_REGISTERED: Final = "$registered"
_BY_NAME: Final[Mapping[str, bool]] = {"by_name": True, "by_alias": False}


class NoForm(TypeError):
    """Raised at the value that has no form as JSON; its text says which and why."""


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

    model_fields: ClassVar[Mapping[str, Any]]
    model_extra: Mapping[str, object] | None

    def model_dump(self, *, mode: str, round_trip: bool, by_alias: bool) -> Any: ...
    @classmethod
    def model_validate(cls, obj: Any, **options: bool) -> object: ...
    @classmethod
    def model_validate_json(cls, json_data: bytes, **options: bool) -> object: ...


def is_model(cls: type) -> TypeGuard[type[_Model]]:
    """Whether ``cls`` is a class of pydantic or SQLModel."""
    return hasattr(cls, "model_validate_json") and hasattr(cls, "model_dump")


@functools.lru_cache(1024)
def _takes_names(cls: type[_Model], entrance: str = "model_validate_json") -> bool:
    """Whether a model can be validated by its fields' own names where they have aliases (pydantic 2.11 on)."""
    return "by_name" in inspect.signature(getattr(cls, entrance)).parameters and not hasattr(cls, "__table__")


def dump(value: object) -> object:
    """The plain form of what msgspec does not write by itself.

    Raises:
        NoForm: it has none.
    """
    cls = type(value)
    known = registered(cls)
    if known is not None:
        return known.encode(value)
    if is_model(cls):
        return _dump_model(cast("_Model", value))
    return _base_of(value)


def dump_attributes(value: object) -> object:
    """As ``dump``, with models stored by their attributes: for those whose own JSON comes back as something else."""
    cls = type(value)
    if registered(cls) is None and is_model(cls):
        return _by_attributes(cast("_Model", value))
    return dump(value)


def load(declared: type, value: object) -> object:
    """A value of ``declared``, which msgspec does not make by itself, from its plain form."""
    if declared is object:
        return value
    declared = typing.get_origin(declared) or declared
    known = registered(declared)
    if known is not None:
        made = known.decode(value)
        if not isinstance(made, declared):
            raise msgspec.ValidationError(
                f"the decode= registered for {type_name(known.type)} gave {kind_name(made)}, not {type_name(declared)}"
            )
        return made
    model = cast("type[_Model]", declared)
    if isinstance(value, dict) and value.keys() == {_ATTRIBUTES}:
        stored = _restored(cast("dict[str, object]", value)[_ATTRIBUTES])
        return model.model_validate(stored, strict=False, **(_BY_NAME if _takes_names(model, "model_validate") else {}))
    if hasattr(declared, "__table__"):
        return model.model_validate(value)  # the only entrance of a table class that validates
    # By way of JSON, because strict models take the text of a date or a UUID from nowhere else.
    return model.model_validate_json(msgspec.json.encode(value), **(_BY_NAME if _takes_names(model) else {}))


def _base_of(value: Any) -> object:
    """An instance of a subclass of a builtin type as that type, where it says the same."""
    given: object = value
    # Only a builtin type counts, and what registers itself with the module ``numbers``, as numpy's scalars do.
    make = next((to for base, to in _BASES.items() if isinstance(value, base)), None)
    if make is None and isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational | Decimal):
        make = float
    # msgspec writes None, booleans and tuples by itself; it asks about them only where they are dict keys.
    if make is None or isinstance(value, bool):
        kind = kind_name(given)
        role = "a dict key" if isinstance(value, tuple | bool | NoneType) else "a value"
        raise NoForm(f"it holds {role} of type {kind}")
    base = make(value)
    if base != value:
        raise NoForm(f"it holds a value of type {kind_name(value)}, which says more than the {kind_name(base)} in it")
    return base


def _datetime(value: datetime) -> datetime:
    return datetime.combine(date(value.year, value.month, value.day), value.timetz())


_BASES: Final[dict[type, Callable[[Any], object]]] = {
    str: str.__str__,
    numbers.Integral: int,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    Decimal: Decimal,
    datetime: _datetime,
    date: lambda value: date(value.year, value.month, value.day),
    time: lambda value: time(
        value.hour, value.minute, value.second, value.microsecond, tzinfo=value.tzinfo, fold=value.fold
    ),
    timedelta: lambda value: timedelta(value.days, value.seconds, value.microseconds),
}


# -- models ------------------------------------------------------------------------------------------------------------


def _dump_model(model: _Model) -> object:
    cls = type(model)
    if hasattr(cls, "__table__"):
        # A commit expires the attributes of a row, and ``model_dump`` leaves out what is not loaded. Reading them
        # loads them, or raises where the row has lost its session.
        for name in cls.model_fields:
            getattr(model, name)
    if _secrets(cls):
        return _by_attributes(model)  # where the type of a secret is registered; else it has no form
    try:
        return model.model_dump(mode="json", round_trip=True, by_alias=not _takes_names(cls))
    except UnicodeDecodeError:  # bytes that are no text
        return _by_attributes(model)


def _by_attributes(model: _Model) -> object:
    return {_ATTRIBUTES: _marked(model)}


def _marked(value: object) -> object:
    """Plain data in which bytes and users' own types are marked, so that they can be told from text."""
    cls = type(value)
    known = registered(cls)
    if known is not None:
        return {_REGISTERED: f"{known.type.__module__}:{known.type.__qualname__}", "value": known.encode(value)}
    if isinstance(value, bytes | bytearray):
        return {_BYTES: b64encode(value).decode()}
    if is_model(cls):
        return _marked_model(cast("_Model", value))
    if isinstance(value, dict):
        return {key: _marked(part) for key, part in cast("dict[object, object]", value).items()}
    if isinstance(value, list | tuple | AbstractSet):
        parts = [_marked(part) for part in cast("list[object]", value)]
        return sorted(parts, key=msgspec.json.encode) if isinstance(value, AbstractSet) else parts
    return _marked_scalar(value)


def _marked_model(model: _Model) -> object:
    cls = type(model)
    if set(cls.model_fields) == {"root"}:
        return _marked(getattr(model, "root", None))
    pairs = {_written_name(cls, name): getattr(model, name) for name in cls.model_fields}
    return {name: _marked(part) for name, part in {**pairs, **(model.model_extra or {})}.items()}


def _marked_scalar(value: object) -> object:
    if hasattr(value, "get_secret_value"):
        raise NoForm(f"it holds a value of type {kind_name(value)}, which must not be stored as text")
    try:
        return msgspec.to_builtins(value, enc_hook=dump)
    except NoForm:
        return str(value)  # an address, a path: whether its text is enough is seen when it is read back


def _restored(tree: object) -> object:
    """What ``_marked`` gave, with bytes and users' own types in it again."""
    if isinstance(tree, list):
        return [_restored(part) for part in cast("list[object]", tree)]
    if not isinstance(tree, dict):
        return tree
    pairs = cast("dict[str, Any]", tree)
    if pairs.keys() == {_BYTES}:
        return b64decode(pairs[_BYTES])
    if pairs.keys() == {_REGISTERED, "value"}:
        return named(pairs[_REGISTERED]).decode(pairs["value"])
    return {key: _restored(part) for key, part in pairs.items()}


def _written_name(cls: type[_Model], name: str) -> str:
    """The name of a field in the form of a model by its attributes."""
    alias = getattr(cls.model_fields[name], "validation_alias", None)
    return alias if isinstance(alias, str) and not _takes_names(cls, "model_validate") else name


def secret_field(cls: type[_Model]) -> str | None:
    """A field of ``cls``, or of a model within, whose value its own JSON hides; None where there is none."""
    hidden = (text for kind, text in _secrets(cls) if registered(kind) is None)
    return next(hidden, None)


@functools.lru_cache(1024)
def _secrets(cls: type[_Model]) -> tuple[tuple[type, str], ...]:
    """The types of all fields that a model's own JSON hides, each with a text that says where it is."""
    return tuple(_secrets_within(cls, set()))


def _secrets_within(cls: type[_Model], seen: set[type]) -> Iterator[tuple[type, str]]:
    seen.add(cls)
    rules = getattr(cls, "__pydantic_decorators__", None)
    if getattr(rules, "model_serializers", None):
        return
    shown = {name for each in getattr(rules, "field_serializers", {}).values() for name in each.info.fields}
    for name, field in cls.model_fields.items():
        custom = any(type(each).__name__ in ("PlainSerializer", "WrapSerializer") for each in field.metadata)
        if custom or name in shown or "*" in shown:
            continue
        for part in _parts(field.annotation):
            if hasattr(part, "get_secret_value"):
                yield part, f"{name!r} of {type_name(cls)} is a {part.__name__}"
            elif is_model(part) and part not in seen:
                yield from _secrets_within(part, seen)


def _parts(annotation: Any) -> Iterator[type]:
    """The classes that an annotation names."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        yield annotation
    for part in (typing.get_origin(annotation), *typing.get_args(annotation)):
        if part is not None:
            yield from _parts(part)
