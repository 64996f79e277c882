"""Workers and relays of an outbox are killed at every point; each entry has its effect once, and in its order."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sagas import Orchestrator, SagaStatus
from tests import forked
from tests.crash.outbox_victim import Effects, written
from tests.kit import until
from tests.outboxes import Shop, address, held, shop_at, soon
from tests.postgres_server import Server

ROOT = Path(__file__).parents[2]
IDS = [f"order-{number}" for number in range(6)]
POINTS = [
    f"{side}:{name}"
    for name in ("look:2", "take:1", "read:1", "hand_on:2", "settle:1", "settle:2")
    for side in ("before", "after")
]
pytestmark = pytest.mark.slow


class Place:
    """An outbox, a store, and the file of effects, of one test."""

    def __init__(self, kind: str, folder: Path, server: Server | None) -> None:
        def running() -> Server:
            assert server is not None
            return server

        self.outbox = address(kind, folder, running)
        self.store = f"sqlite:///{folder}/sagas.db" if server is None else server.fresh()
        self.effects = Effects(folder / "effects")

    @contextmanager
    def process(self, role: str, point: str = "") -> "Iterator[subprocess.Popen[str]]":
        """A process that hands on, until it dies."""
        arguments = [self.outbox, self.store, str(self.effects.path), role, point]
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        process = forked.Process(
            [sys.executable, "-m", "tests.crash.outbox_victim", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    async def fill(self, shop: Shop) -> None:
        """Three transactions, each with two sagas of which one is cancelled by a fourth."""
        for first, second in zip(IDS[::2], IDS[1::2], strict=True):
            await shop.commit(
                lambda session, i=first: shop.outbox.start(session, written, id=i),
                lambda session, i=second: shop.outbox.start(session, held, "x", id=i),
                lambda session, i=second: shop.outbox.cancel(session, i),
            )

    async def finished(self, shop: Shop) -> None:
        """Another worker does what is left; every entry has had its effect once."""
        resources = [self.effects]
        async with Orchestrator(
            self.store, sagas=[written, held], resources=resources, outboxes=[shop.outbox], lease=1
        ) as running:
            await soon(shop.empty)
            await soon(lambda: _ended(running))
            assert {info.id: info.status for info in await running.list()} == {
                **dict.fromkeys(IDS[::2], SagaStatus.COMPLETED),
                **dict.fromkeys(IDS[1::2], SagaStatus.COMPENSATED),
            }
        assert await shop.refused() == []
        assert {saga_id: len(keys) for saga_id, keys in self.effects.keys().items()} == dict.fromkeys(IDS[::2], 1)


async def _ended(running: Orchestrator) -> bool:
    return all([await running.count(status=status) == 3 for status in ("completed", "compensated")])


@pytest.mark.parametrize(
    ("role", "point"),
    [*(("worker", point) for point in POINTS), ("relay", "after:hand_on:2"), ("relay", "after:take:1")],
)
def test_killed_at_a_point(role: str, point: str, tmp_path: Path):
    """Before and after each question to the outbox and each hand-on, of a worker and of a relay, on files."""

    async def main() -> None:
        place = Place("sqlite", tmp_path, None)
        async with shop_at(place.outbox) as shop:
            await place.fill(shop)
            with place.process(role, point) as process:
                assert await asyncio.to_thread(process.wait, 60) == -signal.SIGKILL
            await place.finished(shop)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["sqlite", "asyncpg", "psycopg"])
def test_several_relays_killed_one_after_the_other(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    """Three processes hand on at once, and are killed while entries come in; the last one's heir ends it."""
    server: Server | None = None if kind == "sqlite" else request.getfixturevalue("server")

    async def main() -> None:
        place = Place(kind, tmp_path, server)
        async with shop_at(place.outbox) as shop:
            with (
                place.process("worker") as one,
                place.process("relay", "after:hand_on:2") as two,
                place.process("relay", "before:settle:2") as three,
            ):
                for process in (one, two, three):
                    assert process.stdout is not None
                    assert (await asyncio.to_thread(process.stdout.readline)).strip() == "ready"
                filling = asyncio.create_task(place.fill(shop))
                await until(lambda: any(each.poll() is not None for each in (two, three)) or filling.done())
                one.kill()
                await filling
            await place.finished(shop)

    asyncio.run(main())


@pytest.mark.parametrize("point", ["stop:hand_on:1", "stop:read:1", "stop:settle:1"])
def test_a_relay_that_was_held_up_does_no_harm(point: str, tmp_path: Path):
    """One that is stopped while it hands on, and goes on when another has done all of it, has no effect any more."""

    async def main() -> None:
        place = Place("sqlite", tmp_path, None)
        async with shop_at(place.outbox) as shop:
            await place.fill(shop)
            with place.process("relay", point) as process:
                await asyncio.to_thread(os.waitpid, process.pid, os.WUNTRACED)
                await place.finished(shop)
                process.send_signal(signal.SIGCONT)
                assert process.stdout is not None
                lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(2)]
                assert lines == ["ready\n", "went on\n"]
                await shop.commit(lambda session: shop.outbox.cancel(session, IDS[1]))
                await soon(shop.empty)  # by that relay, or a later turn of it
            await place.finished(shop)

    asyncio.run(main())
