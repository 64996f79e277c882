"""What tests of sagas need: a clock under control, faults on demand, and a search through all that can go wrong.

``sagas.testing.plugin`` is the pytest plugin that comes with the package. Names are loaded on first use.
"""

from typing import TYPE_CHECKING

from durable_core.layer import lazy_names

if TYPE_CHECKING:
    from durable_core.testing import ManualClock
    from sagas.testing.exploring import ExploreFailed, FailingCase, Report, explore
    from sagas.testing.faults import Faults

__all__ = ["ExploreFailed", "FailingCase", "Faults", "ManualClock", "Report", "explore"]

LATER = {
    "durable_core.testing": ("ManualClock",),
    "sagas.testing.exploring": ("ExploreFailed", "FailingCase", "Report", "explore"),
    "sagas.testing.faults": ("Faults",),
}
"""The names by the module that they are loaded from."""

__getattr__ = lazy_names(__name__, LATER)
