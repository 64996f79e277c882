"""Any plain value, and any typed one, comes back from its payload as it was."""

import string
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
from hypothesis import given
from hypothesis import strategies as st

from durable_core.model.codec import Codec
from durable_core.model.shape import CallShape

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
        at=st.datetimes(timezones=st.none() | _zones),
        day=st.dates(),
        clock=st.times(),
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


@given(_everything(st.none() | _everything(st.none())))
def test_typed_values(value: Everything) -> None:
    """A typed object comes back equal, and is written alike again."""
    for encode in (CODEC.encode, CODEC.encode_ordered):
        payload = encode(value, what="v")
        back = CODEC.decode(payload, Everything, what="v")
        assert back == value
    assert CODEC.encode_ordered(back, what="v") == payload


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
    assert _SHAPE.encode(*again, what="v") == payload
