"""Brings spans to a sink: all of them, in their order, each until it is taken or refused for good.

A request that is refused for what is in it is halved until the span that is to blame is alone; that one is dropped, and
the others arrive. Trouble of the collector drops nothing, and is waited for.

Invariant: while a collector takes nothing at all, a span is dropped at most every ``LONGEST_DELAY_S``: a wrong endpoint
that answers everything with 400 must not empty the journal of its spans.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

import attrs

from durable_core.tracing.answers import Accepted, Answer, Later, Refused, SpanSink
from durable_core.tracing.export_thread import ExportThread
from durable_core.tracing.span import SpanRecord

log = logging.getLogger("durable_core.tracing")

REQUEST = 500
"""Spans of one request: collectors refuse what is too long, and stack traces are. A provider's queue holds as many."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
"""How long to wait before the same spans are offered again."""
MOST_OFFERS = 8
"""How often a request is offered that is refused for who knows what, such as with 500: for a minute and a half. Then
its spans are tried apart."""

TROUBLED_S, SILENT_S, LEAVING_DELAY_S = 1.0, 3.0, 0.2
"""How long leaving goes on with a sink that has refused what it was offered last, and with one that does not answer;
and how long it waits between two offers."""
IN_A_ROW = 12
"""More refusals than it takes to halve a request down to one span: then nothing at all is taken, it seems."""


@attrs.define
class Tally:
    """What an exporter has done so far."""

    sent: int = 0
    """Spans that the sink has taken."""
    refused: int = 0
    """How often a request was not taken."""
    dropped: int = 0
    """Spans that the collector will not take; ``sagas trace send`` offers a saga's again."""
    broken: int = 0
    """Runs whose journal could not be shown in spans, and that are left out from there on."""
    owing: bool = False
    """Whether the process was left before all spans were taken: the next one that exports sends the rest."""


class Delivery:
    """One sink, and how it has answered so far."""

    def __init__(self, sink: SpanSink, hand: ExportThread, tally: Tally) -> None:
        self._sink = sink
        self._hand = hand
        self._tally = tally
        self._fruitless = 0
        """How often something was refused since anything was taken."""
        self._troubled = False
        """Whether that was reported."""
        self._leaving = False
        self._sleeping: asyncio.Future[None] | None = None
        """What it waits by until it offers something again."""
        self._heard_s = 0.0
        """When the sink took something last, or was to be left, by the loop's clock."""

    def leave(self) -> None:
        """Nothing is worth waiting for any more: what waits to be offered again is offered at once."""
        self._heard_s = asyncio.get_running_loop().time()
        self._leaving = True
        if self._sleeping is not None:
            self._sleeping.cancel()

    def hopeless_at_s(self) -> float:
        """When leaving gives the sink up, by the loop's clock: soon where it takes nothing, or does not answer."""
        return self._heard_s + (TROUBLED_S if self._fruitless else SILENT_S)

    async def bring(self, spans: Sequence[SpanRecord]) -> None:
        """Offer them until each is settled."""
        for place in range(0, len(spans), REQUEST):
            await self._request(spans[place : place + REQUEST], offers=MOST_OFFERS)

    async def _request(self, spans: Sequence[SpanRecord], *, offers: int) -> None:
        """One request, and what becomes of it. ``offers``: how often until a doubtful refusal counts."""
        while True:
            answer = await self._offered(spans)
            match answer:
                case Accepted():
                    return
                case Refused(certain=certain) if certain or offers <= 1:
                    await self._apart(spans, answer)
                    return
                case Refused():
                    offers -= not self._leaving  # offered in haste, it is refused in haste: not for good
                    await self._wait(answer.why)
                case Later(after_s=after_s):
                    await self._wait(answer.why, after_s)

    async def _offered(self, spans: Sequence[SpanRecord]) -> Answer:
        answer = await self._hand.do(partial(self._sink.send, spans))
        tally = self._tally
        if isinstance(answer, Accepted):
            if self._troubled:
                log.info("spans are taken again")
            self._fruitless, self._troubled = 0, False
            self._heard_s = asyncio.get_running_loop().time()
            tally.sent += len(spans) - answer.rejected
            if answer.rejected:
                self._drop(answer.rejected, "the collector has kept only a part of a request", answer.why)
            return answer
        self._fruitless += 1
        tally.refused += 1
        return answer

    async def _apart(self, spans: Sequence[SpanRecord], refused: Refused) -> None:
        """Refused for what is in it: offer its halves, and drop what is refused alone."""
        half = len(spans) // 2
        if half:
            await self._request(spans[:half], offers=1)
            await self._request(spans[half:], offers=1)
            return
        for span in spans:
            ids = ", ".join(f"{name}={value}" for name, value in span.attributes.items() if name.endswith(".id"))
            self._drop(1, f"span {span.name[:100]!r} ({ids})", refused.why)
        if self._fruitless > IN_A_ROW:
            await self._wait(refused.why)

    def _drop(self, count: int, what: str, why: str) -> None:
        """Count it; reported in full the first time only, for a collector that refuses one often refuses many."""
        if not self._tally.dropped:
            log.warning(
                "%s is refused for good and left out: %s. Further ones are counted, and reported at the end; `sagas "
                "trace send ID` offers a saga's spans again",
                what,
                why or "it does not say why",
            )
        self._tally.dropped += count

    async def _wait(self, why: str, after_s: float | None = None) -> None:
        if not self._troubled:
            self._troubled = True
            log.warning("spans are not taken: %s; they stay in the journal and are offered again until they are", why)
        doubled = FIRST_DELAY_S * 2 ** min(max(self._fruitless - 1, 0), 16)
        delay_s = min(doubled, LONGEST_DELAY_S) if after_s is None else after_s
        sleeping = asyncio.ensure_future(asyncio.sleep(min(delay_s, LEAVING_DELAY_S) if self._leaving else delay_s))
        self._sleeping = sleeping
        try:
            await asyncio.wait((sleeping,))
        finally:
            sleeping.cancel()
