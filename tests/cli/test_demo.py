"""``sagas demo``: how it finds and starts an example; the built package is tried by ``make test-wheel``."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.line import Line

ROOT = Path(__file__).parents[2]


class Started(Exception):
    """The program that this process was to become."""


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of another program, an exception."""

    def execve(program: str, arguments: list[str], environment: dict[str, str]) -> None:
        raise Started(program, arguments, environment)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setenv("SAGAS_DEBUG", "1")


def start(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command ended with."""
    return Line(capsys).run("demo", *arguments).err


@pytest.mark.parametrize("name", ["orders", "booking"])
def test_the_example_becomes_the_process(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str):
    """The module of the example runs, from where the examples are, whatever lies in the current directory."""
    told = start(capsys, name, "--keep", str(tmp_path))
    arguments = [sys.executable, "-m", f"examples.{name}.demo", "--keep", str(tmp_path)]
    assert repr(arguments) in told
    assert f"'PYTHONPATH': '{ROOT}'" in told
    assert "'PYTHONSAFEPATH': '1'" in told


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Without the extra it names the packages and how to install them, and starts nothing."""
    found = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        if name.startswith("opentelemetry.exporter"):
            raise ModuleNotFoundError(name)
        return None if name == "httpx" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    told = start(capsys)
    assert "the demo needs httpx, opentelemetry.exporter.otlp.proto.http" in told
    assert "pip install 'durable-sagas[demo]'" in told
    assert "Started" not in told
