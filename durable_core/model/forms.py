"""Declared types that msgspec cannot read back by itself, taken apart into those that it can.

Such are unions of classes, enums of any value, literals of enums, and whatever holds one of these. Invariant: what
``lower`` gives is plain data with leaves that msgspec writes, and ``read`` makes the value again from its JSON. A type
that msgspec reads by itself is left to it, so that what was stored before there were forms has the same bytes.
"""

import typing
from collections.abc import Collection, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, Union

import attrs
import msgspec

from durable_core.model.changed import change
from durable_core.model.fields import Form, Unusable, fields_in
from durable_core.model.kinds import is_array, is_class, is_dict, is_list, is_mapping, is_set
from durable_core.model.native import native_fault, peeled
from durable_core.model.plain import NoForm, dump, kind_name, load, type_name
from durable_core.model.registered import Registered, registered

TYPE: Final = "$type"
ENUM: Final = "$enum"
_CONTAINERS: Final[frozenset[type]] = frozenset(
    {
        tuple,
        list,
        set,
        frozenset,
        Collection,
        Sequence,
        MutableSequence,
        AbstractSet,
        MutableSet,
        Mapping,
        MutableMapping,
    }
)


def form_of(declared: Any) -> Form | None:
    """The form of a declared type; None where msgspec needs none.

    Raises:
        Unusable: its values could not be read back.
    """
    return None if native_fault(declared) is None else _Maker(whole=False).make(declared)


def whole_form(declared: Any) -> Form:
    """A form that takes the type apart to its last leaf, for values that msgspec does not write as declared."""
    return _Maker(whole=True).make(declared)


class _Maker:
    """Makes the forms of one type and of its parts."""

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._made: dict[Any, Form] = {}
        """By class, so that a type may hold itself."""

    def make(self, declared: Any) -> Form:
        """The form of ``declared``."""
        fault = native_fault(declared)
        if fault is None and not self._whole:
            return _leaf(declared)
        form = self._apart(peeled(declared), fault)
        if fault is None:
            return (
                Form(_leaf(declared).lower, _leaf(declared).read)
                if form is None
                else attrs.evolve(form, read=_leaf(declared).read)
            )
        if form is None:
            raise Unusable(fault)
        return form

    def _apart(self, bare: Any, fault: str | None) -> Form | None:
        origin = typing.get_origin(bare)
        args = typing.get_args(bare)
        cls = origin or bare
        if origin in (Union, UnionType):
            return self._union(bare, tagged=fault is not None)
        if origin is typing.Literal:
            return _choice(args, type_name(bare))
        known = registered(cls) if is_class(cls) else None
        if known is not None:
            return _registered(known, bare)
        return self._class(bare, cls, args) if is_class(cls) else None

    def _class(self, bare: Any, cls: Any, args: tuple[Any, ...]) -> Form | None:
        if issubclass(cls, Enum):
            return _choice(tuple(cls), type_name(cls))
        if cls in _CONTAINERS:
            return self._container(cls, args)
        if dict in cls.__mro__ and not typing.is_typeddict(cls):
            return self._table(args)
        return self._object(bare, cls)

    # -- containers ------------------------------------------------------------------------------------------------

    def _container(self, cls: type, args: tuple[Any, ...]) -> Form | None:
        if not args:
            return None
        if cls is tuple and args[-1] is not Ellipsis:
            return _fixed([self.make(part) for part in args])
        if cls in (Mapping, MutableMapping):
            return self._table(args)
        if cls is not tuple and len(args) != 1:
            return None
        to = cls if cls in (tuple, set, frozenset) else set if issubclass(cls, AbstractSet) else list
        return _repeated(to, self.make(args[0]))

    def _table(self, args: tuple[Any, ...]) -> Form | None:
        if len(args) != 2:  # noqa: PLR2004 - keys and values
            return None
        key, part = args[0], self.make(args[1])
        named = _leaf(key).lower
        if native_fault(dict[key, Any]) is not None:  # type: ignore[valid-type]
            raise Unusable(f"{type_name(key)} cannot be the type of a dict's keys")

        def lower(value: Any) -> object:
            if not is_mapping(value):
                return value
            return {named(name): part.lower(each) for name, each in value.items()}

        def read(plain: Any) -> Any:
            keyed = msgspec.convert(plain, dict[key, Any], dec_hook=load, str_keys=True)  # type: ignore[valid-type]
            return {name: part.read(each) for name, each in keyed.items()}

        return Form(lower, read)

    # -- classes with fields ---------------------------------------------------------------------------------------

    def _object(self, bare: Any, cls: type) -> Form | None:
        if bare in self._made:
            return self._made[bare]
        fields = fields_in(bare)
        if fields is None:
            return None
        forms: dict[str, Form] = {}
        form = self._made[bare] = Form(fields.lowering(cls, forms), fields.reading(cls, forms))
        for field in fields.each:
            forms[field.name] = self.make(field.type)
        return form

    # -- unions ----------------------------------------------------------------------------------------------------

    def _union(self, bare: Any, *, tagged: bool) -> Form:
        members = list(dict.fromkeys(_flat(bare)))
        forms = [(member, self.make(member)) for member in members if member is not NoneType]
        if len(forms) == 1:
            return _optional(forms[0][1])
        names = [_short(member) for member, _ in forms]
        tags = [name if names.count(name) == 1 else type_name(forms[place][0]) for place, name in enumerate(names)]
        union = _Union(tuple(_Member(tag, *each) for tag, each in zip(tags, forms, strict=True)), NoneType in members)
        union.check(type_name(bare))
        return Form(union.tagged if tagged else union.untagged, union.read)


def _short(declared: Any) -> str:
    """The name of a type without its module, where it is a class."""
    return (
        str(getattr(declared, "__name__", ""))
        if isinstance(declared, type) and not typing.get_args(declared)
        else type_name(declared)
    )


def _flat(bare: Any) -> list[Any]:
    if typing.get_origin(bare) not in (Union, UnionType):
        return [bare]
    return [part for member in typing.get_args(bare) for part in _flat(peeled(member))]


def _leaf(declared: Any) -> Form:
    bare = peeled(declared)

    def lower(value: Any) -> object:
        if bare is float and isinstance(value, int | float):
            return float(value)
        if bare is int and isinstance(value, int):
            return int(value)
        return str.__str__(value) if bare is str and isinstance(value, str) else value

    def read(plain: Any) -> Any:
        return msgspec.convert(plain, declared, dec_hook=load, str_keys=True)

    return Form(lower, read)


def _registered(known: Registered, bare: Any) -> Form:
    def lower(value: Any) -> object:
        return known.encode(value) if isinstance(value, known.type) else value

    return Form(lower, lambda plain: load(bare, plain))


def _optional(form: Form) -> Form:
    def lower(value: Any) -> object:
        if value is None:
            return None
        lowered = form.lower(value)
        if lowered is None:
            return {ENUM: value.name} if isinstance(value, Enum) else _refuse_null(value)
        return lowered

    return Form(lower, lambda plain: None if plain is None else form.read(plain))


def _refuse_null(value: object) -> object:
    raise NoForm(f"it holds a {kind_name(value)} that is written as null, where None may stand too")


def _fixed(parts: list[Form]) -> Form:
    def lower(value: Any) -> object:
        if not is_array(value) or len(value) != len(parts):
            return value
        return [part.lower(each) for part, each in zip(parts, value, strict=True)]

    def read(plain: Any) -> Any:
        if not is_list(plain) or len(plain) != len(parts):
            raise msgspec.ValidationError(f"Expected `array` of length {len(parts)}")
        return tuple(part.read(each) for part, each in zip(parts, plain, strict=True))

    return Form(lower, read)


def _repeated(to: type, part: Form) -> Form:
    def lower(value: Any) -> object:
        if is_set(value):
            written = [part.lower(each) for each in value]
            return sorted(written, key=_sorting)
        return [part.lower(each) for each in value] if is_array(value) else value

    def read(plain: Any) -> Any:
        if not is_list(plain):
            raise msgspec.ValidationError(f"Expected `array`, got `{kind_name(plain)}`")
        return to(part.read(each) for each in plain)

    return Form(lower, read)


def _sorting(part: object) -> bytes:
    return msgspec.json.encode(part, enc_hook=dump, order="deterministic")


def _choice(members: tuple[Any, ...], name: str) -> Form:
    """The members of an enum, or of a literal: each by its own JSON, or by its name where that is not its alone."""
    by_form: dict[bytes, list[Any]] = {}
    for member in members:
        try:
            by_form.setdefault(_sorting(member), []).append(member)
        except (TypeError, ValueError):  # a value without a form, which has a name nevertheless
            continue
    alone = {form: found[0] for form, found in by_form.items() if len(found) == 1}
    by_name = {member.name: member for member in members if isinstance(member, Enum)}
    plain = {id(member) for member in alone.values()}
    if not all(id(member) in plain or isinstance(member, Enum) for member in members):
        raise Unusable(f"two members of {name} are the same as JSON")

    def lower(value: Any) -> object:
        if isinstance(value, Enum) and value in members and id(value) not in plain:
            return {ENUM: value.name}
        return value.value if isinstance(value, Enum) else value

    def read(given: Any) -> Any:
        by_itself = is_dict(given) and given.keys() == {ENUM}
        found = by_name.get(given[ENUM], _sorting) if by_itself else alone.get(_sorting(given), _sorting)
        if found is _sorting:
            raise msgspec.ValidationError(f"{given!r} is no member of {name}")
        return found

    return Form(lower, read)


@attrs.frozen(eq=False)
class _Member:
    """One type of a union."""

    tag: str
    declared: Any
    form: Form

    @property
    def full(self) -> str:
        """The type's name with its module."""
        return type_name(self.declared)

    @property
    def short(self) -> str:
        """The type's name."""
        return _short(self.declared)

    def nearness(self, value: object) -> int | None:
        """How near the class of ``value`` is to this type: 0 for the very class; None where it is none of it."""
        bare = peeled(self.declared)
        cls = typing.get_origin(bare) or bare
        if cls is typing.Literal:
            return 0 if any(value == each and type(value) is type(each) for each in typing.get_args(bare)) else None
        if cls in (Any, object):
            return len(type(value).__mro__)
        mro = type(value).__mro__
        cls = dict if typing.is_typeddict(cls) else cls
        return mro.index(cls) if cls in mro else len(mro) if isinstance(value, cls) else None


@attrs.frozen(eq=False)
class _Union:
    """Several types in one place. What is written says which of them it is."""

    members: tuple[_Member, ...]
    with_none: bool

    def check(self, name: str) -> None:
        """Refuse members that a value could not be told to be of."""
        if len({member.tag for member in self.members}) < len(self.members):
            raise Unusable(f"two classes in {name} have one name in one module; give one of them another name")
        seen: dict[Any, _Member] = {}
        for member in self.members:
            bare = peeled(member.declared)
            cls = typing.get_origin(bare) or bare
            cls = dict if typing.is_typeddict(cls) else cls
            if cls is not typing.Literal and seen.setdefault(cls, member) is not member:
                raise Unusable(
                    f"values of {member.full} and {seen[cls].full} in {name} cannot be told apart by their class; "
                    "declare classes of your own"
                )

    def tagged(self, value: Any) -> object:
        """The form of ``value``, with the name of its type."""
        if value is None and self.with_none:
            return None
        member = self._of(value)
        return value if member is None else {TYPE: member.tag, "value": member.form.lower(value)}

    def untagged(self, value: Any) -> object:
        """The form of ``value``, of a union whose types JSON itself tells apart."""
        member = self._of(value)
        return value if member is None else member.form.lower(value)

    def _of(self, value: object) -> _Member | None:
        near = [(place, member) for member in self.members if (place := member.nearness(value)) is not None]
        return min(near, key=lambda each: each[0])[1] if near else None

    def read(self, plain: Any) -> Any:
        """The value of a form with its type's name; or, where it has none, of the one type that takes all of it."""
        if plain is None and self.with_none:
            return None
        if is_dict(plain) and plain.keys() == {TYPE, "value"}:
            return self._named(plain[TYPE]).form.read(plain["value"])
        taken = [(member, value) for member in self.members for value in _read_by(member, plain)]
        if len(taken) > 1:
            taken = [each for each in taken if change(plain, each[1]) is None]
        if len(taken) != 1:
            how = "fits none" if not taken else "fits more than one"
            raise msgspec.ValidationError(
                f"the value {how} of {', '.join(member.tag for member in self.members)}; say which: "
                f'{{"{TYPE}": "{self.members[0].tag}", "value": ...}}'
            )
        return taken[0][1]

    def _named(self, tag: object) -> _Member:
        for names in ("tag", "full", "short"):
            found = [member for member in self.members if getattr(member, names) == tag]
            if len(found) == 1:
                return found[0]
        raise msgspec.ValidationError(f"{tag!r} is none of {', '.join(member.tag for member in self.members)}")


def _read_by(member: _Member, plain: Any) -> list[Any]:
    try:
        return [member.form.read(plain)]
    except Exception:  # noqa: BLE001 - a user's model validates itself and may raise anything: it is not of this type
        return []
