"""A saga that an outbox starts is linked to the span in which its request was added, whichever relay hands it on."""

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from durable_core.layer import Measure, Tracing, called_by, caller
from sagas import Orchestrator
from sagas.model.spans import OUTBOX
from sagas.outbox.serving import gauge_of
from tests.outboxes import hand_on, order, shop_at

PROVIDER = TracerProvider(shutdown_on_exit=False)
TRACER = PROVIDER.get_tracer("front")


@pytest.mark.parametrize("traced", [True, False])
async def test_a_saga_is_linked_to_the_span_of_its_request(any_url: str, *, traced: bool):
    """The caller's span is the one at ``outbox.start``, not that of the relay; a relay need not trace itself."""
    options: dict[str, Any] = {"tracer_provider": PROVIDER} if traced else {}
    async with shop_at(any_url) as shop, shop.opened() as session:
        with TRACER.start_as_current_span("request") as span:
            shop.outbox.start(session, order, "tea", id="linked")
            shop.outbox.start(session, order, "tea", id="joined", trace="join")
        shop.outbox.start(session, order, "tea", id="alone")
        answer = session.commit()
        if answer is not None:
            await answer
        with TRACER.start_as_current_span("the relay's own"):
            async with Orchestrator("memory://", worker=False, **options) as running:
                await hand_on(shop, running)
                found = {record.id: record.traceparent for record in await running.engine.store.runs.find(IDS)}
        context = span.get_span_context()
        stored = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
        assert found == {"linked": f"link:{stored}", "joined": f"join:{stored}", "alone": None}


IDS = ["linked", "joined", "alone"]


def test_the_span_of_a_caller_survives_as_text():
    """Within ``called_by`` the stored span is the current one; without one, or with nonsense, none is."""
    with TRACER.start_as_current_span("request"):
        stored = caller()
        assert stored is not None
        for nothing in (None, "", "nonsense"):
            with called_by(nothing):
                assert caller() is None
        assert caller() == stored
    assert caller() is None
    with called_by(stored):
        assert caller() == stored
        assert trace.get_current_span().get_span_context().is_remote
    unsampled = f"{stored[:-2]}00"
    with called_by(unsampled):
        assert caller() == unsampled


async def test_a_relay_measures_its_outbox(any_url: str):
    """What waits, for how long, and what was refused are gauges, under the names that the page of spans lists."""
    found: list[Measure] = []

    class Meters:
        def record(self, measure: Measure) -> None:
            found.append(measure)

    async with shop_at(any_url) as shop, Orchestrator("memory://", worker=False) as running:
        assert gauge_of(running.engine) is None
        running.engine.tracing = Tracing(None, None, meters=Meters())
        await shop.commit(lambda session: shop.outbox.cancel(session, "nobody"))
        await hand_on(shop, running)
        await hand_on(shop, running)
    measures = [(each.name, each.value > 0) for each in found]
    names = [metric.name for metric in OUTBOX]
    assert measures == [*zip(names, (True, True, False), strict=True), *zip(names, (False, False, True), strict=True)]
    assert all(not each.attributes for each in found)
