"""What `import sagas` loads: a program pays for it each time it starts."""

import json
import subprocess
import sys

import pytest

OURS = {"sagas", "durable_core"}
NEEDED = {"attr", "attrs", "msgspec", "typing_extensions"}
HEAVY = {"email", "http", "importlib.metadata", "multiprocessing", "pdb", "unittest", "urllib.request", "xml"}
"""Of the standard library, what takes milliseconds and is needed by few."""


@pytest.mark.parametrize("package", ["sagas", "durable_core"])
def test_nothing_heavy_is_imported(package: str):
    """Neither SQLModel, typer, rich, tenacity and OpenTelemetry nor large parts of the standard library."""
    code = f"import sys; old = {{*sys.modules}}; import {package}, json; print(json.dumps([*{{*sys.modules}} - old]))"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    loaded: set[str] = set(json.loads(done.stdout))
    roots = {module.partition(".")[0] for module in loaded}
    assert roots - sys.stdlib_module_names - OURS <= NEEDED
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    "modules", ["durable_core.model.shape, durable_core.model.failure, durable_core.model.retry", "durable_core.stores"]
)
def test_what_every_process_loads_has_no_models(modules: str):
    """SQLModel would cost every process a third of a second and 30 MiB; pydantic and tenacity are for who uses them."""
    heavy = "{'sqlmodel', 'sqlalchemy', 'pydantic', 'tenacity'}"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
