"""Public names that are loaded once they are asked for: all are there, and declaring sagas loads little."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest


def told_to_checkers(module: str) -> dict[str, str]:
    """The names under ``if TYPE_CHECKING``, with their modules."""
    source = importlib.import_module(module).__file__
    assert source is not None
    tree = ast.parse(Path(source).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        alias.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


@pytest.mark.parametrize(
    "package", ["sagas", "sagas.participant", "durable_core", "durable_core.layer", "durable_core.testing"]
)
def test_checkers_and_programs_are_told_the_same(package: str) -> None:
    """A name that is loaded later is the one that a type checker sees, and every public name is there."""
    module = importlib.import_module(package)
    for name, home in told_to_checkers(package).items():
        assert getattr(module, name) is getattr(importlib.import_module(home), name)
    assert all(hasattr(module, name) for name in module.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_that_name'"):
        _ = module.nothing_of_that_name


def test_a_name_of_the_core_has_one_place():
    """Users' names are those of `durable_core`; `durable_core.layer` has those of layers, and none twice."""
    users, layers = set(importlib.import_module("durable_core").__all__), importlib.import_module("durable_core.layer")
    assert users & set(layers.__all__) == set()
    assert {"Engine", "Context", "DurableError"} <= users
    assert {"Client", "Face", "HostContext", "Runtime"} <= set(layers.__all__)


def test_to_declare_sagas_loads_nothing_that_runs_them() -> None:
    """``import sagas`` costs what declarations need: no engine, no store, no asyncio of ours is loaded for it."""
    code = "import sys; before = {*sys.modules}; import sagas; print(*{*sys.modules} - before)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"sagas.dsl", "durable_core.model.shape"} <= set(loaded)
    ours = {name for name in loaded if name.startswith(("durable_core.", "sagas.")) and ".model" not in name}
    assert ours <= {
        *(
            "durable_core.errors",
            "durable_core.layer",
            "durable_core.lazy",
            "durable_core.replay",
            "durable_core.replay.current",
        ),
        *("sagas.codec", "sagas.current", "sagas.dsl", "sagas.errors"),
    }
    assert not {"asyncio", "sqlite3", "asyncpg", "opentelemetry"} & set(loaded)
