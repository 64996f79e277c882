"""Fingerprints of bodies: the same for the same decisions, another one for any change that could matter."""

import ast
import linecache
import textwrap
from typing import Any

import pytest

from sagas.check.fingerprint import fingerprint
from sagas.check.scan import scan
from sagas.model.definition import SagaDef

HEAD = """
from sagas import Saga, lookup, saga, step

@lookup
def price(item): ...

@lookup
def stock(item): ...

@saga("child", version=1)
async def child(s: Saga, item):
    await s.run(stock, item)

"""
BODY = """
@saga("shop", version=1)
async def shop(s: Saga, item: str, *, fast: bool = True) -> int:
    rest = {"a": 1, **{}}
    for turn in range(3):
        if turn and fast:
            await s.run(price, f"{item} {turn!r:>3}")
    return await s.run(stock, item)
"""


def made(code: str, *, source: bool = True) -> SagaDef[..., Any]:
    """The saga ``shop`` of a module of this code; without source, as if it had been typed at a prompt."""
    name = f"<{abs(hash(code))}>"
    text = HEAD + code
    linecache.cache.pop(name, None)
    if source:
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    scope: dict[str, Any] = {"__name__": "made"}
    exec(compile(text, name, "exec"), scope)
    return scope["shop"]  # type: ignore[no-any-return]


def of(code: str, *, source: bool = True) -> str:
    definition = made(code, source=source)
    return fingerprint(definition, scan(definition))


SAME = {
    "comments": BODY.replace("rest =", "# the rest\n    rest ="),
    "docstring": BODY.replace("    rest =", '    """What it is for."""\n    rest ='),
    "layout": BODY.replace("if turn and fast:", "if (\n            turn\n            and fast\n        ):"),
    "place": "\n\n\n" + BODY,
    "quotes": BODY.replace('"a"', "'a'"),
    "decorator": BODY.replace("version=1)", "version=1, deadline=5)"),
    "another step's code": BODY + "\n@lookup\ndef other(): return 5\n",
}
OTHER = {
    "another step": BODY.replace("s.run(price", "s.run(stock"),
    "another argument": BODY.replace("s.run(stock, item)", "s.run(stock, item + item)"),
    "another condition": BODY.replace("turn and fast", "turn or fast"),
    "another number": BODY.replace("range(3)", "range(4)"),
    "another default": BODY.replace("fast: bool = True", "fast: bool = False"),
    "another type": BODY.replace("item: str", "item: bytes"),
    "True for 1": BODY.replace('"a": 1', '"a": True'),
    "one more": BODY.replace("    return", "    await s.sleep(1)\n    return"),
    "a text that is no docstring": BODY.replace('"a": 1', '"b": 1'),
    "a child": BODY.replace("return await s.run(stock", "return await s.run(child"),
}


@pytest.mark.parametrize("code", SAME.values(), ids=SAME)
def test_what_decides_nothing_changes_nothing(code: str):
    """Comments, docstrings, layout, place and decorators leave the fingerprint as it is."""
    assert of(code) == of(BODY)
    assert len(of(code)) == 16


@pytest.mark.parametrize("source", [True, False], ids=["source", "byte code"])
@pytest.mark.parametrize("code", OTHER.values(), ids=OTHER)
def test_what_decides_changes_it(code: str, source: bool):  # noqa: FBT001
    """Any change of what the body does is another fingerprint, also where only its byte code can be read."""
    if not source and code == OTHER["another type"]:
        pytest.skip("an annotation is no part of the byte code")
    if not source and code == OTHER["another default"]:
        pytest.skip("nor is a default")
    assert of(code, source=source) != of(BODY, source=source)


def test_a_child_counts():
    """Its body and its version are part of what its parent asks for."""
    code = OTHER["a child"]
    before = of(code)
    for old, new in (
        ("await s.run(stock, item)", "await s.run(price, item)"),
        ('"child", version=1', '"child", version=2'),
    ):
        assert old in HEAD
        changed = made_with(HEAD.replace(old, new), code)
        assert fingerprint(changed, scan(changed)) != before


def made_with(head: str, code: str) -> SagaDef[..., Any]:
    """The saga ``shop`` beneath another head."""
    name = f"<{abs(hash(head + code))}>"
    linecache.cache[name] = (1, None, (head + code).splitlines(keepends=True), name)
    scope: dict[str, Any] = {"__name__": "made"}
    exec(compile(head + code, name, "exec"), scope)
    return scope["shop"]  # type: ignore[no-any-return]


def test_a_step_under_another_name_or_kind_counts():
    """They are in the keys of the journal, wherever the step is declared."""
    before = of(BODY)
    for old, new in (
        ("@lookup\ndef stock", "@lookup(name='store')\ndef stock"),
        ("@lookup\ndef price", "@step(compensation=None, because='x')\ndef price"),
    ):
        changed = made_with(HEAD.replace(old, new), BODY)
        assert fingerprint(changed, scan(changed)) != before


def test_the_tree_is_read_alike_by_every_python():
    """What newer releases add to the tree and leave empty (type parameters, say) is not in the fingerprint."""
    function = ast.parse(textwrap.dedent(BODY)).body[0]
    from sagas.check import fingerprint as module  # noqa: PLC0415 - its name is the function's

    before = "".join(module._syntax(function))
    function._fields = (*function._fields, "type_params", "of_tomorrow")
    function.type_params = []
    function.of_tomorrow = None
    assert "".join(module._syntax(function)) == before


def test_a_body_nested_too_deep_has_one_too():
    """Where the tree is too deep to walk, the byte code counts."""
    deep = BODY.replace('"a": 1', f'"a": {"+".join(["1"] * 900)}')
    assert len(of(deep)) == 16
    assert of(deep) != of(BODY)


@pytest.mark.parametrize("text", ["", "now = 'something else'\n" * 60])
def test_a_file_that_was_changed_since_is_not_taken_for_the_body(text: str):
    """What stands in the body's place by now is no function: the byte code counts."""
    changed, before = made(BODY + "# changed"), of(BODY, source=False)
    linecache.cache[changed.body.__code__.co_filename] = (1, None, text.splitlines(keepends=True), "")
    assert fingerprint(changed, scan(changed)) == before
