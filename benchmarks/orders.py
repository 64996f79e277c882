"""What the sagas of the workloads are about: a small, typical payload and result."""

import attrs


@attrs.frozen
class Order:
    """The payload."""

    id: str
    sku: str
    quantity: int
    amount: int


@attrs.frozen
class Receipt:
    """The result of a step."""

    id: str
    amount: int


def order(number: int) -> Order:
    """The order of a number."""
    return Order(f"order-{number}", "sku-1", 2, 1999)


async def undo(receipt: Receipt) -> None:
    """What a compensation does: nothing."""
