"""The python on the pages, as a reader would run it: copied from the page into an empty folder.

A comment right above a block says what is special about it:

- ``<!-- continues -->``: it goes on from the block before; both are run as one program.
- ``<!-- partial: why -->``: it cannot be run by itself, and says why. Prefer a complete one.
- ``<!-- output -->``, above a block of text: this is what the program before it prints.

A block with ``title="shop.py"`` is kept under that name, so that later blocks of the page can import it.
"""

import re
from pathlib import Path

import attrs

from tests.docs.readme import ROOT

FENCE = re.compile(
    r"(?:^<!-- (?P<mark>continues|output|partial: [^\n]+) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
INCLUDED = re.compile(r'^( *)--8<-- "([^"]+)"\n', re.MULTILINE)
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


@attrs.frozen
class Program:
    """What is run: one block, or several that continue each other."""

    text: str
    name: str
    prints: str | None = None
    """What the page says that it prints."""


@attrs.frozen
class Partial:
    """A block that only has to be valid code."""

    text: str
    why: str


def included(text: str) -> str:
    """A block with the files that it shows."""
    return INCLUDED.sub(lambda found: (ROOT / "docs" / found[2]).read_text(encoding="utf-8"), text)


def blocks(page: Path) -> list[Program | Partial]:
    """The python of a page, in order."""
    found: list[Program | Partial] = []
    for fence in FENCE.finditer(page.read_text(encoding="utf-8")):
        mark, language = fence["mark"] or "", fence["language"]
        text = included(re.sub(rf"^{fence['indent']}", "", fence["text"], flags=re.MULTILINE))
        last = found[-1] if found else None
        if language == "python" and mark.startswith("partial: "):
            found.append(Partial(text, mark.removeprefix("partial: ")))
        elif language == "python" and mark == "continues":
            assert isinstance(last, Program), f"{page}: nothing to continue before {text[:60]!r}"
            found[-1] = attrs.evolve(last, text=f"{last.text}\n{text}")
        elif language == "python":
            found.append(Program(text, fence["title"] or "example.py"))
        elif mark == "output":
            assert isinstance(last, Program), f"{page}: no program prints {text[:60]!r}"
            found[-1] = attrs.evolve(last, prints=text)
    return found
