"""Sagas that operators are asked about: something is done before, something is held up, something comes after."""

from sagas import Saga, saga
from tests.kit import party, point_of_no_return

before, held, after = party("before"), party("held"), party("after")
sell = point_of_no_return("sell")


@saga("plain", version=1)
async def plain(s: Saga) -> str:
    await s.run(before, "b")
    await s.run(held, "h")
    await s.run(after, "a")
    return "done"


@saga("sleeping", version=1)
async def sleeping(s: Saga) -> str:
    await s.run(before, "b")
    await s.sleep(3600)
    await s.run(after, "a")
    return "done"
