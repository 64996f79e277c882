"""Every error code has a page that tells the truth: its example gets that error and prints what the page says.

``python -m tests.docs.test_errors`` runs the examples and writes what they print into the pages.
"""

import contextlib
import io
import os
import re
import sys
import tomllib
import types
from collections import Counter
from pathlib import Path

import pytest

import sagas.errors
import sagas.orchestrator
from durable_core import DurableError, Fault
from durable_core.errors import PAGES as PUBLISHED
from tests import forked
from tests.docs.readme import BLOCK, ROOT

PAGES = ROOT / "docs/errors"
SECTIONS = ["What happened", "Example", "What to do"]
ROW = re.compile(r"^\| \[(\w+)\]\((\w+)\.md\) \| `(\w+)` \| (.+) \|$", re.MULTILINE)
DIES = "os._exit("
"""An example that ends its process is run again, as its page says, until one run comes to its end."""
RUNS = 4
NOT_RUN = {
    "DC013": "it takes a disk without room",
    "DC014": "it takes a PostgreSQL, and a worker that is stopped for a while",
    "DC034": "raised to the layer above, for which there is no short program",
    "DC040": "raised as one of its subclasses only",
    "SG009": "it takes another engine",
}
"""Pages without a program, and why."""


def classes(root: type[BaseException]) -> list[type[BaseException]]:
    """``root`` and all that derive from it in both packages."""
    found = [root]
    for child in root.__subclasses__():
        if child.__module__.partition(".")[0] in ("durable_core", "sagas"):
            found += classes(child)
    return found


CODED: list[tuple[str, type[BaseException]]] = [
    (vars(error)["code"], error) for root in (DurableError, Fault) for error in classes(root) if "code" in vars(error)
]
CODES = sorted(code for code, _ in CODED)
RUN = [code for code in CODES if code not in NOT_RUN]

each = pytest.mark.parametrize("code", CODES)


def text(code: str) -> str:
    """A code's page."""
    return (PAGES / f"{code}.md").read_text(encoding="utf-8")


def blocks(code: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return [block for found, block in BLOCK.findall(text(code)) if found == language]


def test_every_error_has_a_code_of_its_own():
    """No two errors share a code, and each error that is raised by itself has one."""
    assert [code for code, count in Counter(CODES).items() if count > 1] == []
    assert {error for root in (DurableError, Fault) for error in classes(root)} == {error for _, error in CODED}
    assert all(re.fullmatch(r"(DC|SG)\d{3}", code) for code in CODES)
    assert all(error.__module__ == sagas.errors.__name__ for code, error in CODED if code.startswith("SG"))


@each
def test_a_message_says_what_happened_and_what_to_do(code: str):
    """`str(error)` is its text, its advice, its code and the address of its page; each can be had by itself."""
    kind = dict(CODED)[code]
    error = kind.__new__(kind)
    for text, advice, message in (
        ("saga a: it broke", "", "saga a: it broke"),
        ("saga a: it broke", "Fix it", "saga a: it broke. Fix it"),
        ("saga a: is it broken?", "look at it", "saga a: is it broken? Look at it"),
    ):
        DurableError.__init__(error, text, advice)
        assert (error.text, error.advice, error.message) == (text, advice, message)
        assert str(error) == f"{message} [{code}] {error.page}"
        assert error.page == f"{PUBLISHED}/{code}"


def test_the_pages_are_where_the_project_says():
    """The address in a message is below the documentation that the project's metadata names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"{project.get('urls', {}).get('Documentation', PUBLISHED[:-7]).rstrip('/')}/errors" == PUBLISHED


def test_every_code_has_a_page_and_every_page_a_code():
    """The pages are those of the codes, and an index."""
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted([*CODES, "index"])
    assert set(NOT_RUN) <= set(CODES)


@each
def test_a_page_has_its_parts(code: str):
    """A page has its code and class as title, one line, and says what happened, how to get it, and what to do."""
    page = text(code)
    name = dict(CODED)[code].__name__
    title, line, *_ = [part for part in page.splitlines() if part]
    assert title == f"# {code} {name}"
    assert line.endswith(".")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == SECTIONS
    parts = re.split(r"^## .+$", page, flags=re.MULTILINE)[1:]
    assert all(len(part.split()) > 10 for part in parts)
    assert len(blocks(code, "text")) == 1
    assert len(blocks(code, "python")) == (0 if code in NOT_RUN else 1)


def test_the_index_lists_all():
    """The index has a row for each code, in order, with its class and the first line of its page."""
    rows = ROW.findall((PAGES / "index.md").read_text(encoding="utf-8"))
    assert [(code, page, name) for code, page, name, _ in rows] == [
        (code, code, dict(CODED)[code].__name__) for code in CODES
    ]
    for code, _, _, line in rows:
        assert line == text(code).splitlines()[2]


def run_here(code: str) -> str:
    """What a page's program prints, run by this process as a script in the current folder."""
    program = compile(blocks(code, "python")[0], "example.py", "exec")
    script = types.ModuleType("__main__")
    mine, printed = sys.modules["__main__"], io.StringIO()
    sys.modules["__main__"] = script  # classes are found by the name of their module
    try:
        with contextlib.redirect_stdout(printed):
            exec(program, vars(script))
    finally:
        sys.modules["__main__"] = mine
    return printed.getvalue()


def run_until_it_ends(code: str, folder: Path) -> str:
    """What a page's program prints in the first process that comes to its end."""
    (folder / "example.py").write_text(blocks(code, "python")[0], encoding="utf-8")
    for _ in range(RUNS):
        done = forked.run(
            [sys.executable, "-W", "error", "example.py"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout
        assert done.stderr == ""
    raise AssertionError(f"{RUNS} processes died, and no message was printed")


def printed_by(code: str, folder: Path) -> str:
    """What a page's program prints in an empty folder, whose own path is left out."""
    with contextlib.chdir(folder):
        dies = DIES in blocks(code, "python")[0]
        printed = run_until_it_ends(code, folder) if dies else run_here(code)
    return printed.replace(f"{folder}/", "")


@pytest.mark.parametrize("code", RUN)
def test_an_example_gets_its_error(code: str, tmp_path: Path):
    """A page's program, run in an empty folder, prints the message that the page shows, which holds the page's code."""
    printed = printed_by(code, tmp_path)
    assert f"[{code}]" in printed
    assert printed == blocks(code, "text")[0], "run `python -m tests.docs.test_errors` to write it into the page"


@pytest.mark.parametrize("code", sorted(NOT_RUN))
def test_a_message_that_is_not_run_shows_a_code(code: str):
    """A page without a program still shows a message with its code, or with that of the subclass that is raised."""
    raised = {code, *(one for one, error in CODED if issubclass(error, dict(CODED)[code]))}
    assert any(f"[{one}]" in blocks(code, "text")[0] for one in raised)


def rewrite(folder: Path) -> None:
    """Write into each page what its program prints now."""
    for code in RUN:
        place = folder / code
        place.mkdir()
        printed = printed_by(code, place)
        page = text(code).replace(f"```text\n{blocks(code, 'text')[0]}```", f"```text\n{printed}```")
        (PAGES / f"{code}.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        rewrite(Path(made))
