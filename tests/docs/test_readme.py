"""The README tells the truth."""

import re
import tomllib
from pathlib import Path

from tests import forked
from tests.docs.readme import ROOT, first_example, run


def test_the_example_prints_what_the_page_says(tmp_path: Path):
    """The first example runs as it stands and prints the text below it."""
    code, printed = first_example()
    assert run(code, tmp_path, source=ROOT, by=forked.run) == printed


def test_the_example_run_again_repeats_no_step(tmp_path: Path):
    """A second process reads the end from the file: no compensation is called again, the outcome is the same."""
    code, printed = first_example()
    run(code, tmp_path, source=ROOT, by=forked.run)
    assert run(code, tmp_path, source=ROOT, by=forked.run).splitlines() == printed.splitlines()[-1:]


def test_the_example_ships_where_the_card_is_good(tmp_path: Path):
    """Another id and an amount that is covered: the saga completes, as the page says below the example."""
    code, printed = first_example()
    run(code, tmp_path, source=ROOT, by=forked.run)
    covered = code.replace('"teapot", 42, id="order-17"', '"teapot", 30, id="order-18"')
    assert covered != code
    assert run(covered, tmp_path, source=ROOT, by=forked.run) == "shipped the teapot from shelf 7\n"
    assert "put back" in printed


def test_the_page_is_short():
    """The README has at most 150 lines, and its first screen holds the example."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert lines.index("```python") < 10


def test_a_package_index_shows_no_link_that_leads_nowhere():
    """As a package index shows it, every link of the README is absolute, and every page that one names exists."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for each in settings["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(each["pattern"], each["replacement"], text)
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) > 10
    assert [target for target in targets if not target.startswith("https://durable-sagas.readthedocs.io/")] == []
    pages = {target.removeprefix("https://durable-sagas.readthedocs.io/").removesuffix("/") for target in targets}
    found = [
        page
        for page in pages
        if any((ROOT / "docs" / name).is_file() for name in (page, f"{page}.md", f"{page}/index.md"))
    ]
    assert sorted(found) == sorted(pages)
