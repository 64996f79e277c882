"""Runs sagas on a SQLite file and dies where it is told to: ``python -m tests.crash.victim DIR ROLE [POINT]``.

Its effects are lines of a file beside the store, written by one ``write`` each: whatever dies, they are there. ROLE is
``orders`` (start the two orders and wait for their ends), ``serve`` (start sagas that wait for a file and say so), or
``poison``. POINT is ``before:STEP``, ``after:STEP``, ``before:STEP~undo``, ``after:STEP~undo`` or ``commit:N``.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import attrs

from durable_core.ports import Batch
from durable_core.stores.sqlite.store import SqliteStore
from sagas import Orchestrator, Retry, Saga, SagaCompensated, SagaStuck, current, resource, saga, step

DIED = 9
"""The exit code of a process that died where it was told to."""


class NoCourier(Exception): ...


@attrs.frozen
class Call:
    """One call of a step or compensation, as its line tells it."""

    saga: str
    step: str
    key: str
    forward: str | None
    attempt: int
    pid: int

    @property
    def undoes(self) -> bool:
        return self.forward is not None


@attrs.frozen
class Outside:
    """What the steps do: a line for each effect, and death at ``point``."""

    directory: Path
    point: str = ""

    @property
    def path(self) -> Path:
        return self.directory / "effects"

    def effect(self) -> None:
        info = current()
        name = f"{info.step}~undo" if info.compensating else info.step
        self.die_at(f"before:{name}")
        call = Call(info.saga_id, info.step, info.idempotency_key, info.forward_key, info.attempt, os.getpid())
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, json.dumps(attrs.asdict(call)).encode() + b"\n")
        os.close(descriptor)
        self.die_at(f"after:{name}")

    def die_at(self, point: str) -> None:
        if point == self.point:
            os._exit(DIED)

    def calls(self) -> list[Call]:
        if not self.path.exists():
            return []
        return [Call(**json.loads(line)) for line in self.path.read_text().splitlines()]

    def live(self, saga_id: str) -> Counter[str]:
        """Effects of a saga that are not undone, by step; each idempotency key counts once."""
        calls = [call for call in self.calls() if call.saga == saga_id]
        undone = {call.forward for call in calls if call.undoes}
        return Counter(dict.fromkeys((call.step for call in calls if not call.undoes and call.key not in undone), 1))


@step
async def reserve(number: int, *, outside: Outside = resource()) -> int:
    outside.effect()
    return number


@reserve.compensate(retry=Retry(attempts=10, first=0))
async def release(result: int, *, outside: Outside = resource()) -> None:
    outside.effect()


@step
def charge(number: int, *, outside: Outside = resource()) -> int:
    outside.effect()
    return number


@charge.compensate
def refund(result: int, *, outside: Outside = resource()) -> None:
    outside.effect()


@step(rejects=(NoCourier,))
async def ship(number: int, *, outside: Outside = resource()) -> int:
    if number < 0:
        raise NoCourier(number)
    outside.effect()
    return number


@ship.compensate
async def recall(result: int, *, outside: Outside = resource()) -> None:
    outside.effect()


@saga("order", version=1)
async def order(s: Saga, number: int) -> int:
    return await s.run(reserve, number) + await s.run(charge, number) + await s.run(ship, number)


@step
async def wait(number: int, *, outside: Outside = resource()) -> int:
    outside.effect()
    while not (outside.directory / "go").exists():  # noqa: ASYNC110 - the other process says so by a file
        await asyncio.sleep(0.005)
    return number


@wait.compensate
async def undo_wait(result: int, *, outside: Outside = resource()) -> None:
    outside.effect()


@saga("waiting", version=1)
async def waiting(s: Saga, number: int) -> int:
    return await s.run(reserve, number) + await s.run(wait, number)


@step
def poison(*, outside: Outside = resource()) -> int:
    outside.effect()
    if not (outside.directory / "cured").exists():
        os._exit(DIED)
    return 7


@poison.compensate
def undo_poison(result: int) -> None: ...


@saga("poisoned", version=1)
async def poisoned(s: Saga) -> int:
    return await s.run(poison)


SAGAS = (order, waiting, poisoned)
ORDERS = {"forward": 7, "back": -7}
WAITING = 12


def mortal(store: Any, left: int) -> Any:
    """``store``, whose process dies right after its n-th commit is on disk."""
    commit = store.journal.commit

    async def commit_and_die(batch: Batch) -> frozenset[int]:
        nonlocal left
        refused: frozenset[int] = await commit(batch)
        left -= 1
        if not left:
            os._exit(DIED)
        return refused

    store.journal.commit = commit_and_die
    return store


def opened(outside: Outside, *, commits: int = 0, worker: bool = True) -> Orchestrator:
    """An orchestrator on the store in the directory of ``outside``."""
    kept = SqliteStore(f"{outside.directory}/sagas.db")
    store = mortal(kept, commits) if commits else kept
    return Orchestrator(store=store, sagas=SAGAS, resources=[outside], worker=worker, grace=1)


async def ends(running: Orchestrator) -> dict[str, str]:
    """Start the two orders, or find them, and wait for their ends."""
    found: dict[str, str] = {}
    handles = {name: await running.start(order, number, id=name) for name, number in ORDERS.items()}
    for name, handle in handles.items():
        try:
            found[name] = str(await handle.result(timeout=30))
        except SagaCompensated as undone:
            found[name] = ",".join(undone.compensated)
        except SagaStuck as stuck:
            found[name] = f"stuck: {stuck.reason}"
    return found


async def main(directory: Path, role: str, point: str) -> None:
    """Play ``role`` until its end, or until ``point``."""
    outside = Outside(directory, point)
    async with opened(outside, commits=int(point.partition(":")[2]) if point.startswith("commit:") else 0) as running:
        if role == "orders":
            print(json.dumps(await ends(running)))
        elif role == "serve":
            for number in range(WAITING):
                await running.start(waiting, number, id=f"w{number}")
            while len([call for call in outside.calls() if call.step == "wait"]) < WAITING:  # noqa: ASYNC110 - lines of a file
                await asyncio.sleep(0.005)
            print("serving", flush=True)
            await asyncio.Event().wait()
        else:
            await (await running.start(poisoned, id="poisoned")).result(timeout=30)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""))
