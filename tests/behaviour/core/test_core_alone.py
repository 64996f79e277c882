"""The durable core where `sagas` cannot be imported: its example and its own tests, in processes of their own."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BLOCK = """
import sys


class NoSagas:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sagas":
            raise ImportError(f"{name} cannot be had here")


sys.meta_path.insert(0, NoSagas())
"""


@pytest.fixture
def without_sagas(tmp_path: Path) -> dict[str, str]:
    """An environment in which no Python process, and none that it starts, can import `sagas`."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


def python(environment: dict[str, str], *args: str, timeout_s: float = 110) -> "subprocess.CompletedProcess[str]":
    """Run Python to its end."""
    return subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def test_nothing_of_sagas_can_be_imported_there(without_sagas: dict[str, str]):
    """The block works, so that the tests below prove something; the core is not touched by it."""
    assert "cannot be had here" in python(without_sagas, "-c", "import sagas.runtime").stderr
    loaded = "import sys, durable_core; print([name for name in sys.modules if name.startswith('sagas')])"
    assert python(without_sagas, "-c", loaded).stdout.strip() == "[]"


def test_the_nightly_import_survives_the_death_of_its_worker(without_sagas: dict[str, str]):
    """The example runs without sagas; its worker is killed and another one ends the import; its audit holds."""
    run = python(without_sagas, "-m", "examples.nightly_import")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    said = run.stdout.splitlines()
    assert said[-1] == "all is well"
    assert any("SIGKILL" in line for line in said)
    workers = [match[1] for match in re.finditer(r"worker (\d+): read part-3\.csv", run.stdout)]
    assert len(set(workers)) == 2


def test_the_example_of_the_reference_prints_what_the_page_says(without_sagas: dict[str, str], tmp_path: Path):
    """The program of docs/reference/durable-core.md runs without sagas, twice on one file, and prints what it shows."""
    page = (ROOT / "docs/reference/durable-core.md").read_text(encoding="utf-8")
    program = page.split("```python\n")[1].split("```")[0].replace("survey.db", f"{tmp_path}/survey.db")
    shown = page.split("```text\n")[1].split("```")[0]
    for _ in range(2):
        run = python(without_sagas, "-c", program)
        assert (run.stdout, run.stderr) == (shown, "")


def test_the_page_of_the_example_shows_it_as_it_is():
    """The function in its README is the one that is run."""
    page = (ROOT / "examples/nightly_import/README.md").read_text(encoding="utf-8")
    shown = ast.parse(page.split("```python\n")[1].split("```")[0])
    source = ast.parse((ROOT / "examples/nightly_import/job.py").read_text(encoding="utf-8"))
    assert ast.dump(shown.body[0]) in [ast.dump(node) for node in source.body]


def test_the_cores_own_tests_pass_without_sagas(without_sagas: dict[str, str]):
    """What tests the core by itself passes as a whole where `sagas` cannot be imported."""
    files = [str(file) for file in HERE.glob("test_durable_core*.py")]
    run = python(without_sagas, "-m", "pytest", f"--confcutdir={HERE}", "-p", "no:cacheprovider", *files)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count(".") > 100
