"""What tests of sagas need: a clock under control, and faults on demand. Names are loaded on first use."""

from typing import TYPE_CHECKING

from durable_core.layer import lazy_names

if TYPE_CHECKING:
    from durable_core.testing import ManualClock
    from sagas.testing.faults import Faults

__all__ = ["Faults", "ManualClock"]

LATER = {"durable_core.testing": ("ManualClock",), "sagas.testing.faults": ("Faults",)}
"""The names by the module that they are loaded from."""

__getattr__ = lazy_names(__name__, LATER)
