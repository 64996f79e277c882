"""What a value lost on its way through the store: it is compared with what came back, part by part.

Invariant: two values of which ``change`` says nothing carry the same data under the declared types. A value that was
given as plain data, or as another type of the same form, counts as what its declaration makes of it. Nobody's
``__eq__`` is asked about a class with fields, as it may well compare ids alone.
"""

import functools
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from types import NoneType
from typing import Any, Final
from uuid import UUID

import msgspec

from durable_core.model.kinds import class_of, is_array, is_dict, is_mapping, is_set
from durable_core.model.plain import dump, is_model, kind_name
from durable_core.model.registered import registered

_EXACT: Final = frozenset({int, str, float, bool, NoneType, bytes, UUID, date, timedelta})
"""Types whose equal values are the same."""
_PLAIN: Final = (str, int, float, bool, NoneType)
_LONGEST_SHOWN: Final = 80


def change(value: Any, back: Any) -> str | None:
    """What of ``value`` is not in ``back``, as a clause; None where it is all there."""
    kind = class_of(value)
    if kind is type(back):
        if kind in _EXACT:
            return None if value == back else f"{_shown(value)} comes back as {_shown(back)}"
        if _are_equal(value, back, kind):
            return None
    if kind is tuple or kind is list:
        return _in_order(value, back)
    if kind is datetime and value == back and value.tzinfo is UTC is getattr(back, "tzinfo", None):
        return None
    fields = None if isinstance(value, Enum) else fields_of(kind)
    if fields is not None:
        return _of_fields(value, back, fields)
    compare = next((each for base, each in _BY_BASE.items() if isinstance(value, base)), _of_scalar)
    return compare(value, back)


def fields_of(cls: type) -> tuple[str, ...] | None:
    """The names of the fields whose values are data; None where ``cls`` has no fields, or a codec of its own."""
    return _fields(cls) if registered(cls) is None else None


@functools.lru_cache(4096)
def _fields(cls: type) -> tuple[str, ...] | None:
    if is_model(cls):
        return tuple(cls.model_fields)
    attributes: Any = getattr(cls, "__attrs_attrs__", None)
    of_dataclass: dict[str, Any] = getattr(cls, "__dataclass_fields__", {})
    declared: list[Any] = list(of_dataclass.values() if attributes is None else attributes)
    if declared:  # what begins with an underscore is a cache; else the class was refused
        return tuple(field.name for field in declared if not field.name.startswith("_") and not _is_no_field(field))
    named = "_fields" if tuple in cls.__mro__ else "__struct_fields__"
    names: tuple[str, ...] | None = getattr(cls, named, None)
    return names


def _is_no_field(field: Any) -> bool:
    """Whether it is a ``ClassVar`` or ``InitVar`` of a dataclass."""
    return getattr(getattr(field, "_field_type", None), "name", "_FIELD") != "_FIELD"


def _of_fields(value: Any, back: Any, fields: tuple[str, ...]) -> str | None:
    kind = class_of(value)
    other = class_of(back)
    if kind is not other:
        there = fields_of(other)
        if there is None:
            return _of_plain_object(value, back, fields)
        lost = [name for name in fields if name not in there]
        if lost:
            return (
                f"field {lost[0]!r} of {kind_name(value)} would be lost, as it comes back as {kind_name(back)}; "
                f"declare {kind.__name__}, or a union with it"
            )
    for name in fields:
        mine, theirs = getattr(value, name, None), getattr(back, name, None)
        if mine is theirs or (type(mine) in _EXACT and type(mine) is type(theirs) and mine == theirs):
            continue
        found = change(mine, theirs)
        if found is not None:
            return _within(f"field {name!r} of {kind_name(value)}", found)
    if _has_extras(kind):
        return change(getattr(value, "model_extra", None) or {}, getattr(back, "model_extra", None) or {})
    return None


def _are_equal(value: Any, back: Any, kind: type) -> bool:
    """Whether all fields hold equal plain values; False also where that takes a closer look."""
    get = _getter(kind)
    if get is None:
        return False
    try:
        mine: tuple[object, ...] = get(value)
        return mine == get(back) and _EXACT.issuperset(map(type, mine))
    except Exception:  # noqa: BLE001 - a field without a value, or one whose ``==`` raises
        return False


@functools.lru_cache(4096)
def _getter(cls: type) -> Callable[[Any], tuple[object, ...]] | None:
    """Reads all fields at once; None for a model, which may have more, and where there are fewer than two."""
    fields = _fields(cls)
    return None if is_model(cls) or fields is None or len(fields) < 2 else attrgetter(*fields)  # noqa: PLR2004 - two


@functools.lru_cache(4096)
def _has_extras(cls: type) -> bool:
    """Whether it is a model, which may have more than its fields."""
    return is_model(cls)


def _of_plain_object(value: Any, back: Any, fields: tuple[str, ...]) -> str | None:
    """An object that comes back as plain data, as its annotation says no more."""
    if is_mapping(back) and not is_model(class_of(value)):
        lost = [name for name in fields if name not in back and hasattr(value, name)]
        if lost:
            return f"field {lost[0]!r} of {kind_name(value)} would be lost"
        return next(filter(None, (change(getattr(value, name, None), back.get(name)) for name in fields)), None)
    if is_array(back):
        return _in_order([getattr(value, name) for name in fields], back)
    return None if _plain(value) == _plain(back) else f"{kind_name(value)} comes back as {kind_name(back)}"


def _in_order(value: Any, back: Any) -> str | None:
    if not is_array(back) or len(value) != len(back):
        if is_set(back) and len(set(map(_key, value))) == len(back):
            return None
        return f"{kind_name(value)} of {len(value)} comes back as {_shown(back)}"
    if _EXACT.issuperset(map(type, value)) and list(value) == list(back):
        return None
    for place, part in enumerate(value):
        found = None if part is back[place] else change(part, back[place])
        if found is not None:
            return _within(f"item {place}", found)
    return None


def _of_mapping(value: Mapping[object, object], back: Any) -> str | None:
    there = fields_of(class_of(back))
    if there is not None or not is_mapping(back):
        plain: object = _plain(back)  # a dict given for a class: each key must have become a field
        if not is_dict(plain):
            return f"{kind_name(value)} comes back as {_shown(back)}"
        lost = [key for key in value if key not in plain]
        return f"key {lost[0]!r} would be lost, as it comes back as {kind_name(back)}" if lost else None
    for key, part in value.items():
        if key in back:
            found = change(part, back[key])
        elif _key(key) in back:
            found = change(part, back[_key(key)])
        else:
            typed = [name for name in back if _key(name) == _key(key)]
            if not typed:
                return f"key {key!r} would be lost"
            found = change(part, back[typed[0]])
        if found is not None:
            return _within(f"key {key!r}", found)
    return None if len(value) == len(back) else "two keys are the same as JSON, and one of them would be lost"


def _of_set(value: AbstractSet[object], back: Any) -> str | None:
    if not (is_set(back) or is_array(back)) or len(value) != len(back):
        return f"{kind_name(value)} of {len(value)} comes back as {_shown(back)}"
    if is_set(back) and _EXACT.issuperset(map(type, value)) and value == back:
        return None
    there = {_key(part): part for part in back}
    for part in value:
        if _key(part) not in there:
            return _within("an element", f"{_shown(part)} does not come back")
        found = change(part, there[_key(part)])
        if found is not None:
            return _within("an element", found)
    return None


def _of_scalar(value: Any, back: Any) -> str | None:
    same = _judge(value, back)
    if same:
        return None
    if isinstance(value, datetime | time) and value.fold and value.utcoffset() is None:
        return f"{value!r} would lose its fold=1; use an aware datetime"
    return f"{_shown(value)} comes back as {_shown(back)}"


def _judge(value: Any, back: Any) -> bool:
    """Whether a value without fields is the same, or says the same in its declared type."""
    kind = class_of(value)
    alike = kind is type(back)
    if hasattr(value, "get_secret_value"):
        found = alike and value == back
    elif isinstance(value, datetime | time) and isinstance(back, datetime | time):
        found = _same_time(value, back)
    elif isinstance(value, Decimal) and isinstance(back, Decimal):
        found = str(value) == str(back)
    elif isinstance(value, Enum):
        found = value is back or _plain(value) == _plain(back)
    elif registered(kind) is not None:  # a value that is written as null is not None for all that
        found = back is not None and _plain(value) == _plain(back)
    elif isinstance(value, int | float) and isinstance(back, int | float):
        found = value == back
    elif isinstance(value, _PLAIN) and not alike:
        found = True  # plain data, which the declared type has taken
    elif alike and not _compares(kind):
        found = change(getattr(value, "__dict__", {}), getattr(back, "__dict__", {})) is None
    else:
        found = value == back or _plain(value) == _plain(back)
    return bool(found)


def _compares(cls: type) -> bool:
    """Whether a class says when two of its instances are equal."""
    return any("__eq__" in vars(base) for base in cls.__mro__[:-1])


def _same_time(value: datetime | time, back: datetime | time) -> bool:
    """The same hands on the clock and the same offset from UTC; a zone comes back as its offset."""
    if isinstance(value, datetime) is not isinstance(back, datetime):
        return False
    offset = value.utcoffset()
    if offset != back.utcoffset() or (offset is None and value.fold != back.fold):
        return False
    return value.replace(tzinfo=None, fold=0) == back.replace(tzinfo=None, fold=0)


def _plain(value: object) -> object:
    """The plain form of a value, or the value where it has none."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value, enc_hook=dump, order="deterministic"))
    except Exception:  # noqa: BLE001 - a user's own encode may raise anything; then it equals nothing but itself
        return value


def _key(value: object) -> object:
    """A value such that equal forms have equal keys."""
    if type(value) is str:
        return value
    if is_set(value):
        return frozenset(map(_key, value))
    if is_array(value):
        return tuple(map(_key, value))
    plain = _plain(value)
    return plain if isinstance(plain, str) else msgspec.json.encode(plain, order="deterministic").decode()


def _within(where: str, found: str) -> str:
    return f"{where}: {found}"


def _shown(value: object) -> str:
    shown = repr(value) if isinstance(value, _PLAIN) and not isinstance(value, str) else kind_name(value)
    return shown if len(shown) <= _LONGEST_SHOWN else kind_name(value)


_BY_BASE: Final[dict[type, Callable[[Any, Any], str | None]]] = {
    Enum: _of_scalar,
    Mapping: _of_mapping,
    AbstractSet: _of_set,
    list: _in_order,
    tuple: _in_order,
}
"""How values without fields are compared, by what they derive from; the first that fits."""
