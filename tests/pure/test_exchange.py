"""What a declared type makes of a value: it takes another type's where it says the same, and names what is lost."""

import enum
import numbers
from datetime import datetime, time, timedelta, timezone
from ipaddress import IPv4Address
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, SecretStr, model_serializer
from typing_extensions import TypeAliasType

from durable_core.errors import PayloadError
from durable_core.model.codec import Codec
from durable_core.model.registered import register_type

CODEC = Codec()
WHAT = "step 'charge' of run order-17: the result"
ID = UUID(int=5)
ZONE = timezone(timedelta(hours=2))
FOLDED = datetime(2026, 10, 25, 2, 30, fold=1)


class Cat(BaseModel):
    name: str


class Dog(BaseModel):
    name: str


class Camel(msgspec.Struct, rename="camel"):
    order_id: int
    price: int = 0


@attrs.frozen
class Line:
    sku: str
    count: int = 1


@attrs.define
class Half:
    total: int
    counted: int | None = attrs.field(default=None, init=False)


class Point(NamedTuple):
    x: int
    y: int


class Pet(TypedDict):
    animal: Cat | Dog


class Home(NamedTuple):
    animal: Cat | Dog
    rooms: int


@attrs.frozen
class Kennel:
    animal: Cat | Dog
    note: str = ""


class Moment(datetime):
    pass


class Hour(time):
    pass


class Stamp:
    """Registered; written as a text."""

    def __init__(self, text: str) -> None:
        self.text = text


class Nothing:
    """Registered; written as null."""


@attrs.frozen
class Void:
    """Registered, although it has a form of its own; written as null."""


@attrs.frozen
class Broken:
    """Registered; its ``encode`` raises."""


class Handle(enum.Enum):
    RAW = object()
    ONE = 1


def _text(tag: "Tag") -> str:
    return tag.text


class Tag:
    """A class without ``==``."""

    def __init__(self, text: str) -> None:
        self.text = text


class Never:
    """A class without a form, whose values equal nothing."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__


class Tagged(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    tag: Annotated[
        Tag, BeforeValidator(lambda given: given if isinstance(given, Tag) else Tag(**given)), PlainSerializer(vars)
    ]


class Unlike(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    it: Annotated[Never, BeforeValidator(lambda _: Never()), PlainSerializer(lambda _: 1)]


class Packet(BaseModel):
    sender: IPv4Address
    raw: bytes


class Login(BaseModel):
    password: SecretStr

    @model_serializer
    def shown(self) -> dict[str, str]:
        return {"password": self.password.get_secret_value()}


class Scalar:
    """As numpy's scalars: a number that is of no builtin class."""

    def __init__(self, value: float, unit: str = "") -> None:
        self.value, self.unit = value, unit

    def __float__(self) -> float:
        return self.value

    def __eq__(self, other: object) -> bool:
        return not self.unit and self.value == other

    __hash__ = object.__hash__


Item = TypeVar("Item")


@attrs.frozen
class Box(Generic[Item]):
    inside: Item


def refuse(_: object) -> object:
    raise RuntimeError("no link to the vault")


numbers.Real.register(Scalar)
register_type(Moment, encode=datetime.isoformat, decode=Moment.fromisoformat)
register_type(Hour, encode=time.isoformat, decode=lambda text: Hour.fromisoformat(text[-8:]))
register_type(Stamp, encode=lambda stamp: stamp.text, decode=lambda plain: Stamp(str(plain)))
register_type(Nothing, encode=lambda _: None, decode=lambda _: Nothing())
register_type(Void, encode=lambda _: None, decode=lambda _: Void())
register_type(Broken, encode=refuse, decode=lambda _: Broken())

Bound = TypeVar("Bound", bound=Cat | Dog)
OneOf = TypeVar("OneOf", Cat, Dog)
Alias = TypeAliasType("Alias", Cat | Dog)
New = NewType("New", Alias)
TOM = Cat(name="Tom")


def back(value: Any, declared: Any) -> Any:
    return CODEC.exchange(value, CODEC.typed(declared), what=WHAT)[1]


TAKEN: list[tuple[Any, Any, Any]] = [
    (dict[str, Any], Line("a"), {"sku": "a", "count": 1}),
    (dict[str, Any], TOM, {"name": "Tom"}),
    (list[int], Point(1, 2), [1, 2]),
    (set[int], [1, 2, 2], {1, 2}),
    (dict[str, int], {ID: 1}, {str(ID): 1}),
    (dict[int, int], {"1": 2}, {1: 2}),
    (set[tuple[int, int]], {(1, 2)}, {(1, 2)}),
    (set[frozenset[int]], {frozenset({1})}, {frozenset({1})}),
    (float, Scalar(1.5), 1.5),
    (Moment, datetime(2026, 1, 2, tzinfo=ZONE), Moment(2026, 1, 2, tzinfo=ZONE)),
    (Cat | Dog | object, 4, 4),
]


@pytest.mark.parametrize(("declared", "value", "expected"), TAKEN, ids=[str(each[0]) for each in TAKEN])
def test_the_value_of_another_type_is_taken_where_it_says_the_same(declared: Any, value: Any, expected: Any) -> None:
    """What the declaration makes of it is what everybody gets."""
    found = back(value, declared)
    assert (found, type(found)) == (expected, type(expected))


LOST: list[tuple[Any, Any, str]] = [
    (dict[str, Any], Camel(1), "field 'order_id' of .*Camel would be lost"),
    (set[int | bool], [1, True], "list of 2 comes back as set"),
    (set[str], {ID, str(ID)}, "set of 2 comes back as set"),
    (set[datetime], {FOLDED}, "an element: .* would lose its fold=1; use an aware datetime"),
    (dict[str, datetime], {ID: FOLDED}, "key UUID.*: .* would lose its fold=1"),
    (dict[int, datetime], {"1": FOLDED}, "key '1': .* would lose its fold=1"),
    (int | datetime, FOLDED, "would lose its fold=1"),
    (dict, {1: "a", "1": "a"}, "two keys are the same as JSON, and one of them would be lost"),
    (list, [1j], "complex"),
    (Stamp, {"text": "a"}, "dict comes back as .*Stamp"),
    (Hour, datetime(2026, 1, 2, 3), "datetime.datetime comes back as .*Hour"),
    (Unlike, Unlike(it=1), "field 'it' of .*Unlike: .*Never comes back as"),
    (float, Scalar(1.5, "m"), "Scalar, which says more than the float in it"),
    (Nothing | None, Nothing(), "Nothing comes back as None"),
    (Void | None, Void(), "it holds a .*Void that is written as null, where None may stand too"),
    (Broken | None, Broken(), "raised RuntimeError: no link to the vault"),
    (dict[str, Alias], [TOM], r"must be dict\[str, Alias\], and got array"),
    (list[Alias], TOM, r"must be list\[Alias\], and got dict"),
    (tuple[Alias, int], (TOM,), "Expected `array` of length 2"),
    (Pet, 3, "must be .*Pet, and got int"),
    (Kennel, 3, "must be .*Kennel, and got int"),
    (Home, 3, "must be .*Home, and got int"),
]


@pytest.mark.parametrize(("declared", "value", "said"), LOST, ids=[str(each[0]) for each in LOST])
def test_what_would_be_lost_or_does_not_fit_is_named(declared: Any, value: Any, said: str) -> None:
    """The refusal says which value of which step, and which part of it would come back as what."""
    with pytest.raises(PayloadError, match=said) as caught:
        back(value, declared)
    assert str(caught.value).startswith(WHAT)


@pytest.mark.parametrize("declared", [Bound, OneOf, Alias, New, Annotated[New, "a note"]], ids=str)
def test_a_union_is_one_whatever_its_name(declared: Any) -> None:
    """A type variable, an alias and a new type are what they stand for, and the stored form says which class it is."""
    assert back(TOM, declared) == TOM
    assert CODEC.exchange(TOM, CODEC.typed(declared), what=WHAT)[0] == b'{"$type":"Cat","value":{"name":"Tom"}}'


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (list[int, str], r"list\[int, str\]"),
        (dict[int], r"dict\[int\]"),
        (dict[complex, Cat | Dog], "complex cannot be the type of a dict's keys"),
        (Literal["YQ==", b"a"], "two members of .* are the same as JSON"),
        (Box[Annotated[Cat | Dog, []]], "unhashable"),
    ],
    ids=str,
)
def test_a_declaration_that_cannot_work_is_refused(declared: Any, said: str) -> None:
    """Before any value is written, and with the reason."""
    with pytest.raises(PayloadError, match=said):
        CODEC.typed(declared)


def test_a_registered_time_keeps_its_zone_as_an_offset_and_its_class() -> None:
    """A library's own datetime class, once registered, comes back as itself, with a zone and without."""
    for given in (Moment(2026, 1, 2, 3), Moment(2026, 1, 2, 3, tzinfo=ZONE)):
        found = back(given, Moment)
        assert (found, found.utcoffset(), type(found)) == (given, given.utcoffset(), Moment)


def test_a_member_without_a_form_goes_by_its_name() -> None:
    """An enum may hold anything: a member whose value cannot be written is stored by its name."""
    assert CODEC.exchange(Handle.RAW, CODEC.typed(Handle), what=WHAT) == (b'{"$enum":"RAW"}', Handle.RAW)
    assert CODEC.exchange(Handle.ONE, CODEC.typed(Handle), what=WHAT) == (b"1", Handle.ONE)


def test_a_field_without_a_value_comes_back_with_its_default() -> None:
    """It is left out of what is stored."""
    half = Half(1)
    del half.counted
    assert CODEC.exchange(half, CODEC.typed(Half), what=WHAT) == (b'{"total":1}', Half(1))


def test_a_part_without_equality_is_compared_by_its_attributes() -> None:
    """A class of the user's need not define ``==`` to be part of a model."""
    assert back(Tagged(tag=Tag("a")), Tagged).tag.text == "a"


def test_a_model_by_its_attributes_keeps_what_has_no_plain_form() -> None:
    """Bytes that are no text make a model be stored by its attributes; an address in it goes as its text."""
    packet = Packet(sender=IPv4Address("10.0.0.1"), raw=b"\xff")
    assert back(packet, Packet) == packet


def test_a_model_that_writes_itself_may_show_its_secret() -> None:
    """Its own serialiser has decided; nothing is hidden, so nothing is refused."""
    assert back(Login(password=SecretStr("abc")), Login).password.get_secret_value() == "abc"


@pytest.mark.parametrize(
    ("payload", "declared", "said"),
    [
        (b"{}", Pet, "Object missing required field `animal`"),
        (b'{"animal":3}', Kennel, "fits none of Cat, Dog; .* - field `animal`"),
        (
            b'{"$attributes":{"sender":{"$registered":"shop:Host","value":1},"raw":""}}',
            Packet,
            "no codec is registered for shop:Host; call sagas.codec.register for it",
        ),
    ],
    ids=str,
)
def test_stored_data_that_no_longer_fits_is_named(payload: bytes, declared: Any, said: str) -> None:
    """The message says which part is wrong, or what to register."""
    with pytest.raises(PayloadError, match=said) as caught:
        CODEC.decode(payload, declared, what=WHAT)
    assert str(caught.value).startswith(WHAT)
