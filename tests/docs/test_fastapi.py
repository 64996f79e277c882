"""The page about FastAPI: its application passes the tests that it shows, and its table is that of the code."""

import re
import sys
from pathlib import Path

from sagas.fastapi import STATUSES
from tests import forked
from tests.docs.readme import BLOCK, ROOT, WITHOUT_ASYNCIO

PAGE = ROOT / "docs/how-to/fastapi.md"
FRONT = ROOT / "examples/booking/front.py"


def test_the_application_passes_its_tests(tmp_path: Path):
    """The two modules of the page, run by pytest in an empty folder."""
    text = PAGE.read_text(encoding="utf-8")
    application, tests = [code for language, code in BLOCK.findall(text) if language == "python"]
    (tmp_path / "shop.py").write_text(application, encoding="utf-8")
    (tmp_path / "test_shop.py").write_text(tests, encoding="utf-8")
    # Starlette's client prefers another package to httpx, and says so; a reader may have either.
    warnings = ["-W", "error", "-W", "ignore:Using `httpx` with"]
    done = forked.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *warnings, "test_shop.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "HOME": str(tmp_path), "PYTEST_ADDOPTS": WITHOUT_ASYNCIO},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_the_statuses_are_those_of_the_code():
    """The page lists each error that has a status of its own, under it."""
    rows = re.findall(r"^\| (`.*`) \| (\d+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    told = {name: int(status) for names, status in rows for name in re.findall(r"`(\w+)`", names)}
    assert told == {kind.__name__: status for kind, status in STATUSES.items()} | {"SagaPastPivot": 409}


def test_the_front_of_the_trips_is_as_short_as_it_says():
    """The whole front of an example has fewer than 60 lines of code."""
    lines = FRONT.read_text(encoding="utf-8").splitlines()
    assert sum(bool(line.strip()) for line in lines) < 60
