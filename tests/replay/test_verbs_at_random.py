"""Random sagas, random verbs at random moments, workers that come and go: what was told first counts first.

A failure names its seed; ``SAGAS_SEED=memory:17 pytest tests/replay/test_verbs_at_random.py`` plays it alone, a
hundred times over, because the moments themselves are drawn but not commanded. With ``SAGAS_SOAK`` it plays thousands.
"""

import asyncio
import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durable_core.stores.memory.data import MemoryData
from tests.kit import Place
from tests.replay.random_operators import WHOLE_S, Played
from tests.replay.verbs_model import broken

SEEDS = int(os.environ.get("SAGAS_SOAK", "15"))
"""For each store, and for each way to look at it."""
AT_ONCE = 15
"""Seeds played at the same time: they spend their time waiting."""
ALONE = os.environ.get("SAGAS_SEED", "")
AGAIN = 100
UNHEARD_OF = (
    "internal error",
    "DC010",
    "DC101",
    "please report",
    "was destroyed",
    "never retrieved",
    "unhandled",
    "exception in",
)

pytestmark = pytest.mark.timeout(60 + SEEDS * 2)


def place_of(store: str, folder: Path, seed: int, turn: int = 0) -> Place:
    """A store of its own."""
    if store == "memory":
        return Place("memory://", MemoryData())
    return Place(f"sqlite:///{folder / f'{seed}-{turn}.db'}", None)


async def played_through(places: dict[int, Place]) -> list[str]:
    """Play these seeds at the same time; what is broken, with the line of time of each seed that it was broken in."""
    unheard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: unheard.append(f"{context.get('message')}: {context.get('exception')!r}")
    )
    plays = [Played(seed, place) for seed, place in places.items()]
    raised = await asyncio.gather(*(asyncio.wait_for(each.play(), WHOLE_S) for each in plays), return_exceptions=True)
    told: list[str] = []
    for each, error in zip(plays, raised, strict=True):
        wrong = broken(each) if error is None else [f"playing it raised {error!r}", *each.world.faults]
        if wrong:
            told.append("\n".join((f"seed {each.seed}:", *(f"  {one}" for one in wrong), *line_of(each))))
    gc.collect()
    return told + unheard


def line_of(played: Played) -> list[str]:
    """The line of time, and every journal."""
    lines = [f"    {place} {event}" for place, event in enumerate(played.world.line) if event.what != "commit"]
    for saga, info in played.infos.items():
        lines.append(f"    {saga} is {info.status}: {info.reason}")
        lines += [
            f"      {entry.seq} {entry.kind} {entry.key} #{entry.attempt} {entry.detail or ''} {entry.note or ''}"
            for entry in played.histories[saga]
        ]
    return lines


def batches(store: str, folder: Path) -> Iterator[dict[int, Place]]:
    """The seeds to play, some at the same time."""
    if ALONE:
        wanted, _, seed = ALONE.partition(":")
        if wanted == store:
            yield from ({int(seed): place_of(store, folder, int(seed), turn)} for turn in range(AGAIN))
        return
    for first in range(0, SEEDS, AT_ONCE):
        yield {seed: place_of(store, folder, seed) for seed in range(first, min(first + AT_ONCE, SEEDS))}


@pytest.fixture(params=[0.002, 0.05])
def poll_s(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """How often a worker looks at the store; nobody waits long for what another process is to take up."""
    monkeypatch.setattr("durable_core.engine.polling.POLL_S", request.param)
    monkeypatch.setattr("durable_core.engine.process.FIRST_LOOK_S", request.param)
    monkeypatch.setattr("durable_core.engine.callback_delivery.KEPT_AFTER_S", 0.05)
    return float(request.param)


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_random_sagas_under_random_verbs(store: str, poll_s: float, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Told first counts first, nothing runs beside itself, no end is a lie, no verb is lost, and everything ends.

    However long the worker takes to look at the store.
    """
    caplog.set_level(logging.WARNING)
    wrong: list[str] = []
    for places in batches(store, tmp_path):
        wrong += asyncio.run(played_through(places))
        wrong += [said for record in caplog.records if is_unheard_of(said := record.getMessage())]
        caplog.clear()
    assert not wrong, report(wrong)


def is_unheard_of(said: str) -> bool:
    """Whether a log line tells of something that must not be."""
    return any(word in said for word in UNHEARD_OF)


def report(wrong: list[Any]) -> str:
    """The first few whole, and the rest by their first lines."""
    whole = "\n".join(wrong[:3])
    rest = "\n".join("\n".join(one.splitlines()[:3]) for one in wrong[3:])
    return f"{len(wrong)} are broken:\n{whole}\n{rest}"
