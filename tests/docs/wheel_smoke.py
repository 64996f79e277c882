"""Try the installed wheel: run by ``make test-wheel`` with the Python of a fresh environment, away from the tree."""

import importlib
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from readme import first_example, run


def check_package(name: str) -> None:
    """The package comes from this environment, is marked as typed, and has each name that it exports."""
    package = importlib.import_module(name)
    assert package.__file__ is not None
    home = Path(package.__file__).parent
    assert home.is_relative_to(sys.prefix), f"{name} was imported from {home}, which is not the installed wheel"
    assert (home / "py.typed").is_file(), f"{name} has no py.typed"
    for exported in package.__all__:
        getattr(package, exported)


def check_demo(command: Path) -> None:
    """The examples come along, and without the extra the demo says how to install what it needs."""
    home = Path(importlib.import_module("sagas").__file__ or "").parent / "demo" / "examples"
    for name in ("orders", "booking"):
        assert (home / name / "demo.py").is_file(), f"the wheel has no examples/{name}"
    refused = subprocess.run([command, "demo"], check=False, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2, refused
    assert "pip install 'durable-sagas[demo]'" in refused.stderr, refused.stderr


TEST = """
import asyncio
from sagas import Saga, saga

@saga("greet", version=1)
async def greet(s: Saga) -> str:
    return "hello"

def test_a_saga(sagas_orchestrator):
    async def main():
        async with sagas_orchestrator(greet) as orchestrator:
            assert await (await orchestrator.start(greet)).result() == "hello"
    asyncio.run(main())
"""


def check_plugin() -> None:
    """Pytest finds our plugin by its entry point, and gives a test the fixtures."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "test_greet.py")
        file.write_text(TEST, encoding="utf-8")
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", file],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=folder,
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    print("pytest finds the plugin of the built wheel")


def main() -> None:
    """Check packages, metadata, command and the README's example; say what was checked."""
    for name in ("durable_core", "sagas"):
        check_package(name)
    wheel = distribution("durable-sagas")
    described = wheel.read_text("METADATA") or ""
    assert "](https://durable-sagas.readthedocs.io/explanation/guarantees/)" in described, "the README is not described"
    assert "](docs/" not in described, "the README's links lead nowhere on a package index"
    files = [str(file) for file in wheel.files or []]
    assert any(file.endswith("licenses/LICENSE") for file in files), "the wheel has no license"
    stray = sorted(
        {
            file.split("/")[0]
            for file in files
            if not file.startswith(("sagas/", "durable_core/", "durable_sagas-", "../"))
        }
    )
    assert stray == [], f"the wheel also installs {stray}"
    for name in ("sagas", "durable-sagas"):
        command = Path(sys.executable).with_name(name)
        subprocess.run([command, "--help"], check=True, capture_output=True, timeout=60)
    check_demo(command)
    code, printed = first_example()
    with tempfile.TemporaryDirectory() as folder:
        assert run(code, Path(folder), source=None) == printed
    print(f"durable-sagas {wheel.version}: the built wheel works ({len(files)} files)")


if __name__ == "__main__":
    check_plugin() if sys.argv[1:] == ["plugin"] else main()
