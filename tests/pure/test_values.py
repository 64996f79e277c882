"""Values on their way through the store: each comes back as it went, or is refused before anything happens."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, namedtuple
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, PrivateAttr, RootModel, SecretBytes, SecretStr, field_serializer
from pydantic import Field as ModelField
from sqlmodel import Field, SQLModel

from durable_core.errors import DefinitionError, PayloadError
from durable_core.model import registered
from durable_core.model.codec import Codec
from durable_core.model.registered import register_type as register

T = TypeVar("T")
CODEC = Codec()
WHAT = "step 'charge' of run order-17: the result"


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "its own text"


class Whole(int):
    pass


class Real(float):
    pass


class Moment(datetime):
    pass


class Pair(enum.Enum):
    ONE = (1, "a")
    TWO = (2, "b")


class Rate(enum.Enum):
    LOW = Decimal("0.10")
    HIGH = Decimal("0.1")


class Maybe(enum.Enum):
    NOTHING = None
    SOME = 1
    TEXT = "1"


class Twin(enum.Enum):
    EXACT = Decimal("1.5")
    TEXT = "1.5"


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@attrs.frozen
class Card:
    number: str


@attrs.frozen
class Iban:
    number: str
    bic: str = ""


@attrs.frozen
class GoldCard(Card):
    limit: int = 0


@attrs.frozen
class SilverCard(Card):
    """No more fields than its base."""


class PlainCard(Card):
    """Not decorated itself."""


@dataclass(frozen=True, slots=True)
class Cash:
    amount: Decimal
    drawn: bool = field(init=False, default=False)


@dataclass
class Slip:
    number: int
    kind: str = field(init=False)

    def __post_init__(self) -> None:
        self.kind = "slip"


@attrs.define
class Payment:
    by: Card | Iban | Cash
    more: list[Card | Iban] = attrs.Factory(list)
    rate: Rate | None = None
    below: Payment | None = None
    counted: int = attrs.field(init=False, default=0)
    _cache: dict[str, int] = attrs.field(init=False, factory=dict, eq=False)


@attrs.frozen
class Box(Generic[T]):
    inside: T


@attrs.frozen
class Boxes(Box[list[T]]):
    top: T


class Leg(NamedTuple):
    by: Card | Iban
    km: int = 0


class Patch(TypedDict):
    by: Card | Iban
    note: NotRequired[str]


class Loose(TypedDict, total=False):
    a: int


class Part(msgspec.Struct):
    by: Card | Iban


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    name: str


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str
    good: bool = True


class Vet(BaseModel):
    patient: Annotated[Cat | Dog, ModelField(discriminator="kind")]


class File(BaseModel):
    name: str = ModelField(default="x", alias="fileName")
    content: bytes
    either: str | bytes = ""
    parts: dict[str, list[bytes]] = {}
    when: datetime | None = None


class StrictFile(BaseModel):
    model_config = ConfigDict(strict=True)
    content: bytes
    id: UUID
    on: date
    took: timedelta
    seen: frozenset[int]
    by: tuple[int, str]


class Row(SQLModel):
    content: bytes


class ValuesRow(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    content: bytes


class Blobs(RootModel[list[bytes]]):
    pass


class Hides(BaseModel):
    name: str
    hidden: int = ModelField(default=1, exclude=True)
    needed: int = ModelField(exclude=True)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    _note: str = PrivateAttr(default="")
    a: int


class Login(BaseModel):
    user: str
    password: SecretStr


class Account(BaseModel):
    logins: list[Login | None] = []


class Shown(BaseModel):
    password: SecretStr

    @field_serializer("password", when_used="json")
    def show(self, value: SecretStr) -> str:
        return value.get_secret_value()


class Base(BaseModel):
    a: int


class Derived(Base):
    b: int = 0


class Holder(BaseModel):
    one: Base


@attrs.frozen(eq=False)
class Entity:
    """Equal by its id alone, as entities are."""

    id: int
    name: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entity) and other.id == self.id

    def __hash__(self) -> int:
        return self.id


@attrs.frozen(eq=False)
class Named(Entity):
    nick: str = ""


Untyped: Any = namedtuple("Untyped", "x y")  # noqa: PYI024 - the case
CustomerId = NewType("CustomerId", str)
BERLIN = ZoneInfo("Europe/Berlin")
CARD, IBAN, CASH = Card("1"), Iban("2", "x"), Cash(Decimal("1.50"))
GONE = object()

KEPT: list[tuple[Any, Any, Any]] = [
    (str, Text("a"), "a"),
    (int, Whole(3), 3),
    (float, Real(1.5), 1.5),
    (float, Whole(3), 3.0),
    (int, True, 1),
    (float, True, 1.0),
    (list[int], [True, Whole(2)], [1, 2]),
    (dict[str, int], {Text("k"): False}, {"k": 0}),
    (int | None, True, 1),
    (int | str, Whole(1), 1),
    (Any, Text("a"), "a"),
    (Box[int], Box(True), Box(1)),  # noqa: FBT003 - the case
    (CustomerId, Text("c"), "c"),
    (datetime, Moment(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
    (Card | Iban, CARD, GONE),
    (Card | Iban, IBAN, GONE),
    (Card | Iban, SilverCard("1"), CARD),
    (Card, SilverCard("1"), CARD),
    (Card, PlainCard("1"), CARD),
    (list[Card | None], [PlainCard("1")], [CARD]),
    (Card | Iban, PlainCard("1"), CARD),
    (Card | GoldCard, GoldCard("1", 2), GONE),
    (Card | GoldCard, CARD, GONE),
    (Optional[Card | Iban], None, GONE),  # noqa: UP045 - as many still write it
    (Card | Iban | None, IBAN, GONE),
    (list[Card | Iban | None], [CARD, None, IBAN], GONE),
    (dict[str, Card | Cash], {"a": CARD, "b": CASH}, GONE),
    (dict[int, Card | Cash], {1: CARD}, GONE),
    (dict[UUID, tuple[Card | Cash, ...]], {UUID(int=1): (CARD, CASH)}, GONE),
    (tuple[Card | Iban, int], (IBAN, 1), GONE),
    (set[Card | Iban], {CARD, IBAN}, GONE),
    (frozenset[Pair], frozenset(Pair), GONE),
    (Sequence[Card | Iban], [CARD], GONE),
    (Mapping[str, Card | Iban], {"a": IBAN}, GONE),
    (Decimal | str, Decimal("1.50"), GONE),
    (Decimal | str, "1.50", GONE),
    (datetime | date, date(2026, 1, 1), GONE),
    (datetime | date, datetime(2026, 1, 1), GONE),
    (set[int] | list[int], [1], GONE),
    (set[int] | list[int], {1}, GONE),
    (bytes | str, b"abc", GONE),
    (bytes | str, "YWJj", GONE),
    (Cat | Dog, Dog(name="x"), GONE),
    (Annotated[Cat | Dog, ModelField(discriminator="kind")], Cat(name="x"), GONE),
    (Cat | str | None, "x", GONE),
    (Vet, Vet(patient=Dog(name="x")), GONE),
    (Card | Pair, Pair.TWO, GONE),
    (Card | dict[str, int], {"number": 1}, GONE),
    (Literal["a"] | Card | Iban, "a", GONE),
    (Payment, Payment(CARD, [IBAN, CARD], Rate.LOW, Payment(CASH)), GONE),
    (Box[Card | Iban], Box(IBAN), GONE),
    (Box[T], Box(1), GONE),  # type: ignore[valid-type]  # an argument that nobody gave
    (Literal[Pair.ONE, None], None, GONE),  # noqa: PYI061 - as some write it
    (Boxes[Card | Cash], Boxes([CARD], CASH), GONE),
    (Box[Box[Pair | None]], Box(Box(Pair.ONE)), GONE),
    (Leg, Leg(IBAN, 3), GONE),
    (Patch, {"by": CARD}, GONE),
    (Patch, {"by": IBAN, "note": "x"}, GONE),
    (Part, Part(CARD), GONE),
    (Pair, Pair.ONE, GONE),
    (Rate, Rate.LOW, GONE),
    (Rate | None, Rate.HIGH, GONE),
    (Maybe, Maybe.NOTHING, GONE),
    (Maybe, Maybe.SOME, GONE),
    (Maybe, Maybe.TEXT, GONE),
    (Maybe | None, Maybe.NOTHING, GONE),
    (Maybe | None, None, GONE),
    (list[Maybe | None], [Maybe.NOTHING, None], GONE),
    (Twin, Twin.EXACT, GONE),
    (Twin, Twin.TEXT, GONE),
    (Rights, Rights.READ | Rights.WRITE, GONE),
    (Literal[Colour.RED, Colour.BLUE], Colour.BLUE, GONE),
    (Literal[Pair.ONE, "x"] | None, Pair.ONE, GONE),
    (Literal[Pair.ONE, "x"] | None, None, GONE),
    (Literal[b"x"], b"x", GONE),
    (Cash, CASH, GONE),
    (Slip, Slip(1), GONE),
    (Loose, {"a": 1}, GONE),
    (
        File,
        File(fileName="n", content=b"\xff\x00", parts={"a": [b"\xfe"]}, when=datetime(2026, 1, 1, tzinfo=UTC)),
        GONE,
    ),
    (File, File(fileName="n", content=b"text", either=b"text"), GONE),
    (File, File(fileName="n", content=b""), GONE),
    (
        StrictFile,
        StrictFile(
            content=b"\xff",
            id=UUID(int=1),
            on=date.min,
            took=timedelta(days=-1, seconds=3),
            seen=frozenset({2, 1}),
            by=(1, "a"),
        ),
        GONE,
    ),
    (list[Row | None], [Row(content=b"\x80")], GONE),
    (ValuesRow, ValuesRow(id=1, content=b"\x80"), GONE),
    (Blobs, Blobs([b"\x80", b"a"]), GONE),
    (Box[File], Box(File(fileName="n", content=b"\xff")), GONE),
    (Hides, Hides(name="a", hidden=1, needed=3), GONE),
    (Box[Hides], Box(Hides(name="a", hidden=2, needed=3)), GONE),
    (Open, Open(a=1, other=[1, {"x": None}]), GONE),  # type: ignore[call-arg]  # extras are allowed
    (Shown, Shown(password=SecretStr("x")), GONE),
    (Entity, Entity(1, "a"), GONE),
    (float, 10**15, 1e15),
    (float, 5e-324, GONE),
    (Decimal, Decimal("NaN"), GONE),
    (bytes, bytearray(b"x"), b"x"),
    (dict[str, int], OrderedDict(a=1), {"a": 1}),
    (tuple[int, int], Untyped(1, 2), (1, 2)),
    (
        datetime,
        datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
        datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=1))),
    ),
    (datetime, datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), GONE),
    (Card, {"number": "1"}, CARD),
    (UUID, str(UUID(int=1)), UUID(int=1)),
    (list[int], (1, 2), [1, 2]),
]


def numbered(cases: list[tuple[Any, Any, Any]]) -> list[str]:
    """Names of cases that are the same in every process."""
    return [f"{place} {case[0]}" for place, case in enumerate(cases)]


def same(back: Any, value: Any) -> bool:
    """Equal, of one class, and also where ``==`` says too little."""
    if isinstance(value, ValuesRow):
        return type(back) is ValuesRow and back.model_dump() == value.model_dump()
    if isinstance(value, Decimal):
        return type(back) is Decimal and str(back) == str(value)
    return bool(back == value) and type(back) is type(value)


@pytest.mark.parametrize(("declared", "value", "expected"), KEPT, ids=numbered(KEPT))
def test_a_value_comes_back_as_it_went(declared: Any, value: Any, expected: Any) -> None:
    """What was stored reads back as the value, the writer gets just that, and a second trip changes nothing."""
    typed = CODEC.typed(declared)
    wanted = value if expected is GONE else expected
    for ordered in (False, True):
        payload, given = CODEC.exchange(value, typed, what=WHAT, ordered=ordered)
        back = CODEC.decode(payload, declared, what=WHAT)
        assert same(given, wanted)
        assert same(back, wanted)
        again, _ = CODEC.exchange(back, typed, what=WHAT, ordered=ordered)
        assert same(CODEC.decode(again, declared, what=WHAT), back)
        assert expected is not GONE or again == payload


class Deep(BaseModel):
    config: dict[str, Any] = {}


REFUSED: list[tuple[Any, Any, str]] = [
    (Card, GoldCard("1", 5), "limit"),
    (list[Card], [CARD, GoldCard("1")], "limit"),
    (Card | Iban, GoldCard("1"), "limit"),
    (Box[Card], Box(GoldCard("1")), "limit"),
    (dict[str, Card | None], {"a": GoldCard("1")}, "limit"),
    (Base, Derived(a=1), "'b'"),
    (Holder, Holder(one=Derived(a=1, b=2)), "'b'"),
    (Entity, Named(1, "a", "b"), "nick"),
    (Loose, {"a": 1, "b": 2}, "'b'"),
    (Patch, {"by": CARD, "extra": 2}, "'extra'"),
    (Card, {"number": "1", "typo": 2}, "'typo'"),
    (datetime, datetime(2026, 10, 25, 2, 30, fold=1), "fold"),
    (time, time(2, 30, fold=1), "fold"),
    (Box[time], Box(time(2, 30, fold=1)), "fold"),
    (datetime, datetime(1800, 1, 1, tzinfo=BERLIN), "datetime"),
    (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=30))), "datetime"),
    (float, 2**60 + 1, "comes back"),
    (float, math.inf, "NaN or infinite"),
    (Card | Iban, 7, "7|fits none"),
    (int, "x", "int"),
    (Pair, "x", "Pair"),
    (Literal[Pair.ONE], Pair.TWO, "Literal"),
    (Card | Iban, SecretStr("s"), "SecretStr"),
    (Any, Login(user="a", password=SecretStr("s")), "SecretStr"),
    (Deep, Deep(config={"key": SecretStr("s")}), "config|SecretStr"),
    (dict[int, Any], {1: 1, "1": 2}, "key|int"),
]


@pytest.mark.parametrize(("declared", "value", "named"), REFUSED, ids=numbered(REFUSED))
def test_what_would_be_changed_is_refused(declared: Any, value: Any, named: str) -> None:
    """The refusal begins with the value's name and says which part of it would be lost."""
    for ordered in (False, True):
        with pytest.raises(PayloadError, match=named) as caught:
            CODEC.exchange(value, CODEC.typed(declared), what=WHAT, ordered=ordered)
        assert str(caught.value).startswith(WHAT)


@pytest.mark.parametrize("declared", [Login, Account, list[Login], Box[Account], SecretStr, SecretBytes], ids=str)
def test_secrets_are_refused_where_they_are_declared(declared: Any) -> None:
    """A type that shows asterisks in its own JSON is no type for a step, found when its steps are registered."""
    with pytest.raises(PayloadError, match="Secret"):
        CODEC.typed(declared)


# -- forms on disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "value", "payload"),
    [
        (Card | Iban, CARD, b'{"$type":"Card","value":{"number":"1"}}'),
        (Decimal | str | None, None, b"null"),
        (Pair, Pair.ONE, b'[1,"a"]'),
        (Twin, Twin.TEXT, b'{"$enum":"TEXT"}'),
        (Maybe | None, Maybe.NOTHING, b'{"$enum":"NOTHING"}'),
        (Literal[Colour.RED], Colour.RED, b'"red"'),
        (
            File,
            File(fileName="n", content=b"text"),
            b'{"name":"n","content":"text","either":"","parts":{},"when":null}',
        ),
        (Row, Row(content=b"\xff"), b'{"$attributes":{"content":{"$bytes":"/w=="}}}'),
        (int, True, b"1"),
        (str, Text("a"), b'"a"'),
    ],
    ids=range(10),
)
def test_stored_forms(declared: Any, value: Any, payload: bytes) -> None:
    """What is on disk keeps its bytes for ever."""
    assert CODEC.exchange(value, CODEC.typed(declared), what=WHAT)[0] == payload


def test_a_class_may_become_one_of_a_union() -> None:
    """What was stored when only ``Card`` was declared is read as ``Card | Cash`` too, and so is JSON from outside."""
    payload, _ = CODEC.exchange(CARD, CODEC.typed(Card), what=WHAT)
    assert CODEC.decode(payload, Card | Cash, what=WHAT) == CARD
    assert CODEC.decode(b'{"kind":"dog","name":"x"}', Cat | Dog, what=WHAT) == Dog(name="x")
    assert CODEC.decode(b'{"number":"1","bic":"y"}', Card | Iban, what=WHAT) == Iban("1", "y")
    with pytest.raises(PayloadError, match=r"more than one of Card, Iban; say which"):
        CODEC.decode(payload, Card | Iban, what=WHAT)
    with pytest.raises(PayloadError, match="'Gone' is none of Card, Iban"):
        CODEC.decode(b'{"$type":"Gone","value":{}}', Card | Iban, what=WHAT)


def test_namesakes_in_a_union() -> None:
    """Two classes of one name are told apart by their modules."""
    other: Any = attrs.make_class("Card", {"owner": attrs.field(type=str)})
    other.__module__ = "elsewhere"
    union = Card | other
    payload, back = CODEC.exchange(other("x"), CODEC.typed(union), what=WHAT)
    assert back == other("x")
    assert payload == b'{"$type":"elsewhere.Card","value":{"owner":"x"}}'
    other.__module__ = Card.__module__
    with pytest.raises(PayloadError, match="have one name"):
        Codec().typed(union)


# -- users' own types --------------------------------------------------------------------------------------------------


class Money:
    """A class of a library: no fields that anybody could know of."""

    def __init__(self, amount: int, currency: str) -> None:
        self._said = (amount, currency)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(self._said)


class Tip(Money):
    pass


@attrs.frozen
class Own:
    """A class of a kind that is known, with another form."""

    a: int


@attrs.frozen
class Bill:
    total: Money
    share: Fraction | None
    own: Own
    either: Money | Card
    all: dict[str, list[Money]]


def _register() -> None:
    register(Money, encode=lambda money: list(vars(money)["_said"]), decode=lambda raw: Money(*raw))
    register(Fraction, encode=str, decode=Fraction)
    register(Own, encode=lambda own: own.a, decode=Own)


def test_registered_types() -> None:
    """They are stored by their user's functions, alone and in everything, with their subclasses."""
    with pytest.raises(PayloadError, match="Money"):
        CODEC.typed(Money)
    _register()
    bill = Bill(Money(1, "EUR"), Fraction(1, 3), Own(4), Money(2, "USD"), {"x": [Money(3, "CHF")]})
    for declared, value in [(Money, bill.total), (Bill, bill), (list[Bill | None], [bill]), (Own | int, Own(3))]:
        payload, back = CODEC.exchange(value, CODEC.typed(declared), what=WHAT)
        assert back == value
        assert CODEC.decode(payload, declared, what=WHAT) == value
    assert CODEC.encode(Tip(1, "EUR"), what=WHAT) == b'[1,"EUR"]'
    assert CODEC.exchange(Own(4), CODEC.typed(Own), what=WHAT)[0] == b"4"
    with pytest.raises(PayloadError, match=r"gave .*Money, not .*Tip"):
        CODEC.decode(b'[1,"EUR"]', Tip, what=WHAT)
    _register()  # a notebook's cell, run again


def test_a_secret_may_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says how a secret is stored may store it, also within a model."""
    monkeypatch.setattr(registered, "_known", dict(vars(registered)["_known"]))
    register(SecretStr, encode=lambda s: s.get_secret_value()[::-1], decode=lambda text: SecretStr(text[::-1]))
    codec = Codec()
    login = Login(user="a", password=SecretStr("hush"))
    payload, back = codec.exchange(login, codec.typed(Login), what=WHAT)
    assert back == login
    assert b"hsuh" in payload
    assert codec.exchange(SecretStr("x"), codec.typed(SecretStr), what=WHAT)[1] == SecretStr("x")


@attrs.frozen
class Used:
    a: int


def test_what_cannot_be_registered() -> None:
    """JSON's own types, what is no class, and what a step uses already in another form."""
    for bad in (str, dict, object, "Money", None):
        with pytest.raises(DefinitionError, match="give a class"):
            register(bad, encode=str, decode=str)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="must be functions"):
        register(Fraction, encode="str", decode=Fraction)  # type: ignore[arg-type]
    CODEC.typed(list[Used])
    with pytest.raises(DefinitionError, match=r"Used is used already"):
        register(Used, encode=lambda used: used.a, decode=Used)


def test_a_users_encode_that_raises() -> None:
    """It is told as the reason why the value cannot be stored."""

    class Bad:
        pass

    def encode(_: object) -> object:
        raise ZeroDivisionError("oh no")

    register(Bad, encode=encode, decode=lambda _: Bad())
    with pytest.raises(PayloadError, match="ZeroDivisionError: oh no"):
        CODEC.exchange(Bad(), CODEC.typed(Bad), what=WHAT)
    with pytest.raises(PayloadError, match="ZeroDivisionError: oh no"):
        CODEC.exchange(Box(Bad()), CODEC.typed(Box[Bad]), what=WHAT)


def test_a_dataclass_that_was_changed_after_it_was_made() -> None:
    """Fields outside of the constructor are data too, unless the class sets them anew; private ones are a cache."""
    payment = Payment(CARD)
    payment.counted = 7
    payment._cache["x"] = 1
    assert CODEC.exchange(payment, CODEC.typed(Payment), what=WHAT)[1] == payment
    slip = Slip(1)
    slip.kind = "other"
    with pytest.raises(PayloadError, match="'kind'"):
        CODEC.exchange(slip, CODEC.typed(Slip), what=WHAT)
