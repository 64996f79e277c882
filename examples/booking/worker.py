"""``python -m examples.booking.worker``: runs the trips' sagas until SIGTERM, including those of an earlier worker."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Annotated

import attrs
import typer

from examples.booking.clients import AirlineClient, CarsClient, HotelClient
from examples.booking.forms import SAGAS
from examples.participants import traces
from examples.participants.clients import PaymentsClient
from examples.participants.working import connection, work
from sagas import Orchestrator

PATIENCE_S = 30.0
NS = 1_000_000_000


@attrs.frozen
class AheadClock:
    """The machine's clock, moved ahead: a demo need not wait for a quarter of an hour to see it pass."""

    ahead_s: float

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return time.time_ns() + round(self.ahead_s * NS)  # noqa: TID251 - this is a Clock

    def call_at(self, at_ns: int, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call ``call`` at that time."""
        return asyncio.get_running_loop().call_later((at_ns - self.now_ns()) / NS, self._ring, at_ns, call)

    def attach(self, engine: object) -> None:
        """The machine's time passes by itself, whatever the worker does."""

    def detach(self, engine: object) -> None:
        """As ``attach``."""

    def _ring(self, at_ns: int, call: Callable[[], None]) -> None:
        if self.now_ns() < at_ns:
            self.call_at(at_ns, call)  # the loop's clock was a little early
        else:
            call()


def main(
    *,
    store: Annotated[str, typer.Option(help="Where the sagas are kept, such as sqlite:///trips.db.")],
    cars: Annotated[str, typer.Option(help="URL of the car rental.")],
    hotel: Annotated[str, typer.Option(help="URL of the hotel.")],
    airline: Annotated[str, typer.Option(help="URL of the airline.")],
    payments: Annotated[str, typer.Option(help="URL of the bank.")],
    patience: Annotated[float, typer.Option(help="Seconds to wait for an answer of the hotel.")] = PATIENCE_S,
    ahead: Annotated[float, typer.Option(help="Seconds by which this worker's clock is ahead.")] = 0,
    parent_fd: Annotated[int | None, typer.Option(help="Set by the launcher.", hidden=True)] = None,
) -> None:
    """Run trips until SIGTERM or Ctrl-C."""
    traces.begin("agency")
    asyncio.run(_work(store, (cars, hotel, airline, payments), patience, ahead, parent_fd))


async def _work(
    store: str, urls: tuple[str, str, str, str], patience: float, ahead: float, parent_fd: int | None
) -> None:
    async with AsyncExitStack() as stack:
        waits = (PATIENCE_S, patience, PATIENCE_S, PATIENCE_S)
        cars, hotel, airline, payments = [
            await stack.enter_async_context(connection(url, wait)) for url, wait in zip(urls, waits, strict=True)
        ]
        resources = [CarsClient(cars), HotelClient(hotel), AirlineClient(airline), PaymentsClient(payments)]
        clock = AheadClock(ahead) if ahead else None
        await work(Orchestrator(store, sagas=list(SAGAS.values()), resources=resources, clock=clock), parent_fd)


if __name__ == "__main__":
    typer.run(main)
