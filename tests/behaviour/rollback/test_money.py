"""Money and credit: balances are conserved and limits are kept, whatever fails."""

import attrs
import pytest

from sagas import DidNotHappen, Happened, Saga, current, resource, saga, step
from tests.kit import ONCE, PROMPT, Broken, Place, Refused, World, end_of, entered, until

# -- a bank that keeps its promises: one booking for a key ------------------------------------------------------------


@attrs.define
class Bank:
    """Accounts, and what was booked under which key."""

    accounts: dict[str, int]
    booked: dict[str, tuple[str, int]] = attrs.field(factory=dict[str, tuple[str, int]])
    world: World = attrs.field(factory=World)

    async def book(self, what: str, account: str, amount: int) -> None:
        """Add ``amount`` to the account, once for the step that runs here."""
        key = current().idempotency_key
        mishap = self.world.planned(what)
        self.world.note(what)
        await self._gate(what)
        if mishap == "broken":
            raise Broken(what)
        if mishap == "lost":
            raise TimeoutError(what)
        if key not in self.booked:
            if self.accounts[account] + amount < 0:
                raise Refused(account)
            self.accounts[account] += amount
            self.booked[key] = (account, amount)
        await self._gate(f"{what} booked")
        if mishap == "silent":
            raise TimeoutError(what)

    async def _gate(self, what: str) -> None:
        gate = self.world.gates.get(what)
        if gate is not None:
            gate.entered.set()
            await gate.opened.wait()

    def reverse(self) -> None:
        """Take back what the step booked that is compensated here, once."""
        forward = current().forward_key
        assert forward is not None
        if forward in self.booked and (mine := current().idempotency_key) not in self.booked:
            account, amount = self.booked[forward]
            self.accounts[account] -= amount
            self.booked[mine] = (account, -amount)

    def found(self, amount: int) -> Happened[int] | DidNotHappen:
        """Whether the step that is probed here was booked."""
        return Happened(amount) if current().forward_key in self.booked else DidNotHappen()


@step(rejects=(Refused,), retry=ONCE)
async def withdraw(account: str, amount: int, *, bank: Bank = resource()) -> int:
    await bank.book("withdraw", account, -amount)
    return amount


@withdraw.compensate(retry=PROMPT)
async def put_back(amount: int, *, bank: Bank = resource()) -> None:
    bank.reverse()


@withdraw.probe
async def was_withdrawn(account: str, amount: int, *, bank: Bank = resource()) -> Happened[int] | DidNotHappen:
    return bank.found(amount)


@step(rejects=(Refused,), retry=ONCE)
async def deposit(account: str, amount: int, *, bank: Bank = resource()) -> int:
    await bank.book("deposit", account, amount)
    return amount


@deposit.compensate(retry=PROMPT)
async def take_back(amount: int, *, bank: Bank = resource()) -> None:
    bank.reverse()


@deposit.probe
async def was_deposited(account: str, amount: int, *, bank: Bank = resource()) -> Happened[int] | DidNotHappen:
    return bank.found(amount)


@step(rejects=(Refused,), retry=ONCE)
async def write_receipt(*, bank: Bank = resource()) -> None:
    if bank.world.planned("receipt") == "refused":
        raise Refused("receipt")


@write_receipt.compensate
async def tear_up(_: None) -> None:
    pass


@saga("transfer", version=1)
async def transfer(s: Saga, source: str, target: str, amount: int) -> int:
    await s.run(withdraw, source, amount)
    await s.run(deposit, target, amount)
    await s.run(write_receipt)
    return amount


def bank() -> Bank:
    return Bank({"ann": 100, "bob": 50})


MISHAPS = ["ok", "broken", "lost", "silent"]


@pytest.mark.parametrize("first", MISHAPS)
@pytest.mark.parametrize("second", MISHAPS)
@pytest.mark.parametrize("receipt", ["ok", "refused"])
async def test_no_money_is_made_or_lost(place: Place, first: str, second: str, receipt: str):
    """Under every pair of mishaps the sum of the balances stays, and the amount has moved whole or not at all."""
    mine = bank()
    mine.world.plan("withdraw", first, "ok").plan("deposit", second, "ok").plan("receipt", receipt)
    async with place.orchestrator(transfer, world=mine.world, resources=[mine]) as running:
        end = await end_of(await running.start(transfer, "ann", "bob", 30), running)
    happens = first in ("ok", "silent") and second in ("ok", "silent") and receipt == "ok"
    assert end.status == ("completed" if happens else "compensated")
    assert mine.accounts == ({"ann": 70, "bob": 80} if happens else {"ann": 100, "bob": 50})


@pytest.mark.parametrize("what", ["withdraw", "deposit"])
@pytest.mark.parametrize("booked", [False, True])
@pytest.mark.parametrize("receipt", ["ok", "refused"])
async def test_a_crash_amid_a_booking_books_once(place: Place, what: str, booked: bool, receipt: str):  # noqa: FBT001
    """A process that dies before or after the booking itself leads to one booking, also where it is taken back."""
    mine = bank()
    mine.world.plan("receipt", receipt)
    gate = mine.world.gate(f"{what} booked" if booked else what)
    async with place.dying(transfer, world=mine.world, resources=[mine]) as running:
        await running.start(transfer, "ann", "bob", 30, id="t")
        await entered(gate, running)
    assert len(mine.booked) == (what == "deposit") + booked
    mine.world.gates.clear()
    async with place.orchestrator(transfer, world=mine.world, resources=[mine]) as running:
        end = await end_of(await running.get("t"), running)
    assert end.status == ("completed" if receipt == "ok" else "compensated")
    assert mine.accounts == ({"ann": 70, "bob": 80} if receipt == "ok" else {"ann": 100, "bob": 50})


async def test_many_transfers_conserve_the_sum(place: Place):
    """Sixty transfers to and fro, each third one failing somewhere, leave the sum as it was."""
    mine = bank()
    mishaps = ["ok", "ok", "broken", "silent", "lost", "ok"] * 10
    mine.world.plan("deposit", *mishaps, "ok")
    async with place.orchestrator(transfer, world=mine.world, resources=[mine]) as running:
        handles = [
            await running.start(transfer, *(("ann", "bob") if number % 2 else ("bob", "ann")), 1 + number % 3)
            for number in range(60)
        ]
        ends = [await end_of(handle, running) for handle in handles]
    assert sum(mine.accounts.values()) == 150
    assert {end.status for end in ends} == {"completed", "compensated"}
    moved = sum(amount for account, amount in mine.booked.values() if account == "ann")
    assert mine.accounts["ann"] == 100 + moved


# -- customers and orders: a credit limit ------------------------------------------------------------------------------


@attrs.define
class Shop:
    """Customers with a credit limit, and orders."""

    limit: int
    reserved: dict[str, int] = attrs.field(factory=dict[str, int])
    orders: dict[str, str] = attrs.field(factory=dict[str, str])


@step
async def create_order(order: str, *, shop: Shop = resource()) -> str:
    shop.orders[order] = "pending"
    return order


@create_order.compensate
async def reject_order(order: str, *, shop: Shop = resource()) -> None:
    shop.orders[order] = "rejected"


@step(rejects=(Refused,))
async def reserve_credit(order: str, total: int, *, shop: Shop = resource()) -> str:
    key = current().idempotency_key
    if key not in shop.reserved:
        if sum(shop.reserved.values()) + total > shop.limit:
            raise Refused("credit limit exceeded")
        shop.reserved[key] = total
    return key


@reserve_credit.compensate
async def release_credit(key: str, *, shop: Shop = resource()) -> None:
    assert current().forward_key == key
    shop.reserved.pop(key, None)


@step
async def approve_order(order: str, *, shop: Shop = resource()) -> None:
    shop.orders[order] = "approved"


@approve_order.compensate
async def disapprove_order(_: None, order: str, *, shop: Shop = resource()) -> None:
    shop.orders[order] = "pending"


@saga("create-order", version=1)
async def create(s: Saga, order: str, total: int) -> str:
    await s.run(create_order, order)
    await s.run(reserve_credit, order, total)
    await s.run(approve_order, order)
    return order


async def test_orders_beyond_the_credit_limit_are_rejected(place: Place):
    """Of ten orders of 30 under a limit of 100 three are approved, all others rejected; the credit is theirs."""
    shop = Shop(limit=100)
    async with place.orchestrator(create, world=World(), resources=[shop]) as running:
        handles = [await running.start(create, f"o{number}", 30) for number in range(10)]
        ends = [await end_of(handle, running) for handle in handles]
    assert sorted(shop.orders.values()) == ["approved"] * 3 + ["rejected"] * 7
    assert sum(shop.reserved.values()) == 90
    assert len([end for end in ends if end.status == "completed"]) == 3
    assert {end.error[:2] for end in ends if end.status == "compensated"} == {(Refused, ("credit limit exceeded",))}


async def test_a_cancelled_order_gives_its_credit_back(place: Place):
    """An order cancelled after its credit was reserved is rejected, and its credit is free for the next one."""

    @saga("slow-order", version=1)
    async def slow(s: Saga, order: str, total: int) -> str:
        await s.run(create_order, order)
        await s.run(reserve_credit, order, total)
        await s.sleep(60)
        await s.run(approve_order, order)
        return order

    shop = Shop(limit=100)
    async with place.orchestrator(slow, create, world=World(), resources=[shop]) as running:
        handle = await running.start(slow, "big", 90, id="big")

        async def waits() -> bool:
            return any(state.kind == "sleep" for state in (await handle.info()).steps)

        await until(waits, running)
        refused = await end_of(await running.start(create, "small", 30), running)
        await handle.cancel("changed my mind")
        cancelled = await end_of(handle, running)
        granted = await end_of(await running.start(create, "other", 30), running)
    assert [refused.status, cancelled.status, granted.status] == ["compensated", "compensated", "completed"]
    assert shop.orders == {"big": "rejected", "small": "rejected", "other": "approved"}
    assert sum(shop.reserved.values()) == 30
