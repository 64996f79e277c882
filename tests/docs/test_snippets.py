"""Every piece of python on a page runs, from an empty folder, and prints what the page says."""

import ast
from pathlib import Path

import pytest

from tests import forked
from tests.docs.readme import ROOT, run
from tests.docs.snippets import PAGES, Partial, Program, blocks

RUN_ELSEWHERE = {
    ROOT / place
    for place in (
        "docs/errors",
        "docs/tutorial",
        "docs/how-to/explore.md",
        "docs/how-to/fastapi.md",
        "docs/how-to/own-transaction.md",
        "docs/how-to/participants.md",
    )
}
"""Tests of their own run these pages, and look at more than the exit code."""
WITH_PYTHON = [page for page in PAGES if blocks(page)]
TO_RUN = [page for page in WITH_PYTHON if not RUN_ELSEWHERE & {page, page.parent}]


def named(page: Path) -> str:
    """The id of a page's test."""
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", WITH_PYTHON, ids=named)
def test_partial_blocks_are_python_and_say_why(page: Path):
    """A block that is not run is valid code, as a body of a coroutine if need be, and tells what it lacks."""
    for block in blocks(page):
        if isinstance(block, Partial):
            assert len(block.why.split()) >= 3
            compile(block.text, named(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", TO_RUN, ids=named)
def test_the_programs_of_a_page_run(page: Path, tmp_path: Path):
    """Each block of python is a program that ends well, in a folder with the page's files, and prints what is said."""
    for number, block in enumerate(blocks(page)):
        if isinstance(block, Program):
            printed = run(block.text, tmp_path, source=ROOT, name=block.name, by=forked.run)
            assert block.prints in (None, printed), f"program {number + 1} of {named(page)}"


def test_most_blocks_are_run():
    """The way out is for a few."""
    every = [block for page in WITH_PYTHON for block in blocks(page)]
    assert sum(isinstance(block, Partial) for block in every) < len(every) / 8
