"""Binds functions to one engine: what it runs for a step, and the body that it drives for a durable function."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any

from durable_core.bodies.context import Context
from durable_core.errors import DefinitionError
from durable_core.model.codec import Codec
from durable_core.model.declared import DeclaredStep, Step, place_of, positional
from durable_core.model.durable import Durable
from durable_core.model.duration import to_ns
from durable_core.model.shape import CallShape
from durable_core.model.spec import DurableFunction, StepSpec
from durable_core.replay.cursor import End
from durable_core.replay.host_context import HostContext

KEPT = 1024
"""Functions whose specs are remembered; a closure made anew for each call must not be kept for ever."""


class Binder:
    """Binds each function once."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._shapes: dict[Durable[..., Any], CallShape] = {}
        self._remembered = functools.lru_cache(KEPT)(self._made)

    def spec(self, what: Any) -> StepSpec:
        """What the engine runs for a step: a function, or one decorated with ``@step``.

        Raises:
            DefinitionError: it is none, or of another layer.
            PayloadError: a type of its signature cannot be stored.
        """
        try:
            hash(what)
        except TypeError:
            return self._made(what)
        return self._remembered(what)

    def shape(self, durable: Durable[..., Any]) -> CallShape:
        """How the arguments and the result of a durable function are stored."""
        if durable not in self._shapes:
            self._shapes[durable] = CallShape.of(durable.body, self._codec, skip=1)
        return self._shapes[durable]

    def function(self, durable: Durable[..., Any]) -> DurableFunction:
        """What the engine drives for a durable function."""
        shape = self.shape(durable)

        def body(core: HostContext, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, End]:
            return _to_its_end(core, durable.body(Context(core, self), *args, **kwargs), shape)

        return DurableFunction(
            name=durable.name,
            version=durable.version,
            fn=body,
            shape=shape,
            operations=positional(durable.body)[0].name,
        )

    def _made(self, what: Any) -> StepSpec:
        declared = _declared(what)
        return StepSpec(
            name=declared.name,
            kind=declared.kind,
            fn=declared.fn,
            shape=CallShape.of(declared.fn, self._codec),
            is_async=declared.is_async,
            retry=declared.retry,
            timeout_ns=None if declared.timeout is None else to_ns(declared.timeout),
            at_most_once=declared.at_most_once,
            rejects=declared.rejects,
            unknown=declared.unknown,
        )


async def _to_its_end(core: HostContext, body: Coroutine[Any, Any, Any], shape: CallShape) -> End:
    return End(output=shape.encode_result(await body, what=f"run {core.id}: the result"))


def _declared(what: Any) -> Step[..., Any]:
    if isinstance(what, Step):
        return what  # pyright: ignore[reportUnknownVariableType]
    if isinstance(what, DeclaredStep):
        raise DefinitionError(f"{what.what} is of another layer, which gives it a meaning that is unknown here")
    if isinstance(what, Durable):
        raise DefinitionError(f"the durable function {what.name!r} is no step; run it with `ctx.child(...)`")
    if isinstance(what, Coroutine):
        what.close()
        raise DefinitionError(
            f"{what!r} was called already, and so would be called anew on each replay; give the function and then its "
            "arguments: `ctx.step(fetch, url)`"
        )
    if not callable(what):
        raise DefinitionError(f"{what!r} is no function")
    named: Callable[..., Any] = what
    if getattr(named, "__name__", "<lambda>") == "<lambda>":
        raise DefinitionError(
            f"{what!r} ({place_of(named)}) has no name to be known by in the journal; give it one: "
            '`step(name="fetch")(...)`'
        )
    return Step(named)
