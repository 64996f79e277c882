"""Whatever has been killed, every saga that a test leaves behind has a sound trace."""

import pytest

from tests.compiled import read_once
from tests.traces import sound

sound_traces = sound(alike=True)
__all__ = ["read_once", "sound_traces"]


@pytest.fixture(scope="module", autouse=True)
def types_of_postgres() -> None:
    """Each connection looks types up: it may be cut there too."""
