"""The tutorial tells the truth: each chapter is played from an empty folder, and prints what its page shows."""

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs.readme import ROOT
from tests.docs.session import Session, commands
from tests.docs.snippets import Program, blocks

FOLDER = ROOT / "docs/tutorial"
CHAPTERS = ["first-saga", "failure-and-undo", "kill-9", "unknown-outcomes", "a-person-in-the-loop", "jaeger"]
BEFORE = {"jaeger": ["a-person-in-the-loop"]}
"""The chapters in whose folder a chapter continues."""
STORE = {"SAGAS_STORE": "sqlite:///shop.db"}
"""What the index tells to set before."""


def play(chapter: str, folder: Path) -> int:
    """Save the files of a chapter, play its sessions, and return how many commands that were."""
    page = FOLDER / f"{chapter}.md"
    for block in blocks(page):
        assert isinstance(block, Program)
        (folder / block.name).write_text(block.text, encoding="utf-8")
    session, count = Session(folder, STORE), 0
    with ExitStack() as running:
        for command in commands(page):
            session.play(command, running)
            count += 1
    return count


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_is_as_its_page_shows_it(chapter: str, tmp_path: Path):
    """Its files run, and each command prints what stands below it."""
    for before in BEFORE.get(chapter, []):
        play(before, tmp_path)
    assert play(chapter, tmp_path) >= 2


def test_there_are_no_other_chapters_and_no_other_files():
    """The index lists each chapter in order, and each file of code is shown by one of them."""
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert all(f"export {name}={value}\n" in index for name, value in STORE.items())
    assert [index.index(f"]({chapter}.md)") for chapter in CHAPTERS] == sorted(
        index.index(f"]({page.name})") for page in FOLDER.glob("*.md") if page.stem != "index"
    )
    shown = {block.name for chapter in CHAPTERS for block in blocks(FOLDER / f"{chapter}.md")}
    assert shown == {path.name for path in (FOLDER / "code").iterdir() if path.suffix == ".py"}


def test_a_reader_of_the_raw_page_finds_each_file():
    """Where includes are not expanded, as in the repository's own view, a link above each leads to the file."""
    for chapter in CHAPTERS:
        page = (FOLDER / f"{chapter}.md").read_text(encoding="utf-8")
        included = re.findall(r'^--8<-- "tutorial/code/(\w+\.py)"$', page, re.MULTILINE)
        linked = re.findall(r'^\[(\w+\.py)\]\(code/\1\)\n\n```python.*\n--8<-- "tutorial/code/\1"$', page, re.MULTILINE)
        assert included
        assert linked == included


@pytest.mark.slow
def test_the_chapters_follow_each_other_in_one_folder(tmp_path: Path):
    """A reader who goes from chapter to chapter, on one store, sees the same."""
    for chapter in CHAPTERS:
        play(chapter, tmp_path)
