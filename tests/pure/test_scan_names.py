"""What the names in a body stand for, and which steps a scan gives out."""

import sys
import types

import pytest

from sagas import SagaDef
from sagas.check.scan import scan
from tests.pure.bodies import Read, cases


@pytest.mark.parametrize("signature", ["s", "s, /", "s, k=0, *args, **kwargs", "s: 'Saga'", "s, *, k=0"])
def test_the_first_parameter_is_the_saga(signature: str):
    """However it is declared, the first parameter runs steps."""
    assert {kind for _, kind in Read("await s.run(naked)", signature=signature).refused} == {"lacking"}


@pytest.mark.parametrize(
    "body",
    ["s = elsewhere\nawait s.run(naked)", "await t.run(naked)", "await k().run(naked)", "await args[0].run(pay)"],
)
def test_what_may_not_be_the_saga_is_collected_only(body: str):
    """A step given to something that may not be the saga is noted, and nothing is said against it."""
    seen = Read(body, signature="s, k=0, t=0, *args")
    assert seen.scan.faults == ()
    assert [use.sure for use in seen.scan.uses] == [False]


def test_a_body_that_takes_everything_at_once_is_not_judged():
    """Where the saga is one of ``*args``, its name is not known: the steps are collected, and nothing is refused."""
    seen = Read("s = args[0]\nawait s.run(naked)", signature="*args")
    assert (seen.scan.faults, seen.used()) == ((), {"naked"})


def test_a_method_is_a_body_too():
    """Where the body is a bound method, the saga is what it is called with first."""
    head = """
class Shop:
    async def body(self, s: Saga):
        await s.run(naked)
    """
    seen = Read("pass", head)
    definition = SagaDef(name="method", version=1, body=seen.space["Shop"]().body)
    assert [fault.split(": ")[0] for fault in scan(definition).faults] == [f"{seen.path}:{seen.first - 4}"]


def test_a_property_of_somebody_is_not_run():
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
    seen = Read(
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


def test_a_closed_over_name_stands_for_what_it_holds():
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
    space = Read("pass", head).space
    assert scan(space["made"](space["look"])).faults == ()
    assert [use.what.name for use in scan(space["made"](space["naked"])).uses] == ["naked"]


def test_names_that_the_body_imports_are_told(monkeypatch: pytest.MonkeyPatch):
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
    naked = Read("pass").space["naked"]
    shelf.naked = inner.naked = naked  # type: ignore[attr-defined]
    seen = Read(text)
    assert seen.refused == seen.marked
    assert "this" not in sys.modules
    for package, more in [("shelf", 1), ("shelf.inner", 2), ("shelf.other", 1), ("other", 0)]:
        seen.space["__package__"] = package
        assert len(scan(seen.saga).faults) == len(seen.marked) + more


def test_a_name_that_is_imported_twice_is_told_where_both_are_the_same(monkeypatch: pytest.MonkeyPatch):
    """By the object, whatever it is called; of two objects it could be either."""
    shelf = types.ModuleType("shelf")
    monkeypatch.setitem(sys.modules, "shelf", shelf)
    space = Read("pass").space
    shelf.one = shelf.same = space["naked"]  # type: ignore[attr-defined]
    shelf.other = space["a"]  # type: ignore[attr-defined]
    for name, told in (("same", True), ("other", False)):
        body = f"if k: from shelf import one as it\nelse: from shelf import {name} as it\nawait s.run(it)"
        assert bool(Read(body).refused) is told


def test_a_module_that_cannot_load_a_part_is_no_reason_to_refuse():
    """A part that a module loads on demand is looked at; where it cannot be loaded it is data."""
    seen = Read(
        "await s.run(lazy.part)  #! lacking\nawait s.run(lazy.absent)", "import types\nlazy = types.ModuleType('x')"
    )

    def load(name: str) -> object:
        if name == "part":
            return seen.space["naked"]
        raise ImportError(name)

    seen.space["lazy"].__getattr__ = load
    assert [fault.split(": ")[0] for fault in scan(seen.saga).faults] == [f"{seen.path}:{seen.first}"]


def test_steps_are_kept_by_the_saga_that_names_them():
    """A child's step has its owner: it neither shadows nor is shadowed by one of the same name in the parent."""
    seen = Read("await s.run(a)\nawait s.run(pay)\nawait s.run(same_name)")
    space = seen.space
    assert seen.scan.declared(seen.saga) == {"a": space["a"], "pay": space["pay"]}
    assert seen.scan.declared(space["same_name"]) == {"a": space["other_a"]}
    assert seen.scan.declared(space["paying"]) == {}
    assert seen.scan.sagas == (seen.saga, space["same_name"])
    assert [(use.what, use.owner) for use in seen.scan.uses][2:] == [
        (space["same_name"], seen.saga),
        (space["other_a"], space["same_name"]),
    ]


def test_a_name_that_stands_for_two_steps_is_not_declared():
    """A name of two steps of one saga stands for neither; the same step used twice is one."""
    seen = Read("await s.run(a)\nawait s.run(other_a)\nawait s.run(look)\nawait s.run(look)")
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
def test_steps_are_seen_wherever_the_body_names_them(body: str):
    """What may run is found by name for a rollback without the body, also where nothing can be said about it."""
    seen = Read(body)
    assert set(seen.scan.declared(seen.saga)) == {"a", "b", "look"}
    assert seen.scan.faults == ()
