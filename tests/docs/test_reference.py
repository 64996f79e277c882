"""The reference pages about Python: every public name is on one, and its docstring says all of it."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from enum import Enum
from types import ModuleType
from typing import Any

import attrs
import pytest

import sagas
from tests.docs.naming import resolved
from tests.docs.readme import ROOT

DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
PAGES = sorted(ROOT.glob("docs/reference/*.md"))
HIDDEN = {"add_step", "attach", "detach", "draft", "engine", "node_result", "of", "place"}
"""Members that are public by their spelling, and for our own code or type checkers only. The pages do not show them."""
INNER = {"sagas.cli", "sagas.errors"}
"""Modules that list their names for others of ours: a program, and what ``sagas`` itself hands on."""


def public_modules() -> Iterator[ModuleType]:
    """Every module that says what of it is public."""
    yield sagas
    for found in pkgutil.walk_packages(sagas.__path__, "sagas."):
        if found.name in INNER or found.name.startswith("sagas.cli."):
            continue
        module = importlib.import_module(found.name)
        if hasattr(module, "__all__"):
            yield module


def directives() -> list[str]:
    """What the pages show."""
    return [path for page in PAGES for path in DIRECTIVE.findall(page.read_text(encoding="utf-8"))]


def public_names() -> dict[str, Any]:
    """Every public object by its dotted name."""
    return {
        f"{module.__name__}.{name}": value
        for module in public_modules()
        for name in module.__all__
        if not isinstance(value := getattr(module, name), ModuleType)
    }


SHOWN = {path: resolved(path) for path in directives()}
CHANGING = {
    "sagas.Orchestrator": {"count", "get", "list", "register", "scan", "versions"},
    "sagas.SagaHandle": {"id", "result"},
    "sagas.Saga": {"first", "id", "log", "map", "now", "parallel", "random", "savepoint", "uuid", "version"},
}
"""The classes whose calls change something, each with those calls that have nothing to say about it."""


def members() -> dict[str, Any]:
    """Public methods and properties of what the pages show, by their dotted names."""
    return {
        f"{path}.{name}": member
        for path, shown in SHOWN.items()
        if inspect.isclass(shown) and not issubclass(shown, BaseException | Enum)
        for cls in reversed(shown.__mro__)
        if cls.__module__.partition(".")[0] in ("sagas", "durable_core")
        for name, member in vars(cls).items()
        if not name.startswith("_") and name not in HIDDEN and is_called(member)
    }


def is_enumeration(value: Any) -> bool:
    """Whether it is a class of names."""
    return inspect.isclass(value) and issubclass(value, Enum)


def is_called(member: Any) -> bool:
    """Whether a member of a class is a method or a property of it."""
    return callable(member) or isinstance(member, property | classmethod)


def signature_of(value: Any) -> inspect.Signature:
    """What a caller may give."""
    called = value.__func__ if isinstance(value, classmethod) else value.fget if isinstance(value, property) else value
    return inspect.signature(called)


def undocumented(parameters: Iterator[str], told: str) -> list[str]:
    """The parameters that a docstring does not name, neither in its list of arguments nor in its text."""
    return [
        name
        for name in parameters
        if name not in ("self", "cls")
        and not re.search(rf"^\s*\**{name}:|``{name}[`=]", inspect.cleandoc(told), re.MULTILINE)
    ]


def fields_with_docstrings(cls: type) -> set[str]:
    """The fields of a class that are followed by a docstring of their own."""
    found: set[str] = set()
    for each in cls.__mro__:
        if each.__module__.partition(".")[0] not in ("sagas", "durable_core"):
            continue
        (tree,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(each))).body
        assert isinstance(tree, ast.ClassDef)
        for one, after in zip(tree.body, tree.body[1:], strict=False):
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if told and isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                found.add(one.target.id)
            if told and isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name):
                found.add(one.targets[0].id)
    return found


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_is_on_a_page(name: str):
    """What a name of an `__all__` stands for is shown by exactly one directive of docs/reference."""
    value = public_names()[name]
    assert len([path for path, shown in SHOWN.items() if shown is value]) == 1


def test_no_page_shows_a_name_twice():
    """Each directive is on one page, so that a link to a name has one target."""
    assert len(directives()) == len(set(directives()))


@pytest.mark.parametrize("path", [path for path, value in SHOWN.items() if callable(value)])
def test_what_is_shown_has_a_docstring_of_its_own(path: str):
    """Neither missing nor inherited, nor made by attrs."""
    value = SHOWN[path]
    told = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert told
    assert not told.startswith("Method generated by attrs")


@pytest.mark.parametrize("path", [path for path, value in SHOWN.items() if inspect.isfunction(value)])
def test_every_parameter_of_a_function_is_documented(path: str):
    """What can be given to a public function is in its docstring."""
    value = SHOWN[path]
    assert undocumented(iter(signature_of(value).parameters), value.__doc__) == []


@pytest.mark.parametrize("name", members())
def test_every_public_method_is_documented_with_its_parameters(name: str):
    """A method or property of a class on these pages has a docstring that names all of its parameters."""
    member = members()[name]
    told = inspect.getdoc(member)
    assert told
    assert undocumented(iter(signature_of(member).parameters), told) == []


@pytest.mark.parametrize("path", [path for path, value in SHOWN.items() if attrs.has(value) or is_enumeration(value)])
def test_every_field_of_a_record_is_documented(path: str):
    """What can be read of a record, and each member of an enumeration, has a docstring."""
    value = SHOWN[path]
    fields = attrs.fields(value) if attrs.has(value) else value
    names = [field.name for field in fields if not field.name.startswith("_") and field.name not in HIDDEN]
    told = fields_with_docstrings(value)
    assert undocumented((name for name in names if name not in told), value.__doc__) == []


@pytest.mark.parametrize("path", CHANGING)
def test_changes_say_what_is_durable(path: str):
    """Each call that changes something says what of it is durable."""
    told = {
        name.rpartition(".")[2]: member.__doc__ for name, member in members().items() if name.startswith(f"{path}.")
    }
    silent = [name for name, doc in told.items() if "durable" not in str(doc)]
    assert sorted(silent) == sorted(CHANGING[path])


def examples() -> dict[str, doctest.DocTest]:
    """The examples of every docstring on the pages."""
    finder = doctest.DocTestFinder(recurse=False)
    told = {**SHOWN, **{name: value for name, value in members().items() if inspect.isfunction(value)}}
    found = {
        name: test
        for name, value in told.items()
        for test in finder.find(value, name, globs=dict(vars(sys.modules[value.__module__])))
        if test.examples
    }
    assert len(found) > 10
    return found


@pytest.mark.parametrize("name", examples())
def test_every_example_of_a_docstring_runs(name: str):
    """The examples do what they show."""
    assert doctest.DocTestRunner().run(examples()[name]).failed == 0
