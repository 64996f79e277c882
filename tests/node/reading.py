"""Runs what other people's programs make of our texts: a script of node, or a page in a browser without a window.

The packages are those of ``package.json`` here. ``make test-node`` installs them and names their folder in
``NODE_PATH``; without it, without node or without a browser a test is skipped.
"""

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

PACKAGES = Path(os.environ.get("NODE_PATH") or "packages of nobody")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
REPORT = re.compile(r'<pre id="report">(.*?)</pre>', re.DOTALL)
WAIT_S = 120


def node(script: str, texts: Sequence[str], *packages: str) -> str:
    """What a script of node prints that is given these texts on its stdin."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("Node.js is not present; with it `make test-node` runs this test")
    require(*packages)
    done = subprocess.run(
        [program, "-e", script], input=json.dumps(texts), capture_output=True, text=True, check=False, timeout=WAIT_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def browser(page: str, folder: Path) -> Any:
    """What a page writes into its element ``report``, as JSON, once its scripts have ended.

    Args:
        page: as HTML.
        folder: for the page and for the browser's own files.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser is present; with Chromium `make test-node` runs this test ({', '.join(BROWSERS)})")
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'browser'}",
        "--virtual-time-budget=60000",
        "--dump-dom",
    ]
    done = subprocess.run(
        [program, *options, file.as_uri()], capture_output=True, text=True, check=False, timeout=WAIT_S
    )
    found = REPORT.search(done.stdout)
    assert found is not None, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


def require(*packages: str) -> None:
    """Skip the test where a package is not installed."""
    lacking = [package for package in packages if not (PACKAGES / package).is_dir()]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} not installed; `make test-node` installs it and runs this test")
