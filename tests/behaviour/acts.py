"""Participants that do as they are told and write down in the world what they did."""

# ruff: noqa: ASYNC110

import asyncio
from collections.abc import Callable
from typing import Any

from sagas import SagaStatus, step

Play = Exception | str | None | Callable[[], Any]


class Script:
    """What the calls of one participant do, one after the other; the last play is repeated."""

    def __init__(self, plays: tuple[Play, ...]) -> None:
        self.plays = list(plays) or [None]

    async def next(self) -> Any:
        """Play the next part: raise it, return it, or call it."""
        play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
        if callable(play):
            play = play()
            if asyncio.iscoroutine(play):
                play = await play
        if isinstance(play, Exception):
            raise play
        return play


def act(world: list[str], name: str, *plays: Play, at: Any = step, undo: Any = (), **options: Any) -> Any:
    """A step `name` that writes itself into the world at each attempt, then plays its part; so does its undoing."""
    script = Script(plays)

    async def doing(note: str = "") -> str:
        world.append(f"{name} {note}".strip())
        return await script.next() or f"{name} done"

    made = at(name=name, **options)(doing)
    if at is step and "compensation" not in options and undo is not False:
        undoing = Script(undo if isinstance(undo, tuple) else (undo,))

        async def undo_it(result: str) -> None:
            world.append(f"undo {name}")
            await undoing.next()

        made.compensate(retry=1)(undo_it)
    return made


async def until(holds: Callable[[], Any]) -> None:
    """Wait for something to show in the world."""
    while not holds():
        await asyncio.sleep(0.002)


async def settled(handle: Any, *statuses: str) -> Any:
    """The saga's info once it has one of these statuses."""
    wanted = statuses or (
        SagaStatus.COMPLETED,
        SagaStatus.COMPENSATED,
        SagaStatus.RESOLVED,
        SagaStatus.KILLED,
        SagaStatus.STUCK,
    )
    while True:
        await asyncio.sleep(0)
        if (info := await handle.info()).status in wanted:
            return info
        await asyncio.sleep(0.002)


def steps(info: Any) -> dict[str, str]:
    """The status of each step of a saga by its key."""
    return {state.key: str(state.status) for state in info.steps}


def never() -> Any:
    """A part that never ends by itself."""
    return asyncio.Event().wait()
