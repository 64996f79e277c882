"""How Jaeger comes to be there: built once, whole or not at all, and said aloud where it cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real_jaeger.build import VERSION

ROOT = Path(__file__).parents[2]
GO = """#!/bin/sh
echo "$*" >>"$(dirname "$0")/calls"
case "$1" in
build) while [ "$1" != -o ]; do shift; done; echo half >"$2"; test ! -e "$(dirname "$0")/broken" && echo whole >"$2" ;;
esac
"""
"""What is asked of Go, written down; a build makes a file, and then fails where a file ``broken`` is beside it."""


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """A Go that builds in no time."""
    program = tmp_path / "go"
    program.write_text(GO)
    program.chmod(0o755)
    return program


def build(place: Path, go: str) -> "subprocess.CompletedProcess[str]":
    """Run it with this Go, and a cache of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tests.real_jaeger.build"],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(place / "cache"), "GO": go},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_is_built_once(tmp_path: Path, go: Path):
    """The first run builds the version named and prints the path; the next one prints it and asks Go for nothing."""
    first = build(tmp_path, str(go))
    assert first.returncode == 0, first.stderr
    program = Path(first.stdout.strip())
    assert program.read_text() == "whole\n"
    asked = (tmp_path / "calls").read_text()
    assert f"get -tool github.com/jaegertracing/jaeger/cmd/jaeger@{VERSION}" in asked
    second = build(tmp_path, "/nowhere/go")
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert (tmp_path / "calls").read_text() == asked


def test_a_build_that_fails_says_so_and_leaves_nothing(tmp_path: Path, go: Path):
    """Where Go fails the exit code is 1, the command is named, and the next run builds anew."""
    (tmp_path / "broken").touch()
    failed = build(tmp_path, str(go))
    assert (failed.returncode, failed.stdout) == (1, "")
    assert f"Jaeger {VERSION} cannot be built: `{go} build" in failed.stderr
    (tmp_path / "broken").unlink()
    assert Path(build(tmp_path, str(go)).stdout.strip()).read_text() == "whole\n"


def test_without_go_it_says_that_nothing_was_tried(tmp_path: Path):
    """Where there is no Go the exit code is 0, and it says aloud that Jaeger was not tried, and why."""
    told = build(tmp_path, "/nowhere/go")
    assert (told.returncode, told.stdout.strip()) == (0, "")
    assert "Jaeger was NOT tried: there is no Go here" in told.stderr


@pytest.mark.parametrize(
    ("given", "reason"), [("", "Jaeger was NOT tried: there is no Go here"), (None, "`make test-jaeger` builds")]
)
def test_the_tests_are_skipped_with_the_reason(given: str | None, reason: str):
    """Without a Jaeger the tests of this folder are skipped, and say why; the exit code is 0."""
    environment = {name: value for name, value in os.environ.items() if name not in ("SAGAS_JAEGER", "PYTEST_ADDOPTS")}
    tests = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n0",
            "-rs",
            "tests/real_jaeger/test_shown.py",
            "tests/real_jaeger/test_demo.py",
        ],
        cwd=ROOT,
        env=environment if given is None else {**environment, "SAGAS_JAEGER": given},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout
    assert reason in tests.stdout
    assert "passed" not in tests.stdout
    assert "failed" not in tests.stdout
