"""The README's first example, as a reader would run it: taken from the page, in an empty folder, by any Python."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WITHOUT_ASYNCIO = "-p no:asyncio"
"""For a reader's pytest: pytest-asyncio, which a reader need not have, warns until its loop scope is set."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def first_example() -> tuple[str, str]:
    """The first python block of the README, and the text block after it: what it prints."""
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    languages = [language for language, _ in blocks]
    code = languages.index("python")
    return blocks[code][1], blocks[languages.index("text", code)][1]


def run(
    code: str,
    folder: Path,
    *,
    source: Path | None,
    name: str = "example.py",
    by: Callable[..., "subprocess.CompletedProcess[Any]"] = subprocess.run,
) -> str:
    """What ``code`` prints when run in ``folder`` by this Python; with ``source`` as the place of the packages.

    A ``name`` that begins with ``test_`` is run by pytest. ``by`` starts the process: the check of a wheel has no other
    way than Python's own, since our tests are not installed there.

    Raises:
        AssertionError: it failed; the message holds what it wrote to its standard error.
    """
    script = folder / name
    script.write_text(code, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTEST_ADDOPTS"] = WITHOUT_ASYNCIO
    if source is not None:
        environment["PYTHONPATH"] = str(source)
    done = by(
        [sys.executable, "-W", "error", *(("-m", "pytest", "-q") if name.startswith("test_") else ()), script.name],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{name} ended with code {done.returncode}:\n{done.stdout}{done.stderr}"
    printed: str = done.stdout
    return printed
