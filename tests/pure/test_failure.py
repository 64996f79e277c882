"""Stored exceptions: the user's own class comes back, whatever its constructor looks like."""

import asyncio
import gc
import pickle
import sys
import traceback
import types
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import msgspec
import pytest
from pydantic import BaseModel, ValidationError

from durable_core.errors import PayloadError, RemoteError, RunExists, StepTimeout
from durable_core.model.failure import capture, describe, rebuild


class CardDeclined(Exception): ...


class TwoArguments(Exception):
    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code


class NoSuper(Exception):
    def __init__(self, a: int, b: int = 2) -> None:
        self.sum = a + b


class Slotted(Exception):
    __slots__ = ("code", "unset")

    def __init__(self, code: int) -> None:
        super().__init__("slotted")
        self.code = code


class Spoken(Exception):
    def __init__(self, order: Any) -> None:
        super().__init__("x")
        self.order = order

    def __str__(self) -> str:
        return f"order {self.order.id}"


class OwnNew(Exception):
    def __new__(cls, *both: object) -> "OwnNew":  # noqa: PYI034 - as users write it
        return super().__new__(cls, *both)


class Network(OSError):
    def __init__(self, host: str) -> None:
        super().__init__(5, "io", "/dev/null")
        self.host = host


class Setter(Exception):
    """Has a property whose setter must not run on rebuilding."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    @property
    def value(self) -> int:
        return int(self.__dict__["value"])

    @value.setter
    def value(self, value: int) -> None:
        self.__dict__["value"] = value + 1


@attrs.define
class Defined(Exception):
    code: int
    detail: str = "d"


@attrs.frozen
class Frozen(Exception):
    code: int


@attrs.define(slots=False, kw_only=True)
class Unslotted(Exception):
    code: int


@dataclass
class Data(Exception):
    code: int
    at: datetime


@dataclass(frozen=True)
class FrozenData(Exception):
    code: int


class Many(ExceptionGroup[Exception]): ...


class Outer:
    class Inner(Exception): ...


def bad_os() -> OSError:
    try:
        Path("/nowhere/at/all").read_text(encoding="utf-8")
    except OSError as error:
        return error
    raise AssertionError


def bad_import() -> Exception:
    return ImportError("no", name="thing", path="/x")


def with_notes() -> Exception:
    error = CardDeclined("x")
    error.add_note("one")
    error.add_note("two")
    return error


ERRORS: list[BaseException] = [
    CardDeclined(),
    CardDeclined("no funds", 3, None, 1.5, [True, {"a": 2}]),
    CardDeclined(b"\xff", Decimal("1.10"), UUID(int=1), (1, 2), {3}, datetime(2026, 1, 1, tzinfo=UTC)),
    TwoArguments(1, "x"),
    KeywordOnly(code=2),
    NoSuper(1),
    NoSuper(1, b=3),
    Slotted(4),
    OwnNew(1, 2),
    Network("h"),
    Setter(1),
    Defined(1),
    Frozen(2),
    Unslotted(code=3),
    Data(1, datetime(2026, 1, 1, tzinfo=UTC)),
    FrozenData(5),
    Outer.Inner("x"),
    KeyError("k"),
    ValueError(),
    TimeoutError("late"),
    ConnectionRefusedError(111, "refused"),
    bad_os(),
    OSError("only text"),
    OSError(1, "a", "file", None, "other"),
    BlockingIOError(11, "again", 7),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    UnicodeEncodeError("ascii", "\xe9", 0, 1, "bad"),
    SyntaxError("bad", ("file", 1, 2, "text", 1, 3)),
    bad_import(),
    StopIteration(3),
    AttributeError("x", name="n", obj=object()),
    StepTimeout("late"),
    RunExists("taken", run_id="r"),
    with_notes(),
]


def fields(error: BaseException) -> dict[str, Any]:
    names = [
        name
        for base in type(error).__mro__
        if base not in {object, Exception, BaseException}
        for name, value in vars(base).items()
        if isinstance(value, types.MemberDescriptorType) and name not in {"obj", "__weakref__"}
    ]
    return {name: getattr(error, name, None) for name in names} | vars(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_rebuild_is_exact(error: BaseException) -> None:
    """Class, args, text, repr, attributes and notes are those of the original, on every generation."""
    once = rebuild(capture(error))
    for back in (once, rebuild(capture(once))):
        assert type(back) is type(error)
        assert back.args == error.args
        assert str(back) == str(error)
        assert repr(back) == repr(error)
        assert fields(back) == fields(error)


def test_no_user_constructor_runs() -> None:
    """``__init__``, ``__new__`` and setters of the user are not called."""
    calls: list[str] = []

    class Loud(Exception):
        def __new__(cls, *args: object) -> "Loud":  # noqa: PYI034 - as users write it
            calls.append("new")
            return super().__new__(cls, *args)

        def __init__(self, *args: object) -> None:
            calls.append("init")
            super().__init__(*args)

    stored = capture(Loud(1))
    calls.clear()
    back = rebuild(stored, [Loud])
    assert (type(back), back.args, calls) == (Loud, (1,), [])


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


def test_what_json_cannot_say_becomes_its_repr() -> None:
    """Foreign values are kept as text, and ``str`` of the result still works."""
    error = CardDeclined(object, float("nan"), Unprintable(), "\ud800")
    error.handle = object  # type: ignore[attr-defined]
    back = rebuild(capture(error))
    assert type(back) is CardDeclined
    assert back.args == ("<class 'object'>", "nan", "<Unprintable whose __repr__ raised RuntimeError>", "'\\ud800'")
    assert vars(back) == {"handle": "<class 'object'>"}
    tags = msgspec.json.decode(capture(error))["tags"]
    assert set(tags.values()) == {"repr"}
    assert "state.handle" in tags


def test_str_of_a_rebuilt_error_never_raises() -> None:
    """Where ``__str__`` needs what JSON cannot keep, the stored text answers, and the class still matches."""
    error = Spoken(types.SimpleNamespace(id=7))
    back = rebuild(capture(error))
    assert isinstance(back, Spoken)
    assert str(back) == "order 7"
    assert repr(back).startswith("Spoken(")
    assert type(back).__qualname__ == "Spoken"
    again = rebuild(capture(back))
    assert isinstance(again, Spoken)
    assert str(again) == "order 7"


def test_capture_of_hostile_exceptions() -> None:
    """An exception whose own methods raise is stored all the same."""

    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError

        def __getattribute__(self, name: str) -> Any:
            if name in {"__dict__", "args"}:
                raise RuntimeError
            return super().__getattribute__(name)

    stored = capture(Hostile("x"))
    assert describe(stored).type_name.endswith("Hostile")
    assert "RuntimeError" in describe(stored).message
    assert isinstance(rebuild(stored), RemoteError)


def test_groups() -> None:
    """Groups come back with their members, nested, with the group's own class."""
    error = Many("many", [CardDeclined(1), ExceptionGroup("in", [TwoArguments(1, "x"), ValueError(2)])])
    back: Any = rebuild(capture(error))
    assert type(back) is Many
    assert back.message == "many"
    assert str(back) == str(error)
    assert [type(member) for member in back.exceptions] == [CardDeclined, ExceptionGroup]
    inner: Any = back.exceptions[1]
    assert [member.args for member in inner.exceptions] == [("1: x",), (2,)]
    matched, _ = back.split(CardDeclined)
    assert matched is not None


def test_group_of_unknown_members() -> None:
    """A member that cannot be made again is a RemoteError in its place."""
    group = ExceptionGroup("g", [CardDeclined("x"), KeyError(1)])
    back: Any = rebuild(capture(group).replace(b"test_failure:", b"gone.away:"))
    assert type(back) is ExceptionGroup
    assert [type(member) for member in back.exceptions] == [RemoteError, KeyError]


def test_a_local_class_in_the_process_that_raised_it() -> None:
    """It comes back as itself while it exists, also as a cause; then, and in any other process, as a RemoteError."""

    def raised() -> tuple[bytes, bytes]:
        class Local(Exception): ...

        outer = CardDeclined("x")
        outer.__cause__ = Local("y")
        alone, within = capture(Local("x")), capture(outer)
        back = rebuild(alone)
        assert (type(back), back.args) == (Local, ("x",))
        assert type(rebuild(within).__cause__) is Local
        return alone, within

    alone, within = raised()
    gc.collect()
    assert type(rebuild(alone)) is RemoteError
    assert type(rebuild(within).__cause__) is RemoteError


def caught(outer: Exception, inner: Exception, how: str) -> Exception:
    """``outer``, raised while ``inner`` was handled."""
    try:
        try:
            raise inner  # noqa: TRY301 - the test
        except Exception as error:
            if how == "from":
                raise outer from error
            if how == "from none":
                raise outer from None
            if how == "from other":
                raise outer from ValueError("other")
            raise outer  # noqa: B904 - the test
    except Exception as error:  # noqa: BLE001 - the test
        return error


@pytest.mark.parametrize("how", ["", "from", "from none", "from other"])
def test_context(how: str) -> None:
    """What was being handled comes back, told by a traceback alike: in its own words, and hidden where it was."""
    error = caught(CardDeclined("outer"), KeyError("inner"), how)
    for back in (rebuild(capture(error)), rebuild(capture(rebuild(capture(error))))):
        assert back.__suppress_context__ is error.__suppress_context__
        assert repr(back.__cause__) == repr(error.__cause__)
        assert repr(back.__context__) == ("KeyError('inner')" if how == "" else "None")
        told, known = ("".join(traceback.format_exception(each)) for each in (back, error))
        assert ("KeyError: 'inner'" in told) is (how in ("", "from")) is ("KeyError: 'inner'" in known)


def test_chains_end() -> None:
    """Rings and long chains of contexts are cut, and the whole is bounded."""
    a, b = CardDeclined("a"), CardDeclined("b")
    a.__context__, b.__context__ = b, a
    ring = rebuild(capture(a))
    assert ring.__context__ is not None
    assert ring.__context__.__context__ is None
    error = CardDeclined("x" * 20_000)
    for place in range(100):
        outer = CardDeclined(f"{place}" * 10_000)
        outer.__context__ = error
        error = outer
    stored = capture(error)
    assert len(stored) <= 64 << 10
    assert isinstance(rebuild(stored).__context__, CardDeclined)


def test_causes() -> None:
    """The cause comes back; a ring of causes ends."""
    try:
        try:
            raise KeyError("inner")  # noqa: TRY301 - the test
        except KeyError as inner:
            raise CardDeclined("outer") from inner
    except CardDeclined as error:
        stored = capture(error)
    back = rebuild(stored)
    assert isinstance(back.__cause__, KeyError)
    text = describe(stored).traceback
    assert text.index("KeyError: 'inner'") < text.index("CardDeclined: outer")
    assert "test_failure.py" in text
    a, b = CardDeclined("a"), CardDeclined("b")
    a.__cause__, b.__cause__ = b, a
    ring = rebuild(capture(a))
    assert ring.__cause__ is not None
    assert ring.__cause__.__cause__ is None
    frozen = Frozen(1)
    frozen.__cause__ = a
    assert isinstance(rebuild(capture(frozen)).__cause__, CardDeclined)


def test_prefer() -> None:
    """A local class is found among the preferred ones; an exact match comes before a namesake."""

    class Local(Exception): ...

    stored = capture(Local("x"))
    other = type("Local", (Exception,), {"__module__": "elsewhere", "__qualname__": Local.__qualname__})
    assert type(rebuild(stored, [KeyError, other, Local])) is Local
    namesake = type("CardDeclined", (Exception,), {"__module__": "elsewhere"})
    assert type(rebuild(capture(CardDeclined()), [namesake])) is CardDeclined
    gone = capture(CardDeclined()).replace(b"test_failure:", b"gone.away:")
    assert type(rebuild(gone, [CardDeclined])) is CardDeclined


def test_another_librarys_namesake_of_a_builtin() -> None:
    """A class that is not imported is not taken for the builtin of its name."""
    stored = b'{"type":"requests_of_old.exceptions:ConnectionError","message":"m","args":["m"]}'
    assert isinstance(rebuild(stored, [TimeoutError, ConnectionError]), RemoteError)


@pytest.mark.parametrize(
    "address",
    [
        "gone.away:CardDeclined",
        "builtins:int",
        "builtins:Nothing",
        "builtins:KeyboardInterrupt",
        "os:path",
        "nonsense",
        "",
        f"{__name__}:nobody.<locals>.Local",
        f"{__name__}:Outer.Missing",
    ],
)
def test_remote(address: str) -> None:
    """What is not imported, or no exception, is a RemoteError with name and message; it survives a second storing."""
    stored = msgspec.json.encode(
        {"type": address, "message": "no funds", "args": ["no funds"], "state": {"__notes__": ["n"]}}
    )
    for back in (rebuild(stored), rebuild(capture(rebuild(stored)))):
        assert type(back) is RemoteError
        assert back.type_name == address.removeprefix("builtins:").replace(":", ".")
        assert back.type_name in str(back)
        assert "no funds" in str(back)
        assert back.__notes__ == ["n"]


def test_nothing_is_imported() -> None:
    """Rebuilding reads namespaces only: no import, no module ``__getattr__``."""
    lazy = types.ModuleType("lazy_module")

    def refuse(name: str) -> object:
        raise AssertionError(name)

    lazy.__getattr__ = refuse  # type: ignore[method-assign]
    sys.modules["lazy_module"] = lazy
    before = set(sys.modules)
    try:
        assert isinstance(rebuild(b'{"type":"lazy_module:Error"}'), RemoteError)
        assert isinstance(rebuild(b'{"type":"this:Error"}'), RemoteError)
    finally:
        del sys.modules["lazy_module"]
    assert before - {"lazy_module"} == set(sys.modules)


def test_unmakeable() -> None:
    """A class of an extension that refuses to be made is a RemoteError with its text."""

    class Model(BaseModel):
        a: int

    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"a": "x"})
    back = rebuild(capture(caught.value))
    assert isinstance(back, RemoteError)
    assert back.type_name.endswith("ValidationError")
    assert "valid integer" in str(back)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_base_exceptions(error: BaseException) -> None:
    """What is no ``Exception`` is never raised again as itself."""
    assert isinstance(rebuild(capture(error), [type(error)]), RemoteError)


def test_main_module_has_its_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``python -m script`` runs is found as ``script``, though it is imported as ``__main__`` only."""
    main = types.ModuleType("__main__")
    main.__spec__ = ModuleSpec("script", None)
    vars(main)["CardDeclined"] = CardDeclined
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert type(rebuild(b'{"type":"script:CardDeclined"}')) is CardDeclined


def test_class_that_its_constructor_would_change() -> None:
    """OSError picks a subclass by its errno; the stored class is kept."""
    error = OSError("text")
    error.args = (2, "text")
    back = rebuild(capture(error))
    assert type(back) is OSError
    assert back.args == (2, "text")


class Final(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError

    def __str__(self) -> str:
        return str(vars(self)["gone"].id)


def test_class_that_can_neither_speak_nor_be_subclassed() -> None:
    """Such a class is a RemoteError: ``str`` of a rebuilt exception never raises."""
    error = Final()
    vars(error)["gone"] = types.SimpleNamespace(id=7)
    back = rebuild(capture(error))
    assert isinstance(back, RemoteError)
    assert "7" in str(back)


def huge() -> list[BaseException]:
    """Exceptions far over the limits."""
    wide = CardDeclined(*["x" * 5000] * 100)
    wide.__dict__.update({f"field{i}" * 100: "\x00" * 5000 for i in range(100)})
    deep: Exception = ValueError("x" * 100_000)
    for _ in range(40):
        deep = ExceptionGroup("\U0001f600" * 50_000, [Exception("y" * 9000), deep])
    chain: BaseException = ValueError("end")
    for number in range(500):
        link = CardDeclined("z" * 9000, number)
        link.__cause__ = chain
        chain = link
    return [
        CardDeclined("x" * 10_000_000),
        CardDeclined(b"x" * 1_000_000),
        CardDeclined(list(range(300_000))),
        CardDeclined("\ud800" * 100_000),
        wide,
        deep,
        chain,
        ExceptionGroup("many", [TwoArguments(i, "d" * 50) for i in range(5000)]),
    ]


@pytest.mark.parametrize("place", range(8))
def test_size_is_bounded(place: int) -> None:
    """However large the exception, at most 64 KiB are stored, and they come back."""
    error = huge()[place]
    stored = capture(error)
    assert len(stored) <= 64 << 10
    back = rebuild(stored)
    assert isinstance(back, type(error))
    str(back)


def test_traceback_is_bounded() -> None:
    """A deep recursion's traceback keeps its end, in 16 KiB."""

    def dive(depth: int) -> None:
        if depth == 0:
            raise CardDeclined("bottom")
        dive(depth - 1)

    with pytest.raises(CardDeclined) as caught:
        dive(300)
    text = describe(capture(caught.value)).traceback
    assert len(text.encode()) <= (16 << 10) + 64
    assert text.endswith("CardDeclined: bottom\n")
    assert text.startswith("Traceback (most recent call last)")


def test_long_texts_are_cut_in_the_middle() -> None:
    """A cut says so, and keeps both ends."""
    message = describe(capture(CardDeclined("start" + "x" * 200_000 + "end"))).message
    assert message.startswith("start")
    assert message.endswith("end")
    assert "[cut]" in message


def test_describe() -> None:
    """A stored failure is told without making it."""
    told = describe(capture(TwoArguments(1, "x")))
    assert told.type_name == f"{__name__}.TwoArguments"
    assert told.message == "1: x"
    assert describe(capture(KeyError("k"))).type_name == "KeyError"


@pytest.mark.parametrize("stored", [b"", b"{}", b"[]", b"null", b'{"type":1}'])
def test_damaged(stored: bytes) -> None:
    """Bytes that are no stored failure are refused with PayloadError."""
    for read in (rebuild, describe):
        with pytest.raises(PayloadError, match="stored failure"):
            read(stored)


def test_our_own_errors_keep_text_and_advice() -> None:
    """What happened and what to do come back apart; the errno of a TimeoutError is neither."""
    error = StepTimeout("step 'pay' passed its timeout", "Give it more time")
    for back in (rebuild(capture(error)), pickle.loads(pickle.dumps(error))):
        assert isinstance(back, StepTimeout)
        assert (back.text, back.advice, back.errno) == (error.text, error.advice, None)
        assert str(back) == str(error)


@pytest.mark.parametrize("ending", [" [DC030]", " [DC030] https://elsewhere.example/errors/DC030", ""])
def test_texts_of_older_releases_are_read(ending: str) -> None:
    """They were stored with their code at the end: it is left out of the text, and said once in the message."""
    stored = msgspec.json.encode(
        {"type": "durable_core.errors:StepTimeout", "message": f"late{ending}", "args": [f"late{ending}"]}
    )
    back = rebuild(stored)
    assert isinstance(back, StepTimeout)
    assert (back.text, back.advice, str(back)) == ("late", "", str(StepTimeout("late")))
