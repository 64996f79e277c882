"""Every random saga has a sound trace; `test_traces.py` tries every place from which another worker may export it."""

from tests.compiled import read_once
from tests.traces import sound

sound_traces = sound(prefixes=1, alike=True)
__all__ = ["read_once", "sound_traces"]
