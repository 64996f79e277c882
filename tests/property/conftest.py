"""Every random saga has a sound trace."""

from tests.traces import sound_traces

__all__ = ["sound_traces"]
