"""The pass over a saga's body: what cannot work is refused with its place, and what can work never is."""

import linecache
from typing import Any

import attrs
import pytest

from sagas import SagaDef
from sagas.check.scan import Scan, scan
from tests.pure.bodies import Read, cases


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
    if 1: await s.run(a)
    else: await s.run(naked)
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
    -- a step that a step of the body calls as a plain function
    @step(compensation=None, because="a test")
    async def outer(): return await a()
    await s.run(outer)
    -- a helper that is passed on, and calls a step wherever it is called
    def later(): return look()
    await s.run(a, later)
    -- a lambda that may be called elsewhere
    await s.run(a, lambda: look())
    -- a helper that nobody calls, and calls a step
    def never(): return look()
    -- the functions that serve a step
    a.fn(k)
    a.probe(look)
    -- a name of the body that hides a step
    a = str
    a(k)
""")
def test_a_saga_that_can_work_is_not_refused(body: str):
    """What is right on a path that exists is never refused, however the body is written."""
    assert Read(body).scan.faults == ()


@cases("""
    -- a step that the body calls itself
    x = await a(k)  #! itself
    -- a lookup, without await
    x = look()  #! itself
    -- a pivot and a retriable as statements
    await pay()  #! itself
    tell()  #! itself
    -- a call in the arguments of an operation
    await s.run(a, look(k))  #! itself
    -- a call in place of a step
    await s.run(a(k))  #! itself
    -- a call under another name, of a module or an object
    mine = a
    if k:
        await mine(k)  #! itself
    await holder.pay()  #! itself
    -- a call in a comprehension
    x = [await a(n) for n in range(k)]  #! itself
    -- a helper that the body calls
    async def helper(t: Saga):
        return await a(k)  #! itself
    return await helper(s)
    -- a helper that is passed on and called
    def helper(): return look()  #! itself
    await s.run(b, helper)
    helper()
    -- a branch
    async def branch(t: Saga):
        await a()  #! itself
    async with s.parallel() as p:
        p.run(branch)
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
def test_what_is_wrong_on_every_path_is_refused_at_its_place(body: str):
    """The faults are those of the marked lines, each begins with file and line, and there is no other."""
    seen = Read(body)
    assert seen.refused == seen.marked
    assert seen.marked


def test_faults_of_a_child_are_told_at_its_own_place():
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
    seen = Read("async with s.parallel() as p: p.run(in_block)\nawait s.run(pay)\nawait s.run(too_late)", head)
    assert seen.refused == seen.marked


def test_a_child_read_in_two_places_is_judged_in_each():
    """The same child is right before the pivot and wrong after it; the same fault is told once."""
    seen = Read("await s.run(stepping)\nawait s.run(stepping)\nawait s.run(pay)")
    assert seen.scan.faults == ()
    seen = Read("await s.run(stepping)\nawait s.run(pay)\nawait s.run(stepping)\nawait s.run(stepping)")
    assert [kind for _, kind in seen.refused] == ["after"]
    assert len(seen.scan.faults) == 1


def test_sagas_that_run_each_other_are_read_to_an_end():
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
    seen = Read("await s.run(ping, 3)\nawait s.run(pay)", head)
    assert seen.refused == seen.marked


def test_helpers_that_call_each_other_twice_are_read_once():
    """Forty helpers, of which each awaits the one before twice, are read at once: nothing is followed twice."""
    lines = ["async def f0(): await s.run(a)"]
    lines += [f"async def f{n}():\n    await f{n - 1}()\n    await f{n - 1}()" for n in range(1, 41)]
    seen = Read("\n".join([*lines, "await f40()", "await s.run(pay)"]))
    assert seen.scan.faults == ()
    assert seen.used() == {"a", "pay"}


def test_a_file_that_was_changed_since_is_not_judged():
    """What stands in the body's place by now is no body: it is left to the first run."""
    seen = Read("await s.run(naked)")
    linecache.cache[seen.path] = (1, None, ["now = 'something else'\n"] * 90, seen.path)
    assert scan(seen.saga) == Scan((), (), (), whole=False)


def test_a_graph_that_may_not_be_run_is_not_judged():
    """One without a node is refused where the saga runs it, and not where it is given to something else."""
    head = "from sagas import SagaGraph\nEMPTY = SagaGraph('empty', version=1)"
    (fault,) = Read("await s.run(EMPTY)", head).scan.faults
    assert "the graph 'empty' has no node" in fault
    assert Read("await k.run(EMPTY)", head).scan.faults == ()


def test_a_function_that_is_given_a_list_is_not_sure_to_have_the_saga():
    """Which of its parameters is the saga cannot be told, so what it runs is collected only."""
    seen = Read("async def go(x, t): await t.run(naked)\nawait go(*k, s)")
    assert (seen.scan.faults, seen.used()) == ((), {"naked"})


@pytest.mark.parametrize(
    ("body", "warnings"),
    [
        ("await s.run(slow)\nawait s.run(slow)", 1),
        ("await s.run(slow)\nasync def later(): await s.run(slow)\nmake = lambda: s.run(slow)", 0),
    ],
)
def test_what_is_only_defined_takes_no_time(body: str, warnings: int):
    """A function or lambda counts against the deadline where it is seen to be called, and not where it stands."""
    head = "@step(timeout=10, retry=1, compensation=None, because='a test')\nasync def slow(): ..."
    saga = attrs.evolve(Read(body, head).saga, deadline=15)
    assert len([said for said in scan(saga).warnings if "its deadline is 15 s" in said]) == warnings


def test_a_body_without_source_is_not_refused():
    """What was typed at a prompt or generated is left to the first run."""
    space: dict[str, Any] = {}
    exec("async def body(s): await s.run(naked)", space)
    found = scan(SagaDef(name="typed", version=1, body=space["body"]))
    assert found == Scan((), (), (), whole=False)
    assert found.sagas == ()


# -- what a scan gives out ---------------------------------------------------------------------------------------------


# -- bodies of any size ------------------------------------------------------------------------------------------------


def test_long_chains_of_conditions_are_read():
    """Hundreds of arms of one `if` are read to the last one, and what follows them."""
    arms = "\n".join(f"elif k == {n}: await s.run(pay)" for n in range(700))
    seen = Read(f"if k == -1: await s.run(pay)\n{arms}\nelse: await s.run(naked)  #! lacking\nawait s.run(b)")
    assert seen.refused == seen.marked
    assert seen.used() == {"b", "naked", "pay"}


def test_a_body_nested_too_deep_is_not_refused():
    """What is deeper than the interpreter's stack is read as far as it goes; the first run tells the rest."""
    seen = Read(f"await s.run(b)\nx = {' + '.join(['k'] * 1500)}\nawait s.run(pay)")
    assert seen.scan.faults == ()
    assert "b" in seen.used()


@cases("""
    -- operations that are dropped
    s.run(a)  #! dropped
    s.map(a, [1])  #! dropped
    if k:
        s.sleep(1)  #! dropped
    -- an operation of the saga under another name
    me = s
    me.sleep(1)  #! dropped
    -- in a helper that is called, and in a branch
    async def helper(t: Saga): t.sleep(1)  #! dropped
    await helper(s)
    async with s.parallel() as p:
        p.run(helper)
    -- what is awaited, here or later
    await s.run(a)
    later = s.sleep(1)
    await later
    -- an operation that another object has
    k.run(b)
    asyncio.run(k)
    -- branches, which are not awaited
    async with s.parallel() as p:
        p.run(a)
    -- a helper that is passed on
    async def later(t: Saga): s.sleep(1)
    await s.run(a, later)
""")
def test_an_operation_that_is_dropped_is_warned_of(body: str):
    """Without ``await`` it never runs: told at its line where that is certain, and the saga is not refused."""
    seen = Read(body)
    warned = {int(said.split(":")[1]) for said in seen.scan.warnings if "is not awaited, so it never begins" in said}
    assert warned == {line for line, _ in seen.marked}
    assert seen.scan.faults == ()


@pytest.mark.parametrize(
    ("body", "whole"),
    [
        ("await s.run(a)", True),
        ("await s.run(STEPS['a'])", False),
        ("await elsewhere(s)", False),
        ("await elsewhere(s.id)", True),
        ("async with s.parallel() as p: p.run(a)", True),
        ("async with s.parallel() as p: p.run(STEPS['a'])", False),
        ("async with s.parallel() as p: p.run(branch)\nasync def branch(s): await s.run(a)", True),
        ("subprocess.run(['ls'])", True),
    ],
)
def test_whether_all_steps_are_seen(body: str, whole: bool):  # noqa: FBT001
    """A body that runs what only its run tells, or hands the saga on, does not show all of its steps."""
    assert Read(body).scan.whole is whole
