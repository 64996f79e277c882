"""What kind of thing a value is, told so that both type checkers know what is in it."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, TypeGuard


def is_dict(value: object) -> TypeGuard[dict[Any, Any]]:
    """Whether it is a dict."""
    return isinstance(value, dict)


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether it maps keys to values."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether it is a list."""
    return isinstance(value, list)


def is_array(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Whether it is a list or a tuple, which JSON does not tell apart."""
    return isinstance(value, list | tuple)


def is_set(value: object) -> TypeGuard[AbstractSet[Any]]:
    """Whether it is a set or frozenset, or behaves like one."""
    return isinstance(value, AbstractSet)


def is_class(value: object) -> TypeGuard[type[Any]]:
    """Whether it is a class."""
    return isinstance(value, type)


def class_of(value: object) -> Any:
    """The class of a value, about whose parameters nothing is known."""
    return type(value)
