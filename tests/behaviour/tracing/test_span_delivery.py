"""What becomes of spans that a collector refuses or takes: apart until one is to blame, or waited with."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import pytest

from durable_core.tracing import delivery
from durable_core.tracing.answers import Accepted, Answer, Later, Refused
from durable_core.tracing.delivery import MOST_OFFERS, REQUEST, Delivery, Tally
from durable_core.tracing.export_thread import ExportThread
from durable_core.tracing.span import SpanRecord


class Sink:
    """Answers as a function of what it is offered."""

    def __init__(self, answer: Callable[[Sequence[SpanRecord]], Answer]) -> None:
        self._answer = answer
        self.taken: list[str] = []
        self.offers = 0

    def send(self, spans: Sequence[SpanRecord]) -> Answer:
        self.offers += 1
        answer = self._answer(spans)
        if isinstance(answer, Accepted):
            self.taken += [span.name for span in spans]
        return answer


def made(count: int) -> list[SpanRecord]:
    return [SpanRecord(f"span-{place}", 1, place + 1, None, 3, 4, {"saga.id": "ord-1"}) for place in range(count)]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made; they take no time."""
    found: list[float] = []
    real = asyncio.sleep

    async def sleep(delay_s: float) -> None:
        found.append(delay_s)
        await real(0)

    monkeypatch.setattr(delivery.asyncio, "sleep", sleep)
    return found


def brought(sink: Sink, count: int) -> Tally:
    async def main() -> Tally:
        hand, tally = ExportThread("test"), Tally()
        try:
            await Delivery(sink, hand, tally).bring(made(count))
        finally:
            hand.stop()
        return tally

    return asyncio.run(main())


def blaming(*bad: str, certain: bool = True) -> Callable[[Sequence[SpanRecord]], Answer]:
    """Refuses whatever holds one of these."""
    return lambda spans: Refused("no", certain) if {span.name for span in spans} & set(bad) else Accepted()


def test_only_what_is_refused_is_dropped(waits: list[float], caplog: pytest.LogCaptureFixture):
    """Of 1,200 spans three are refused: the other 1,197 arrive once, in order; it is told once, with saga and span."""
    bad = {"span-0", "span-700", "span-701"}
    sink = Sink(blaming(*bad))
    tally = brought(sink, 1_200)
    assert sink.taken == [span.name for span in made(1_200) if span.name not in bad]
    assert (tally.sent, tally.dropped) == (1_197, 3)
    assert sink.offers < 60, "halving, not one by one"
    (told,) = [record.getMessage() for record in caplog.records if "for good" in record.getMessage()]
    assert "'span-0' (saga.id=ord-1)" in told
    assert not waits


def test_a_doubtful_refusal_is_waited_out_for_a_minute_and_a_half(waits: list[float]):
    """500 again and again: the request is offered with growing pauses, and only then are its spans tried apart."""
    sink = Sink(blaming("span-3", certain=False))
    tally = brought(sink, 8)
    assert tally.dropped == 1
    assert len(sink.taken) == 7
    assert waits[: MOST_OFFERS - 1] == [0.5, 1, 2, 4, 8, 16, 30]
    assert sum(waits) > 60


@pytest.mark.parametrize("answer", [Refused("500", certain=False), Later("no route"), Later("busy", 3.0)])
def test_trouble_of_the_collector_costs_no_span(answer: Answer, waits: list[float], caplog: pytest.LogCaptureFixture):
    """A collector in trouble for a minute gets every span once it is well; it is told once, not at each offer."""
    caplog.set_level(logging.INFO)

    def answered(_spans: Sequence[SpanRecord]) -> Answer:
        return Accepted() if sum(waits) > 60 else answer

    tally = brought(Sink(answered), REQUEST + 1)
    assert (tally.sent, tally.dropped) == (REQUEST + 1, 0)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    if isinstance(answer, Later) and answer.after_s:
        assert set(waits) == {3.0}, "as it asked for"


def test_what_refuses_everything_costs_little(waits: list[float]):
    """An endpoint that answers all with 400 costs a span each half minute once it is plain that it takes nothing."""
    sink = Sink(lambda _: Accepted() if sum(waits) > 3_600 else Refused("400", certain=True))
    tally = brought(sink, REQUEST)
    assert 60 < tally.dropped < 140
    assert tally.sent == REQUEST - tally.dropped


def test_a_part_that_is_not_kept_is_counted_and_not_sent_again(waits: list[float], caplog: pytest.LogCaptureFixture):
    """A partial success is a success: OTLP forbids sending it again. What it leaves out is counted and told."""
    sink = Sink(lambda spans: Accepted(2, "attributes too long"))
    tally = brought(sink, 10)
    assert (tally.sent, tally.dropped, sink.offers) == (8, 2, 1)
    assert "attributes too long" in caplog.text
