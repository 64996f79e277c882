"""What the code declares about a step, whatever layer it is for: a function, its name, and how it is attempted.

Invariant: a declaration is checked when it is made, so a mistake is found where it stands and not in a run.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

from durable_core.errors import DefinitionError
from durable_core.model.duration import Duration, seconds_of, shown
from durable_core.model.keys import check_name
from durable_core.model.outcome import DEFAULT_UNKNOWN
from durable_core.model.retry import Retry
from durable_core.model.spec import ONCE, is_async

P = ParamSpec("P")
R = TypeVar("R")


class DeclaredStep(Generic[P, R]):
    """A function with the options that each kind of step takes. Outside a body, calling it just calls the function."""

    kind: str = "step"
    operation: str = "step"
    """The operation with which a body runs it."""
    judge_call: ClassVar[Callable[["DeclaredStep[..., Any]"], None] | None] = None
    """Refuses a call that a body makes; set by what drives bodies, and None as long as nothing here does."""

    def __init__(
        self,
        fn: Callable[P, Any],
        *,
        name: str | None = None,
        retry: Retry | int | None = None,
        default_retry: Retry = ONCE,
        timeout: Duration | None = None,
        rejects: tuple[type[Exception], ...] = (),
        unknown: tuple[type[Exception], ...] = DEFAULT_UNKNOWN,
        at_most_once: bool = False,
    ) -> None:
        if not callable(fn):
            raise DefinitionError(f"@{self.kind} decorates a function, not {fn!r}")
        self.fn = fn
        own: str = getattr(fn, "__name__", "")
        self.name = check_name(name or own, what=f"the {self.kind} {fn!r}")
        self.what = f"{self.kind} {self.name!r} ({place_of(fn)})"
        self.retry = Retry.of(retry, default_retry)
        self.timeout = check_timeout(timeout, self.what)
        self.rejects = check_types(rejects, f"{self.what}: rejects")
        self.unknown = check_types(unknown, f"{self.what}: unknown")
        self.at_most_once = at_most_once
        self.is_async = is_async(fn)
        self.__name__ = self.name
        self.__qualname__ = getattr(fn, "__qualname__", self.name)
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function itself; in a body that is refused, since it would leave no trace."""
        judge = DeclaredStep.judge_call
        if judge is not None:
            judge(self)
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self.what}>"


class Step(DeclaredStep[P, R]):
    """A step of a durable function, with options; see ``durable_core.step``."""


def place_of(fn: Callable[..., Any]) -> str:
    """``file:line`` of a function; its repr where it has no code."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return repr(fn) if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def positional(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that can be given by position."""
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    return [parameter for parameter in inspect.signature(fn).parameters.values() if parameter.kind in kinds]


def check_version(version: Any, what: str) -> None:
    """Refuse what is no whole number from 1."""
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise DefinitionError(f"{what}: version={version!r}", "Give a whole number from 1")


def says_what_to_write(example: str, *needed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a declaration refuse a call without its name, or without the options ``needed``, with ``example``."""

    def checking(declare: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(declare)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            first: object = args[0] if args else None
            missing = ["name"] if callable(first) or (not args and "name" not in kwargs) else []
            missing += [each for each in needed if each not in kwargs]
            if missing:
                what = f" of {place_of(first)}" if callable(first) else ""
                raise DefinitionError(f"the declaration{what} has no {' and no '.join(missing)}", example)
            return declare(*args, **kwargs)

        return checked

    return checking


def check_timeout(timeout: Duration | None, what: str) -> Duration | None:
    """Refuse a timeout that is no positive duration."""
    if timeout is not None and seconds_of(timeout) is None:
        raise DefinitionError(
            f"{what}: {shown(timeout)} is no duration", "Give a timedelta or seconds, above zero and at most 100 years"
        )
    return timeout


def check_types(given: Sequence[type[Exception]], what: str) -> tuple[type[Exception], ...]:
    """Refuse what is not a tuple of exception classes."""
    found: tuple[Any, ...] = tuple(given) if isinstance(given, tuple | list) else (given,)
    for item in found:
        if not (isinstance(item, type) and issubclass(item, Exception)):
            raise DefinitionError(f"{what}: {item!r} is not an exception class", "Give a tuple of classes")
    return found
