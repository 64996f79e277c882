"""Any plain value, and any typed one, comes back from its payload as it was."""

import string
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from durable_core.errors import PayloadError
from durable_core.model.codec import Codec
from durable_core.model.shape import CallShape

T = TypeVar("T")
CODEC = Codec()

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | _floats | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=12,
)
_zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@attrs.frozen
class Everything:
    """One field of each kind."""

    number: int
    real: float
    text: str
    raw: bytes
    exact: Decimal
    id: UUID
    at: datetime
    day: date
    clock: time
    span: timedelta
    some: tuple[int, ...]
    few: frozenset[str]
    table: dict[int, list[str]]
    maybe: "Everything | None"


def _everything(maybe: st.SearchStrategy[Everything | None]) -> st.SearchStrategy[Everything]:
    return st.builds(
        Everything,
        number=st.integers(),
        real=_floats,
        text=_text,
        raw=st.binary(max_size=8),
        exact=st.decimals(allow_nan=False),
        id=st.uuids(),
        at=st.datetimes(timezones=st.none() | _zones).map(lambda at: at.replace(fold=0)),
        day=st.dates(),
        clock=st.times().map(lambda clock: clock.replace(fold=0)),
        span=st.timedeltas(),
        some=st.lists(st.integers(), max_size=3).map(tuple),
        few=st.frozensets(_text, max_size=3),
        table=st.dictionaries(st.integers(), st.lists(_text, max_size=2), max_size=3),
        maybe=maybe,
    )


@given(_json)
def test_plain_values(value: object) -> None:
    """Plain JSON survives, by both ways of writing; the ordered way writes equal values alike."""
    assert CODEC.decode(CODEC.encode(value, what="v"), Any, what="v") == value
    ordered = CODEC.encode_ordered(value, what="v")
    back = CODEC.decode(ordered, Any, what="v")
    assert back == value
    assert CODEC.encode_ordered(back, what="v") == ordered


_PLAIN = CODEC.typed(Everything)


@given(_everything(st.none() | _everything(st.none())))
def test_typed_values(value: Everything) -> None:
    """A typed object comes back equal and is written alike again; comparing it on its way does not change its bytes."""
    for ordered, encode in ((False, CODEC.encode), (True, CODEC.encode_ordered)):
        payload = encode(value, what="v")
        back = CODEC.decode(payload, Everything, what="v")
        assert back == value
        assert CODEC.exchange(value, _PLAIN, what="v", ordered=ordered)[0] == payload
    assert CODEC.encode_ordered(back, what="v") == payload


class Level(Enum):
    """Values that JSON does not tell apart, or has none for."""

    EXACT = Decimal("1.5")
    TEXT = "1.5"
    PAIR = (1, "a")
    NOTHING = None


@attrs.frozen
class Leaf:
    """One member of a union, and the other one has the same field."""

    name: str


@attrs.frozen
class Twig(Leaf):
    """A subclass with one more field."""

    length: int = 0


@dataclass(frozen=True)
class Bud:
    """The other member."""

    name: str


class Blob(BaseModel):
    """A model that holds binary data, and a field that its own JSON leaves out."""

    data: bytes
    kept: int = Field(default=0, exclude=True)
    by_name: dict[str, list[bytes]] = {}


@attrs.frozen
class Tree(Generic[T]):
    """Everything that is taken apart, nested in itself."""

    one: Leaf | Bud | Level | None
    many: tuple[Leaf | Twig | int | str, ...]
    table: dict[str, Bud | Decimal | bytes]
    levels: frozenset[Level | None]
    only: Literal[Level.PAIR, "x"] | None
    blob: Blob | None
    inside: T
    below: "Tree[T] | None"


_leaves = st.builds(Leaf, _text)
_levels = st.sampled_from(Level)
_blobs = st.builds(
    Blob,
    data=st.binary(max_size=4),
    kept=st.integers(0, 2),
    by_name=st.dictionaries(_text, st.lists(st.binary(max_size=3), max_size=2), max_size=2),
)


def _trees(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        Tree,
        one=_leaves | st.builds(Bud, _text) | _levels | st.none(),
        many=st.lists(_leaves | st.builds(Twig, _text, st.integers()) | st.integers() | _text, max_size=4).map(tuple),
        table=st.dictionaries(
            _text, st.builds(Bud, _text) | st.decimals(allow_nan=False) | st.binary(max_size=4), max_size=3
        ),
        levels=st.frozensets(_levels | st.none(), max_size=4),
        only=st.sampled_from([Level.PAIR, "x", None]),
        blob=st.none() | _blobs,
        inside=st.one_of(_leaves, st.builds(Bud, _text)),
        below=below,
    )


_TREE: Any = Tree[Leaf | Bud]


@given(_trees(st.none() | _trees(st.none())), st.booleans())
def test_declared_values(value: Any, ordered: bool) -> None:  # noqa: FBT001 - drawn
    """A value of any declared type comes back equal and of the same classes, and is written alike again."""
    typed = CODEC.typed(_TREE)
    payload, given = CODEC.exchange(value, typed, what="v", ordered=ordered)
    back = CODEC.decode(payload, _TREE, what="v")
    assert given == value == back
    assert [type(each) for each in back.many] == [type(each) for each in value.many]
    assert CODEC.exchange(back, typed, what="v", ordered=ordered)[0] == payload


@given(_trees(st.none()), st.integers(0, 5))
def test_what_is_lost_is_seen(value: Any, place: int) -> None:
    """A subclass with one more field, put anywhere where its base is declared, is refused."""
    lossy = Twig("x", place)
    spoiled: list[tuple[Any, Any]] = [
        (list[Leaf], [*(each for each in value.many if type(each) is Leaf), lossy]),
        (dict[str, Leaf | Bud], {"a": Bud("b"), "b": lossy}),
        (Tree[Leaf], attrs.evolve(value, inside=lossy)),
        (Tree[Leaf | Bud], attrs.evolve(value, below=attrs.evolve(value, one=lossy))),
        (tuple[int, Leaf | None], (place, lossy)),
        (frozenset[Leaf], frozenset({Leaf("y"), lossy})),
    ]
    declared, given = spoiled[place]
    with pytest.raises(PayloadError, match=r"'length'|Twig does not come back"):
        CODEC.exchange(given, CODEC.typed(declared), what="v")


def _call(a: Any, b: Any = 1, *rest: Any, c: Any = 2, **others: Any) -> None:
    """A signature with every kind of parameter."""


_SHAPE = CallShape.of(_call, CODEC)
_names = st.text(string.ascii_lowercase, min_size=2, max_size=4)


@given(st.lists(_json, min_size=1, max_size=5), st.dictionaries(st.just("c") | _names, _json, max_size=3))
def test_calls(args: list[Any], kwargs: dict[str, Any]) -> None:
    """A call binds the same values after its round trip, and is written alike again."""
    payload = _SHAPE.encode(tuple(args), kwargs, what="v")
    again = _SHAPE.decode(payload, what="v")
    assert again == (tuple(args), kwargs)
    older = {"args": args, "kwargs": kwargs} if kwargs else args
    assert payload == CODEC.encode_ordered(older, what="v")
    assert _SHAPE.encode(*again, what="v") == payload
