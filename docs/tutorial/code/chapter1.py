import asyncio

from sagas import Orchestrator, Saga, pivot, retriable, saga, step


@step
def reserve(item: str) -> str:
    print("warehouse: reserve the", item)
    return f"{item} from shelf 7"


@reserve.compensate
def put_back(reserved: str) -> None:
    print("warehouse: put back the", reserved)


@pivot
def charge(amount: int) -> str:
    print("bank: charge", amount)
    return f"receipt for {amount}"


@retriable
def ship(reserved: str) -> str:
    print("courier: ship the", reserved)
    return "parcel 1"


@saga("place-order", version=1)
async def place_order(s: Saga, item: str, amount: int) -> str:
    reserved = await s.run(reserve, item)
    receipt = await s.run(charge, amount)
    parcel = await s.run(ship, reserved)
    return f"{parcel}, {receipt}"


async def main() -> None:
    async with Orchestrator("sqlite:///shop.db", sagas=[place_order]) as orchestrator:
        order = await orchestrator.start(place_order, "teapot", 30, id="order-1")
        print(await order.result())


if __name__ == "__main__":
    asyncio.run(main())
