"""What tests of sagas need: a clock under control."""

from durable_core.testing import ManualClock

__all__ = ["ManualClock"]
