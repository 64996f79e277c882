"""The sagas whose runs are in ``format-1.sql``: what a release of stored format 1 left when its process was killed."""

from sagas import Saga, step
from sagas import saga as declare


@step(compensation=None, because="a test")
async def pack(item: str) -> str:
    """In the first release ``slow`` hung until the process was killed."""
    return f"{item} packed"


@declare("order", version=1)
async def order(s: Saga, item: str) -> str:
    """One step."""
    return await s.run(pack, item)


@declare("ask", version=1)
async def ask(s: Saga, item: str) -> str:
    """A step and an answer from outside."""
    packed = await s.run(pack, item)
    approval = await s.callback("approval", str)
    return f"{packed}, {await approval.result()}"
