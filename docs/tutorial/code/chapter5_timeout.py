import asyncio
from datetime import timedelta

from chapter5 import big_order

from sagas import Orchestrator, SagaCompensated
from sagas.testing import ManualClock


async def main() -> None:
    clock = ManualClock()
    async with Orchestrator("memory://", sagas=[big_order], clock=clock) as orchestrator:
        order = await orchestrator.start(big_order, "samovar", 900, id="order-7")
        await clock.advance(timedelta(days=1))
        print("after a day:", await order.status())
        await clock.advance(timedelta(days=1))
        print("after two days:", await order.status())
        try:
            await order.result()
        except SagaCompensated as end:
            print("because of", type(end.__cause__).__name__)


asyncio.run(main())
