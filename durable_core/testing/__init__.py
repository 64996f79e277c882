"""Tests' tools: for code that uses this package, and for stores that others write.

``StoreContract`` and ``HostContract`` are suites that any store and any host can run; they are loaded on request.
"""

from typing import TYPE_CHECKING

from durable_core.lazy import lazy_names
from durable_core.testing.clock import ManualClock, sleep_by
from durable_core.testing.faulty_store import FaultyStore, stores_in_memory
from durable_core.testing.trace_rules import broken_rules

if TYPE_CHECKING:
    from durable_core.testing.host_contract import HostContract
    from durable_core.testing.memory_host import MemoryHost
    from durable_core.testing.store_contract import StoreContract

__all__ = [
    "FaultyStore",
    "HostContract",
    "ManualClock",
    "MemoryHost",
    "StoreContract",
    "broken_rules",
    "sleep_by",
    "stores_in_memory",
]

LATER = {
    "durable_core.testing.host_contract": ("HostContract",),
    "durable_core.testing.memory_host": ("MemoryHost",),
    "durable_core.testing.store_contract": ("StoreContract",),
}
"""The names that need pytest, or drive runs, by the module that they are loaded from."""

__getattr__ = lazy_names(__name__, LATER)
