"""Rules of the code that neither ruff nor the import contracts can say."""

import ast
import graphlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("sagas/**/*.py"), *ROOT.glob("durable_core/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/test_*.py"))
LONGEST_FILE = 700
LONG = {"sagas/orchestrator.py": "two thirds of it are what its users read: the arguments and errors of each call"}
"""Longer files, and why: one object is never cut to please a number."""
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


@cache
def parsed(path: Path) -> ast.Module:
    """Its syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def assert_none(found: Mapping[Path, object]) -> None:
    """Each file obeys: what is found against it is nothing."""
    assert {name(path): wrong for path, wrong in found.items() if wrong} == {}


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


def test_packages_meet_at_their_public_faces():
    """Of the core, sagas imports its public names, its layer and its tests alone; the core never imports sagas."""
    faces = {"durable_core", "durable_core.layer", "durable_core.testing"}
    found: dict[Path, set[str]] = {}
    for path in SOURCES:
        other = "durable_core" if name(path).startswith("sagas/") else "sagas"
        foreign = {module for module in imports(parsed(path)) if is_within(module, other)}
        found[path] = foreign - (faces if other == "durable_core" else set())
    assert_none(found)


def test_no_module_imports_its_own_package_root():
    """A package's `__init__` is its face for others; its own modules import each other by name."""
    assert_none({path: path.relative_to(ROOT).parts[0] in imports(parsed(path)) for path in SOURCES})


def test_modules_import_each_other_in_no_circle():
    """Also not for type checkers alone, or within a function."""
    files = {name(path).removesuffix(".py").replace("/", "."): path for path in SOURCES if path.stem != "__init__"}
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        nodes = ast.walk(parsed(path))
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


def test_objects_hold_few_things():
    """A class has at most 15 attributes, or says why not."""
    classes = {path: [node for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)] for path in SOURCES}
    assert_none(
        {
            path: {each.name for each in found if len(attributes(each)) > MOST_ATTRIBUTES} - WIDE.keys()
            for path, found in classes.items()
        }
    )


SPEAK_SQL = ("durable_core/stores/", "sagas/outbox/", "sagas/participant/")


def test_only_stores_speak_sql():
    """sqlite3, SQLAlchemy and SQLModel are imported by stores alone, and by what acts in the user's own database."""
    sql = ("sqlite3", "sqlalchemy", "sqlmodel")
    others = [path for path in SOURCES if not name(path).startswith(SPEAK_SQL)]
    assert_none(
        {path: [each for each in imports(parsed(path)) if any(is_within(each, one) for one in sql)] for path in others}
    )


STORED = re.compile(
    r"(compensating|compensated|resolved)/|(compensating|past-pivot)$"
    r"|(too-late|undoing)(:|$)|skipped:|child(-completed|-deadline|-compensated|):|child-(completed|deadline|compensated)$"
)
"""Phases and marks as they are stored."""


def texts(path: Path) -> Iterator[str]:
    """The texts that a file holds as constants."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_phases_and_marks_are_written_in_one_place():
    """Of the sagas' modules only `phases.py` holds the stored texts of phases and marks."""
    others = [path for path in SOURCES if name(path).startswith("sagas/") and name(path) != "sagas/model/phases.py"]
    assert_none({path: [text for text in texts(path) if STORED.match(text)] for path in others})


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function, without its decorators and docstring."""
    assert function.end_lineno is not None
    first = function.body[0]
    spoken = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) and first.end_lineno else 0
    return function.end_lineno - function.lineno + 1 - spoken


def test_files_and_functions_are_short():
    """A file has at most 700 lines and one idea, a function at most 40 besides its docstring."""
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in SOURCES}
    assert_none({path: number * (number > LONGEST_FILE) for path, number in lines.items() if name(path) not in LONG})
    assert_none(
        {
            path: {
                node.name: length(node)
                for node in ast.walk(parsed(path))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and length(node) > LONGEST_FUNCTION
                and node.name != "__init__"  # which lists what its object has
            }
            for path in SOURCES
        }
    )


def test_files_are_named_for_their_noun():
    """No file is named for being a drawer of things."""
    assert_none({path: path.stem in VAGUE for path in SOURCES})


def test_ignores_name_their_rule():
    """An ignored finding of a checker names the rule."""
    bare = re.compile(r"#\s*(?:type:\s*ignore|pyright:\s*ignore|noqa)(?![\[:])")
    assert_none({path: bare.findall(path.read_text(encoding="utf-8")) for path in SOURCES})


def test_every_test_states_its_claim():
    """The docstring of a test is the claim that it proves."""
    assert_none(
        {
            path: [
                node.name
                for node in ast.walk(parsed(path))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and node.name.startswith("test_")
                and not ast.get_docstring(node)
            ]
            for path in TESTS
        }
    )


SPEAKS_SQL = re.compile(r"\b(SELECT|UPDATE|INSERT|DELETE|WHERE|ALTER|CREATE|AND|SET)\b|^\W|^run, ")
"""Texts that a database reads, and joints of them."""
VERB = re.compile(r"already runs|server runs|worker runs|[Rr]un (workers|`)")


def messages(tree: ast.Module) -> Iterator[str]:
    """The texts in a file that people may read: with blanks, no docstrings, no SQL."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and id(node) not in said else None
        if isinstance(text, str) and " " in text and not SPEAKS_SQL.search(text):
            yield text


def test_no_message_of_a_store_says_run():
    """A store serves any layer, and a saga's user reads its messages too: they name numbers, rows and work."""
    noun = re.compile(r"\bruns?\b")
    stores = [path for path in SOURCES if name(path).startswith("durable_core/stores/")]
    assert_none({path: [text for text in messages(parsed(path)) if noun.search(VERB.sub("", text))] for path in stores})
