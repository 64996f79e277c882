import asyncio
import os
import time
from pathlib import Path

from sagas import Orchestrator, Saga, current, pivot, retriable, saga, step

BANK = Path("bank.txt")  # the bank's own book: one line for each idempotency key


@step
def reserve(item: str) -> str:
    print("warehouse: reserve the", item)
    return f"{item} from shelf 7"


@reserve.compensate
def put_back(reserved: str) -> None:
    print("warehouse: put back the", reserved)


@pivot
def charge(amount: int) -> str:
    key = current().idempotency_key
    book = BANK.read_text().splitlines() if BANK.exists() else []
    if key in book:
        print("bank: this key was charged before, so here is the same receipt")
        return f"receipt for {amount}"
    BANK.write_text("\n".join([*book, key]))
    print(f"bank: charged {amount}, and the answer takes a minute: kill -9 {os.getpid()}", flush=True)
    time.sleep(60)
    return f"receipt for {amount}"


@retriable
def ship(reserved: str) -> str:
    print("courier: ship the", reserved)
    return "parcel 1"


@saga("place-order", version=3)
async def place_order(s: Saga, item: str, amount: int) -> str:
    reserved = await s.run(reserve, item)
    receipt = await s.run(charge, amount)
    parcel = await s.run(ship, reserved)
    return f"{parcel}, {receipt}"


async def main() -> None:
    async with Orchestrator("sqlite:///shop.db", sagas=[place_order]) as orchestrator:
        order = await orchestrator.start(place_order, "teapot", 30, id="order-3")
        print(await order.result())


if __name__ == "__main__":
    asyncio.run(main())
    print("lines in the bank's book:", len(BANK.read_text().splitlines()))
