"""The pages hang together: links lead somewhere, examples are code, lists are complete."""

import inspect
import os
import re
import subprocess
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from durable_core.model.entry import ROLES, EntryKind
from durable_core.model.run import RunStatus
from sagas import Orchestrator
from sagas.cli.app import program
from tests.docs.naming import resolved
from tests.docs.readme import ROOT
from tools import limits_page

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"\b(?:SAGAS|OTEL)_[A-Z_]*[A-Z]\b")
SHARED = ("`--store`", "`--json`")
"""Options of every command, which the page about the command line tells."""
GLOSSARY = ROOT / "docs/reference/glossary.md"

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def prose(path: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as both GitHub and mkdocs make them, and of the names that it shows."""
    names = re.findall(r"^::: ([\w.]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    members = {f"{name}.{member}" for name in names for member in dir(resolved(name))}
    titles = (re.sub(r"[^\w\s-]", "", title.lower()) for title in HEADING.findall(prose(path)))
    return {*names, *members, *(re.sub(r"\s+", "-", title.strip()) for title in titles)}


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


def test_every_page_is_in_the_menu():
    """mkdocs.yml lists every page of docs/ once; the page of its section lists each error code and decision."""
    listed = re.findall(
        r"^ +- (?:\w+: )?([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE
    )
    for folder in ("errors", "adr"):
        section = (ROOT / "docs" / folder / "index.md").read_text(encoding="utf-8")
        listed += [f"{folder}/{name}" for name in dict.fromkeys(re.findall(r"\]\(([\w-]+\.md)\)", section))]
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


def test_the_limits_are_those_of_the_code():
    """docs/reference/limits.md is what `python -m tools.limits_page` writes."""
    assert limits_page.PAGE.read_text(encoding="utf-8") == limits_page.page()


def test_every_setting_is_listed():
    """docs/reference/settings.md names each option of an orchestrator and of `sagas worker`, and each variable."""
    settings = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    options = [f"`{name}`" for name in inspect.signature(Orchestrator).parameters]
    commands: Any = get_command(program())
    options += [f"`{name}`" for each in commands.commands["worker"].params for name in each.opts if "--" in name]
    sources = [path for package in ("sagas", "durable_core") for path in (ROOT / package).rglob("*.py")]
    variables = {name for path in sources for name in VARIABLE.findall(path.read_text(encoding="utf-8"))}
    assert len(variables) > 5
    assert [name for name in [*options, *sorted(variables)] if name not in settings and name not in SHARED] == []
