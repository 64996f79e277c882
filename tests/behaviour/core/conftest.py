"""What each test of the durable core begins with; nothing here imports ``sagas``."""

from pathlib import Path

import pytest

from tests.behaviour.core.core_scenes import world


@pytest.fixture(autouse=True)
def fresh_world() -> None:
    """Nothing has been done yet."""
    world.__init__()


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind, that survives its engine."""
    return f"memory://{tmp_path.name}" if request.param == "memory" else f"sqlite:///{tmp_path}/core.db"
