"""An exception as stored bytes, and back: the body sees the user's own class, first time and on every replay.

Invariant: nothing is ever imported for it and no ``__init__`` of a user is called. ``capture`` never raises, and
its answer is bounded. A class that cannot be had or made becomes a ``RemoteError``. Which class it was is for
``classes`` to find.
"""

import contextlib
import functools
import traceback
import types
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID

import attrs
import msgspec

from durable_core.errors import PayloadError, RemoteError, bare
from durable_core.model.classes import address_of, find_class, home_of, remember
from durable_core.model.codec import Codec

_TRACEBACK_LIMIT: Final = 16 << 10
_TOTAL_LIMIT: Final = 64 << 10
_DEPTH: Final = 8
"""How far causes and groups within groups are followed."""
_FRAMES: Final = 50
_CUT: Final = b" ... [cut] ... "

_CODEC: Final = Codec()
_KEPT_TYPES: Final[dict[str, Any]] = {
    cls.__name__: cls for cls in (bytes, tuple, set, frozenset, Decimal, UUID, datetime, date, time, timedelta)
}
"""Types of an argument that JSON would flatten and that are told apart by a tag."""
_NOT_STATE: Final = frozenset({"__weakref__", "__dict__", "args", "obj", "exceptions"})
"""Attributes held elsewhere; ``obj`` is the object on which an attribute was looked for, and no data."""


class _Stored(msgspec.Struct, omit_defaults=True):
    """The stored form. Field names are part of the stored format."""

    type: str
    """``module:qualname``."""
    message: str = ""
    args: list[Any] = []
    state: dict[str, Any] = {}
    tags: dict[str, str] = {}
    """What JSON could not say of an argument (``args.0``) or attribute (``state.x``): its type, or ``repr``."""
    traceback: str = ""
    group: list["_Stored"] | None = None
    cause: "_Stored | None" = None
    context: "_Stored | None" = None
    """What was being handled when it was raised; not kept where it is the cause, or hidden by ``from None``."""
    hides_context: bool = False
    """Raised ``from None``."""
    home: str = ""
    """The file of a class of a script: another program knows it as a module."""


_read: Final = msgspec.json.Decoder(_Stored).decode


@attrs.frozen
class FailureText:
    """A stored exception, for people."""

    type_name: str
    """Dotted; a builtin's bare name."""
    message: str
    traceback: str


def capture(error: BaseException, *, frames: bool = True) -> bytes:
    """Write ``error`` as JSON, at most 64 KiB: class, message, arguments, attributes, traceback, members, cause.

    Arguments and attributes are kept as far as JSON allows, else as their repr. Where the whole is too large, its
    longest texts are cut in their middle. Never raises, whatever the exception's own methods do.

    Args:
        error: What to keep.
        frames: Whether to keep the traceback: most of the cost, and of no use where the exception is an answer rather
            than a mistake.
    """
    try:
        return _fit(_stored(error, depth=0 if frames else 1, seen=set()))
    except Exception:  # noqa: BLE001 - a failure that cannot be told in full is still a failure
        return msgspec.json.encode(_Stored(type=address_of(type(error)), message=_clip(_text(error), 1 << 10)))


def rebuild(stored: bytes, prefer: Sequence[type[BaseException]] = ()) -> BaseException:
    """Make the exception again, from classes that are imported already.

    Args:
        stored: What ``capture`` gave.
        prefer: Classes to take first where module and name are those of the stored one, and to fall back on, by
            name alone, where its own module is not imported here (a script's ``__main__``, a local class).

    Returns:
        An instance of the original class with its ``args`` and attributes, or a ``RemoteError``.

    Raises:
        PayloadError: ``stored`` is not what ``capture`` gave.
    """
    return _rebuilt(_parse(stored), prefer)


def describe(stored: bytes) -> FailureText:
    """Read what a person wants to know, without making the exception.

    Raises:
        PayloadError: ``stored`` is not what ``capture`` gave.
    """
    record = _parse(stored)
    return FailureText(_dotted(record.type), record.message, record.traceback)


def _stored(error: BaseException, *, depth: int, seen: set[int]) -> _Stored:
    seen.add(id(error))
    cls = type(error)
    remember(cls)
    record = _Stored(address_of(cls), _text(error), home=home_of(cls))
    if depth == 0:
        record.traceback = _clip(_traceback(error), _TRACEBACK_LIMIT)
    group = _group(error)
    if group is not None:
        record.message = group.message
        members = group.exceptions if depth < _DEPTH else ()
        record.group = [_stored(member, depth=depth + 1, seen=seen) for member in members]
    else:
        record.args = [_kept(value, f"args.{place}", record.tags) for place, value in enumerate(error.args)]
    record.state = {name: _kept(value, f"state.{name}", record.tags) for name, value in _state(error)}
    _store_chain(error, record, depth=depth, seen=seen)
    return record


def _store_chain(error: BaseException, record: _Stored, *, depth: int, seen: set[int]) -> None:
    """Keep what led to ``error``: its cause, and its context where a traceback would show it."""
    cause, context = error.__cause__, error.__context__
    record.hides_context = error.__suppress_context__ and cause is None
    if cause is not None and id(cause) not in seen and depth < _DEPTH:
        record.cause = _stored(cause, depth=depth + 1, seen=seen)
    if context is not None and not error.__suppress_context__ and id(context) not in seen and depth < _DEPTH:
        record.context = _stored(context, depth=depth + 1, seen=seen)


def _group(error: BaseException) -> BaseExceptionGroup[BaseException] | None:
    return cast("Any", error) if isinstance(error, BaseExceptionGroup) else None


def _kept(value: object, path: str, tags: dict[str, str]) -> object:
    """The plain JSON form of ``value``, or its repr; ``tags`` says what is lost."""
    kind = type(value)
    try:
        plain = msgspec.json.decode(_CODEC.encode(value, what=path))
    except PayloadError:
        tags[path] = "repr"
        return _repr(value)
    if _KEPT_TYPES.get(kind.__name__) is kind:
        tags[path] = kind.__name__
    return plain


def _state(error: BaseException) -> Iterator[tuple[str, object]]:
    """All attributes of ``error`` beyond its args: its ``__dict__``, its slots and the fields that C code keeps."""
    for name in _descriptors(type(error)):
        # A slot without a value raises AttributeError; the getter of an extension type may raise anything.
        with contextlib.suppress(Exception):
            value = getattr(error, name)
            if value is not None:
                yield name, value
    yield from list(vars(error).items())


def _descriptors(cls: type) -> dict[str, Any]:
    """The data fields of ``cls`` that are not kept in ``__dict__``, by name."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if base in {BaseException, Exception, object}:
            continue
        for name, value in vars(base).items():
            if isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType) and name not in _NOT_STATE:
                found.setdefault(name, value)
    return found


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as fault:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"<its __str__ raised {type(fault).__name__}>"


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as fault:  # noqa: BLE001 - a user's __repr__ may raise anything
        return f"<{type(value).__qualname__} whose __repr__ raised {type(fault).__name__}>"


def _traceback(error: BaseException) -> str:
    """The traceback of ``error`` and of what led to it, without the column marks that make the standard one slow."""
    if _group(error) is not None:
        return "".join(traceback.format_exception(error, limit=-_FRAMES))
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain and len(chain) < _DEPTH:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    texts: list[str] = []
    for link in reversed(chain):
        frames = traceback.StackSummary.extract(traceback.walk_tb(link.__traceback__), limit=-_FRAMES)
        head = ["Traceback (most recent call last):\n"] if frames else []
        texts.append("".join([*head, *frames.format(), *traceback.format_exception_only(link)]))
    return "\nThe exception above led to this one:\n\n".join(texts)


def _dotted(address: str) -> str:
    return address.removeprefix("builtins:").replace(":", ".")


def _clip(text: str, limit: int) -> str:
    """``text`` in at most about ``limit`` bytes of UTF-8, cut in its middle; what UTF-8 cannot say is escaped."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) > limit:
        half = limit // 2
        data = data[:half] + _CUT + data[-half:]
    return data.decode("utf-8", "ignore")


def _fit(record: _Stored) -> bytes:
    """Encode ``record`` in the total limit, cutting the longest texts and lists first."""
    tree: object = msgspec.to_builtins(record)
    cap = _TRACEBACK_LIMIT
    payload = msgspec.json.encode(_shortened(tree, _TOTAL_LIMIT))
    while len(payload) > _TOTAL_LIMIT:
        payload = msgspec.json.encode(_shortened(tree, cap))
        cap //= 2
    return payload


def _shortened(tree: object, cap: int) -> object:
    """``tree`` with no text over ``cap`` bytes and no array or object over a sixteenth of it in items."""
    if isinstance(tree, str):
        return _clip(tree, cap)
    items = max(1, cap // 16)
    if isinstance(tree, list):
        return [_shortened(part, cap) for part in cast("list[object]", tree)[:items]]
    if isinstance(tree, dict):
        pairs = list(cast("dict[str, object]", tree).items())[: items + len(_Stored.__struct_fields__)]
        return {_clip(key, cap): _shortened(part, cap) for key, part in pairs}
    return tree


def _parse(stored: bytes) -> _Stored:
    try:
        return _read(stored)
    except msgspec.MsgspecError as error:
        text = f"a stored failure cannot be read: {error}. Was it written by a newer release, or by hand?"
        raise PayloadError(text) from error


def _rebuilt(record: _Stored, prefer: Sequence[type[BaseException]]) -> BaseException:
    cls = find_class(record.type, record.home, prefer)
    error: Exception | None = None
    if cls is not None:
        with contextlib.suppress(Exception):  # a class may refuse its attributes in any way
            error = _made(cls, record, prefer)
    if error is None:
        error = _remote(record)
    # A frozen class refuses its own way of setting them.
    if record.cause is not None:
        object.__setattr__(error, "__cause__", _rebuilt(record.cause, prefer))
    if record.context is not None:
        object.__setattr__(error, "__context__", _rebuilt(record.context, prefer))
    if record.hides_context:
        object.__setattr__(error, "__suppress_context__", True)
    return error


def _made(cls: type[Exception], record: _Stored, prefer: Sequence[type[BaseException]]) -> Exception | None:
    """An instance of ``cls`` as stored, or None where its class does not let itself be made so."""
    args = tuple(_value(plain, record.tags.get(f"args.{place}")) for place, plain in enumerate(record.args))
    try:
        if record.group is not None:
            members = [_rebuilt(member, prefer) for member in record.group]
            error = cast("Exception", BaseExceptionGroup.__new__(cast("Any", cls), record.message, members))
        else:
            called = _called(cls, args)
            error = bare(cls, args) if called is None else called
            vars(BaseException)["args"].__set__(error, args)
    except Exception:  # noqa: BLE001 - an extension type may refuse in any way
        return None
    fields = _descriptors(cls)
    for name, plain in record.state.items():
        value = _value(plain, record.tags.get(f"state.{name}"))
        if name not in fields:
            vars(error)[name] = value
        else:
            # Read-only, or its value is a repr now and of the wrong type for C: then it stays as it was made.
            with contextlib.suppress(Exception):
                fields[name].__set__(error, value)
    return _speaking(error, record.message)


def _called(cls: type[Exception], args: tuple[Any, ...]) -> Exception | None:
    """An instance of ``cls``, made by calling it; None if that would run code of a user."""
    news = [vars(base)["__new__"] for base in cls.__mro__ if "__new__" in vars(base)]
    init = cls.__init__
    ours = isinstance(init, types.WrapperDescriptorType) and init.__objclass__.__module__ == "builtins"
    if ours and all(isinstance(new, types.BuiltinMethodType) for new in news):
        with contextlib.suppress(Exception):  # arguments that are reprs now, say
            error = cls(*args)
            if type(error) is cls:
                return error
    return None


def _value(plain: object, tag: str | None) -> object:
    kept = _KEPT_TYPES.get(tag or "")
    if kept is not None:
        with contextlib.suppress(msgspec.ValidationError):  # cut to fit
            return msgspec.convert(plain, kept)
    return plain


def _speaking(error: Exception, message: str) -> Exception | None:
    """``error``, such that ``str`` and ``repr`` of it do not raise, although an attribute may be a repr now."""
    try:
        _ = str(error), repr(error)
    except Exception:  # noqa: BLE001 - a user's __str__ may raise anything
        vars(error)["_stored_message"] = message
        try:
            object.__setattr__(error, "__class__", _quoting(cast("Any", type(error))))
        except Exception:  # noqa: BLE001 - a class may refuse to be subclassed in any way
            return None
    return error


@functools.lru_cache(maxsize=256)
def _quoting(cls: type[Exception]) -> type[Exception]:
    """A subclass of ``cls``, of the same name, whose text is the stored one."""

    def text(self: Exception) -> str:
        return str(vars(self)["_stored_message"])

    def form(self: Exception) -> str:
        return f"{cls.__name__}({text(self)!r})"

    namespace: dict[str, object] = {
        "__slots__": (),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__str__": text,
        "__repr__": form,
    }
    return types.new_class(cls.__name__, (cls,), exec_body=lambda body: body.update(namespace))


def _remote(record: _Stored) -> RemoteError:
    name = _dotted(record.type)
    error = RemoteError(
        f"{name}: {record.message} (raised earlier or elsewhere; this stands for it, because the class cannot be made "
        "again here)",
        "To catch it by its class, import the module that defines it first",
        type_name=name,
    )
    notes = record.state.get("__notes__")
    if isinstance(notes, list):
        vars(error)["__notes__"] = cast("list[object]", notes)
    return error
