"""Each search that docs/how-to/traces.md promises finds in Jaeger what it promises, and nothing else."""

import platform
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit import Refused
from tests.real_jaeger.conftest import SERVICE
from tests.real_jaeger.server import Jaeger
from tests.real_jaeger.verbs import Told

pytestmark = pytest.mark.timeout(300)
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "traces.md"
ROW = re.compile(r"^\| ([^|]+) \|([^|]*)\|([^|]*)\|$", re.MULTILINE)
WINDOW_S = 3600
"""The time that is asked for: the last hour, as the page does unless told otherwise."""

OURS = {
    "order-17": "compensated",
    "place-order": "trip",
    "shop.CardDeclined": "tests.kit.Refused",
    "charge": "hotel",
    "book-trip": "trip",
    "orders-1": platform.node(),
}
"""What the page's examples are called here."""


def now(told: Told) -> bool:
    """Whether it has ended in the time that is asked for; all have, of those that have ended."""
    return told.info.ended_at is not None


def undone(told: Told) -> bool:
    return now(told) and told.info.status == "compensated"


def has(told: Told, kind: str, key: str) -> bool:
    """Whether its journal has such an entry; ``*`` in front of a key stands for what it is in."""
    keys = [entry.key for entry in told.history if entry.kind == kind]
    return any(found.rpartition("/")[2] == key[1:] if key.startswith("*") else found == key for found in keys)


def cut(told: Told) -> set[str]:
    """The keys of the steps of which an attempt began and, as far as the journal knows, never ended."""
    kinds = {"started": 1, "retried": 1, "reopened": 1, "succeeded": -1, "failed": -1, "withheld": -1}
    open_: Counter[str] = Counter()
    for entry in told.history:
        open_[entry.key] += kinds.get(entry.kind, 0)
        if entry.kind == "gave_up":  # announced, and never called
            open_[entry.key] = 0
    return {key for key, number in open_.items() if number > 0}


EXPECTED: dict[str, Callable[[Told], bool]] = {
    "one saga": lambda told: told.info.id == "compensated",
    "sagas that were undone in this time": undone,
    "those of one name": lambda told: undone(told) and told.info.saga == "trip",
    "those that were not cancelled, but failed": lambda told: undone(told) and told.info.cause == "failed",
    "those that an exception led to": lambda told: undone(told) and isinstance(told.info.error, Refused),
    "sagas that began in this time and were completed": lambda told: (
        told.info.status == "completed" and told.info.id != "old-completed"
    ),
    "sagas that got stuck in this time": lambda told: (
        told.info.saga == "trip" and any(entry.kind == "parked" for entry in told.history)
    ),
    "failed or cut attempts of a step": lambda told: has(told, "failed", "*hotel") or "hotel" in cut(told),
    "failed or cut attempts of its undo": lambda told: has(told, "failed", "*hotel~undo") or "hotel~undo" in cut(told),
    "attempts that were cut: their process died, or their saga was killed": lambda told: bool(cut(told)),
    "what a cancel led to": lambda told: has(told, "signalled", "cancel"),
    "undone steps": lambda told: has(told, "started", "*hotel~undo"),
    "children that were undone by themselves": lambda told: has(told, "marked", "child-compensated:trip"),
    "what a machine has done": lambda _told: True,
    "what your own code has said": lambda told: told.info.id == "asked",
}
"""By what the page says you want: of which sagas it holds, as their own journals tell."""


def promised() -> dict[str, tuple[str, dict[str, str]]]:
    """The page's table: what you want, the name of the span, and the attributes."""
    section = PAGE.read_text(encoding="utf-8").split("## What to search for\n")[1].split("\n## ")[0]
    rows = {want.strip(): (name, attributes) for want, name, attributes in ROW.findall(section)}
    return {
        want: (" ".join(_ours(name)), dict(pair.split("=", 1) for pair in _ours(attributes)))
        for want, (name, attributes) in rows.items()
        if want != "You want"
    }


def _ours(cell: str) -> list[str]:
    """The words of a cell, with our names for the page's examples."""
    words = cell.replace("`", " ").split()
    return ["=".join(OURS.get(part, part) for part in word.split("=")) for word in words]


def test_every_search_of_the_page_is_tried():
    """What is expected here is what the page's table promises, row by row."""
    assert promised().keys() == EXPECTED.keys()


@pytest.mark.parametrize("want", EXPECTED)
def test_a_search_finds_what_the_page_promises(shown: Jaeger, sent: dict[str, Told], want: str):
    """The span's name and attributes of the page's row find the sagas that the row says, and no other."""
    name, attributes = promised()[want]
    names = {told.trace_id: id for id, told in sent.items()}
    since_us = time.time_ns() // 1000 - WINDOW_S * 1_000_000
    found = {names[trace_id] for trace_id in shown.search(SERVICE, name, attributes, since_us=since_us)}
    wanted = {id for id, told in sent.items() if EXPECTED[want](told)}
    assert wanted, "a search for nothing tries nothing"
    assert found == wanted, f"missing: {sorted(wanted - found)}; beyond that: {sorted(found - wanted)}"


def test_what_nobody_has_is_not_found(shown: Jaeger, sent: dict[str, Told]):
    """A name, an attribute and a machine that no span has find nothing."""
    assert sent
    assert not shown.search(SERVICE, "no such span")
    assert not shown.search(SERVICE, tags={"saga.id": "nobody"})
    assert not shown.search(SERVICE, tags={"saga.worker.host": "no-such-machine"})
