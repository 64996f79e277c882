"""The pass over a saga's body: what cannot work is refused with its place, and what can work never is.

A case is a body as text. A line that must be refused ends in ``#!`` and why; every other line must not be.
"""

import gc
import random
import re
import sys
import textwrap
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sagas import SagaDef
from sagas.check.impure import instead_of
from sagas.check.scan import Scan, scan
from sagas.model.definition import Declared

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
}


class Read:
    """A body that was read."""

    def __init__(self, path: Path, body: str, head: str = "", *, signature: str = "s, k=0") -> None:
        self.path = path
        text = f"{PRELUDE}{head}\n@saga('read', version=1)\nasync def body({signature}):\n"
        self.first = text.count("\n") + 1
        text += textwrap.indent(textwrap.dedent(body).strip("\n"), "    ") + "\n    return 1\n"
        path.write_text(text, encoding="utf-8")
        self.space: dict[str, Any] = {"__name__": path.stem}
        exec(compile(text, str(path), "exec"), self.space)
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
            assert place == str(self.path)
            (kind,) = (kind for kind, phrase in KINDS.items() if phrase in rest.partition(". ")[0])
            found.add((int(line), kind))
        return found

    def used(self) -> set[Any]:
        """The names of the steps that were seen in the body itself."""
        return {use.what.name for use in self.scan.uses if use.owner is self.saga}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Read]:
    """Reads a body."""
    return lambda *args, **options: Read(tmp_path / "shop.py", *args, **options)


def cases(text: str) -> Any:
    """Bodies, each under a line ``-- what it shows``."""
    found = [part.partition("\n") for part in re.split(r"^-- ", textwrap.dedent(text), flags=re.MULTILINE)[1:]]
    return pytest.mark.parametrize("body", [pytest.param(body, id=title) for title, _, body in found])


@cases("""
    -- a pivot in each case of a match
    await s.run(a)
    match k:
        case 1: await s.run(pay)
        case 2: await s.run(pay2)
    -- a case that ends the saga with the pivot
    match k:
        case 1:
            await s.run(pay)
            return 1
        case _:
            await s.run(a)
    await s.run(b)
    -- a match of which no case may fit
    match k:
        case 1: await s.run(pay)
        case 2: await s.run(pay)
    await s.run(a)
    -- a guard that may not hold
    match k:
        case x if x: await s.run(pay)
    await s.run(a)
    -- one of two pivots by a conditional expression
    await (s.run(pay) if k else s.run(pay2))
    -- one of two pivots by conditional operands
    (await s.run(pay)) if k else (await s.run(pay2))
    -- a pivot that `and` may leave out
    k and await s.run(pay)
    await s.run(a)
    -- a pivot that `or` may leave out
    if k or await s.run(pay):
        await s.run(a)
    -- one of two operations, awaited
    await (k and s.run(pay) or s.run(pay2))
    -- a pivot that a chain of comparisons may leave out
    if 1 < k < await s.run(pay):
        await s.run(a)
    -- a walrus in a condition
    if k and (n := await s.run(pay)):
        return n
    await s.run(a)
    -- a helper that is awaited
    async def finish(t: Saga):
        return await t.run(pay)
    await s.run(a)
    return await finish(s)
    -- a helper that is awaited on one of two paths
    async def finish():
        return await s.run(pay)
    if k:
        return await finish()
    await s.run(a)
    await finish()
    -- a helper that may return before its pivot
    async def finish(n):
        if n: return
        await s.run(pay)
    await finish(k)
    await s.run(a)
    -- a helper that runs itself again
    async def again(n):
        if n: await again(n - 1)
        await s.run(a)
    await again(k)
    await s.run(pay)
    -- helpers that run each other
    async def ping(n):
        if n: await pong(n)
    async def pong(n):
        await ping(n - 1)
        await s.run(a)
    await ping(k)
    -- a helper that nobody calls
    async def unused(t: Saga):
        await t.run(naked)
        await s.run(naked)
    await s.run(a)
    -- a loop variable named like a step
    for naked in STEPS.values():
        await s.run(naked)
    -- a parameter of a helper named like a step
    async def one(naked):
        await s.run(naked)
    await one(a)
    -- a local name given in a with, an except, a match and an import
    with contextlib.nullcontext(a) as naked: await s.run(naked)
    try: pass
    except ValueError as pay: await s.run(pay)
    match k:
        case {"step": pay2}: await s.run(pay2)
        case [*tell]: await s.run(tell)
        case {**look}: await s.run(look)
    -- a variable of a comprehension named like a step
    [await s.run(naked) for naked in STEPS.values()]
    -- an attribute that the body assigns
    holder.step = a
    await s.run(holder.step)
    -- a global that the body assigns
    global naked
    naked = a
    await s.run(naked)
    -- a global that a helper assigns
    def choose():
        global naked
        naked = a
    choose()
    await s.run(naked)
    -- a local that a helper assigns
    chosen = naked
    def choose():
        nonlocal chosen
        chosen = a
    choose()
    await s.run(chosen)
    -- a child that may end before its pivot
    await s.run(perhaps, 1)
    await s.run(a)
    -- a child's step with the name of another one of the parent
    await s.run(a)
    await s.run(same_name)
    -- an `except*` in place of the pivot
    try: await s.run(pay)
    except* ValueError: await s.run(a)
    -- another pivot in place of the one that failed
    await s.run(a)
    try: await s.run(pay)
    except ValueError: await s.run(pay2)
    -- a step in place of the pivot that failed
    try: await s.run(pay)
    except ValueError: await s.run(a)
    await s.run(b)
    -- what is done finally, the pivot having failed
    try: await s.run(pay)
    finally: await s.run(a)
    -- a pivot whose failure may be swallowed
    with contextlib.suppress(ValueError):
        await s.run(pay)
    await s.run(a)
    -- a pivot whose failure another manager beside the saga's may swallow
    async with s.savepoint("x"), contextlib.AsyncExitStack() as stack:
        await s.run(a)
    with contextlib.suppress(ValueError):
        return await s.run(pay)
    await s.run(a)
    -- the saga by another name
    me = s
    me2 = me
    await me2.run(pay)
    -- a loop that is left at the pivot
    while True:
        await s.run(a)
        if await s.run(look):
            await s.run(pay)
            break
    -- a loop that returns at the pivot
    for i in range(3):
        try: return await s.run(pay)
        except ValueError: await s.run(a, i)
    await s.run(b)
    -- a loop that goes on after the pivot
    for i in range(k):
        if i:
            await s.run(pay)
            continue
        await s.run(a)
    -- a loop that may run not at all
    for i in range(k): await s.run(pay)
    await s.run(a)
    -- a loop left before the pivot
    while True:
        if k: break
        await s.run(pay)
        return 1
    await s.run(a)
    -- a comprehension that may run not at all
    [await s.run(pay) for i in range(k)]
    await s.run(a)
    -- one branch with the pivot, one that goes on
    if k:
        async with s.savepoint("x"): await s.run(a)
    else:
        await s.run(pay)
        return 1
    await s.run(b)
    -- a step that a function chooses
    def pick(n): return pay if n else pay2
    await s.run(pick(1))
    -- a branch used twice, then the pivot
    async def branch(t: Saga): await t.run(a)
    async with s.parallel() as p:
        p.run(branch)
        p.run(branch)
    await s.run(pay)
    -- an operation that is awaited later
    later = s.run(pay)
    await s.run(a)
    await later
    -- an operation made in a block and awaited after it
    async with s.savepoint("x"):
        later = s.run(pay)
    await later
    -- operations made in one order and awaited in another
    for operation in reversed([s.run(pay), s.run(a)]):
        await operation
    -- coroutines of a helper that are awaited later
    async def finish(): await s.run(pay)
    later = finish()
    await s.run(a)
    await later
    -- a helper kept in a table
    async def finish(): await s.run(pay)
    async def refuse(): await s.run(a)
    todo = {1: finish, 2: refuse}
    await todo[k]()
    -- a generator run after the block
    async with s.savepoint("x"):
        later = (await s.run(pay) for _ in "1")
    async for _ in later: pass
    -- what follows the pivot
    await s.run(pay)
    await s.run(tell)
    await s.run(look)
    async with s.parallel() as p: p.run(tell)
    await s.map(look, [1])
    -- something else that has a `run`
    asyncio.run(naked) if k > 9 else None
    -- a method that is no block of the saga
    db = SimpleNamespace(savepoint=contextlib.AsyncExitStack)
    async with db.savepoint():
        await s.run(pay)
    -- code that is never come to
    if False: await s.run(naked)
    x = (await s.run(naked)) if 0 else 1
    while 0: await s.run(naked)
    return await s.run(a)
    await s.run(naked)
    -- code after a child that always fails
    await s.run(pay)
    await s.run(failing)
    await s.run(a)
    -- an assertion's message
    assert not k, await s.run(pay)
    await s.run(a)
    -- helpers and lambdas of a class
    class Plan:
        step = a
        async def go(self, naked): await s.run(naked)
    await Plan().go(a)
    await s.run(Plan.step)
""")
def test_a_saga_that_can_work_is_not_refused(read: Callable[..., Read], body: str):
    """What is right on a path that exists is never refused, however the body is written."""
    assert read(body).scan.faults == ()


@cases("""
    -- a step without compensation
    await s.run(naked)  #! lacking
    -- what a `for` goes through
    for x in await s.run(naked): pass  #! lacking
    -- what an `async for` goes through
    async for x in await s.run(naked): pass  #! lacking
    -- the condition of a `while`
    while await s.run(naked): pass  #! lacking
    -- what a `with` enters
    with await s.run(naked) as x: pass  #! lacking
    -- what an `async with` enters
    async with k, await s.run(naked): pass  #! lacking
    -- in a comprehension
    [await s.run(naked, i) for i in range(3)]  #! lacking
    {i: await s.run(naked) for i in range(3)}  #! lacking
    [i for j in k for i in await s.run(naked)]  #! lacking
    [i for i in await s.run(naked)]  #! lacking
    -- in the arms of everything
    if await s.run(naked): pass  #! lacking
    elif await s.run(naked): pass  #! lacking
    try: pass
    except ValueError: await s.run(naked)  #! lacking
    else: await s.run(naked)  #! lacking
    finally: await s.run(naked)  #! lacking
    for i in k: pass
    else: await s.run(naked)  #! lacking
    match await s.run(naked):  #! lacking
        case 1 if await s.run(naked): pass  #! lacking
        case _: await s.run(naked)  #! lacking
    x = y = await s.run(naked)  #! lacking
    x: int = await s.run(naked)  #! lacking
    k[await s.run(naked)] = 1  #! lacking
    k += await s.run(naked)  #! lacking
    del k[await s.run(naked)]  #! lacking
    assert await s.run(naked), "no"  #! lacking
    assert k, await s.run(naked)  #! lacking
    f"{await s.run(naked)}"  #! lacking
    print(*await s.run(naked), end=await s.run(naked))  #! lacking
    {"x": await s.run(naked)}  #! lacking
    raise await s.run(naked)  #! lacking
    -- awaited by something else, or later
    await asyncio.wait_for(s.run(naked), 1)  #! lacking
    later = s.run(naked)  #! lacking
    await later
    -- in a parallel block and a map
    async with s.parallel() as p:
        task = p.run(naked)  #! lacking
    await s.map(naked, [1])  #! lacking
    -- in a branch
    async def branch(t):
        await t.run(naked)  #! lacking
    async with s.parallel() as p:
        p.run(branch)
    -- in a helper that is given the saga by name
    async def finish(*, t):
        await t.run(naked)  #! lacking
    await finish(t=s)
    -- in a plain helper
    def make(t): return t.run(naked)  #! lacking
    await make(s)
    -- in a helper of a helper
    async def outer(t):
        async def inner(u):
            await u.run(naked)  #! lacking
        await inner(t)
    await outer(s)
    -- in a helper that is passed around
    async def finish():
        await s.run(naked)  #! lacking
    await asyncio.gather(finish())
    -- in a lambda and a default
    make = lambda: s.run(naked)  #! lacking
    async def finish(x=await s.run(naked)): ...  #! lacking
    -- in a decorated helper and a method
    @asyncio.coroutines.coroutine if k else (lambda f: f)
    async def finish(): await s.run(naked)  #! lacking
    class Plan:
        async def go(self): await s.run(naked)  #! lacking
    -- by other names
    me, step = s, naked
    it = naked
    you = s
    await you.run(it)  #! lacking
    -- by an attribute
    await s.run(holder.step)  #! lacking
    -- a step after the pivot
    await s.run(pay)
    await s.run(a)  #! after
    -- a step after the pivot, whatever is caught
    await s.run(pay)
    try: await s.run(a)  #! after
    except ValueError: pass
    finally: await s.run(b)  #! after
    -- steps in parallel after the pivot
    await s.run(pay)
    async with s.parallel() as p:
        p.run(a)  #! after
    await s.map(b, [1])  #! after
    -- a branch after the pivot
    async def branch(t): await t.run(a)  #! after
    await s.run(pay)
    async with s.parallel() as p: p.run(branch)
    -- a step after a pivot in both arms
    if k: await s.run(pay)
    else: await s.run(pay2)
    await s.run(a)  #! after
    -- a step after a pivot in every case
    match k:
        case 1: await s.run(pay)
        case 2: return 0
        case _: await s.run(pay2)
    await s.run(a)  #! after
    -- a step after a pivot by either expression
    await (s.run(pay) if k else s.run(pay2))
    await s.run(a)  #! after
    -- a step after a pivot that may fail, but was not replaced
    try: await s.run(pay)
    except ValueError: raise
    await s.run(a)  #! after
    -- a step after the pivot of an `except*`
    try: await s.run(pay)
    except* ValueError: raise
    else: await s.run(b)  #! after
    await s.run(a)  #! after
    -- a step after an arm that leaves the loop
    for i in k:
        if i: continue
        elif i == 2: break
        else: await s.run(pay)
        await s.run(a)  #! after
    -- a step after a loop that is left at the pivot only
    while True:
        await s.run(a)
        if k: continue
        await s.run(pay)
        break
    await s.run(b)  #! after
    -- a step after the condition of a loop
    while not await s.run(pay):
        await s.run(a)  #! after
    -- a step after a pivot in a savepoint's stead
    await s.run(pay)
    async with s.savepoint("x"):
        await s.run(a)  #! after
    await s.run(b)  #! after
    -- a step after a helper with the pivot
    async def finish(): await s.run(pay)
    await finish()
    await s.run(a)  #! after
    -- a step after a plain helper that returns the operation
    await s.run(pay)
    [await s.run(a) for _ in "1"]  #! after
    k and await s.run(b)  #! after
    x = {"x": await s.run(a)}  #! after
    -- a step after a child with the pivot
    await s.run(paying)
    await s.run(a)  #! after
    -- a step in the place of the value that is assigned first
    k[await s.run(a)] = await s.run(pay)  #! after
    -- a second pivot
    await s.run(pay)
    return await s.run(pay2)  #! second
    -- the same pivot twice
    await s.run(pay)
    await s.run(pay)  #! second
    -- a second pivot in a helper
    async def finish(): await s.run(pay2)  #! second
    await s.run(pay)
    await finish()
    -- a second pivot as an argument
    print(await s.run(pay), await s.run(pay2))  #! second
    -- a pivot in a parallel block
    async with s.parallel() as p:
        p.run(pay)  #! block
    async with s.parallel() as p:
        task = p.run(pay2)  #! block
    -- a pivot awaited in a parallel block
    async with s.parallel() as p:
        p.run(a)
        await s.run(pay)  #! block
    -- a pivot in a parallel block of an alias
    me = s
    async with me.parallel() as p, contextlib.AsyncExitStack():
        p.run(pay)  #! block
    -- a pivot in a savepoint
    async with s.savepoint("x"):
        await s.run(pay)  #! block
    -- a pivot in a helper called in a savepoint
    async def finish(): await s.run(pay)  #! block
    async with s.savepoint("x"): await finish()
    -- a pivot in a map
    await s.map(pay, [1])  #! block
    -- a pivot in a branch
    async def branch(t): await t.run(pay)  #! block
    async with s.parallel() as p: p.run(branch)
    -- two steps under one name
    await s.run(a)
    await s.run(other_a)  #! name
    -- two steps under one name on two paths
    if k: await s.run(look)
    else: await s.run(other_look)  #! name
""")
def test_what_is_wrong_on_every_path_is_refused_at_its_place(read: Callable[..., Read], body: str):
    """The faults are those of the marked lines, each begins with file and line, and there is no other."""
    seen = read(body)
    assert seen.refused == seen.marked
    assert seen.marked


def test_faults_of_a_child_are_told_at_its_own_place(read: Callable[..., Read]):
    """A child is read as a part of its parent: after the parent's pivot, or in its block, its steps are wrong."""
    head = """
@saga("in-block", version=1)
async def in_block(s: Saga):
    await s.run(pay)  #! block
@saga("too-late", version=1)
async def too_late(s: Saga):
    await s.run(look)
    await s.run(a)  #! after
    await s.run(naked)  #! lacking
    """.replace("#! lacking", "#! lacking #! after")
    seen = read("async with s.parallel() as p: p.run(in_block)\nawait s.run(pay)\nawait s.run(too_late)", head)
    assert seen.refused == seen.marked


def test_a_child_read_in_two_places_is_judged_in_each(read: Callable[..., Read]):
    """The same child is right before the pivot and wrong after it; the same fault is told once."""
    seen = read("await s.run(stepping)\nawait s.run(stepping)\nawait s.run(pay)")
    assert seen.scan.faults == ()
    seen = read("await s.run(stepping)\nawait s.run(pay)\nawait s.run(stepping)\nawait s.run(stepping)")
    assert [kind for _, kind in seen.refused] == ["after"]
    assert len(seen.scan.faults) == 1


def test_sagas_that_run_each_other_are_read_to_an_end(read: Callable[..., Read]):
    """A recursion through children ends, and what is right before it stays right."""
    head = """
@saga("ping", version=1)
async def ping(s: Saga, n=0):
    await s.run(a)
    if n: await s.run(pong, n)
    await s.run(b)
@saga("pong", version=1)
async def pong(s: Saga, n=0):
    await s.run(ping, n - 1)
    await s.run(naked)  #! lacking
    """
    seen = read("await s.run(ping, 3)\nawait s.run(pay)", head)
    assert seen.refused == seen.marked


def test_helpers_that_call_each_other_twice_are_read_once(read: Callable[..., Read]):
    """Forty helpers, of which each awaits the one before twice, are read at once: nothing is followed twice."""
    lines = ["async def f0(): await s.run(a)"]
    lines += [f"async def f{n}():\n    await f{n - 1}()\n    await f{n - 1}()" for n in range(1, 41)]
    seen = read("\n".join([*lines, "await f40()", "await s.run(pay)"]))
    assert seen.scan.faults == ()
    assert seen.used() == {"a", "pay"}


@pytest.mark.parametrize("signature", ["s", "s, /", "s, k=0, *args, **kwargs", "s: 'Saga'", "s, *, k=0"])
def test_the_first_parameter_is_the_saga(read: Callable[..., Read], signature: str):
    """However it is declared, the first parameter runs steps."""
    assert {kind for _, kind in read("await s.run(naked)", signature=signature).refused} == {"lacking"}


@pytest.mark.parametrize(
    "body",
    ["s = elsewhere\nawait s.run(naked)", "await t.run(naked)", "await k().run(naked)", "await args[0].run(pay)"],
)
def test_what_may_not_be_the_saga_is_collected_only(read: Callable[..., Read], body: str):
    """A step given to something that may not be the saga is noted, and nothing is said against it."""
    seen = read(body, signature="s, k=0, t=0, *args")
    assert seen.scan.faults == ()
    assert [use.sure for use in seen.scan.uses] == [False]


def test_a_body_that_takes_everything_at_once_is_not_judged(read: Callable[..., Read]):
    """Where the saga is one of ``*args``, its name is not known: the steps are collected, and nothing is refused."""
    seen = read("s = args[0]\nawait s.run(naked)", signature="*args")
    assert (seen.scan.faults, seen.used()) == ((), {"naked"})


def test_a_method_is_a_body_too(read: Callable[..., Read]):
    """Where the body is a bound method, the saga is what it is called with first."""
    head = """
class Shop:
    async def body(self, s: Saga):
        await s.run(naked)
    """
    seen = read("pass", head)
    definition = SagaDef(name="method", version=1, body=seen.space["Shop"]().body)
    assert [fault.split(": ")[0] for fault in scan(definition).faults] == [f"{seen.path}:{seen.first - 4}"]


def test_a_body_without_source_is_not_refused():
    """What was typed at a prompt or generated is left to the first run."""
    space: dict[str, Any] = {}
    exec("async def body(s): await s.run(naked)", space)
    found = scan(SagaDef(name="typed", version=1, body=space["body"]))
    assert found == Scan((), (), ())
    assert found.sagas == ()


def test_a_property_of_somebody_is_not_run(read: Callable[..., Read]):
    """Reading a body runs nothing: a property that raises is no reason to refuse, a slot and a class are looked at."""
    head = """
class Loaded:
    __slots__ = ("full", "empty")
    shared = naked
    @property
    def broken(self): raise RuntimeError("not now")
loaded = Loaded()
loaded.full = naked
    """
    seen = read(
        """
        await s.run(loaded.broken)
        await s.run(loaded.empty)
        await s.run(loaded.nothing)
        await loaded.broken.run(1)
        await s.run(loaded.full)  #! lacking
        await s.run(loaded.shared)  #! lacking
        await s.run(Loaded.shared)  #! lacking
        """,
        head,
    )
    assert seen.refused == seen.marked


def test_a_closed_over_name_stands_for_what_it_holds(read: Callable[..., Read]):
    """What the body closes over is told by its cell; an empty one is not mistaken for the module's name."""
    head = """
def made(it):
    @saga("made", version=1)
    async def inner(s: Saga):
        await s.run(it)
        await s.run(naked)
    if it is None:
        naked = a
    return inner
    """
    space = read("pass", head).space
    assert scan(space["made"](space["look"])).faults == ()
    assert [use.what.name for use in scan(space["made"](space["naked"])).uses] == ["naked"]


def test_names_that_the_body_imports_are_told(read: Callable[..., Read], monkeypatch: pytest.MonkeyPatch):
    """An import in the body is followed to the module that is loaded; one that is not is data, and is not loaded."""
    shelf, inner = types.ModuleType("shelf"), types.ModuleType("shelf.inner")
    monkeypatch.setitem(sys.modules, "shelf", shelf)
    monkeypatch.setitem(sys.modules, "shelf.inner", inner)
    monkeypatch.delitem(sys.modules, "this", raising=False)
    text = """
    import shelf, shelf.inner as within, this
    from shelf import naked as plain, nothing, inner
    from shelf.inner import naked as other
    from . import naked as near
    from .. import naked as far
    await s.run(shelf.naked)  #! lacking
    await s.run(within.naked)  #! lacking
    await s.run(plain)  #! lacking
    await s.run(inner.naked)  #! lacking
    await s.run(other)  #! lacking
    await s.run(near)
    await s.run(far)
    await s.run(nothing)
    await s.run(this.naked)
    """
    naked = read("pass").space["naked"]
    shelf.naked = inner.naked = naked  # type: ignore[attr-defined]
    seen = read(text)
    assert seen.refused == seen.marked
    assert "this" not in sys.modules
    for package, more in [("shelf", 1), ("shelf.inner", 2), ("shelf.other", 1), ("other", 0)]:
        seen.space["__package__"] = package
        assert len(scan(seen.saga).faults) == len(seen.marked) + more


def test_a_module_that_cannot_load_a_part_is_no_reason_to_refuse(read: Callable[..., Read]):
    """A part that a module loads on demand is looked at; where it cannot be loaded it is data."""
    seen = read(
        "await s.run(lazy.part)  #! lacking\nawait s.run(lazy.absent)", "import types\nlazy = types.ModuleType('x')"
    )

    def load(name: str) -> object:
        if name == "part":
            return seen.space["naked"]
        raise ImportError(name)

    seen.space["lazy"].__getattr__ = load
    assert [fault.split(": ")[0] for fault in scan(seen.saga).faults] == [f"{seen.path}:{seen.first}"]


# -- what a scan gives out ---------------------------------------------------------------------------------------------


def test_steps_are_kept_by_the_saga_that_names_them(read: Callable[..., Read]):
    """A child's step has its owner: it neither shadows nor is shadowed by one of the same name in the parent."""
    seen = read("await s.run(a)\nawait s.run(pay)\nawait s.run(same_name)")
    space = seen.space
    assert seen.scan.declared(seen.saga) == {"a": space["a"], "pay": space["pay"]}
    assert seen.scan.declared(space["same_name"]) == {"a": space["other_a"]}
    assert seen.scan.declared(space["paying"]) == {}
    assert seen.scan.sagas == (seen.saga, space["same_name"])
    assert [(use.what, use.owner) for use in seen.scan.uses][2:] == [
        (space["same_name"], seen.saga),
        (space["other_a"], space["same_name"]),
    ]


def test_a_name_that_stands_for_two_steps_is_not_declared(read: Callable[..., Read]):
    """A name of two steps of one saga stands for neither; the same step used twice is one."""
    seen = read("await s.run(a)\nawait s.run(other_a)\nawait s.run(look)\nawait s.run(look)")
    assert seen.scan.declared(seen.saga) == {"look": seen.space["look"]}


@cases("""
    -- in what a loop goes through
    for x in await s.run(a): pass
    while await s.run(b): pass
    async with await s.run(look): pass
    -- in a helper that nobody calls
    async def unused(t):
        await t.run(a)
        await t.map(b, [])
        await t.run(look)
    -- in a generator, a lambda and an operation kept for later
    later = [s.run(a), (await s.run(b) for _ in k), lambda t: t.run(look)]
    -- in helpers of one name
    if k:
        async def go(t): await t.run(a)
    else:
        async def go(t): await t.run(b)
    await go(s)
    await s.run(look)
    -- in a generator function
    async def each(t):
        yield await t.run(a)
        yield await t.run(b)
    async for x in each(s): await s.run(look)
""")
def test_steps_are_seen_wherever_the_body_names_them(read: Callable[..., Read], body: str):
    """What may run is found by name for a rollback without the body, also where nothing can be said about it."""
    seen = read(body)
    assert set(seen.scan.declared(seen.saga)) == {"a", "b", "look"}
    assert seen.scan.faults == ()


# -- impure calls ------------------------------------------------------------------------------------------------------

IMPURE = [
    ("import time", "time.time()", "s.now()"),
    ("import time as tm", "tm.time()", "s.now()"),
    ("from time import time as now", "now()", "s.now()"),
    ("from time import sleep", "sleep(1)", "await s.sleep(...)"),
    ("import time", "time.perf_counter()", "s.now()"),
    ("import time", "time.monotonic_ns()", "s.now()"),
    ("import time", "time.localtime()", "s.now()"),
    ("import time", "time.strftime('%Y')", "s.now()"),
    ("import datetime as d", "d.datetime.now()", "s.now()"),
    ("from datetime import datetime, UTC", "datetime.now(UTC)", "s.now()"),
    ("from datetime import datetime as dt", "dt.utcnow()", "s.now()"),
    ("from datetime import datetime", "datetime.today()", "s.now()"),
    ("from datetime import date", "date.today()", "s.now().date()"),
    ("import datetime\nclass Mine(datetime.datetime): ...", "Mine.now()", "s.now()"),
    ("import random", "random.random()", "s.random()"),
    ("from random import choice as pick", "pick([1])", "s.random()"),
    ("import random", "random.shuffle([])", "s.random()"),
    ("import random", "random.uniform(1, 2)", "s.random()"),
    ("import uuid", "uuid.uuid4()", "s.uuid()"),
    ("from uuid import uuid1 as fresh", "fresh()", "s.uuid()"),
    ("import os", "os.urandom(8)", "s.random()"),
    ("import secrets", "secrets.token_hex()", "s.uuid()"),
    ("import secrets", "secrets.randbelow(3)", "s.random()"),
    ("import secrets", "secrets.choice([1])", "s.random()"),
    ("import httpx", "httpx.get('x')", "a step"),
    ("from httpx import post as send", "send('x')", "a step"),
    ("", "open('x')", "a step"),
    ("import io", "io.open('x')", "a step"),
    ("", "input()", "a step"),
    ("opened = open", "opened('x')", "a step"),
    ("clock = __import__('time').time", "[clock() for _ in 'x']", "s.now()"),
]


@pytest.mark.parametrize(("head", "call", "instead"), IMPURE, ids=[f"{head}; {call}" for head, call, _ in IMPURE])
def test_impure_calls_are_warned_of_by_what_they_call(read: Callable[..., Read], head: str, call: str, instead: str):
    """Whatever the body calls it, a function whose answer differs is told with its place and what to use instead."""
    seen = read(f"x = {call}", head)
    (warning,) = seen.scan.warnings
    spelled = re.sub(r"^\[|\(.*", "", call)
    assert warning == (
        f"{seen.path}:{seen.first}: the body calls {spelled}(), which answers differently when the saga is run again "
        f"from its journal; use {instead}"
    )
    assert seen.scan.faults == ()


@pytest.mark.parametrize(
    "call", ["import time as tm; tm.time()", "from time import time as t; t()", "t = time.time; t()"]
)
def test_impure_calls_are_known_through_names_of_the_body(read: Callable[..., Read], call: str):
    """An import, and another name, in the body are followed."""
    (warning,) = read(call, "import time").scan.warnings
    assert "s.now()" in warning


def test_impure_calls_are_found_everywhere_that_runs(read: Callable[..., Read]):
    """In a helper, a lambda, a child and an argument of a step; not in a helper that nobody calls."""
    head = """
import time
@saga("child", version=1)
async def child(s: Saga): return time.time_ns()
    """
    body = """
    def stamp(): return time.time()
    key = lambda: time.monotonic()
    def unused(): return time.process_time()
    await s.run(a, time.perf_counter())
    await s.run(child)
    return stamp()
    """
    found = {warning.split("calls ")[1].split("()")[0] for warning in read(body, head).scan.warnings}
    assert found == {"time.time", "time.monotonic", "time.perf_counter", "time.time_ns"}


PURE = [
    ("", "print('x')"),
    ("def open(x): ...", "open('x')"),
    ("class time:\n    @staticmethod\n    def time(): ...", "time.time()"),
    ("import time", "time.gmtime(0)"),
    ("import time", "time.strftime('%Y', k)"),
    ("import time", "time.strptime('1', '%d')"),
    ("from datetime import datetime", "datetime.fromisoformat('2024-01-01')"),
    ("from datetime import date", "date.fromisoformat('2024-01-01')"),
    ("import random\nrandom_of_mine = random.Random(1)", "random_of_mine.random()"),
    ("import secrets", "secrets.compare_digest('a', 'b')"),
    ("import uuid", "uuid.uuid5(k, 'x')"),
    ("import uuid", "uuid.UUID(int=1)"),
    ("import time", "s.now()"),
    ("import time", "(lambda time: time.time())(k)"),
    ("import time", "[time.time() for time in k]"),
    ("import httpx", "httpx.URL('x')"),
]


@pytest.mark.parametrize(("head", "call"), PURE, ids=[f"{head}; {call}" for head, call in PURE])
def test_other_calls_are_not_warned_of(read: Callable[..., Read], head: str, call: str):
    """A call that answers the same, or that only looks like one that does not, is left alone."""
    assert read(f"x = {call}", head).scan.warnings == ()


# -- bodies of any size ------------------------------------------------------------------------------------------------


def test_long_chains_of_conditions_are_read(read: Callable[..., Read]):
    """Hundreds of arms of one `if` are read to the last one, and what follows them."""
    arms = "\n".join(f"elif k == {n}: await s.run(pay)" for n in range(700))
    seen = read(f"if k == -1: await s.run(pay)\n{arms}\nelse: await s.run(naked)  #! lacking\nawait s.run(b)")
    assert seen.refused == seen.marked
    assert seen.used() == {"b", "naked", "pay"}


def test_a_body_nested_too_deep_is_not_refused(read: Callable[..., Read]):
    """What is deeper than the interpreter's stack is read as far as it goes; the first run tells the rest."""
    seen = read(f"await s.run(b)\nx = {' + '.join(['k'] * 1500)}\nawait s.run(pay)")
    assert seen.scan.faults == ()
    assert "b" in seen.used()


def test_a_callable_that_cannot_be_compared_is_left_alone():
    """An object of somebody's is never hashed or compared to find out what it is."""

    class Odd:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self) -> None: ...

        def __eq__(self, other: object) -> bool:
            raise AssertionError

    assert instead_of(Odd(), 0) is None
    assert instead_of(Odd().__call__, 0) is None
    assert instead_of(Odd, 0) is None


# -- against the paths that bodies really take -------------------------------------------------------------------------


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
def test_a_fault_is_wrong_whenever_its_line_is_run(tmp_path_factory: pytest.TempPathFactory):
    """Random bodies, run along random paths with failing steps: a line that is refused is wrong each time it runs."""
    run_at_random(tmp_path_factory)
    gc.collect()  # here, where it is allowed: what was never awaited


@settings(max_examples=80, deadline=None)
@given(body=bodies(), seed=st.integers(0, 1 << 32))
def run_at_random(tmp_path_factory: pytest.TempPathFactory, body: str, seed: int) -> None:
    try:
        seen = Read(tmp_path_factory.getbasetemp() / "random_body.py", body)
    except SyntaxError:
        return  # a `break` or `return` where an `except*` forbids it
    seen.space["Boom"] = Boom
    refused = seen.refused
    for path in range(10):
        world = World(seed + path)
        with suppress(Boom, ExceptionGroup, StopIteration, TooLongError):
            seen.saga.body(world, world).send(None)
        assert world.right & refused == set()
