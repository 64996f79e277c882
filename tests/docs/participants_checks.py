"""Checks of the page about participants, run as a program where its module ``bank`` is.

The page's tables are in the models' common metadata, so they get a process of their own.
"""

import asyncio
import contextlib
from typing import Any

import bank  # type: ignore[import-not-found]
import httpx
from sqlalchemy import text

from sagas import DidNotHappen, Orchestrator, Saga, saga


def one(question: str) -> Any:
    """One value from the database."""
    with bank.engine.connect() as connection:
        return connection.execute(text(question)).scalar_one()


def rows_are_those_of_one_charge() -> None:
    """After the page's own calls."""
    assert one("SELECT group_concat(order_id || refunded) FROM charge") == "order-171"
    assert one("SELECT count(*) FROM sagas_participant") == 6


@saga("buy", version=1)
async def buy(s: Saga) -> None:
    """Pays, and then fails."""
    await s.run(bank.pay, "order-20", 7)
    raise ValueError("no")


async def a_saga_that_fails_pays_back() -> None:
    """By the keys of the page's step."""
    async with Orchestrator("memory://", sagas=[buy]) as orchestrator:
        handle = await orchestrator.start(buy, id="a")
        with contextlib.suppress(Exception):
            await handle.result(timeout=30)
        assert (await handle.info()).status == "compensated"
    assert one("SELECT refunded FROM charge WHERE order_id = 'order-20'") == 1


async def over_http() -> None:
    """A repeat has the first answer, a refund that comes first bars its charge, and errors are problems."""
    transport = httpx.ASGITransport(app=bank.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://bank") as http:

        async def ask(path: str, key: str, **body: object) -> tuple[int, Any]:
            answer = await http.post(path, json=body, headers={"Idempotency-Key": key} if key else {})
            return answer.status_code, answer.json() if answer.content else None

        first = await ask("/charges", "h1", order_id="o", amount=5)
        assert first == await ask("/charges", '"h1"', order_id="o", amount=5)
        assert first[0] == 201
        status, problem = await ask("/charges", "h1", order_id="o", amount=6)
        assert (status, problem["code"]) == (422, "SG007")
        assert await ask("/refunds", "h2", of="h3") == (204, None)
        assert (await ask("/charges", "h3", order_id="o", amount=5))[0] == 410
        assert (await ask("/charges", "", order_id="o", amount=5))[0] == 400


async def with_asyncio() -> None:
    """The coroutine shares its answers with the plain functions: they are the same rows."""
    charged = await bank.charge_later("a1", "order-21", 3)
    assert await bank.charge_later("a1", "order-21", 3) == charged
    assert await asyncio.to_thread(bank.charge, "a1", "order-21", 3) == charged
    assert await asyncio.to_thread(bank.find_charge, "a2") == DidNotHappen()
    await bank.async_engine.dispose()


def main() -> None:
    """All of them."""
    rows_are_those_of_one_charge()
    asyncio.run(a_saga_that_fails_pays_back())
    asyncio.run(over_http())
    asyncio.run(with_asyncio())
    bank.engine.dispose()
    print("all of them hold")


if __name__ == "__main__":
    main()
