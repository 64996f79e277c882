"""Texts and numbers that were made to do harm: they are stored, run and shown as what they are."""

import json
from pathlib import Path
from typing import Any

import pytest

from sagas import Saga, saga, step
from sagas.blocking import Orchestrator
from tests.cli.line import run_here
from tests.kit import Place, within

HOSTILE: dict[str, Any] = {
    "quotes": "'; DROP TABLE runs; --\"",
    "nul": "a\x00b",
    "right-to-left": "\u202egpj.exe\u202c \u2066abc\u2069",
    "markup": "<script>alert(1)</script>&amp;",
    "escapes": "\x1b[2J\x1b]0;title\x07\r\n\x7f\x9b31m",
    "format": "%s %(x)s {0} {x} $HOME `id` ${jndi:ldap://x}",
    "long": "ä" * 10_000,
    "surrogate-free": "\U0001f469\u200d\U0001f680\ufeff\u0000\uffff",
    "huge": 10**400,
    "deep": [[[[[[[[[[[[[[[[[[[["x"]]]]]]]]]]]]]]]]]]]],
}


@step(compensation=None, because="it has no effect")
async def say(value: Any) -> Any:
    return value


@saga("echo", version=1)
async def echo(s: Saga, value: Any) -> Any:
    return await s.run(say, value)


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_hostile_value_comes_back_as_it_went(place: Place, what: str):
    """As argument and as result, on every store; and the next saga runs as ever."""
    value = HOSTILE[what]
    async with place.orchestrator(echo) as running:
        handle = await running.start(echo, value, id="one")
        assert await within(handle.result(), running) == value
        info = await handle.info()
        assert (info.input, info.result) == ({"value": value}, value)
        assert await within((await running.start(echo, 1)).result(), running) == 1


def test_what_is_shown_cannot_steer_a_terminal(tmp_path: Path):
    """The command line prints control characters and text directions escaped, as text and as JSON."""
    address = f"sqlite:///{tmp_path / 'sagas.db'}"
    with Orchestrator(address, sagas=[echo]) as running:
        for what in ("escapes", "right-to-left", "nul"):
            running.start(echo, HOSTILE[what], id=what).result()
    for what in ("escapes", "right-to-left", "nul"):
        shown = run_here(tmp_path, {}, "show", what, "--store", address)
        assert shown.code == 0, shown
        assert not set(shown.out) & set("\x00\x1b\x07\x7f\x9b\u202e\u2066"), repr(shown.out)
        document = run_here(tmp_path, {}, "show", what, "--store", address, "--json")
        assert json.loads(document.out)["result"] == HOSTILE[what]
        assert not set(document.out) & set("\x00\x1b\x07\x7f")
