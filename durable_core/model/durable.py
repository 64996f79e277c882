"""A durable function as its author declares it: a name, a version and a body."""

from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar

import attrs

from durable_core.errors import DefinitionError
from durable_core.model.declared import check_version, place_of, positional
from durable_core.model.keys import check_name
from durable_core.model.spec import is_async

P = ParamSpec("P")
R = TypeVar("R")


@attrs.frozen(eq=False, kw_only=True)
class Durable(Generic[P, R]):
    """A durable function; ``@durable`` makes it. It is started, or run as a child, and never called."""

    name: str
    version: int
    body: Callable[..., Coroutine[Any, Any, Any]]

    def __attrs_post_init__(self) -> None:
        what = f"the durable function {self.name!r} ({place_of(self.body)})"
        check_name(self.name, what=what)
        check_version(self.version, what)
        if not is_async(self.body):
            raise DefinitionError(f"{what}: the body must be an `async def` whose first parameter is the Context")
        if not positional(self.body):
            raise DefinitionError(f"{what}: the body takes no parameter; the first one is the Context")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # noqa: ARG002 - typed as the body is
        """Never returns."""
        raise DefinitionError(
            f"the durable function {self.name!r} was called like a function",
            "Start it with `await engine.start(...)`, or run it within another one with `await ctx.child(...)`",
        )
