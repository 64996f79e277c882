"""The signature of a step or body as data: how its arguments and its result are written and read back.

Invariant: two calls that bind the same values to the same parameters encode to the same bytes, however they were
written (``f(1, b=2)`` and ``f(1, 2)``), and ``decode`` gives back a call that binds them again.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from inspect import Parameter
from types import GenericAlias, NoneType
from typing import Any, Final, Self

import attrs
import msgspec

from durable_core.errors import DefinitionError, PayloadError
from durable_core.model.annotations import annotations_of, declared_type, name_of, result_type
from durable_core.model.codec import PLAIN, Codec, Typed, misfit, unfit
from durable_core.model.plain import kind_name

_MISSING: Final[Any] = Parameter.empty
_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class _Call(msgspec.Struct):
    """The stored form of a call with keyword arguments; a call without is a bare array."""

    args: list[msgspec.Raw]
    kwargs: dict[str, msgspec.Raw]


_read_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read_call = msgspec.json.Decoder(_Call).decode


@attrs.frozen(eq=False)
class CallShape:
    """The journalled parameters and the result of one function."""

    name: str
    """The function's qualified name, for messages."""
    signature: inspect.Signature
    """Only the journalled parameters, annotations evaluated."""
    parameters: tuple[str, ...]
    """Their names, in order."""
    result: Any
    """The declared type of the result; ``Any`` where there is none. What an ``async def`` or awaitable gives."""
    admits_none_result: bool
    """Whether None is a result of the declared type."""
    _codec: Codec = attrs.field(alias="codec", repr=False)
    _excluded: frozenset[str] = attrs.field(alias="excluded", repr=False)
    _typed: Mapping[str, Typed] = attrs.field(alias="typed", repr=False)
    """By parameter; for ``*args`` and ``**kwargs`` one of their values."""
    _whole: Typed | None = attrs.field(alias="whole", repr=False)
    """A call that gives each parameter by position, as nearly all do, in one go; None where none can be so."""
    _result: Typed = attrs.field(alias="typed_result", repr=False)
    _fewest: int = attrs.field(alias="fewest", repr=False)
    """Positional arguments without which no call is complete; -1 where keyword-only ones are required."""
    _most: int = attrs.field(alias="most", repr=False)
    """Positional parameters, without ``*args``."""
    _open: bool = attrs.field(alias="open", repr=False)
    """Whether there is an ``*args``."""

    @classmethod
    def of(cls, fn: Callable[..., Any], codec: Codec, *, skip: int = 0, exclude: Collection[str] = ()) -> Self:
        """Read the signature of ``fn``.

        Args:
            fn: A function, method or other callable with a signature.
            codec: Writes and reads the values.
            skip: How many leading parameters are not journalled (the context of a body).
            exclude: Names of parameters that somebody else fills (resources).

        Raises:
            DefinitionError: There are fewer than ``skip`` positional parameters; or a declared type cannot be stored,
                or not be evaluated: the message names the function and the parameter.
        """
        name = name_of(fn)
        journalled = _journalled(fn, skip, exclude)
        types = annotations_of(fn, {*(parameter.name for parameter in journalled), "return"})
        kept = [p.replace(annotation=declared_type(p, types.get(p.name, _MISSING))) for p in journalled]
        result = result_type(fn, types.get("return", _MISSING))
        typed_result = _typed(codec, result, f"the result of {name}()")
        positional = [parameter for parameter in kept if parameter.kind in _POSITIONAL]
        strict = any(p.kind is Parameter.KEYWORD_ONLY and p.default is _MISSING for p in kept)
        return cls(
            name=name,
            signature=inspect.Signature(kept, return_annotation=result),
            parameters=tuple(parameter.name for parameter in kept),
            result=result,
            admits_none_result=_reads_null(typed_result.read),
            codec=codec,
            excluded=frozenset(exclude),
            typed={p.name: _typed(codec, p.annotation, f"parameter {p.name!r} of {name}()") for p in kept},
            whole=_whole(codec, kept),
            typed_result=typed_result,
            fewest=-1 if strict else sum(parameter.default is _MISSING for parameter in positional),
            most=len(positional),
            open=any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in kept),
        )

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """See that a call with these arguments would be accepted. Types are not looked at.

        Raises:
            DefinitionError: It would not; the message names the function, its signature and what was given.
        """
        if not kwargs and 0 <= self._fewest <= len(args) and (len(args) <= self._most or self._open):
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise self._mismatch(args, kwargs, error) from error

    def encode(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, what: str, recorded: bytes | None = None
    ) -> bytes:
        """Write a call's arguments: an array of the positional ones, or an object with ``args`` and ``kwargs``.

        Keyword arguments for positional parameters become positional; a default is written only where a later
        parameter is given and so leaves a gap. Sets and dicts are written in order, so the bytes suit a digest.

        Args:
            args: the positional arguments.
            kwargs: the keyword arguments.
            what: the call's name for messages.
            recorded: what the journal holds of this call. Where an older release, which read nothing back, wrote just
                that for these arguments, it is the answer.

        Raises:
            DefinitionError: The arguments do not fit the signature.
            PayloadError: A value cannot be stored, or would come back otherwise than it went.
        """
        try:
            payload = self._written(args, kwargs, what)
        except PayloadError:
            if recorded is None or recorded != self._as_before(args, kwargs):
                raise
            return recorded
        if recorded is not None and recorded != payload and recorded == self._as_before(args, kwargs):
            return recorded
        return payload

    def _written(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], what: str) -> bytes:
        if kwargs or len(args) != self._most or self._fewest < 0:
            self.check(args, kwargs)
        positional, named = self._normal(args, kwargs) if kwargs else (args, {})
        if self._whole is not None and not named and len(positional) == self._most:
            try:
                return self._codec.exchange(positional, self._whole, what=what, ordered=True)[0]
            except PayloadError:
                for place, value in enumerate(positional):  # the parameter at fault says so itself
                    self._part(place, value, what)
                raise
        parts = [self._part(place, value, what) for place, value in enumerate(positional)]
        if not named:
            return self._codec.encode_ordered(parts, what=what)
        by_name = {name: self._part(name, value, what) for name, value in named.items()}
        return self._codec.encode_ordered({"args": parts, "kwargs": by_name}, what=what)

    def _as_before(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes | None:
        """What a release that read nothing back wrote; None where it refused."""
        positional, named = self._normal(args, kwargs) if kwargs else (args, {})
        try:
            return self._codec.encode_ordered({"args": positional, "kwargs": named} if named else positional, what="")
        except PayloadError:
            return None

    def _part(self, place: int | str, value: Any, what: str) -> msgspec.Raw:
        """One argument as it is stored, by its position or its keyword."""
        parameter = self._parameter(place)
        typed = PLAIN if parameter is None else self._typed[parameter.name]
        where = what if parameter is None else _where(what, parameter)
        return msgspec.Raw(self._codec.exchange(value, typed, what=where, ordered=True)[0])

    def decode(self, payload: bytes, *, what: str, given: bool = False) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read the arguments back, each by its annotation.

        Args:
            payload: a call, as ``encode`` writes it.
            what: the call's name for messages.
            given: whether somebody gave the values just now, so that none is of an older release.

        Raises:
            PayloadError: The payload is no call of this signature, or a value does not fit its annotation.
        """
        if self._whole is not None:
            try:
                return self._whole.read(payload), {}
            except Exception:  # noqa: BLE001 - one by one it can be read nevertheless, or it is told what is wrong
                return self._decode_each(payload, what, given=given)
        return self._decode_each(payload, what, given=given)

    def _decode_each(self, payload: bytes, what: str, *, given: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            call = _read_call(payload) if payload.startswith(b"{") else _Call(_read_array(payload), {})
        except msgspec.MsgspecError as error:
            raise misfit(self._text(), what, error) from error
        args = tuple(self._read_value(index, raw, what, given=given) for index, raw in enumerate(call.args))
        kwargs = {name: self._read_value(name, raw, what, given=given) for name, raw in call.kwargs.items()}
        try:
            self.check(args, kwargs)
        except DefinitionError as error:
            raise misfit(self._text(), what, error) from error
        return args, kwargs

    def as_mapping(self, payload: bytes) -> dict[str, object]:
        """The stored arguments by parameter name; ``*args`` is a tuple, ``**kwargs`` a dict. Defaults are left out.

        Raises:
            PayloadError: As ``decode`` does.
        """
        args, kwargs = self.decode(payload, what=f"the arguments of {self.name}()")
        return dict(self.signature.bind_partial(*args, **kwargs).arguments)

    def corrected(self, payload: bytes, changes: Mapping[str, Any], *, what: str) -> bytes:
        """The stored arguments with some of them replaced, by parameter name; written as ``encode`` does.

        Raises:
            PayloadError: there is no such parameter, a value does not fit, or what is stored cannot be read.
        """
        unknown = sorted(changes.keys() - self.signature.parameters.keys())
        if unknown:
            known = ", ".join(self.parameters) or "no parameter"
            raise PayloadError(f"{what}: {self.name}() has no parameter {unknown[0]!r}; it has {known}")
        args, kwargs = self.decode(payload, what=what)
        bound = self.signature.bind_partial(*args, **kwargs)
        bound.arguments.update(changes)
        return self.encode(bound.args, bound.kwargs, what=what)

    def exchange_result(self, value: Any, *, what: str) -> tuple[bytes, Any]:
        """What is stored of a result, and what its reader gets, now and ever after.

        A function declared to return None has the result None, whatever it let slip.

        Raises:
            PayloadError: The value cannot be stored, is not of the declared type, or would come back as another one.
        """
        if self.result is NoneType:
            return b"null", None
        return self._codec.exchange(value, self._result, what=what)

    def encode_result(self, value: Any, *, what: str) -> bytes:
        """What is stored of a result.

        Raises:
            PayloadError: As ``exchange_result`` does.
        """
        return self.exchange_result(value, what=what)[0]

    def returning(self, result: Any) -> Self:
        """The same arguments with another type of result."""
        typed = self._codec.typed(result)
        return attrs.evolve(self, result=result, admits_none_result=_reads_null(typed.read), typed_result=typed)

    def decode_result(self, payload: bytes, *, what: str) -> Any:
        """Read a result back as declared.

        Raises:
            PayloadError: It does not fit the declared type.
        """
        try:
            return self._result.read(payload)
        except Exception as error:  # a user's model validates itself and may raise anything
            raise misfit(self.result, what, error) from error

    def _normal(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with all it can positional, and the keyword-only values in the signature's order."""
        given = self.signature.bind(*args, **kwargs).arguments
        leading = list(self.signature.parameters.values())[: self._most]
        while leading and leading[-1].name not in given:
            leading.pop()
        positional = [given.get(parameter.name, parameter.default) for parameter in leading]
        named: dict[str, Any] = {}
        for parameter in self.signature.parameters.values():
            if parameter.kind is Parameter.VAR_POSITIONAL:
                positional += given.get(parameter.name, ())
            elif parameter.kind is Parameter.VAR_KEYWORD:
                named |= given.get(parameter.name, {})
            elif parameter.kind is Parameter.KEYWORD_ONLY and parameter.name in given:
                named[parameter.name] = given[parameter.name]
        return tuple(positional), named

    def _read_value(self, place: int | str, raw: msgspec.Raw, what: str, *, given: bool) -> Any:
        """Read one argument, by its position or its keyword."""
        parameter = self._parameter(place)
        if parameter is None:
            raise misfit(self._text(), what, ValueError(f"there is no parameter for argument {place!r}"))
        try:
            return self._typed[parameter.name].read(raw)
        except Exception as error:  # a user's model validates itself and may raise anything
            if given:
                raise unfit(parameter.annotation, _where(what, parameter), error) from error
            raise misfit(parameter.annotation, f"{what}, parameter {parameter.name!r}", error) from error

    def _parameter(self, place: int | str) -> Parameter | None:
        """The parameter that takes the argument at this position or under this keyword."""
        every = self.signature.parameters
        if isinstance(place, str):
            named = every.get(place)
            if named is not None and named.kind in (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
                return named  # by keyword also where it could be positional: written without this signature at hand
            return next((p for p in every.values() if p.kind is Parameter.VAR_KEYWORD), None)
        if place < self._most:
            return every[self.parameters[place]]
        return next((p for p in every.values() if p.kind is Parameter.VAR_POSITIONAL), None)

    def _text(self) -> str:
        return f"a call of {self.name}{self.signature}"

    def _mismatch(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: TypeError) -> DefinitionError:
        given = [kind_name(value) for value in args]
        given += [f"{name}={kind_name(value)}" for name, value in kwargs.items()]
        filled = sorted(self._excluded.intersection(kwargs))
        hint = f"Leave out {', '.join(filled)}: the engine fills it." if filled else "Pass what the signature asks for."
        message = f"{self.name}{self.signature} cannot be called with ({', '.join(given)}): {error}. {hint}"
        return DefinitionError(message)


def _where(what: str, parameter: Parameter) -> str:
    """The name of one argument of a call, for messages."""
    return f"{what.removesuffix(': the arguments')}: parameter {parameter.name!r}"


def _journalled(fn: Callable[..., Any], skip: int, exclude: Collection[str]) -> list[Parameter]:
    """The parameters that are left without ``skip`` leading ones and the excluded ones."""
    every = list(inspect.signature(fn).parameters.values())
    for _ in range(skip):
        if every and every[0].kind in _POSITIONAL:
            every.pop(0)
        elif not (every and every[0].kind is Parameter.VAR_POSITIONAL):
            message = (
                f"{name_of(fn)}() takes too few positional parameters: the engine itself passes the first "
                f"{skip}. Add them in front of its own."
            )
            raise DefinitionError(message)
    return [parameter for parameter in every if parameter.name not in exclude]


def _typed(codec: Codec, declared: Any, where: str) -> Typed:
    try:
        return codec.typed(declared)
    except PayloadError as error:
        raise DefinitionError(f"{where}: {error.text}", error.advice) from error


def _whole(codec: Codec, parameters: list[Parameter]) -> Typed | None:
    """A call that gives each parameter by position; None where that is no call of the signature."""
    if not parameters or any(parameter.kind not in _POSITIONAL for parameter in parameters):
        return None
    types = tuple(Any if each.annotation is _MISSING else each.annotation for each in parameters)
    return codec.typed(GenericAlias(tuple, types))


def _reads_null(read: Callable[[bytes], Any]) -> bool:
    try:
        read(b"null")
    except Exception:  # noqa: BLE001 - whatever the type raises, None is not of it
        return False
    return True
