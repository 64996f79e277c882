"""What a scan refuses, against the paths that random bodies really take."""

import gc
import random
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sagas.model.definition import Declared
from tests.pure.bodies import Read


class Boom(Exception):
    """A step has failed."""


class TooLongError(BaseException):
    """The path goes round and round."""


class Op:
    """What ``s.run`` gives."""

    def __init__(self, world: "World", what: Declared[..., Any], line: int) -> None:
        self.world, self.what, self.line = world, what, line

    def __await__(self) -> Any:
        yield from ()
        self.world.begin(self.what, self.line)
        return self.world.flip()


class World:
    """A saga that only watches; what happens in it is drawn."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.passed = False
        self.blocks = 0
        self.ticks = 0
        self.right: set[tuple[int, str]] = set()
        """Line, and what was not wrong there."""

    def flip(self) -> bool:
        return self.random.random() < 0.5

    def draw(self) -> int:
        return self.random.randrange(4)

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks > 300:
            raise TooLongError

    def begin(self, what: Declared[..., Any], line: int) -> None:
        if what.kind == "step" and not self.passed:
            self.right.add((line, "after"))
        if what.kind == "pivot":
            self.right |= {
                (line, kind) for kind, wrong in (("second", self.passed), ("block", self.blocks)) if not wrong
            }
        if self.random.random() < 0.25:
            raise Boom
        self.passed |= what.kind == "pivot"

    def run(self, what: Declared[..., Any]) -> Op:
        return Op(self, what, sys._getframe(1).f_lineno)

    def savepoint(self, name: str) -> "World":
        return self

    async def __aenter__(self) -> None:
        self.blocks += 1

    async def __aexit__(self, *error: object) -> None:
        self.blocks -= 1


SIMPLE = [
    "await s.run(a)",
    "await s.run(pay)",
    "await s.run(pay2)",
    "await s.run(tell)",
    "await hop.run(pay)",
    "await (s.run(pay) if k.flip() else s.run(pay2))",
    "await (s.run(pay) if k.flip() else s.run(a))",
    "await (k.flip() and s.run(pay) or s.run(pay2))",
    "k.flip() and await s.run(pay)",
    "k.flip() or await s.run(a)",
    "k.draw() < k.draw() < await s.run(pay)",
    "x = (await s.run(look)) and (await s.run(pay))",
    "x = {await s.run(a): await s.run(pay)}",
    "k.x = (await s.run(pay), await s.run(look))",
    "[await s.run(pay) for _ in range(k.draw())]",
    "[await s.run(a) for _ in range(k.draw()) if await s.run(look)]",
    "later.append(s.run(pay))",
    "later.append(s.run(a))",
    "if later: await later.pop()",
    "await helper()",
    "await other(s)",
    "later.append(helper())",
    "raise Boom",
    "return",
]
LOOPING = ["break", "continue", "if k.flip(): break", "if k.flip(): continue"]
AROUND = [
    ["if k.flip():", "else:"],
    ["if k.flip():"],
    ["if k.flip():", "elif await s.run(look):", "else:"],
    ["if await s.run(pay):", "else:"],
    ["while k.flip():", "else:"],
    ["while not await s.run(pay):"],
    ["while True:"],
    ["for _ in range(k.draw()):", "else:"],
    ["try:", "except Boom:"],
    ["try:", "except Boom:", "else:", "finally:"],
    ["try:", "finally:"],
    ["try:", "except* Boom:"],
    ["with contextlib.suppress(Boom):"],
    ["async with s.savepoint('x'):"],
    ["async with hop.savepoint('x'), contextlib.AsyncExitStack():"],
    ["case 0:", "case 1 if k.flip():", "case 1 | 2:", "case _:"],
    ["case 0:", "case 1 if k.flip():"],
    ["case 1 | 2:", "case _:"],
]
HELPERS = ["async def helper():", "async def other(t):"]


@st.composite
def blocks(draw: st.DrawFn, depth: int, *, without: str = "nothing", looping: bool = False) -> list[str]:
    """The lines of a block."""
    lines: list[str] = []
    simple = [line for line in [*SIMPLE, *(LOOPING if looping else [])] if without not in line]
    for _ in range(draw(st.integers(1, 3))):
        if not depth or draw(st.booleans()):
            lines.append(draw(st.sampled_from(simple)))
            continue
        heads = draw(st.sampled_from(AROUND))
        indent = ""
        if heads[0].startswith("case"):
            lines.append("match k.draw():")
            indent = "    "
        for head in heads:
            loops = looping or (heads[0].startswith(("while", "for")) and head != "else:")
            inner = draw(blocks(depth - 1, without=without, looping=loops))
            lines += [indent + head, f"{indent}    k.tick()", *(f"{indent}    {line}" for line in inner)]
    return lines


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """A body with two helpers. Each is called at one place at most: at another one its lines may be right."""
    lines = ["hop = s", "later = []"]
    lines += [HELPERS[0], *(f"    {line}" for line in draw(blocks(1, without="er(")))]
    lines += [HELPERS[1], *(f"    {line}".replace("s.run", "t.run") for line in draw(blocks(1, without="other")))]
    text = "\n".join(lines + draw(blocks(3)))
    assume(text.count("helper()") <= 2)  # one of them defines it
    assume(text.count("other(s)") <= 1)
    return text


@pytest.mark.filterwarnings("ignore::SyntaxWarning")  # a `return` in a `finally` is drawn as well
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # and a helper kept for later
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_fault_is_wrong_whenever_its_line_is_run():
    """Random bodies, run along random paths with failing steps: a line that is refused is wrong each time it runs."""
    run_at_random()
    gc.collect()  # here, where it is allowed: what was never awaited


@settings(max_examples=80, deadline=None)
@given(body=bodies(), seed=st.integers(0, 1 << 32))
def run_at_random(body: str, seed: int) -> None:
    try:
        seen = Read(body)
    except SyntaxError:
        return  # a `break` or `return` where an `except*` forbids it
    seen.space["Boom"] = Boom
    refused = seen.refused
    for path in range(10):
        world = World(seed + path)
        with suppress(Boom, ExceptionGroup, StopIteration, TooLongError):
            seen.saga.body(world, world).send(None)
        assert world.right & refused == set()
