import asyncio

from sagas import Orchestrator, Retry, Saga, SagaCompensated, current, pivot, retriable, saga, step


class CardDeclined(Exception):
    """The bank's answer is no."""


class Unreachable(Exception):
    """Nobody answered the phone, so nothing was sent."""


CREDIT = 40


@step
def reserve(item: str) -> str:
    print("warehouse: reserve the", item)
    return f"{item} from shelf 7"


@reserve.compensate
def put_back(reserved: str) -> None:
    print("warehouse: put back the", reserved)


@step(retry=Retry(attempts=3, first=0.1))
def book_courier(item: str) -> str:
    if current().attempt == 1:
        print("courier: no answer")
        raise Unreachable
    print("courier: booked for the", item)
    return "booking 5"


@book_courier.compensate
def cancel_courier(booking: str) -> None:
    print("courier: cancel", booking)


@pivot(rejects=(CardDeclined,))
def charge(amount: int) -> str:
    if amount > CREDIT:
        print("bank: no cover for", amount)
        raise CardDeclined(f"no cover for {amount}")
    print("bank: charge", amount)
    return f"receipt for {amount}"


@retriable
def ship(reserved: str, booking: str) -> str:
    print("courier: ship the", reserved)
    return "parcel 1"


@saga("place-order", version=2)
async def place_order(s: Saga, item: str, amount: int) -> str:
    reserved = await s.run(reserve, item)
    booking = await s.run(book_courier, item)
    receipt = await s.run(charge, amount)
    parcel = await s.run(ship, reserved, booking)
    return f"{parcel}, {receipt}"


async def main() -> None:
    async with Orchestrator("sqlite:///shop.db", sagas=[place_order]) as orchestrator:
        order = await orchestrator.start(place_order, "samovar", 90, id="order-2")
        try:
            print(await order.result())
        except SagaCompensated as end:
            print("undone:", ", ".join(end.compensated))
            print("because of", repr(end.__cause__))


if __name__ == "__main__":
    asyncio.run(main())
