"""A worker: drives the imports of one store until its standard input ends."""

import asyncio
import sys

from durable_core import Engine
from examples.nightly_import.job import nightly_import


async def work(url: str) -> None:
    async with Engine(url, [nightly_import]):
        await asyncio.to_thread(sys.stdin.read)  # the parent closes the pipe, or dies and so closes it


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
