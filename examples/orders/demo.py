"""``python -m examples.orders.demo``: a shop of real processes, made to fail in every way, and audited at the end.

Exit code 0 only if the participants' own books show every order whole or gone. No process is left behind.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import attrs
import msgspec
import typer

from examples.orders.audit import Audit, Expected, audit
from examples.orders.domain import Order
from examples.orders.manager import NotAskedError
from examples.orders.scenes import SCENES
from examples.orders.screen import Outcome, Screen
from examples.orders.shop import Shop, open_shop
from examples.participants import traces
from examples.participants.admin import NotHeldError
from examples.participants.launcher import ChildFailedError
from examples.participants.running import FAILED, run_demo
from examples.participants.stage import DemoFailedError
from sagas import SagaInfo

TRACES = "traces"
HOW = "docs/how-to/traces.md"


def main(
    *,
    keep: Annotated[Path | None, typer.Option(help="Keep databases and logs here; must be new or empty.")] = None,
    store: Annotated[str | None, typer.Option(help="Keep the sagas here instead of in a SQLite file.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="How many processes run the sagas.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the audit to this file as JSON.")] = None,
) -> None:
    """Play all scenes and audit them."""

    async def play(directory: Path) -> int:
        return await _demo(directory, store, json, workers)

    said = f"a trace of each order: {{}}; drop one on Jaeger's page ({HOW})"
    raise typer.Exit(run_demo(play, keep=keep, prefix="orders-demo-", leave={TRACES: said}))


async def _demo(directory: Path, store: str | None, json: Path | None, workers: int) -> int:
    """Play and audit; returns the exit code."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    # A store that is not ours alone may hold the orders of an earlier demo: give ours ids that none of them has.
    mark = "" if store is None else f"-{int(began * 1000):x}"
    screen = Screen()
    try:
        async with open_shop(directory, store or f"sqlite:///{directory / 'sagas.db'}", workers=workers) as shop:
            screen.open(shop)
            outcomes, found = await _play(shop, screen, mark)
    except (DemoFailedError, ChildFailedError, NotHeldError, NotAskedError) as error:
        screen.say(f"The demo failed: {error}")
        return FAILED
    seconds = loop.time() - began
    screen.verdict(outcomes, found, seconds)
    holds = found.holds and not any(outcome.faults for outcome in outcomes)
    if json is not None:
        await asyncio.to_thread(json.write_bytes, _report(outcomes, found, holds=holds, seconds=seconds))
    return 0 if holds else FAILED


async def _play(shop: Shop, screen: Screen, mark: str) -> tuple[list[Outcome], Audit]:
    orders = [
        Order(id=f"order-{number}{mark}", sku="coffee", quantity=2, amount=scene.amount, address="1 Main Street")
        for number, scene in enumerate(SCENES, start=1)
    ]
    for number, (scene, order) in enumerate(zip(SCENES, orders, strict=True), start=1):
        screen.head(number, scene.title)
        async for sentence in scene.play(shop, order):
            screen.say(sentence)
        handle = await shop.counter.get(order.id)
        screen.timeline(await handle.info(), await handle.history())
        await traces.write(shop.counter, order.id, shop.directory / TRACES)
    expected = [
        Expected(order_id=order.id, kept=scene.kept, quantity=order.quantity, amount=order.amount)
        for scene, order in zip(SCENES, orders, strict=True)
    ]
    found = audit(shop.books, expected)
    infos = [await _info(shop, order) for order in orders]
    return [Outcome(*played) for played in zip(SCENES, infos, found.findings, strict=False)], found


async def _info(shop: Shop, order: Order) -> SagaInfo:
    return await (await shop.counter.get(order.id)).info()


def _report(outcomes: Sequence[Outcome], found: Audit, *, holds: bool, seconds: float) -> bytes:
    """The audit as JSON, for a program that wants to judge it for itself."""
    orders = [
        {
            "scene": outcome.scene.title,
            "status": str(outcome.info.status),
            "expected_status": outcome.scene.status,
            "kept": outcome.scene.kept,
            "amount": outcome.scene.amount,
            "faults": list(outcome.faults),
            **attrs.asdict(outcome.finding.traces),
        }
        for outcome in outcomes
    ]
    stock = [{**attrs.asdict(shelf), "balanced": shelf.balanced} for shelf in found.shelves]
    strangers = [finding.traces.order_id for finding in found.findings[len(outcomes) :]]
    facts = {"holds": holds, "seconds": round(seconds, 1), "orders": orders, "stock": stock, "strangers": strangers}
    return msgspec.json.format(msgspec.json.encode(facts), indent=2)


if __name__ == "__main__":
    typer.run(main)
