"""Signatures as data: equal calls are written alike, and read back as they were."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any, NoReturn, TypeVar
from uuid import UUID

import attrs
import pytest
from pydantic import BaseModel

from durable_core.errors import DefinitionError, PayloadError
from durable_core.model.codec import Codec
from durable_core.model.shape import CallShape

CODEC = Codec()
WHAT = "step 'charge' of run order-17: the arguments"
R = TypeVar("R")


@attrs.frozen
class Order:
    id: str
    amount: Decimal


def shape(fn: Callable[..., Any], **options: Any) -> CallShape:
    return CallShape.of(fn, CODEC, **options)


def charge(order: Order, times: int = 1, *, note: str = "", on: date | None = None) -> Decimal | None: ...


ORDER = Order("1", Decimal("1.5"))


@pytest.mark.parametrize(
    ("args", "kwargs", "written"),
    [
        ((ORDER,), {}, b'[{"amount":"1.5","id":"1"}]'),
        ((ORDER, 2), {}, b'[{"amount":"1.5","id":"1"},2]'),
        ((ORDER,), {"times": 2}, b'[{"amount":"1.5","id":"1"},2]'),
        ((), {"times": 2, "order": ORDER}, b'[{"amount":"1.5","id":"1"},2]'),
        ((ORDER,), {"note": "x"}, b'{"args":[{"amount":"1.5","id":"1"}],"kwargs":{"note":"x"}}'),
        (
            (ORDER,),
            {"on": date.min, "note": "x", "times": 3},
            b'{"args":[{"amount":"1.5","id":"1"},3],"kwargs":{"note":"x","on":"0001-01-01"}}',
        ),
    ],
)
def test_normal_form(args: tuple[Any, ...], kwargs: dict[str, Any], written: bytes) -> None:
    """Keywords become positions where they can; keyword-only values stand in the signature's order."""
    charged = shape(charge)
    payload = charged.encode(args, kwargs, what=WHAT)
    assert payload == written
    again = charged.decode(payload, what=WHAT)
    assert charged.encode(*again, what=WHAT) == payload
    bound = charged.signature.bind(*args, **kwargs)
    assert charged.signature.bind(*again[0], **again[1]) == bound


def test_defaults_fill_gaps_only() -> None:
    """A default is written where a later parameter is given by keyword, and nowhere else."""

    def f(a: int, b: int = 5, c: int = 6) -> None: ...

    assert shape(f).encode((1,), {}, what=WHAT) == b"[1]"
    assert shape(f).encode((1,), {"c": 3}, what=WHAT) == b"[1,5,3]"
    assert shape(f).encode((), {"a": 1, "b": 2}, what=WHAT) == b"[1,2]"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1,), {}), ((1, "x", date.min, date.max), {}), ((1,), {"p": 2, "q": 3}), ((1, "x", date.min), {"k": 1, "a": 2})],
)
def test_variadic(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """``*args`` and ``**kwargs`` are read by their annotations; a positional-only name may come again as keyword."""

    def f(a: int, /, b: str = "b", *days: date, k: int = 0, **more: int) -> None: ...

    f_shape = shape(f)
    assert f_shape.decode(f_shape.encode(args, kwargs, what=WHAT), what=WHAT) == (args, kwargs)


def test_nothing_to_journal() -> None:
    """A function without parameters is an empty array."""

    async def f() -> None: ...

    assert shape(f).encode((), {}, what=WHAT) == b"[]"
    assert shape(f).decode(b"[]", what=WHAT) == ((), {})
    assert shape(f).parameters == ()


def test_skip_and_exclude() -> None:
    """The context and the resources are no part of the journal."""

    async def body(s: object, order: Order, *, client: Callable[[], None] = print, note: str) -> int:
        raise NotImplementedError

    body_shape = shape(body, skip=1, exclude=("client",))
    assert body_shape.parameters == ("order", "note")
    payload = body_shape.encode((ORDER,), {"note": "n"}, what=WHAT)
    assert body_shape.decode(payload, what=WHAT) == ((ORDER,), {"note": "n"})
    with pytest.raises(DefinitionError, match="Leave out client"):
        body_shape.check((ORDER,), {"note": "n", "client": print})


def test_skip_of_variadic_and_of_too_few() -> None:
    """``*args`` may take the context; a function that cannot take it is refused."""

    def open_(*args: int) -> None: ...

    def closed(*, a: int) -> None: ...

    open_shape = shape(open_, skip=1)
    assert open_shape.decode(open_shape.encode((1, 2), {}, what=WHAT), what=WHAT) == ((1, 2), {})
    with pytest.raises(DefinitionError, match=r"closed\(\) takes too few"):
        shape(closed, skip=1)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((ORDER, 1, 2), {}), ((ORDER,), {"order": ORDER}), ((ORDER,), {"nope": 1}), ((), {"times": 1})],
)
def test_check(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A call that does not fit is refused by ``check`` and by ``encode``, naming function, signature and values."""
    for call in (
        lambda: shape(charge).check(args, kwargs),
        lambda: shape(charge).encode(args, kwargs, what=WHAT),
    ):
        with pytest.raises(DefinitionError) as caught:
            call()
        text = str(caught.value)
        assert text.startswith("charge(order:")
        assert "cannot be called with" in text
        assert ("test_shape.Order" in text) is (ORDER in args or "order" in kwargs) or "order: " in text


def test_required_keyword() -> None:
    """A missing keyword-only argument is seen although the positions match."""

    def f(a: int, *, b: int) -> None: ...

    with pytest.raises(DefinitionError, match="missing a required"):
        shape(f).check((1,), {})
    with pytest.raises(DefinitionError, match="missing a required"):
        shape(f).encode((1,), {}, what=WHAT)
    shape(f).check((1,), {"b": 2})


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"null",
        b"[1",
        b'[{"id":"1","amount":"1"},1,2]',
        b'[{"id":"1"}]',
        b'{"args":[]}',
        b'{"args":[{"id":"1","amount":"1"}],"kwargs":{"nope":1}}',
        b'{"args":[{"id":"1","amount":"1"}],"kwargs":{"note":1}}',
    ],
)
def test_stored_call_that_no_longer_fits(payload: bytes) -> None:
    """Arguments of another signature are refused with the name of the value."""
    with pytest.raises(PayloadError) as caught:
        shape(charge).decode(payload, what=WHAT)
    assert str(caught.value).startswith(WHAT)


def test_as_mapping() -> None:
    """Stored arguments are told by name; variadic ones as one value."""

    def f(a: int, *rest: int, k: int = 0, **more: int) -> None: ...

    f_shape = shape(f)
    assert f_shape.as_mapping(f_shape.encode((1,), {}, what=WHAT)) == {"a": 1}
    payload = f_shape.encode((1, 2, 3), {"k": 4, "z": 5}, what=WHAT)
    assert f_shape.as_mapping(payload) == {"a": 1, "rest": (2, 3), "k": 4, "more": {"z": 5}}


def test_arguments_are_written_in_order() -> None:
    """Dicts and sets do not depend on how they were filled."""

    def f(a: Any) -> None: ...

    assert shape(f).encode(({"b": 1, "a": 2},), {}, what=WHAT) == b'[{"a":2,"b":1}]'
    assert shape(f).encode(({3, 1, 2},), {}, what=WHAT) == b"[[1,2,3]]"


def result_of(annotation: Any, *, coroutine: bool = False) -> CallShape:
    async def as_async() -> Any: ...

    def as_sync() -> Any: ...

    fn: Callable[..., Any] = as_async if coroutine else as_sync
    fn.__annotations__ = {} if annotation is ... else {"return": annotation}
    return shape(fn)


@pytest.mark.parametrize(
    ("annotation", "coroutine", "result", "none"),
    [
        (..., False, Any, True),
        (Any, True, Any, True),
        (object, True, Any, True),
        (None, True, type(None), True),
        ("None", False, type(None), True),
        (NoReturn, True, type(None), True),
        (int, True, int, False),
        ("int | None", True, int | None, True),
        (Order, True, Order, False),
        (Awaitable[int], False, int, False),
        (Coroutine[Any, Any, Order], False, Order, False),
        (Awaitable, False, Any, True),
        (list[int], False, list[int], False),
    ],
    ids=str,
)
def test_result(annotation: Any, coroutine: bool, result: Any, none: bool) -> None:  # noqa: FBT001 - parameters
    """The declared result is what an awaiting caller gets; ``admits_none_result`` says whether None is one."""
    found = result_of(annotation, coroutine=coroutine)
    assert found.result == result
    assert found.admits_none_result is none


def test_result_round_trip() -> None:
    """Results come back as declared; a mismatch is refused; what a ``-> None`` function lets slip is dropped."""
    assert result_of(Order).decode_result(result_of(Order).encode_result(ORDER, what=WHAT), what=WHAT) == ORDER
    with pytest.raises(PayloadError, match=WHAT):
        result_of(Order).decode_result(result_of(Order).encode_result(None, what=WHAT), what=WHAT)
    nothing = result_of(None)
    assert nothing.decode_result(nothing.encode_result(object(), what=WHAT), what=WHAT) is None
    with pytest.raises(PayloadError, match="object"):
        result_of(...).encode_result(object(), what=WHAT)


def test_unsupported_types_are_refused_with_their_place() -> None:
    """The refusal of a declared type names function and parameter, and carries its code once."""

    def f(a: int, b: complex) -> None: ...

    with pytest.raises(DefinitionError, match=r"parameter 'b' of f\(\)") as caught:
        shape(f)
    assert (str(caught.value).count("[DC001]"), str(caught.value).count("[DC002]")) == (1, 0)
    with pytest.raises(DefinitionError, match=r"the result of as_sync\(\)"):
        result_of(complex)


def test_local_types_are_found_in_the_closure() -> None:
    """A class that is local to a function resolves where the body mentions it."""

    @attrs.frozen
    class Local:
        a: UUID

    def f(x: Local, y: list[Local]) -> Local:
        return Local((x, *y)[0].a)

    f_shape = shape(f)
    value = Local(UUID(int=1))
    assert f_shape.decode(f_shape.encode((value, [value]), {}, what=WHAT), what=WHAT) == ((value, [value]), {})
    assert f_shape.result is Local


def test_annotations_that_cannot_be_evaluated_are_refused() -> None:
    """The refusal names the parameter, the annotation as it is written, and what to do about it."""

    @attrs.frozen
    class Hidden:
        a: int

    def f(x: Hidden) -> None: ...

    def g(y: Order) -> int: ...

    g.__annotations__ |= {"return": "list[Ghost]"}
    with pytest.raises(DefinitionError, match=r"parameter 'x' of f\(\): the annotation 'Hidden'.*top of the module"):
        shape(f)
    with pytest.raises(DefinitionError, match=r"the result of g\(\): the annotation 'list\[Ghost\]'.*TYPE_CHECKING"):
        shape(g)
    assert shape(f, skip=1).parameters == ()
    assert shape(f, exclude=["x"]).parameters == ()


def test_empty_closure_cell() -> None:
    """A type that is defined only after the function was looked at is refused by its name."""

    def make() -> CallShape:
        def f(x: Late) -> None:
            Late(x)  # type: ignore[call-arg]  # only to be in the closure

        found = shape(f)

        class Late: ...

        return found

    with pytest.raises(DefinitionError, match="'Late'"):
        make()


def wrapped(fn: Callable[..., R]) -> Callable[..., R]:
    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> R:
        return fn(*args, **kwargs)

    return inner


class Service:
    def pay(self, order: Order) -> int:
        raise NotImplementedError

    def __call__(self, order: Order) -> int:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (wrapped(charge), "charge"),
        (functools.partial(charge, note="x"), "charge"),
        (Service().pay, "Service.pay"),
        (Service(), "Service.__call__"),
        (Order, "Order.__init__"),
    ],
)
def test_callables(fn: Callable[..., Any], name: str) -> None:
    """Wrappers, partials, bound methods, callable objects and classes have the signature of what they call."""
    found = shape(fn)
    assert found.name == name
    if fn is not Order:
        assert found.decode(found.encode((ORDER,), {}, what=WHAT), what=WHAT) == ((ORDER,), {})


@attrs.frozen
class Rush(Order):
    hours: int = 1


def test_what_an_older_release_recorded() -> None:
    """Arguments that were stored before they were compared go on as they are on replay; new ones are refused."""

    def take(order: Order, times: int) -> None: ...

    found = shape(take)
    rush = Rush(ORDER.id, ORDER.amount)
    recorded = CODEC.encode_ordered((rush, True), what=WHAT)
    assert found.encode((rush, True), {}, what=WHAT, recorded=recorded) == recorded
    plain = CODEC.encode_ordered((ORDER, True), what=WHAT)
    assert found.encode((ORDER, True), {}, what=WHAT, recorded=plain) == plain
    assert found.encode((ORDER, True), {}, what=WHAT) == plain.replace(b"true", b"1")
    assert found.encode((ORDER, True), {}, what=WHAT, recorded=b"[]") == plain.replace(b"true", b"1")
    for other in (None, b"[]"):
        with pytest.raises(PayloadError, match="'hours'"):
            found.encode((rush, 1), {}, what=WHAT, recorded=other)
    assert found.encode((), {"order": ORDER, "times": 1}, what=WHAT, recorded=recorded) == plain.replace(b"true", b"1")


def test_what_was_stored_and_no_longer_fits_is_named() -> None:
    """Arguments and a result of another type than the code declares by now."""

    def take(times: int) -> int: ...

    found = shape(take)
    with pytest.raises(PayloadError, match="cannot be read as int"):
        found.decode(b'["often"]', what=WHAT)
    with pytest.raises(PayloadError, match="cannot be read as int"):
        found.decode_result(b'"often"', what=WHAT)


class Parcel(BaseModel):
    """A model with a rule of its own."""

    weight: int
    to: str


def test_what_pydantic_refuses_is_named_in_one_line_without_its_value() -> None:
    """Each field with its fault; neither the address of pydantic's pages nor what was given, which may be secret."""

    def send(parcel: Parcel) -> None: ...

    found = shape(send)
    with pytest.raises(PayloadError) as refused:
        found.decode(b'[{"weight": "hidden"}]', what=WHAT, given=True)
    assert "weight: Input should be a valid integer, unable to parse string as an integer; to: Field required" in str(
        refused.value
    )
    assert "\n" not in str(refused.value)
    assert "hidden" not in str(refused.value)


class Handle(Enum):
    RAW = object()


def test_arguments_that_an_older_release_refused() -> None:
    """What it could not have written is not looked for in its record: the arguments are stored as they are now."""

    def take(handle: Handle) -> None: ...

    assert shape(take).encode((Handle.RAW,), {}, what=WHAT, recorded=b'["old"]') == b'[{"$enum":"RAW"}]'


def test_none_as_a_default() -> None:
    """A parameter whose default is None takes None, whatever its annotation says."""

    def take(a: str = None, b: list[Order] = None, c: int | None = None, *, d: Decimal = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013 - as some write it

    found = shape(take)
    for args, kwargs in [
        ((None, None, None), {}),
        ((), {"c": 1}),
        (("x", [ORDER]), {"d": None}),
        ((), {"d": Decimal(1)}),
    ]:
        payload = found.encode(args, kwargs, what=WHAT)
        again, named = found.decode(payload, what=WHAT)
        assert inspect.signature(take).bind(*again, **named).arguments.items() >= dict(kwargs).items()
        assert found.encode(again, named, what=WHAT) == payload
    with pytest.raises(PayloadError, match="int"):
        found.encode((1,), {}, what=WHAT)
