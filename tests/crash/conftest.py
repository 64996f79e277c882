"""Whatever has been killed, every saga that a test leaves behind has a sound trace."""

from tests.traces import sound

sound_traces = sound()
