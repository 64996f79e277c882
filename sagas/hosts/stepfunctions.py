"""Serves the tasks of exported graphs as a handler of AWS Lambda; ``sagas export asl`` writes their state machines.

Invariant: all calls of one handler run on one event loop, in a thread of its own, so that clients which belong to a
loop can be resources.
"""

import asyncio
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from durable_core.layer import Clocked, SystemClock
from sagas.hosts.tasks import ERRORS, Failure, Served, Task
from sagas.model.definition import SagaDef

__all__ = ["handler"]

LambdaHandler = Callable[[Mapping[str, Any], object], Mapping[str, Any]]


def handler(*, sagas: Sequence[SagaDef[..., Any]], resources: Sequence[object] = ()) -> LambdaHandler:
    """A Lambda handler that makes the attempts of these graphs' steps, compensations and probes.

    Args:
        sagas: graphs; of each one every version that executions still run.
        resources: the objects that fill the ``resource()`` parameters.

    Returns:
        A function of event and context. It returns the step's result, or raises an error whose name the state machine
        knows: ``Rejected``, ``Failed`` or ``Unknown``, with ``ForGood`` where it is not to be repeated.

    Raises:
        DefinitionError: a saga is no graph or has faults, or a resource is missing.

    Examples:
        >>> from sagas import SagaGraph, lookup
        >>> @lookup
        ... def greet(name: str) -> str:
        ...     return f"Hello, {name}"
        >>> g = SagaGraph("greeting", version=1, input=str)
        >>> greeting = g.returns(g.lookup(greet, g.input))
        >>> lambda_handler = handler(sagas=[g])
    """
    clock = SystemClock()
    served = Served(sagas, resources, Clocked(clock.now_ns, draw=lambda: 0.0))
    loop = asyncio.new_event_loop()
    # A daemon: Lambda stops the process when it likes, and a program that has a handler must still end.
    threading.Thread(target=_run, args=(loop,), name="sagas", daemon=True).start()

    async def answer(event: Mapping[str, Any]) -> Mapping[str, Any] | Failure | KeyboardInterrupt:
        try:
            return await served.answer(Task.of(event))
        except KeyboardInterrupt as interrupt:  # raised in the loop it would end the loop, and nobody would be told
            return interrupt

    def serve(event: Mapping[str, Any], context: object = None) -> Mapping[str, Any]:  # noqa: ARG001 - Lambda's signature
        found = asyncio.run_coroutine_threadsafe(answer(event), loop).result()
        if isinstance(found, Failure):
            raise ERRORS[found.error](found.cause)
        if isinstance(found, KeyboardInterrupt):
            raise found
        return found

    # Called by the garbage collector at any place of any thread, so it must wait for no lock.
    weakref.finalize(serve, loop.call_soon_threadsafe, loop.stop).atexit = False
    return serve


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until nobody can call the handler any more."""
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
