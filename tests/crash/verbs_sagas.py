"""The sagas that are told something while processes die: what their steps do is watched.

``second`` is undone whether or not it has happened, ``plain`` only once that is known, ``once`` is never called twice
by itself, and ``sell`` is the pivot.
"""

from sagas import Saga, pivot, saga
from tests.kit import bell, watched

first, second = watched("first"), watched("second", undo="blind")
once = watched("once", at_most_once=True)
plain = watched("plain")
sell = watched("sell", at=pivot)


@saga("order", version=1)
async def order(s: Saga) -> str:
    await s.run(first)
    await s.run(second)
    await s.run(sell)
    return "done"


@saga("plain-order", version=1)
async def plain_order(s: Saga) -> str:
    await s.run(first)
    await s.run(plain)
    await s.run(sell)
    return "done"


@saga("careful", version=1)
async def careful(s: Saga) -> str:
    await s.run(first)
    await s.run(once)
    await s.run(sell)
    return "done"


@saga("firm", version=1, on_failure="stuck")
async def firm(s: Saga) -> str:
    await s.run(first)
    await s.run(plain)
    await s.run(sell)
    return "done"


SAGAS = (order, plain_order, careful, firm, bell)
