"""The page about exploring: its programs run, its tests pass with the plugin, and its five mistakes are found."""

import re
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests import forked
from tests.docs.readme import ROOT, run

PAGE = (ROOT / "docs/how-to/explore.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r'^```python title="([^"]+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the page."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_each_mistake_is_found_by_the_case_that_the_page_names(folder: Path):
    """A forgetful undo, one that is not idempotent, an ignored key, a pivot too early, a body that swallows."""
    printed = re.search(r"<!-- output -->\n```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert printed is not None
    assert run(FILES["mistakes.py"], folder, source=ROOT) == printed[1]


def test_the_tests_of_the_page_pass(folder: Path):
    """In a pytest of a reader who has installed the package."""
    plugin = [] if entry_points(group="pytest11", name="sagas") else ["-p", "sagas.testing.plugin"]
    program = f"import sys; sys.path[:0] = [{str(ROOT)!r}, '.']; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "-q", "-p", "no:asyncio", "-p", "no:cacheprovider", *plugin, "."]
    done = forked.run(command, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
