"""Rules of the code that neither ruff nor the import contracts can say."""

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("sagas/**/*.py"), *ROOT.glob("durable_core/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/test_*.py"))
LONGEST_FILE = 700
MOST_ATTRIBUTES = 15
WIDE = {
    "StepRecord": "one field for each fact that a step's entries tell",
    "Worker": "half of them are what it hands on as `Effects`, bound once because they are called for every step",
}
"""Classes with more attributes, and why."""
LONGEST_FUNCTION = 40
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}


def name(path: Path) -> str:
    """A file's path in the tree."""
    return path.relative_to(ROOT).as_posix()


source = pytest.mark.parametrize("path", SOURCES, ids=name)


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a file imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def is_within(module: str, package: str) -> bool:
    """Whether ``module`` is ``package`` or lies in it."""
    return module == package or module.startswith(f"{package}.")


@source
def test_packages_meet_at_their_public_faces(path: Path):
    """Of the core, sagas imports its public names, its layer and its tests alone; the core never imports sagas."""
    found = set(imports(ast.parse(path.read_text(encoding="utf-8"))))
    if name(path).startswith("sagas/"):
        core = {module for module in found if is_within(module, "durable_core")}
        assert core <= {"durable_core", "durable_core.layer", "durable_core.testing"}
    else:
        assert not any(is_within(module, "sagas") for module in found)


@source
def test_no_module_imports_its_own_package_root(path: Path):
    """A package's `__init__` is its face for others; its own modules import each other by name."""
    assert path.relative_to(ROOT).parts[0] not in set(imports(ast.parse(path.read_text(encoding="utf-8"))))


def test_modules_import_each_other_in_no_circle():
    """Also not for type checkers alone, or within a function."""
    files = {name(path).removesuffix(".py").replace("/", "."): path for path in SOURCES if path.stem != "__init__"}
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        named = [
            (node.module, alias.name) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
        ]
        found[module] = {other for home, what in named for other in (home, f"{home}.{what}") if other in files}
    list(graphlib.TopologicalSorter(found).static_order())


def attributes(owner: ast.ClassDef) -> set[str]:
    """What an object of this class holds: its slots, and what its `__init__` sets."""
    found: set[str] = set()
    for node in owner.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            if any(isinstance(target, ast.Name) and target.id == "__slots__" for target in node.targets):
                found |= {str(each.value) for each in node.value.elts if isinstance(each, ast.Constant)}
        elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
            stored = [each for each in ast.walk(node) if isinstance(each, ast.Attribute)]
            found |= {
                each.attr
                for each in stored
                if isinstance(each.ctx, ast.Store) and isinstance(each.value, ast.Name) and each.value.id == "self"
            }
    return found - {"__weakref__"}


@source
def test_objects_hold_few_things(path: Path):
    """A class has at most 15 attributes, or says why not."""
    classes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ClassDef)]
    wide = {each.name for each in classes if len(attributes(each)) > MOST_ATTRIBUTES}
    assert wide <= WIDE.keys()


@source
def test_only_stores_speak_sql(path: Path):
    """sqlite3, SQLAlchemy and SQLModel are imported under `durable_core/stores` alone."""
    if name(path).startswith("durable_core/stores/"):
        return
    found = set(imports(ast.parse(path.read_text(encoding="utf-8"))))
    assert not any(is_within(module, sql) for module in found for sql in ("sqlite3", "sqlalchemy", "sqlmodel"))


STORED = re.compile(
    r"(compensating|compensated|resolved)/|(compensating|past-pivot)$"
    r"|(too-late|undoing)(:|$)|skipped:|child(-completed|-deadline|-compensated|):|child-(completed|deadline|compensated)$"
)
"""Phases and marks as they are stored."""


@source
def test_phases_and_marks_are_written_in_one_place(path: Path):
    """Of the sagas' modules only `phases.py` holds the stored texts of phases and marks."""
    if not name(path).startswith("sagas/") or name(path) == "sagas/model/phases.py":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert [text for text in texts if STORED.match(text)] == []


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function, without its decorators and docstring."""
    assert function.end_lineno is not None
    first = function.body[0]
    spoken = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) and first.end_lineno else 0
    return function.end_lineno - function.lineno + 1 - spoken


@source
def test_files_and_functions_are_short(path: Path):
    """A file has at most 700 lines and one idea, a function at most 40 besides its docstring."""
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= LONGEST_FILE
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: length(node) for node in functions if length(node) > LONGEST_FUNCTION}
    long.pop("__init__", None)  # which lists what its object has
    assert long == {}


@source
def test_files_are_named_for_their_noun(path: Path):
    """No file is named for being a drawer of things."""
    assert path.stem not in VAGUE


@source
def test_ignores_name_their_rule(path: Path):
    """An ignored finding of a checker names the rule."""
    bare = re.findall(r"#\s*(?:type:\s*ignore|pyright:\s*ignore|noqa)(?![\[:])", path.read_text(encoding="utf-8"))
    assert bare == []


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_every_test_states_its_claim(path: Path):
    """The docstring of a test is the claim that it proves."""
    silent = [
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []
