"""The sagas whose runs are in ``format-1.sql``: what a release of stored format 1 left when its process was killed."""

import sqlite3
from pathlib import Path

from sagas import Orchestrator, Saga, step
from sagas import saga as declare


@step(compensation=None, because="a test")
async def pack(item: str) -> str:
    """In the first release ``slow`` hung until the process was killed."""
    return f"{item} packed"


@declare("order", version=1)
async def order(s: Saga, item: str) -> str:
    """One step."""
    return await s.run(pack, item)


@declare("ask", version=1)
async def ask(s: Saga, item: str) -> str:
    """A step and an answer from outside."""
    packed = await s.run(pack, item)
    approval = await s.callback("approval", str)
    return f"{packed}, {await approval.result()}"


def old_file(path: Path) -> None:
    """A file of stored format 1, as a killed process of that release left it."""
    connection = sqlite3.connect(path)
    connection.executescript(Path(__file__).with_name("format-1.sql").read_text(encoding="utf-8"))
    connection.close()


async def goes_on(url: str) -> None:
    """What was left goes on to its end in the upgraded store, and a new saga is found by its tag."""
    async with Orchestrator(url, sagas=[order, ask]) as orchestrator:
        assert await (await orchestrator.get("in-flight")).result() == "slow packed"
        await orchestrator.complete_callback(saga_id="waiting", name="approval", value="yes")
        assert await (await orchestrator.get("waiting")).result() == "tea packed, yes"
        handle = await orchestrator.start(order, "new", id="new", tags={"customer": "42"})
        assert await handle.result() == "new packed"
        assert [info.id for info in await orchestrator.list(tags={"customer": "42"})] == ["new"]
        assert await orchestrator.count(status="completed") == 4
