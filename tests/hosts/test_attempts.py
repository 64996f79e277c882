"""Attempts that come as bytes, as hosts send them."""

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from durable_core.layer import StepCall, rebuild
from sagas.hosts.attempts import Attempts, NotLoaded
from sagas.hosts.shared import Registry
from tests.hosts import scenes
from tests.kit import World


def call(**changes: Any) -> bytes:
    """The first attempt of the first step of ``trip``."""
    asked = StepCall("one", b"u" * 16, "trip", 1, "car", "step", 1, 2, Raw(b'["ann"]'))
    return msgspec.json.encode(msgspec.structs.replace(asked, **changes))


def made(world: World, stored: bytes) -> Any:
    """How the attempt ended."""
    return asyncio.run(Attempts(Registry([scenes.trip], [world], serving=True)).make(stored))


def test_an_attempt_is_made():
    """With its arguments and this worker's resources, and the result comes back as JSON."""
    world = World()
    assert bytes(made(world, call()).value) == b'"ann"'
    assert world.log == ["car"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "journey"}, "does not serve 'journey' v1"),
        ({"version": 2}, "does not serve 'trip' v2"),
        ({"key": "ship"}, "does not say what step 'ship' calls"),
    ],
)
def test_a_worker_that_does_not_know_the_step(changes: dict[str, Any], why: str):
    """It says so, and calls nothing: another worker may know it."""
    world = World()
    with pytest.raises(NotLoaded, match=why):
        made(world, call(**changes))
    assert world.log == []


def test_arguments_that_no_longer_fit():
    """The attempt ends for good, and nothing is called."""
    world = World()
    done = made(world, call(args=Raw(b"[3, 4, 5]")))
    assert (done.repeatable, world.log) == (False, [])
    assert "one" in str(rebuild(bytes(done.error)))
