"""A worker's process: it runs sagas until it is asked to end."""

import asyncio
import signal

import httpx

from examples.participants.child import report_ready
from sagas import Orchestrator


async def work(orchestrator: Orchestrator, parent_fd: int | None) -> None:
    """Run sagas until SIGTERM or Ctrl-C, including those of an earlier worker; tell the launcher once it is ready."""
    stop = asyncio.Event()
    for asked in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(asked, stop.set)
    async with orchestrator:
        report_ready(parent_fd, worker=orchestrator.engine.name)
        await stop.wait()


def connection(url: str, patience_s: float) -> httpx.AsyncClient:
    """A connection to a service, whose answers are waited for so long. No proxy has a place between our services."""
    return httpx.AsyncClient(base_url=url, timeout=patience_s, trust_env=False)
