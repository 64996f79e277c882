"""The pytest plugin that comes with the package: ``sagas_clock``, ``sagas_faults`` and ``sagas_orchestrator``.

Invariant: pytest loads this module in every project that has the package installed, so it loads nothing but pytest; and
its fixtures are plain, so they serve tests of every runner: anyio's, pytest-asyncio's, or ``asyncio.run``.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from durable_core.testing import ManualClock
    from sagas.model.definition import SagaDef
    from sagas.orchestrator import Orchestrator
    from sagas.testing.faults import Faults


class MakeOrchestrator(Protocol):
    """The type of the fixture ``sagas_orchestrator``."""

    def __call__(self, *sagas: "SagaDef[..., Any]", **options: Any) -> "Orchestrator":
        """An orchestrator of these sagas, to be entered by the test; options are those of ``Orchestrator``."""
        ...


@pytest.fixture
def sagas_clock() -> "ManualClock":
    """A clock that jumps to the next wait, retry or timeout whenever everything is idle."""
    from durable_core.testing import ManualClock  # noqa: PLC0415 - only a test that asks for it pays for it

    return ManualClock(auto=True)


@pytest.fixture
def sagas_faults() -> "Iterator[Faults]":
    """What is to go wrong; at the end of the test each declared fault must have come up."""
    from sagas.testing.faults import Faults  # noqa: PLC0415 - as above

    faults = Faults()
    yield faults
    faults.assert_used()


@pytest.fixture
def sagas_orchestrator(sagas_clock: "ManualClock", sagas_faults: "Faults") -> MakeOrchestrator:
    """Makes orchestrators, each on a fresh memory store, with ``sagas_clock`` and ``sagas_faults``.

    ``async with sagas_orchestrator(place_order, resources=[bank]) as orchestrator: ...``
    """

    def make(*sagas: "SagaDef[..., Any]", **options: Any) -> "Orchestrator":
        from sagas.orchestrator import Orchestrator  # noqa: PLC0415 - as above

        given: dict[str, Any] = {"clock": sagas_clock, "faults": sagas_faults, **options}
        if "store" not in given:
            given.setdefault("url", "memory://")
        return Orchestrator(sagas=sagas, **given)

    return make
