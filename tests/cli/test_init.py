"""``sagas init``: the project that it writes runs, and nothing is overwritten."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked
from tests.cli.line import Line

ROOT = Path(__file__).parents[2]


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A command line in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return Line(capsys)


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python of ours in the project, which sees this tree."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "SAGAS"))}
    return forked.run(
        [sys.executable, *arguments],
        cwd=project,
        env=environment | {"PYTHONPATH": os.pathsep.join([str(project), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_project_passes_its_own_tests(line: Line, tmp_path: Path):
    """A new project's tests pass as they are, without a warning, and `sagas check` has nothing to say of its saga."""
    ended = line.run("init", "order-service")
    assert (ended.code, ended.err) == (0, "")
    assert "cd order-service" in ended.out
    project = tmp_path / "order-service"
    tested = run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert re.search(r"\d passed", tested.stdout)
    assert "warning" not in tested.stdout
    checked = run(project, "-m", "sagas", "check", "app.orders", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    found = json.loads(checked.stdout)
    assert (found["faults"], found["warnings"]) == ([], [])


def test_its_name_is_everywhere_and_every_file_is_named_in_the_readme(line: Line, tmp_path: Path):
    """No placeholder is left, and the README's table names each module of the project."""
    line.run("init", "order-service", "--directory", "here")
    project = tmp_path / "here"
    texts = {str(path.relative_to(project)): path.read_text() for path in project.rglob("*") if path.is_file()}
    assert [path for path, text in texts.items() if "{name}" in text] == []
    assert texts["README.md"].startswith("# order-service\n")
    assert 'name = "order-service"' in texts["pyproject.toml"]
    modules = [path for path, text in texts.items() if path.endswith(".py") and "__init__" not in path]
    assert [path for path in modules if f"`{path}`" not in texts["README.md"]] == []
    assert ".venv/" in texts[".gitignore"]
    assert "export OTEL_SERVICE_NAME=order-service\n" in texts["README.md"]


def test_nothing_is_overwritten(line: Line, tmp_path: Path):
    """A directory that holds something, or a file of that name, is refused and stays as it was."""
    kept = tmp_path / "shop" / "notes"
    kept.parent.mkdir()
    kept.write_text("mine")
    (tmp_path / "file").write_text("mine")
    for arguments in (("shop",), ("orders", "--directory", "file"), ("orders", "--directory", "file/inner")):
        ended = line.run("init", *arguments)
        assert (ended.code, ended.out) == (2, "")
        assert "error: " in ended.err
    assert [path.name for path in kept.parent.iterdir()] == ["notes"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["", "Shop", "1shop", "shop service", "../shop", "shop_service", "-shop", "shop-", "é", "class"]
)
def test_a_name_that_no_package_can_have_is_refused(line: Line, tmp_path: Path, name: str):
    """The message has an example of a good name, and nothing is written."""
    ended = line.run("init", "--", name)
    assert ended.code == 2
    assert "-service" in ended.err
    assert list(tmp_path.iterdir()) == []
