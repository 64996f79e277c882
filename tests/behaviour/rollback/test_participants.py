"""The participants of the order example keep their promises by themselves: without them a saga could keep none."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import attrs
import httpx
import pytest

from examples.orders.audit import Audit, Books, Expected, audit
from examples.orders.clients import DeskClient, InventoryClient, ShippingClient
from examples.orders.domain import NoCourier, Order, OutOfStock
from examples.orders.participants.desk import DESK
from examples.orders.participants.inventory import INVENTORY
from examples.orders.participants.shipping import SHIPPING
from examples.orders.shop import books as books_in
from examples.participants.admin import Admin
from examples.participants.clients import CardDeclined, ClosedKey, Payment, PaymentsClient, ServiceFailed
from examples.participants.launcher import ROOT, ChildFailedError, Launcher
from examples.participants.operation import Participant
from examples.participants.payments import PAYMENTS
from examples.participants.service import open_service
from tests import forked

ORDER = Order(id="order-1", sku="coffee", quantity=2, amount=1990, address="1 Main Street")


@attrs.frozen
class Shop:
    """All four participants in this process, on databases of their own."""

    inventory: InventoryClient
    payments: PaymentsClient
    shipping: ShippingClient
    desk: DeskClient
    books: Books

    def audit(self, *, kept: bool) -> Audit:
        """The audit's verdict on ``ORDER``."""
        expected = Expected(order_id=ORDER.id, kept=kept, quantity=ORDER.quantity, amount=ORDER.amount)
        return audit(self.books, [expected])


@asynccontextmanager
async def serve(participant: Participant, directory: Path) -> AsyncGenerator[httpx.AsyncClient]:
    service = open_service(participant, directory / f"{participant.name}.db")
    transport = httpx.ASGITransport(service.app())
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{participant.name}") as http:
        try:
            yield http
        finally:
            service.database.close()


def in_world(directory: Path, play: Callable[[Shop], Awaitable[None]]) -> None:
    async def main() -> None:
        async with (
            serve(INVENTORY, directory) as inventory,
            serve(PAYMENTS, directory) as payments,
            serve(SHIPPING, directory) as shipping,
            serve(DESK, directory) as desk,
        ):
            world = Shop(
                InventoryClient(inventory),
                PaymentsClient(payments),
                ShippingClient(shipping),
                DeskClient(desk),
                books_in(directory),
            )
            await asyncio.wait_for(play(world), timeout=30)

    asyncio.run(main())


async def order_all(world: Shop) -> None:
    reserved = await world.inventory.reserve(ORDER, key="r")
    await world.payments.charge(ORDER, key="c")
    shipment = await world.shipping.book(ORDER, key="b")
    await world.inventory.sell(reserved, key="s")
    await world.shipping.dispatch(shipment, key="d")


async def undo_all(world: Shop) -> None:
    await world.shipping.cancel(of="b", key="undo-b")
    await world.payments.refund(of="c", key="undo-c")
    await world.inventory.release(of="r", key="undo-r")


def test_an_order_leaves_one_of_everything(tmp_path: Path) -> None:
    """Each call done twice under its key has its effect once, and the audit accepts the order as kept."""

    async def play(world: Shop) -> None:
        await order_all(world)
        await order_all(world)
        found = world.audit(kept=True)
        assert found.holds, found
        assert found.findings[0].traces.charges == 1

    in_world(tmp_path, play)


def test_a_repeat_gets_the_first_answer(tmp_path: Path) -> None:
    """The same key gives the same answer, also when many ask at once and also after a restart of the service."""

    async def play(world: Shop) -> None:
        payments = await asyncio.gather(*(world.payments.charge(ORDER, key="c") for _ in range(10)))
        assert set(payments) == {Payment(id=1, amount=1990)}

    in_world(tmp_path, play)

    async def again(world: Shop) -> None:
        assert await world.payments.charge(ORDER, key="c") == Payment(id=1, amount=1990)
        assert await world.payments.charge(ORDER, key="another") == Payment(id=2, amount=1990)

    in_world(tmp_path, again)


def test_a_key_is_for_one_request(tmp_path: Path) -> None:
    """A key that is used for a second, different request is refused, and so is a request without a key."""

    async def play(world: Shop) -> None:
        await world.payments.charge(ORDER, key="c")
        with pytest.raises(ServiceFailed, match="422"):
            await world.payments.charge(attrs.evolve(ORDER, amount=1), key="c")
        response = await world.payments.http.post("/charge", json={"order_id": "order-1", "amount": 1})
        assert (response.status_code, response.json()["error"]) == (400, "key-missing")

    in_world(tmp_path, play)


def test_undoing_what_was_done(tmp_path: Path) -> None:
    """An undo takes its effect back once, however often and under whatever key it is asked for."""

    async def play(world: Shop) -> None:
        await world.inventory.reserve(ORDER, key="r")
        await world.payments.charge(ORDER, key="c")
        await world.shipping.book(ORDER, key="b")
        assert not world.audit(kept=False).holds
        await undo_all(world)
        await undo_all(world)
        await world.payments.refund(of="c", key="undo-c-again")
        found = world.audit(kept=False)
        assert found.holds, found
        assert (found.findings[0].traces.refunds, found.findings[0].traces.refunded) == (1, 1990)

    in_world(tmp_path, play)


def test_undoing_what_never_happened_keeps_it_from_happening(tmp_path: Path) -> None:
    """An undo that overtakes its call does nothing, and the call finds its key closed when it arrives."""

    async def play(world: Shop) -> None:
        await undo_all(world)
        with pytest.raises(ClosedKey):
            await world.inventory.reserve(ORDER, key="r")
        with pytest.raises(ClosedKey):
            await world.payments.charge(ORDER, key="c")
        with pytest.raises(ClosedKey):
            await world.shipping.book(ORDER, key="b")
        found = world.audit(kept=False)
        assert found.holds, found
        assert found.findings[0].traces.charges == 0

    in_world(tmp_path, play)


def test_asking_what_became_of_a_call_settles_it(tmp_path: Path) -> None:
    """A call that happened is found; one that did not is written off, and cannot happen later."""

    async def play(world: Shop) -> None:
        reserved = await world.inventory.reserve(ORDER, key="r")
        sale = await world.inventory.sell(reserved, key="s")
        assert await world.inventory.find_sale(of="s", key="probe-s") == sale
        payment = await world.payments.charge(ORDER, key="c")
        assert await world.payments.find_charge(of="c", key="probe-1") == payment
        assert await world.payments.find_charge(of="c2", key="probe-2") is None
        with pytest.raises(ClosedKey):
            await world.payments.charge(ORDER, key="c2")

    in_world(tmp_path, play)


def test_the_participants_say_no(tmp_path: Path) -> None:
    """Each refusal is an exception of its own type, is repeated to the same key, and leaves nothing behind."""

    async def play(world: Shop) -> None:
        with pytest.raises(OutOfStock, match="1000 wanted, 40 on hand"):
            await world.inventory.reserve(attrs.evolve(ORDER, quantity=1000), key="r")
        await Admin("payments", world.payments.http).plan("charge", decline_next=1)
        await Admin("shipping", world.shipping.http).plan("book", decline_next=1)
        for _ in range(2):
            with pytest.raises(CardDeclined, match="declined the card"):
                await world.payments.charge(ORDER, key="c")
            with pytest.raises(NoCourier):
                await world.shipping.book(ORDER, key="b")
        assert await world.payments.find_charge(of="c", key="probe") is None
        assert world.audit(kept=False).holds

    in_world(tmp_path, play)


def test_failing_and_withholding(tmp_path: Path) -> None:
    """A failed call has no effect and can be repeated; a withheld answer belongs to an effect that has happened."""

    async def play(world: Shop) -> None:
        admin = Admin("payments", world.payments.http)
        await admin.plan("charge", fail_next=1, hold_next=1, slow_ms=1)
        with pytest.raises(ServiceFailed, match="503"):
            await world.payments.charge(ORDER, key="c")
        held = asyncio.create_task(world.payments.charge(ORDER, key="c"))
        await admin.held("charge")
        assert not held.done()
        again = await world.payments.charge(ORDER, key="c")
        await admin.release()
        assert await held == again
        await admin.plan("charge", hang_next=1)
        hung = asyncio.create_task(world.payments.charge(ORDER, key="never"))
        await admin.held("charge")
        await admin.release()
        with pytest.raises(ServiceFailed, match="503"):
            await hung
        assert await world.payments.find_charge(of="never", key="probe") is None

    in_world(tmp_path, play)


def test_a_fault_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """The admin endpoint says so where it cannot do what it is told."""

    async def play(world: Shop) -> None:
        for plan in (
            {"operation": "chrage"},
            {"operation": "refund", "decline_next": 1},
            {"operation": "charge", "fail_next": -1},
        ):
            response = await world.payments.http.post("/admin/faults", json=plan)
            assert response.status_code == httpx.codes.BAD_REQUEST

    in_world(tmp_path, play)


def test_the_manager_is_asked_once_and_not_about_what_was_withdrawn(tmp_path: Path) -> None:
    """A repeated request lies in the inbox once; one that is withdrawn, even before it came, does not lie there."""

    async def play(world: Shop) -> None:
        first = await world.desk.ask(ORDER, "token", key="a")
        assert await world.desk.ask(ORDER, "token", key="a") == first
        assert await world.desk.call("take", "look-1", order_id=ORDER.id) == {"token": "token"}
        assert await world.desk.call("take", "look-2", order_id=ORDER.id) == {"token": None}
        assert "not withdrawn" in "; ".join(world.audit(kept=False).findings[0].faults)
        await world.desk.withdraw(of="a", key="undo-a")
        await world.desk.withdraw(of="a", key="undo-a-again")
        await world.desk.withdraw(of="b", key="undo-b")
        with pytest.raises(ClosedKey):
            await world.desk.ask(ORDER, "token", key="b")
        assert await world.desk.call("take", "look-3", order_id=ORDER.id) == {"token": None}
        found = world.audit(kept=False)
        assert found.holds
        assert found.findings[0].traces.withdrawn == 1

    in_world(tmp_path, play)


@pytest.mark.parametrize(
    ("file", "tampering", "fault"),
    [
        ("payments", "INSERT INTO charge (order_id, amount) VALUES ('order-1', 1990)", "charged 2 times"),
        ("payments", "INSERT INTO refund (charge_id, order_id, amount) VALUES (1, 'order-1', 1990)", "0 cents taken"),
        ("payments", "INSERT INTO charge (order_id, amount) VALUES ('ghost', 5)", "nobody placed this order"),
        ("shipping", "INSERT INTO shipment VALUES (9, 'order-1', '', 'dispatched')", "2 parcels sent"),
        ("shipping", "INSERT INTO shipment VALUES (9, 'order-1', '', 'booked')", "1 couriers booked"),
        ("desk", "INSERT INTO request VALUES (9, 'order-1', 1990, 't', 'asked')", "1 requests left"),
        ("inventory", "UPDATE reservation SET state = 'reserved'", "2 still reserved"),
    ],
)
def test_the_audit_sees(tmp_path: Path, file: str, tampering: str, fault: str) -> None:
    """The audit is not satisfied by anything: whatever is done once too often, or left over, is found."""

    async def play(world: Shop) -> None:
        await order_all(world)
        with closing(sqlite3.connect(tmp_path / f"{file}.db")) as connection, connection:
            connection.execute(tampering)
        found = world.audit(kept=True)
        assert not found.holds
        assert fault in "; ".join(f for finding in found.findings for f in finding.faults)

    in_world(tmp_path, play)


def test_the_audit_balances_the_shelves(tmp_path: Path) -> None:
    """A piece that vanished from the warehouse fails the audit, although no order is wrong."""

    async def play(world: Shop) -> None:
        with closing(sqlite3.connect(tmp_path / "inventory.db")) as connection, connection:
            connection.execute("UPDATE stock SET on_hand = on_hand - 1 WHERE sku = 'teapot'")
        found = world.audit(kept=False)
        assert [shelf.sku for shelf in found.shelves if not shelf.balanced] == ["teapot"]
        assert not found.holds

    in_world(tmp_path, play)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def start_payments(launcher: Launcher, directory: Path) -> Awaitable[object]:
    database = str(directory / "payments.db")
    return launcher.start("payments", "examples.orders.participants", "payments", "--database", database)


def test_children_serve_and_end(tmp_path: Path) -> None:
    """A launched participant serves on the port it reports, keeps its answers over a kill -9, and ends."""

    async def main() -> list[int]:
        async with Launcher(tmp_path) as launcher, asyncio.timeout(60):
            await start_payments(launcher, tmp_path)
            first = launcher.children[0]
            async with httpx.AsyncClient(base_url=first.url, trust_env=False) as http:
                await Admin("payments", http).plan("charge", hold_next=1)
                held = asyncio.create_task(PaymentsClient(http).charge(ORDER, key="c"))
                await Admin("payments", http).held("charge")
                first.kill()
                with pytest.raises(httpx.HTTPError):
                    await held
            assert not alive(first.pid)
            await start_payments(launcher, tmp_path)
            async with httpx.AsyncClient(base_url=launcher.children[1].url, trust_env=False) as http:
                assert await PaymentsClient(http).charge(ORDER, key="c") == Payment(id=1, amount=1990)
            return [child.pid for child in launcher.children]

    assert not [pid for pid in asyncio.run(main()) if alive(pid)]


async def test_a_held_answer_is_given_up_when_its_caller_is_gone(tmp_path: Path) -> None:
    """A participant does not keep a request for a caller that was killed: it can be told apart and is let go."""
    async with Launcher(tmp_path) as launcher, asyncio.timeout(60):
        await start_payments(launcher, tmp_path)
        url = launcher.children[0].url
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            await Admin("payments", http).plan("charge", hold_next=2)
            async with httpx.AsyncClient(base_url=url, trust_env=False) as caller:
                held = asyncio.create_task(PaymentsClient(caller).charge(ORDER, key="c"))
                await Admin("payments", http).held("charge")
                held.cancel()
                await asyncio.wait([held])
            await Admin("payments", http).unheld("charge")
            assert await PaymentsClient(http).find_charge(of="c", key="probe") == Payment(id=1, amount=1990)


async def test_a_child_that_fails_is_told_of(tmp_path: Path) -> None:
    """A child that ends before it is ready is an error that names the child and its log."""
    async with Launcher(tmp_path) as launcher:
        with pytest.raises(ChildFailedError, match=r"payments ended with code \d+ .*payments\.log"):
            await launcher.start("payments", "examples.orders.participants", "no-such-participant")


PARENT = """
import asyncio, sys
from pathlib import Path
from examples.participants.launcher import Launcher
async def main(directory):
    async with Launcher(directory) as launcher:
        database = str(directory / "shipping.db")
        child = await launcher.start("shipping", "examples.orders.participants", "shipping", "--database", database)
        print(child.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_children_end_with_their_parent(tmp_path: Path, how: signal.Signals) -> None:
    """No child outlives the demo, whether it is interrupted or killed outright."""
    with forked.Process(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(how)
        parent.wait(20)
    asyncio.run(asyncio.wait_for(gone(child), 20))


async def gone(pid: int) -> None:
    while alive(pid) and not defunct(pid):  # noqa: ASYNC110 - a process not our own child can only be looked at
        await asyncio.sleep(0.02)


def defunct(pid: int) -> bool:
    """An orphan that has ended, where nobody is left to collect it."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"
