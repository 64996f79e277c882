"""A worker that loses its lease while it is traced: others export what it owes, and it goes on under another name."""

import asyncio
from pathlib import Path

import pytest

from durable_core import StoreError
from durable_core.stores.postgres.store import PostgresStore
from durable_core.tracing import exporter as exporting
from sagas import Orchestrator, SagaHandle
from tests.collecting import assert_sound, collecting, debts_paid, expected
from tests.crash.fleet import opened
from tests.crash.victim import Outside, order, waiting
from tests.kit import End, end_of, until
from tests.postgres_server import Server, expire

pytestmark = pytest.mark.slow


def store_of(running: Orchestrator) -> PostgresStore:
    """Its store."""
    assert isinstance(running.engine.store, PostgresStore)
    return running.engine.store


async def begun_meanwhile(running: Orchestrator, name: str) -> list[SagaHandle[int]]:
    """Start orders until its worker has another name than this, and 20 at least."""
    begun: list[SagaHandle[int]] = []
    while running.engine.name == name or len(begun) < 20:
        number = len(begun)
        try:
            handle: SagaHandle[int] = await running.start(order, number, id=f"o{number}")
        except StoreError as error:
            if not error.transient:
                raise  # else it has met the loss
        else:
            begun.append(handle)
    return begun


@pytest.mark.parametrize("met_by", ["a commit", "the search for work"])
def test_no_span_is_lost_or_differs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, met_by: str):
    """Each saga has exactly its journal's spans: amid the loss, begun while it is mended, and later."""
    monkeypatch.setattr(exporting, "DEBTS_S", 0.05)
    outside, url = Outside(tmp_path), server.fresh()

    async def main() -> None:
        (ours, taken), (theirs, taken_there) = collecting(), collecting()
        taken.taken = taken_there.taken  # one collector, to which both send
        async with (
            opened(url, outside, tracer_provider=ours) as first,
            opened(url, outside, tracer_provider=theirs) as second,
        ):
            handles = [await first.start(waiting, number, id=f"w{number}") for number in range(8)]

            async def in_step() -> bool:
                return sum(call.step == "wait" for call in outside.calls()) >= 8

            await until(in_step, first)
            name, start = first.engine.name, store_of(first).spans.start

            async def start_late(worker: str) -> int:
                await asyncio.sleep(0.3)  # so that much could be written meanwhile
                return await start(worker)

            monkeypatch.setattr(store_of(first).spans, "start", start_late)
            expire(store_of(first))
            assert await store_of(second).claims.release_dead() >= 8
            if met_by == "the search for work":
                lease = store_of(first)._membership.lease
                assert lease is not None
                lease.lost = True  # as its thread finds when it renews

                async def renamed() -> bool:
                    return first.engine.name != name

                await until(renamed, first)
            begun = await begun_meanwhile(first, name)
            (tmp_path / "go").touch()
            for number, handle in enumerate(begun):
                assert await end_of(handle, first) == End("completed", 3 * number)
            for number, handle in enumerate(handles):
                assert await end_of(handle, first) == End("completed", 2 * number)
            await second.__aexit__(None, None, None)
            await debts_paid(first)
            want = [await expected(first, handle.id) for handle in [*handles, *begun]]
            await first.__aexit__(None, None, None)  # it sends what is left
            for spans in want:
                trace = spans[0].trace_id
                assert_sound([span for span in taken.taken if span.context and span.context.trace_id == trace], spans)
            await first.__aenter__()
            await second.__aenter__()

    asyncio.run(main())
