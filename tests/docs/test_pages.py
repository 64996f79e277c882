"""The pages hang together: links lead somewhere, examples are code, lists are complete."""

import ast
import os
import re
import subprocess
from enum import StrEnum
from pathlib import Path

import pytest

from durable_core.model.entry import ROLES, EntryKind
from durable_core.model.run import RunStatus
from tests.docs.readme import BLOCK, ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
GLOSSARY = ROOT / "docs/reference/glossary.md"

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def prose(path: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as both GitHub and mkdocs make them."""
    titles = (re.sub(r"[^\w\s-]", "", title.lower()) for title in HEADING.findall(prose(path)))
    return {re.sub(r"\s+", "-", title.strip()) for title in titles}


@page
def test_local_links_lead_somewhere(page: Path):
    """Every link to a file of this tree names one that is there, and a heading that it has."""
    broken: list[str] = []
    for link in LINK.findall(prose(page)):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@page
def test_named_files_are_there(page: Path):
    """A test or source file that a page names in backticks is in the tree, and so is the function after `::`."""
    missing: list[str] = []
    for name, function in re.findall(
        r"`((?:tests|examples|benchmarks|sagas|durable_core)/[\w/.]+)(?:::(\w+))?`", prose(page)
    ):
        path = ROOT / name
        if not path.exists() or (function and f"def {function}(" not in path.read_text(encoding="utf-8")):
            missing.append(f"{name}::{function}" if function else name)
    assert missing == []


@page
def test_python_blocks_are_python(page: Path):
    """Every python block of a page is valid code."""
    for language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            ast.parse(code)


def test_every_page_is_in_the_menu():
    """mkdocs.yml lists every page of docs/, once."""
    listed = re.findall(r"^ +- ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md"))


def rows(title: str) -> dict[str, list[str]]:
    """A table of the glossary by its first column."""
    section = GLOSSARY.read_text(encoding="utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
    table = re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
    return {name: rest.split(" | ") for name, rest in table}


@pytest.mark.parametrize(("title", "values"), [("Status of a run", RunStatus), ("Kinds of entry", EntryKind)])
def test_the_glossary_lists_every_stored_value(title: str, values: type[StrEnum]):
    """The glossary's tables hold exactly the values that the journal stores."""
    assert set(rows(title)) == {value.value for value in values}


def test_the_glossary_knows_the_roles():
    """The role of each kind of entry is the one that replay uses."""
    assert {name: rest[0] for name, rest in rows("Kinds of entry").items()} == {
        kind.value: role.value for kind, role in ROLES.items()
    }


def test_the_glossary_is_in_order():
    """Terms are listed once, by the alphabet."""
    terms = re.findall(r"^\*\*(.+)\*\*$", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    assert terms == sorted(set(terms))


def test_help_lists_every_target():
    """`make help` has a line for each target that is not a file of the environment."""
    declared = re.search(r"^\.PHONY: (help .*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared is not None
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert [line.split()[1] for line in shown.splitlines()] == declared[1].split()
    assert all(len(line.split()) > 2 for line in shown.splitlines())
