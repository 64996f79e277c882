"""Signals in group commits: what comes while a commit is under way shares the next one.

Invariant: whoever is told an answer is told it after the commit that made it true; one refused signal refuses no other.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from durable_core.errors import StoreError
from durable_core.stores.sqlite.writer import Writer


class _Letter(NamedTuple):
    """A signal to be left, and who waits for its fate."""

    run: int
    name: str
    payload: bytes
    now_ns: int
    ended: bool
    told: "asyncio.Future[bool]"


Answered = list[tuple[_Letter, bool | Exception]]
Transact = Callable[[str, Callable[[], Answered], int], Awaitable[Answered]]
"""Does what it is given in one transaction: what it is for, what to do, and how many rows that is about."""


class Signals:
    """The signals that one store leaves."""

    def __init__(self, transact: Transact, writer: Callable[[], Writer]) -> None:
        self._transact = transact
        self._writer = writer
        self._waiting: list[_Letter] = []
        self._carrying: asyncio.Task[None] | None = None

    async def leave(self, run: int, name: str, payload: bytes, *, now_ns: int, ended: bool) -> bool:
        """Leave a signal; durable on return. See ``Store.signal``."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(_Letter(run, name, payload, now_ns, ended, told))
        if self._carrying is None:
            self._carrying = loop.create_task(self._carry())
        return await told

    async def _carry(self) -> None:
        taken: list[_Letter] = []

        def write() -> Answered:
            # Only now: what came while this waited for its turn goes along.
            taken.extend(self._waiting)
            self._waiting.clear()
            return [(letter, self._write(letter)) for letter in taken]

        while self._waiting:
            doing = f"leave the signal {self._waiting[0].name!r}"
            try:
                answered = await self._transact(doing, write, len(self._waiting))
            except asyncio.CancelledError:  # from outside, with all tasks: nothing was left, and another one goes on
                self._waiting[:0] = taken
                self._carrying = asyncio.get_running_loop().create_task(self._carry())
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
                if not taken:  # no transaction was to be had
                    taken.extend(self._waiting)
                    self._waiting.clear()
                answered = [(letter, error) for letter in taken]
            taken.clear()
            for letter, answer in answered:
                _tell(letter.told, answer)
        self._carrying = None

    def _write(self, letter: _Letter) -> bool | StoreError:
        run, name, payload, now_ns, ended, _ = letter
        try:
            return self._writer().signal(run, name, payload, now_ns=now_ns, ended=ended)
        except StoreError as error:
            return error


def _tell(told: "asyncio.Future[bool]", answer: bool | Exception) -> None:  # noqa: FBT001 - what is told
    if told.done():
        return
    if isinstance(answer, Exception):
        told.set_exception(answer)
    else:
        told.set_result(answer)
