from datetime import timedelta

import attrs

from sagas import Saga, pivot, saga, step


@attrs.frozen
class Approval:
    ok: bool
    by: str


class Refused(Exception):
    """The manager said no."""


@step
def reserve(item: str) -> str:
    return f"{item} from shelf 7"


@reserve.compensate
def put_back(reserved: str) -> None:
    print("put back the", reserved)


@step(compensation=None, because="a mail cannot be taken back")
def ask_manager(item: str, amount: int, token: str) -> None:
    print(f"mail to the manager: may we sell the {item} for {amount}?", flush=True)


@pivot
def charge(amount: int) -> str:
    return f"receipt for {amount}"


@saga("big-order", version=1)
async def big_order(s: Saga, item: str, amount: int) -> str:
    await s.run(reserve, item)
    approval = await s.callback("approval", Approval, timeout=timedelta(days=2))
    await s.run(ask_manager, item, amount, approval.token)
    decision = await approval.result()
    if not decision.ok:
        raise Refused(f"refused by {decision.by}")
    return await s.run(charge, amount)
