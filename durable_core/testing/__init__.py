"""Tests' tools: for code that uses this package, and for stores that others write.

``StoreContract`` needs pytest, so it is loaded when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from durable_core.testing.clock import ManualClock
from durable_core.testing.faulty_store import FaultyStore
from durable_core.testing.trace_rules import broken_rules

if TYPE_CHECKING:
    from durable_core.testing.store_contract import StoreContract

__all__ = ["FaultyStore", "ManualClock", "StoreContract", "broken_rules"]


def __getattr__(name: str) -> Any:
    if name == "StoreContract":
        from durable_core.testing.store_contract import StoreContract  # noqa: PLC0415 - imports pytest

        return StoreContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
