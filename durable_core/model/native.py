"""Which declared types msgspec reads back by itself, and why it does not read back the others."""

import typing
from typing import Any, TypeVar, cast

import msgspec

from durable_core.model.fields import hidden_fields, unresolved_in
from durable_core.model.plain import is_model, load, secret_field, type_name
from durable_core.model.registered import registered, settle


def peeled(declared: Any) -> Any:
    """A type without what is written around it: ``Annotated``, ``NewType``, aliases, type variables."""
    while True:
        origin = typing.get_origin(declared)
        if origin in (typing.Annotated, typing.Required, typing.NotRequired, typing.Final):
            declared = typing.get_args(declared)[0]
        elif isinstance(declared, TypeVar):
            declared = declared.__bound__ or _any_of(declared.__constraints__)
        elif hasattr(declared, "__supertype__"):
            declared = declared.__supertype__
        elif type(declared).__name__ == "TypeAliasType":
            declared = declared.__value__
        else:
            return declared


def _any_of(types: tuple[Any, ...]) -> Any:
    joined: Any = types[0] if types else Any
    for each in types[1:]:
        joined |= each
    return joined


def native_fault(declared: Any) -> str | None:
    """Why msgspec would not read values of ``declared`` back; None where it does."""
    from msgspec import inspect as structure  # noqa: PLC0415 - needed per declared type, not at import

    try:
        msgspec.json.Decoder(declared, dec_hook=load)
        whole = structure.type_info(declared)
    except Exception as error:  # noqa: BLE001 - evaluating a class's annotations may raise anything
        if isinstance(error, NameError):
            return unresolved_in(declared, error)
        return str(error) if isinstance(error, TypeError) else f"{type(error).__name__}: {error}"
    classes: set[type] = set()
    fault = _fault_within(whole, classes)
    if fault is None:
        for cls in classes:
            settle(cls)
    return fault


def _fault_within(whole: object, classes: set[type]) -> str | None:
    """What msgspec accepts but would not read back: a foreign class, or a field it never writes."""
    from msgspec import inspect as structure  # noqa: PLC0415 - as above

    seen: set[int] = set()
    todo: list[object] = [whole]
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        cls = getattr(node, "cls", None)
        if isinstance(cls, type):
            fault = _fault_of(cls, custom=isinstance(node, structure.CustomType))
            if fault is not None:
                return fault
            classes.add(cls)
        if isinstance(node, tuple):
            todo.extend(cast("tuple[object, ...]", node))
        elif isinstance(node, structure.Type | structure.Field):
            todo.extend(getattr(node, name) for name in node.__struct_fields__ if name != "cls")
    return None


def _fault_of(cls: Any, *, custom: bool) -> str | None:
    known = registered(cls)
    if custom:
        if known is not None or cls is object:
            return None
        if not is_model(cls):
            hint = "; use list[...]" if cls.__module__ == "collections.abc" else ""
            return f"{type_name(cls)} is not a supported type{hint}"
        secret = secret_field(cls)
        return None if secret is None else f"{secret}, which is never stored as text"
    if known is not None:
        return f"{type_name(cls)} has a codec of its own"
    hidden = hidden_fields(cls)
    if hidden:
        return f"fields that begin with an underscore are not written: {hidden[0]!r} of {type_name(cls)}"
    return None
