"""Bodies as text, read by the pass over a saga's body.

A case is a body. A line that must be refused ends in ``#!`` and why; every other line must not be.
"""

import linecache
import re
import textwrap
from typing import Any

import pytest

from sagas import SagaDef
from sagas.check.scan import Scan, scan

PRELUDE = """
import asyncio, contextlib
from types import SimpleNamespace
from sagas import Saga, lookup, pivot, retriable, saga, step

@step(compensation=None, because="a test")
async def a(x=0): ...
@step(compensation=None, because="a test")
async def b(x=0): ...
@step(compensation=None, because="a test", name="a")
async def other_a(x=0): ...
@step
async def naked(x=0): ...
@pivot
async def pay(x=0): ...
@pivot
async def pay2(x=0): ...
@retriable
async def tell(x=0): ...
@lookup
async def look(x=0): ...
@lookup(name="look")
async def other_look(x=0): ...

STEPS = {"a": a}
holder = SimpleNamespace(step=naked, pay=pay)
async def elsewhere(s, *args): ...

@saga("paying", version=1)
async def paying(s: Saga):
    await s.run(a)
    return await s.run(pay)
@saga("perhaps", version=1)
async def perhaps(s: Saga, k=0):
    if k:
        return 0
    return await s.run(pay)
@saga("same-name", version=1)
async def same_name(s: Saga):
    await s.run(other_a)
@saga("stepping", version=1)
async def stepping(s: Saga):
    await s.run(a)
@saga("naked-child", version=1)
async def naked_child(s: Saga):
    await s.run(naked)
@saga("failing", version=1)
async def failing(s: Saga):
    raise ValueError
"""
KINDS = {
    "lacking": "has no compensation",
    "after": "comes after the pivot",
    "second": "is a second pivot",
    "block": "the pivot runs alone",
    "name": "has the name of",
    "itself": "itself, so it would not be recorded and not undone",
}


class Read:
    """A body that was read; its text is where Python looks for it, and in no file."""

    def __init__(self, body: str, head: str = "", *, signature: str = "s, k=0") -> None:
        self.path = "/shop.py"
        text = f"{PRELUDE}{head}\n@saga('read', version=1)\nasync def body({signature}):\n"
        self.first = text.count("\n") + 1
        text += textwrap.indent(textwrap.dedent(body).strip("\n"), "    ") + "\n    return 1\n"
        linecache.cache[self.path] = (len(text), None, text.splitlines(keepends=True), self.path)
        self.space: dict[str, Any] = {"__name__": "shop"}
        exec(compile(text, self.path, "exec"), self.space)
        self.saga: SagaDef[..., Any] = self.space["body"]
        self.marked = {
            (number, mark) for number, line in enumerate(text.splitlines(), 1) for mark in re.findall(r"#! (\w+)", line)
        }
        self.scan: Scan = scan(self.saga)

    @property
    def refused(self) -> set[tuple[int, str]]:
        """Line and why, of each fault."""
        found: set[tuple[int, str]] = set()
        for fault in self.scan.faults:
            place, line, rest = fault.split(":", 2)
            assert place == self.path
            (kind,) = (kind for kind, phrase in KINDS.items() if phrase in rest.partition(". ")[0])
            found.add((int(line), kind))
        return found

    def used(self) -> set[Any]:
        """The names of the steps that were seen in the body itself."""
        return {use.what.name for use in self.scan.uses if use.owner is self.saga}


def cases(text: str) -> Any:
    """Bodies, each under a line ``-- what it shows``."""
    found = [part.partition("\n") for part in re.split(r"^-- ", textwrap.dedent(text), flags=re.MULTILINE)[1:]]
    return pytest.mark.parametrize("body", [pytest.param(body, id=title) for title, _, body in found])
