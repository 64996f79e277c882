"""What a body logs before its start is durable: said once that is so, and never for a start that finds its run."""

import asyncio
import logging

import pytest

from sagas import Saga, lookup, saga
from tests.kit import Place, World


@lookup
async def look() -> int:
    return 1


@saga("talker", version=1)
async def talker(s: Saga, about: str) -> int:
    s.log.warning("begins with %s", about)
    try:
        int(about)
    except ValueError:
        s.log.exception("caught")
    found = await s.run(look)
    s.log.warning("found %s", found)
    return found


def test_a_start_that_finds_its_run_logs_nothing(place: Place, caplog: pytest.LogCaptureFixture):
    """Each line is logged once, with its place and its exception, however often the same saga is started."""

    async def main() -> None:
        async with place.orchestrator(talker, world=World()) as running:
            first = await running.start(talker, "tea", id="one")
            assert await first.result(timeout=20) == 1
            for _ in range(3):
                again = await running.start(talker, "tea", id="one")
                assert await again.result(timeout=20) == 1

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    said = [record for record in caplog.records if record.name.startswith("durable_core.run")]
    assert [record.getMessage() for record in said] == ["begins with tea", "caught", "found 1"]
    assert {record.filename for record in said} == {"test_log_of_a_start.py"}
    assert {record.funcName for record in said} == {"talker"}
    assert said[1].exc_info is not None
    assert said[1].exc_info[0] is ValueError
    first = talker.body.__code__.co_firstlineno
    assert [record.lineno - first for record in said] == [2, 6, 8]
