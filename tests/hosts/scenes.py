"""Sagas of the scenes: parties of the kit, whose calls are noted in a world outside."""

from typing import Any

from sagas import Retry, Saga, SagaCompensated, Unknown, lookup, pivot, resource, retriable, saga, step
from tests.kit import ONCE, Broken, Refused, World, party, point_of_no_return, watched

QUICK = Retry(attempts=3, first=0.2, jitter=False)

car, hotel, flight, bus = (party(name) for name in ("car", "hotel", "flight", "bus"))
patient = watched("patient", retry=QUICK)
probed = party("probed", settled_by="probe")
fenced = watched("fenced", undo="blind", at_most_once=True)
nailed = watched("nailed", undo="blind")
pay = point_of_no_return("pay")
stubborn = party("stubborn")


@retriable(name="ship", retry=Retry.forever(first=0.2, jitter=False))
async def ship(about: str, *, world: World = resource()) -> str:
    await world.act("ship", about)
    return about


@lookup(name="price")
async def price(about: str, *, world: World = resource()) -> int:
    await world.act("price", about)
    return 7


@saga("trip", version=1)
async def trip(s: Saga, who: str) -> list[str]:
    return [await s.run(car, who), await s.run(hotel, who), await s.run(bus, who), await s.run(flight, who)]


@saga("slow", version=1)
async def slow(s: Saga, who: str) -> str:
    await s.run(price, who)
    await s.run(patient)
    await s.sleep(3600)
    await s.run(pay, who)
    return await s.run(ship, who)


@saga("beside", version=1)
async def beside(s: Saga, who: str) -> None:
    async with s.parallel() as p:
        p.run(car, who)
        p.run(hotel, who)
    await s.run(flight, who)


@saga("asks", version=1)
async def asks(s: Saga, who: str) -> str:
    await s.run(car, who)
    asked = await s.callback("approval", int, timeout=60)
    return f"{await asked.result()} by {who}"


@saga("beats", version=1)
async def beats(s: Saga, who: str) -> str:
    await s.run(car, who)
    asked = await s.callback("approval", str, timeout=600, heartbeat=60)
    return await asked.result()


@step(name="hand_out", compensation=None, because="a token cannot be taken back")
async def hand_out(token: str, *, world: World = resource()) -> None:
    world.tokens.append(token)


@saga("hands_out", version=1)
async def hands_out(s: Saga, who: str) -> int:
    asked = await s.callback("approval", int, timeout=600)
    await s.run(hand_out, asked.token)
    return await asked.result()


@saga("doubts", version=1)
async def doubts(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.run(probed, who)
    await s.run(hotel, who)


@saga("whole", version=1)
async def whole(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.run(trip, who)
    await s.run(pay, who)


@saga("tolerant", version=1)
async def tolerant(s: Saga, who: str) -> str:
    await s.run(car, who)
    try:
        await s.run(trip, who)
    except SagaCompensated:
        return "by car"
    return "by plane"


@saga("second_best", version=1)
async def second_best(s: Saga, who: str) -> str:
    await s.run(car, who)
    try:
        async with s.savepoint("best"):
            await s.run(hotel, who)
            await s.run(flight, who)
    except Refused:
        return "by car"
    return "by plane"


@saga("hurried", version=1, deadline=10)
async def hurried(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.sleep(100)
    await s.run(hotel, who)


@saga("nails", version=1)
async def nails(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.run(nailed)


@saga("unsettled", version=1)
async def unsettled(s: Saga, who: str) -> str:
    await s.run(car, who)
    return await s.run(stubborn, who)


@saga("past", version=1)
async def past(s: Saga, who: str) -> str:
    await s.run(car, who)
    await s.run(pay, who)
    await s.run(price, who)
    return "done"


@saga("careful", version=1)
async def careful(s: Saga, who: str) -> None:
    await s.run(car, who)
    await s.run(fenced)
    await s.run(hotel, who)


ALL: list[Any] = [
    trip, slow, beside, asks, beats, hands_out, doubts, whole, tolerant, second_best, hurried, nails, unsettled, past,
    careful,
]  # fmt: skip
__all__ = ["ALL", "ONCE", "Broken", "Unknown", "pivot"]
