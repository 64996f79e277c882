import asyncio
import sys

from sagas import DidNotHappen, Happened, Orchestrator, Saga, SagaStuck, current, saga, step

payments: dict[str, int] = {}  # the bank's book, by idempotency key


@step
def reserve(item: str) -> str:
    return f"{item} from shelf 7"


@reserve.compensate
def put_back(reserved: str) -> None:
    print("warehouse: put back the", reserved)


@step
def charge(amount: int) -> int:
    payments[current().idempotency_key] = amount
    print("bank: charged", amount)
    raise TimeoutError("the bank's answer was lost")


@charge.compensate
def refund(charged: int) -> None:
    print("bank: refund", charged)


if "--probe" in sys.argv:

    @charge.probe
    def find_charge(amount: int) -> Happened[int] | DidNotHappen:
        found = payments.get(str(current().forward_key))
        print("bank: asked for the payment, found", found)
        return DidNotHappen() if found is None else Happened(found)


@saga("place-order", version=4)
async def place_order(s: Saga, item: str, amount: int) -> str:
    await s.run(reserve, item)
    charged = await s.run(charge, amount)
    return f"charged {charged}"


async def main() -> None:
    async with Orchestrator("sqlite:///shop.db", sagas=[place_order]) as orchestrator:
        id = "order-4b" if "--probe" in sys.argv else "order-4a"
        order = await orchestrator.start(place_order, "teapot", 30, id=id)
        try:
            print(await order.result())
        except SagaStuck as stuck:
            print("stuck on:", ", ".join(stuck.steps))


if __name__ == "__main__":
    asyncio.run(main())
