"""The fields of attrs classes, dataclasses, named tuples, typed dicts and structs, with their evaluated types."""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import attrs
import msgspec

from durable_core.model.kinds import is_class, is_dict, is_list
from durable_core.model.plain import is_model, kind_name, type_name


class Unusable(TypeError):
    """Values of a declared type could not be read back; the text says why."""


@attrs.frozen(eq=False)
class Form:
    """How values of one declared type are written and read."""

    lower: Callable[[Any], object]
    """To what msgspec can write."""
    read: Callable[[Any], Any]
    """From plain data, as JSON gives it."""


@attrs.frozen
class FieldType:
    """One field."""

    name: str
    written: str
    type: Any
    by: str | None
    """The constructor's name for it; None where the constructor does not take it."""


@attrs.frozen
class Fields:
    """All fields of a class, in order."""

    each: tuple[FieldType, ...]
    as_array: bool = attrs.field(kw_only=True)
    """A named tuple is an array."""
    required: frozenset[str] = attrs.field(default=frozenset(), kw_only=True)
    """Of a typed dict: the keys that it must have."""

    def lowering(self, cls: type, forms: Mapping[str, Form]) -> Callable[[Any], object]:
        """A function from a value to plain data. ``forms`` may be filled later."""
        typed_dict = typing.is_typeddict(cls)

        def lower(value: Any) -> object:
            if typed_dict:
                if not is_dict(value):
                    return value
                return {name: forms[name].lower(part) if name in forms else part for name, part in value.items()}
            if not isinstance(value, cls):
                return value
            if self.as_array:
                return [forms[field.name].lower(getattr(value, field.name)) for field in self.each]
            return {
                field.written: forms[field.name].lower(getattr(value, field.name))
                for field in self.each
                if hasattr(value, field.name)
            }

        return lower

    def reading(self, cls: type, forms: Mapping[str, Form]) -> Callable[[Any], Any]:
        """A function from plain data to a value."""

        def read(plain: Any) -> Any:
            if self.as_array:
                if not is_list(plain):
                    raise msgspec.ValidationError(f"Expected `array`, got `{kind_name(plain)}`")
                parts = zip(self.each, plain, strict=False)
                return cls(*[forms[field.name].read(part) for field, part in parts])
            if not is_dict(plain):
                raise msgspec.ValidationError(f"Expected `object`, got `{kind_name(plain)}`")
            found = [(f, _read(forms[f.name], plain[f.written], f.name)) for f in self.each if f.written in plain]
            lacking = self.required.difference(plain)
            if lacking:
                raise msgspec.ValidationError(f"Object missing required field `{min(lacking)}`")
            made = cls(**{field.by: part for field, part in found if field.by is not None})
            for field, part in found:
                if field.by is None:
                    object.__setattr__(made, field.name, part)
            return made

        return read


def _read(form: Form, plain: Any, name: str) -> Any:
    try:
        return form.read(plain)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(f"{error} - field `{name}`") from error


def fields_in(declared: Any) -> Fields | None:
    """The fields of a class or of a generic one with its arguments; None where it has none that could be read.

    Raises:
        Unusable: a field is private, or its annotation cannot be evaluated.
    """
    cls: Any = typing.get_origin(declared) or declared
    if not is_class(cls) or is_model(cls):
        return None
    if attrs.has(cls) or dataclasses.is_dataclass(cls):
        return _of_constructor(cls, declared)
    given = cast("Any", cls)
    if typing.is_typeddict(given):
        return Fields(_named(declared, list(given.__annotations__)), as_array=False, required=_required(given))
    names: tuple[str, ...] = getattr(given, "_fields", ()) if tuple in given.__mro__ else ()
    if names:
        return Fields(_named(declared, list(names)), as_array=True)
    if issubclass(given, msgspec.Struct) and not given.__struct_config__.array_like and not given.__struct_config__.tag:
        renamed = dict(zip(given.__struct_fields__, given.__struct_encode_fields__, strict=True))
        return Fields(_named(declared, list(renamed), renamed), as_array=False)
    return None


def _of_constructor(cls: Any, declared: Any) -> Fields:
    """The fields of an attrs class or a dataclass, without private ones, which are caches."""
    hidden = hidden_fields(cls)
    if hidden:
        raise Unusable(f"fields that begin with an underscore are not written: {hidden[0]!r} of {type_name(cls)}")
    types = types_of(declared)
    every: Any = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
    kept = [field for field in every if not field.name.startswith("_")]
    return Fields(
        tuple(FieldType(field.name, field.name, types.get(field.name, Any), _by(field)) for field in kept),
        as_array=False,
    )


def _by(field: Any) -> str | None:
    return (getattr(field, "alias", None) or field.name) if field.init else None


def _named(declared: Any, names: list[str], renamed: Mapping[str, str] | None = None) -> tuple[FieldType, ...]:
    types = types_of(declared)
    return tuple(FieldType(name, (renamed or {}).get(name, name), types.get(name, Any), name) for name in names)


def hidden_fields(cls: type) -> list[str]:
    """The private fields of a class that its constructor takes, so that they are data and not a cache."""
    of_attrs = getattr(cls, "__attrs_attrs__", ())
    of_dataclass = getattr(cls, "__dataclass_fields__", {}).values()
    return [field.name for field in (*of_attrs, *of_dataclass) if field.init and field.name.startswith("_")]


def types_of(declared: Any) -> dict[str, Any]:
    """The evaluated annotations of a class, with the arguments of generic ones put in.

    Raises:
        Unusable: one cannot be evaluated.
    """
    cls: Any = typing.get_origin(declared) or declared
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception as error:
        raise Unusable(unresolved_in(declared, error)) from error
    bound = _bound(cls, typing.get_args(declared))
    owners: dict[str, Any] = {name: owner for owner in reversed(cls.__mro__) for name in _annotated(owner)}
    return {name: _filled(_bare(hint), bound.get(owners.get(name, cls), {})) for name, hint in hints.items()}


def _annotated(cls: type) -> list[str]:
    return list(cast("dict[str, Any]", vars(cls).get("__annotations__", {})))


def _required(cls: Any) -> frozenset[str]:
    """The keys that a typed dict must have; its own list of them is wrong where annotations are postponed."""
    hints = typing.get_type_hints(cls, include_extras=True)
    said = {name: typing.get_origin(hint) for name, hint in hints.items()}
    known: frozenset[str] = cls.__required_keys__
    return frozenset(
        name
        for name in hints
        if said[name] is typing.Required or (name in known and said[name] is not typing.NotRequired)
    )


def _bare(hint: Any) -> Any:
    """The type of a typed dict's key, without whether it must be there."""
    required = typing.get_origin(hint) in (typing.Required, typing.NotRequired)
    return _bare(typing.get_args(hint)[0]) if required else hint


def _bound(cls: Any, args: tuple[Any, ...]) -> dict[type, dict[TypeVar, Any]]:
    """What each class among the bases of ``cls`` has in the place of its type variables."""
    mine: dict[TypeVar, Any] = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))
    found: dict[type, dict[TypeVar, Any]] = {cls: mine}
    bases: tuple[Any, ...] = cls.__dict__.get("__orig_bases__", ())
    for base in bases:
        origin = typing.get_origin(base)
        if isinstance(origin, type) and origin is not typing.Generic:
            found |= _bound(origin, tuple(_filled(arg, mine) for arg in typing.get_args(base)))
    return found


def _filled(hint: Any, bound: Mapping[TypeVar, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return bound.get(hint, hint)
    open_: tuple[TypeVar, ...] = getattr(hint, "__parameters__", ()) if typing.get_args(hint) else ()
    return hint[tuple(bound.get(each, each) for each in open_)] if open_ else hint


def unresolved_in(declared: Any, error: Exception) -> str:
    """What to say of a class whose own annotations cannot be evaluated."""
    return (
        f"an annotation of {type_name(declared)} cannot be evaluated ({type(error).__name__}: {error}). Import the "
        "type at the top of its module and not under TYPE_CHECKING, and declare it outside of functions"
    )
