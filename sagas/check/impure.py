"""Calls that return something else when a body runs again from its journal, recognised by the function called.

Invariant: a function is recognised by its object, under any name; nothing is imported for it.
"""

import sys
from collections.abc import Mapping
from datetime import date, datetime
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

NOW = "s.now()"
CHANCE = "s.random()"
UNIQUE = "s.uuid()"
OUTSIDE = "a step"

CLOCKS = (
    "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns thread_time "
    "thread_time_ns clock_gettime clock_gettime_ns gmtime localtime ctime asctime strftime"
)
DRAWS = (
    "betavariate binomialvariate choice choices expovariate gammavariate gauss getrandbits lognormvariate "
    "normalvariate paretovariate randbytes randint random randrange sample shuffle triangular uniform "
    "vonmisesvariate weibullvariate"
)
REQUESTS = "delete get head options patch post put request"

FUNCTIONS: tuple[tuple[str, str, str], ...] = (
    ("builtins", "open input", OUTSIDE),
    ("time", CLOCKS, NOW),
    ("time", "sleep", "await s.sleep(...)"),
    ("random", DRAWS, CHANCE),
    ("os", "urandom getrandom", CHANCE),
    ("secrets", "choice randbelow randbits", CHANCE),
    ("secrets", "token_bytes token_hex token_urlsafe", UNIQUE),
    ("uuid", "uuid1 uuid4 uuid6 uuid7", UNIQUE),
    ("requests", REQUESTS, OUTSIDE),
    ("httpx", f"{REQUESTS} stream", OUTSIDE),
)
"""Module, functions, and what to use instead of them."""

CLASS_CALLS: Mapping[str, str] = {"now": NOW, "utcnow": NOW, "today": NOW}
"""Methods of datetime classes, and what to use instead; of a date only ``today``."""

ASK_FROM: Mapping[str, int] = {"gmtime": 1, "localtime": 1, "ctime": 1, "asctime": 1, "strftime": 2}
"""Functions of time that ask the clock only if they are given fewer arguments than this."""


def instead_of(called: object, arguments: int) -> str | None:
    """What a body should use instead of calling ``called`` with so many arguments; None if the call is pure."""
    if not isinstance(called, BuiltinFunctionType | FunctionType | MethodType):
        return None  # only these certainly compare and hash without running user code
    owner = getattr(called, "__self__", None)
    if isinstance(called, BuiltinFunctionType) and isinstance(owner, type):
        return _of_class(owner, called.__name__)
    instead = _known().get(called)
    return None if instead == NOW and arguments >= ASK_FROM.get(called.__name__, arguments + 1) else instead


def _of_class(owner: type, name: str) -> str | None:
    if issubclass(owner, datetime):
        return CLASS_CALLS.get(name)
    return f"{NOW}.date()" if issubclass(owner, date) and name == "today" else None


def _known() -> dict[Any, str]:
    """The functions of the loaded modules; a body cannot hold one of another module."""
    return {
        getattr(module, name): instead
        for module, names, instead in (
            (sys.modules.get(module), names, instead) for module, names, instead in FUNCTIONS
        )
        for name in names.split()
        if isinstance(getattr(module, name, None), BuiltinFunctionType | FunctionType | MethodType)
    }
