"""A thread of its own for work that may block for long, and that nobody waits for at the end of the process."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

BREATH, DEEP_BREATH = 25, 500
"""Pieces of work, some microseconds each, after which others get their turn: when there are few of them, and many."""
MANY = 400
PAUSE_S = 5e-5


def breathing(items: Sequence[T]) -> Iterator[T]:
    """``items``, with pauses: a thread that computes without one keeps the event loop waiting 5 ms for the interpreter.

    Measured with sagas one after another: their slowest hundredth took 12 ms without pauses, 7 with, 4 untraced. Where
    much has piled up, a turn of the loop is long anyway, and frequent pauses took a tenth of an exporter's CPU.
    """
    every = BREATH if len(items) < MANY else DEEP_BREATH
    for start in range(0, len(items), every):
        if start:
            time.sleep(PAUSE_S)
        yield from items[start : start + every]


class ExportThread:
    """Does one thing after the other, off the event loop.

    The thread is a daemon: an exporter that hangs must not keep a process from ending, as those of an executor would.
    """

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def do(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Have ``call`` made on the thread; its result or exception comes back on the running loop."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(value)
            else:
                answer.set_exception(error)

        def work() -> None:
            value: Any = None
            failure: BaseException | None = None
            try:
                value = call()
            except BaseException as error:  # noqa: BLE001 - raised in the caller
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile: nobody waits
                loop.call_soon_threadsafe(settle, value, failure)

        self._work.put(work)
        return answer

    def stop(self) -> None:
        """End the thread once what was asked for is done; does not wait for it."""
        self._work.put(None)
