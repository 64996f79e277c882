"""Payloads: what survives JSON survives exactly, and what does not is refused by name."""

import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pytest
from pydantic import BaseModel, ConfigDict
from pydantic import Field as ModelField
from sqlmodel import Field, Session, SQLModel, create_engine

from durable_core.errors import PayloadError
from durable_core.model.codec import Codec

T = TypeVar("T")
CODEC = Codec()
WHAT = "step 'charge' of run order-17: the result"


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


class Plain(Enum):
    A = "a"


@attrs.frozen
class Order:
    id: str
    amount: Decimal
    tags: frozenset[str] = frozenset()
    parent: "Order | None" = None


@dataclass(frozen=True)
class Line:
    sku: str
    count: int = 1
    seen: tuple[date, ...] = ()


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Patch(TypedDict):
    name: str
    size: NotRequired[int]


@attrs.frozen
class Box(Generic[T]):
    inside: T


class Struct(msgspec.Struct):
    a: int


class Trip(BaseModel):
    where: str
    when: datetime | None = None
    tags: set[str] = set()


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")
    one: int = ModelField(alias="uno")
    two: int = ModelField(default=2, validation_alias="dos", serialization_alias="deux")


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    id: UUID
    on: date
    raw: bytes


class Client(SQLModel):
    name: str
    born: date


class CodecHero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    born: date


@attrs.frozen
class Mixed:
    trip: Trip
    hero: CodecHero | None
    box: Box[list[Trip]]


@attrs.frozen
class Private:
    _secret: int


@attrs.frozen
class Cached:
    a: int
    _cache: int = attrs.field(init=False, default=0)


ID = UUID("12345678123456781234567812345678")

SURVIVORS: list[tuple[Any, Any]] = [
    (None, None),
    (type(None), None),
    (int, 0),
    (int, -(2**63)),
    (int, 2**64 - 1),
    (int, 2**64),
    (int, -(2**200)),
    (int, 10**400),
    (float, -0.0),
    (float, 1.7976931348623157e308),
    (float, 5e-324),
    (bool, True),
    (str, "null\x00 \u2028 \U0001f600"),
    (bytes, b"\x00\xff"),
    (Decimal, Decimal("1.10")),
    (Decimal, Decimal("1E+400")),
    (UUID, ID),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6)),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
    (datetime, datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-5, minutes=-30)))),
    (date, date.min),
    (time, time(1, 2, 3, 4)),
    (time, time(1, 2, tzinfo=UTC)),
    (timedelta, timedelta.max),
    (timedelta, timedelta(microseconds=-1)),
    (Colour, Colour.RED),
    (Size, Size.BIG),
    (Plain, Plain.A),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (list[set[UUID]], [{ID}]),
    (dict[str, list[int]], {"b": [1], "a": []}),
    (dict[int, str], {2: "b", 1: "a"}),
    (dict[date, Point], {date.min: Point(1)}),
    (Order, Order("1", Decimal("0.1"), frozenset({"x"}), Order("0", Decimal(1)))),
    (Line, Line("a", 2, (date.max,))),
    (Point, Point(1, 2.5)),
    (Patch, {"name": "a"}),
    (Patch, {"name": "a", "size": 1}),
    (Box[int], Box(1)),
    (Box[Order], Box(Order("1", Decimal(2)))),
    (Struct, Struct(1)),
    (Cached, Cached(1)),
    (int | str | None, "x"),
    (Order | None, None),
    (Literal["a", "b"], "a"),
    (Annotated[int, msgspec.Meta(ge=0)], 3),
    (Trip, Trip(where="x", when=datetime(2026, 1, 1, tzinfo=UTC), tags={"a"})),
    (list[Trip | None], [Trip(where="x"), None]),
    (Aliased, Aliased(uno=1, dos=5)),  # type: ignore[call-arg]  # no plugin here that knows of aliases
    (Strict, Strict(id=ID, on=date.min, raw=b"raw")),
    (Client, Client(name="a", born=date.min)),
    (CodecHero, CodecHero(id=1, name="a", born=date.min)),
    (
        Mixed,
        Mixed(Trip(where="x"), CodecHero(name="a", born=date.max), Box([Trip(where="y")])),
    ),
    (dict[str, object], {"a": [1, None, {"b": 1.5}]}),
    (Any, {"b": 1, "a": [True, None]}),
    (object, [1, 2**70]),
]


@pytest.mark.parametrize(("declared", "value"), SURVIVORS, ids=str)
def test_round_trip(declared: Any, value: Any) -> None:
    """A supported value comes back equal and of the same class, by both ways of writing."""
    for payload in (CODEC.encode(value, what=WHAT), CODEC.encode_ordered(value, what=WHAT)):
        back = CODEC.decode(payload, declared, what=WHAT)
        assert back == value
        assert type(back) is type(value)
        if isinstance(value, float | Decimal | datetime):  # where unlike values are equal: -0.0, 1.10, offsets
            assert str(back) == str(value)


def test_unhashable_declared_type() -> None:
    """A type that cannot be a cache key is supported all the same."""
    assert CODEC.decode(b"3", Annotated[int, [1]], what=WHAT) == 3


def test_results_keep_the_order_of_dicts() -> None:
    """Only ``encode_ordered`` sorts."""
    assert CODEC.encode({"b": 1, "a": 2}, what=WHAT) == b'{"b":1,"a":2}'
    assert CODEC.encode_ordered({"b": 1, "a": 2}, what=WHAT) == b'{"a":2,"b":1}'


def test_missing_annotation_is_plain_json() -> None:
    """Without a declared type a value comes back as JSON has it."""
    payload = CODEC.encode((Order("1", Decimal(2)), {3}), what=WHAT)
    plain: list[object] = [{"id": "1", "amount": "2", "tags": [], "parent": None}, [3]]
    for declared in (Any, object, inspect.Parameter.empty):
        assert CODEC.decode(payload, declared, what=WHAT) == plain


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Opaque(), "test_codec.Opaque"),
        ([{"a": Opaque()}], "test_codec.Opaque"),
        (Box(Opaque()), "test_codec.Opaque"),
        (1j, "complex"),
        (ValueError("x"), "ValueError"),
        (range(3), "range"),
        ({(1, 2): 3}, "a dict key of type tuple"),
        ({None: 3}, "a dict key of type NoneType"),
        (math.nan, "NaN"),
        ([1.0, None, -math.inf], "NaN"),
        (Box(math.inf), "NaN"),
        ((2**70, math.nan), "NaN"),
        ({"a": {"b": {math.nan}}}, "NaN"),
        (10**5000, "int"),
        ("\ud800", "str"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_what_would_not_survive_is_refused(value: object, named: str) -> None:
    """The refusal names the thing and the type at fault, by both ways of writing."""
    for encode in (CODEC.encode, CODEC.encode_ordered):
        with pytest.raises(PayloadError) as caught:
            encode(value, what=WHAT)
        assert str(caught.value).startswith(WHAT)
        assert named in str(caught.value)


def test_models_that_would_not_survive_are_refused() -> None:
    """NaN inside of a model is seen, and so is a value without a form."""

    class Reading(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        value: float
        raw: Opaque | None = None

    with pytest.raises(PayloadError, match="NaN"):
        CODEC.encode([Reading(value=math.nan)], what=WHAT)
    with pytest.raises(PayloadError, match="Reading"):
        CODEC.encode(Reading(value=1, raw=Opaque()), what=WHAT)


def test_null_is_not_taken_for_nan() -> None:
    """None, the text ``null``, integers beyond 64 bits and bytes like a packed NaN pass."""
    value = {"a": None, "b": "null", "c": 2**70, "d": b"\xcb\x7f\xf8", "e": [1.5, {"x": None}]}
    plain = {**value, "d": "y3/4"}
    assert CODEC.decode(CODEC.encode(value, what=WHAT), Any, what=WHAT) == plain


def test_cycles_are_refused() -> None:
    """A value that contains itself is told as that."""
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(PayloadError, match="contains itself"):
        CODEC.encode(loop, what=WHAT)


def test_limit() -> None:
    """A payload of exactly the limit passes; one byte more is refused with both sizes."""
    codec = Codec(limit=10)
    assert codec.encode("a" * 8, what=WHAT) == b'"aaaaaaaa"'
    for encode in (codec.encode, codec.encode_ordered):
        with pytest.raises(PayloadError, match="11 bytes as JSON, and 10 are allowed"):
            encode("a" * 9, what=WHAT)


@pytest.mark.parametrize(
    ("declared", "named"),
    [
        (complex, "complex"),
        (list[complex], "complex"),
        (Iterable[int], "list"),
        (Box[Opaque], "test_codec.Opaque"),
        (ValueError, "ValueError"),
        (list[str] | list[int], "apart"),
        (Box[int] | Box[str], "apart"),
        (Private, "_secret"),
        ("Order", "Order"),
    ],
    ids=str,
)
def test_unsupported_declarations_are_refused_at_once(declared: Any, named: str) -> None:
    """A type that values could not be read back as is refused when its decoder is made."""
    with pytest.raises(PayloadError) as caught:
        CODEC.decoder(declared)
    assert named in str(caught.value)


def test_unresolvable_field_is_refused() -> None:
    """A class whose own annotations cannot be evaluated is refused, naming the name."""

    @attrs.frozen
    class Lost:
        a: "Nowhere"  # type: ignore[name-defined]  # noqa: F821 - the point

    with pytest.raises(PayloadError, match="Nowhere"):
        CODEC.decoder(Lost)


@pytest.mark.parametrize(
    ("payload", "declared"),
    [
        (b'"x"', int),
        (b"{}", Order),
        (b"[1", list[int]),
        (b"", Any),
        (b'{"where":1}', Trip),
        (b'{"name":"a"}', CodecHero),
        (b'{"name":"a","born":"never"}', Client),
    ],
    ids=str,
)
def test_mismatch(payload: bytes, declared: Any) -> None:
    """A payload that does not fit raises PayloadError with the value's name; table models validate too."""
    with pytest.raises(PayloadError) as caught:
        CODEC.decode(payload, declared, what=WHAT)
    assert str(caught.value).startswith(WHAT)
    assert caught.value.__cause__ is not None


def test_attrs_converters_and_validators_run() -> None:
    """A decoded attrs object was validated by its own class."""

    @attrs.frozen
    class Positive:
        x: int = attrs.field(validator=attrs.validators.gt(0))

    with pytest.raises(PayloadError):
        CODEC.decode(b'{"x":-1}', Positive, what=WHAT)


def test_expired_row() -> None:
    """A SQLModel row that a commit expired is loaded again; one without its session is refused, not emptied."""
    engine = create_engine("sqlite://")
    SQLModel.metadata.create_all(engine)
    hero = CodecHero(name="a", born=date.min)
    with Session(engine) as session:
        session.add(hero)
        session.commit()
        assert CODEC.decode(CODEC.encode(hero, what=WHAT), CodecHero, what=WHAT).name == "a"
        session.expire_all()
    with pytest.raises(PayloadError, match="DetachedInstanceError"):
        CODEC.encode(hero, what=WHAT)
    engine.dispose()


@attrs.frozen
class Holder:
    names: frozenset[str]
    boxes: frozenset[Box[int]]
    deep: frozenset[frozenset[str]]


_WORDS = ["alpha", "beta", "gamma", "delta", "epsilon"]


def awkward_values() -> list[object]:
    """Values whose natural order changes with the hash seed."""
    words = frozenset(_WORDS)
    return [
        words,
        (set(words), 1),
        {"a", None, 2.5, True, *words},
        frozenset(frozenset({word, word.upper()}) for word in words),
        (frozenset({frozenset({word}) for word in words}),),
        {3: words, 1: {"z": words, "a": 1}},
        Holder(words, frozenset(map(Box, range(20))), frozenset({frozenset({"x", "y", "z"}), frozenset({"y"})})),
        [Trip(where="x", tags=set(words))],
        {"t": Trip(where="x", tags=set(words)), "m": [{1: {"q", "r"}}]},
        ({(word, 1) for word in words}, [[1], [2]]),
    ]


def test_ordered_form_reads_back_equal() -> None:
    """The slower way of writing changes no value."""
    for value in awkward_values():
        declared = type(value) if isinstance(value, Holder) else Any
        back = CODEC.decode(CODEC.encode_ordered(value, what=WHAT), declared, what=WHAT)
        if declared is not Any:
            assert back == value
    assert CODEC.encode_ordered({2: "b", 1: "a"}, what=WHAT) == b'{"1":"a","2":"b"}'
