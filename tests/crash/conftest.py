"""Whatever has been killed, every saga that a test leaves behind has a sound trace."""

from tests.compiled import read_once
from tests.traces import sound

sound_traces = sound(alike=True)
__all__ = ["read_once", "sound_traces"]
