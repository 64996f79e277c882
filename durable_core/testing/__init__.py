"""Tests' tools: for code that uses this package, and for stores that others write.

``StoreContract`` and ``HostContract`` are suites that any store and any host can run; they are loaded on request.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from durable_core.testing.clock import ManualClock
from durable_core.testing.faulty_store import FaultyStore
from durable_core.testing.trace_rules import broken_rules

if TYPE_CHECKING:
    from durable_core.testing.host_contract import HostContract
    from durable_core.testing.memory_host import MemoryHost
    from durable_core.testing.store_contract import StoreContract

__all__ = ["FaultyStore", "HostContract", "ManualClock", "MemoryHost", "StoreContract", "broken_rules"]

LATER = {"HostContract": "host_contract", "MemoryHost": "memory_host", "StoreContract": "store_contract"}
"""What needs pytest, or drives runs: by the module that it is loaded from once it is asked for."""


def __getattr__(name: str) -> Any:
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{LATER[name]}"), name)
