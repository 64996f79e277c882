"""A process that hands an outbox on, and kills itself with SIGKILL at a point that it was told.

``python -m tests.crash.outbox_victim OUTBOX STORE EFFECTS ROLE POINT``, where ROLE is ``worker`` or ``relay`` and POINT
is ``before:read:1``: right before the first time that entries are read. At ``stop:hand_on:1`` it is stopped instead,
and says so when it goes on.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sagas import Orchestrator, Saga, current, resource, saga, step
from sagas.outbox.hand import ClientHand
from sagas.outbox.serving import DatabaseRows, OutboxRelay
from tests.outboxes import held, shop_at


class Effects:
    """A file with a line for each call of a step: what lies outside of every database."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self) -> None:
        """One line, in one write."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{current().saga_id} {current().idempotency_key}\n")

    def keys(self) -> dict[str, set[str]]:
        """The idempotency keys by saga."""
        found: dict[str, set[str]] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                saga_id, _, key = line.partition(" ")
                found.setdefault(saga_id, set()).add(key)
        return found


@step(compensation=None, because="a line in a file stays")
async def write(*, effects: Effects = resource()) -> None:
    effects.add()


@saga("written", version=1)
async def written(s: Saga) -> None:
    await s.run(write)


def die_at(point: str) -> None:
    """Have this process killed there."""
    side, name, count = point.split(":")
    cls: type[Any] = ClientHand if name == "hand_on" else DatabaseRows
    method: Callable[..., Awaitable[Any]] = getattr(cls, name)
    calls: Counter[str] = Counter()

    async def dying(*args: Any) -> Any:
        calls[name] += 1
        now = calls[name] == int(count)
        if now and side != "after":
            os.kill(os.getpid(), signal.SIGSTOP if side == "stop" else signal.SIGKILL)
        answer = await method(*args)
        if now and side == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        if now:
            print("went on", flush=True)
        return answer

    setattr(cls, name, dying)


async def main(outbox: str, store: str, effects: str, role: str) -> None:
    """Hand on for ever."""
    async with shop_at(outbox) as shop:
        options: dict[str, Any] = {"sagas": [written, held], "resources": [Effects(Path(effects))]}
        if role == "worker":
            async with Orchestrator(store, outboxes=[shop.outbox], **options):
                print("ready", flush=True)
                await asyncio.Event().wait()
        async with Orchestrator(store, worker=False) as running:
            relay = OutboxRelay(shop.outbox, running.client)
            relay.begin()
            print("ready", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    *where, told = sys.argv[1:]
    if told:
        die_at(told)
    asyncio.run(main(*where))
