"""Sagas whose steps kill their own process, and write what they did into the file named by WORLD."""

import os
import signal
from pathlib import Path

from sagas import Saga, StepInterrupted, Unknown, current, pivot, retriable, saga, step


class Broken(Exception): ...


def write(line: str) -> None:
    """Write into the world, in a way that a kill does not undo."""
    with Path(os.environ["WORLD"]).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def deadly(line: str, times: int = 1) -> None:
    """Write, and die for the first few times."""
    write(f"{line} {current().idempotency_key[-6:]}")
    count = sum(one.startswith(line) for one in Path(os.environ["WORLD"]).read_text(encoding="utf-8").splitlines())
    if count <= times:
        os.kill(os.getpid(), signal.SIGKILL)


@step
async def reserve(order: str) -> str:
    write(f"reserve {order}")
    return f"r-{order}"


@reserve.compensate
async def release(reserved: str) -> None:
    write(f"release {reserved}")


@step
async def charge(order: str) -> str:
    deadly("charge")
    return f"c-{order}"


@charge.compensate
async def refund(charged: str) -> None:
    deadly("refund")


@step(at_most_once=True)
async def once(order: str) -> str:
    deadly("once", 99)
    return "never"


@once.compensate
async def unonce(result: str | Unknown) -> None:
    write(f"unonce {isinstance(result, Unknown)}")


@step
async def poison() -> str:
    deadly("poison", 99)
    return ""


@poison.compensate
async def unpoison(_: str) -> None:
    write("unpoison")


@pivot
async def capture(order: str) -> str:
    deadly("capture")
    return "captured"


@retriable
async def confirm(order: str) -> str:
    deadly("confirm")
    return "confirmed"


@saga("goes", version=1)
async def goes(s: Saga, order: str) -> str:
    await s.run(reserve, order)
    await s.run(charge, order)
    await s.run(capture, order)
    return await s.run(confirm, order)


@saga("undoes", version=1)
async def undoes(s: Saga, order: str) -> None:
    await s.run(reserve, order)
    await s.run(charge, order)
    raise Broken(order)


@saga("once", version=1)
async def cut(s: Saga, order: str) -> str:
    try:
        return await s.run(once, order)
    except StepInterrupted as error:
        return f"cut {type(error).__name__}"


@saga("poisoned", version=1)
async def poisoned(s: Saga, order: str) -> None:
    await s.run(reserve, order)
    await s.run(poison)
