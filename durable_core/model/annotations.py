"""The annotations of a function as they are at run time: evaluated, behind wrappers and partials.

Invariant: an annotation that cannot be evaluated is refused; it never becomes ``Any``.
"""

import contextlib
import functools
import inspect
import typing
from collections.abc import Awaitable, Callable, Collection
from inspect import Parameter
from types import NoneType, SimpleNamespace
from typing import Any, Final

from durable_core.errors import DefinitionError

_MISSING: Final[Any] = Parameter.empty


def name_of(fn: Callable[..., Any]) -> str:
    """Its qualified name, without the functions that it is local to."""
    source = source_of(fn)
    return str(getattr(source, "__qualname__", type(fn).__qualname__)).rpartition("<locals>.")[2]


def source_of(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The plain function behind wrappers, partials, methods and callable objects: it has the annotations."""
    inner = inspect.unwrap(fn)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    if inspect.ismethod(inner):
        return inner.__func__
    if inspect.isfunction(inner) or inspect.isbuiltin(inner):
        return inner
    holder, entry = (inner, "__init__") if isinstance(inner, type) else (type(inner), "__call__")
    method: Callable[..., Any] = inspect.unwrap(getattr(holder, entry))
    return method


def annotations_of(fn: Callable[..., Any], wanted: Collection[str]) -> dict[str, Any]:
    """The evaluated annotations of ``fn`` for the parameters ``wanted``.

    Raises:
        DefinitionError: One cannot be evaluated.
    """
    source = source_of(fn)
    names = getattr(getattr(source, "__code__", None), "co_freevars", ())
    cells = getattr(source, "__closure__", None) or ()
    scope: dict[str, Any] = {variable.__name__: variable for variable in getattr(source, "__type_params__", ())}
    for name, cell in zip(names, cells, strict=False):
        with contextlib.suppress(ValueError):  # an empty cell: the variable has no value yet
            scope[name] = cell.cell_contents
    types: dict[str, Any] = {}
    for name, annotation in getattr(source, "__annotations__", {}).items():
        if name not in wanted:
            continue
        holder = SimpleNamespace(__annotations__={name: annotation})
        try:
            hints = typing.get_type_hints(holder, getattr(source, "__globals__", {}), scope, include_extras=True)
        except Exception as error:
            where = "the result" if name == "return" else f"parameter {name!r}"
            message = (
                f"{where} of {name_of(fn)}(): the annotation {annotation!r} cannot be evaluated "
                f"({type(error).__name__}: {error}), so its values could not be read back. Import the type at the top "
                "of the module, not under TYPE_CHECKING; declare a class that is local to a function at the top of the "
                "module"
            )
            raise DefinitionError(message) from error
        types[name] = hints[name]
    return types


def declared_type(parameter: Parameter, annotation: Any) -> Any:
    """The type of a parameter. ``x: str = None`` admits None, as its author means."""
    if parameter.default is not None or annotation in (_MISSING, Any, object, None):
        return annotation
    return annotation | None if isinstance(annotation, type) else typing.Optional[annotation]  # noqa: UP045 - of any type


def result_type(fn: Callable[..., Any], annotation: Any) -> Any:
    """What a caller gets in the end."""
    if annotation in (_MISSING, Any, object):
        return Any
    if annotation in (typing.NoReturn, typing.Never):
        return NoneType
    origin = typing.get_origin(annotation) or annotation
    if not inspect.iscoroutinefunction(source_of(fn)) and isinstance(origin, type) and issubclass(origin, Awaitable):
        inner = typing.get_args(annotation)
        return inner[-1] if inner else Any
    return annotation
