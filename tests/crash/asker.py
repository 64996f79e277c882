"""Runs a saga that waits for an answer, on a SQLite file: ``python -m tests.crash.asker DIR [COMMITS]``.

It says ``waiting`` once the saga waits, and serves until it is killed; with COMMITS it dies right after that many.
"""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from durable_core.stores.sqlite.store import SqliteStore
from sagas import Orchestrator, Saga, SagaStatus, lookup, resource, saga
from tests.crash.victim import Outside, charge, mortal, reserve


@lookup
async def hand_out(token: str, *, outside: Outside = resource()) -> None:
    part = outside.directory / "token.part"
    part.write_text(token)
    part.rename(outside.directory / "token")


@saga("ask", version=1)
async def ask(s: Saga) -> str:
    await s.run(reserve, 1)
    callback = await s.callback("approval", str, timeout=timedelta(days=2), heartbeat=timedelta(hours=1))
    await s.run(hand_out, callback.token)
    answer = await callback.result()
    await s.run(charge, 2)
    return answer


def opened(directory: Path, *, commits: int = 0, worker: bool = True) -> Orchestrator:
    """An orchestrator on the store in ``directory``."""
    kept = SqliteStore(f"{directory}/sagas.db")
    store = mortal(kept, commits) if commits else kept
    sagas = [ask] if worker else []
    return Orchestrator(store=store, sagas=sagas, resources=[Outside(directory)], worker=worker, grace=1)


async def main(directory: Path, commits: int) -> None:
    """Serve, and say when the saga waits."""
    async with opened(directory, commits=commits) as running:
        handle = await running.start(ask, id="a")
        while (await handle.info()).status is not SagaStatus.WAITING:  # noqa: ASYNC110 - a row can only be looked at
            await asyncio.sleep(0.005)
        print("waiting", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
