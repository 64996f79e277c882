"""Texts from outside: what is stored must be text that UTF-8 can write.

Half of a surrogate pair gets into a ``str`` by way of ``surrogateescape`` or of careless JSON; no store can hold it.
"""

from typing import Any

from durable_core.errors import PayloadError


def is_text(value: object) -> bool:
    """Whether ``value`` is a text that can be stored."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_text(value: Any, what: str) -> None:
    """Refuse what is no text, or none that can be stored.

    Raises:
        PayloadError: it names ``what`` was given, and what is wrong with it.
    """
    if is_text(value):
        return
    if isinstance(value, str):
        fault = f"is {value!a}, which holds half of a surrogate pair, so UTF-8 cannot write it"
    else:
        fault = f"is {value!r}; give a text"
    raise PayloadError(f"{what} {fault}. Nothing was changed")
