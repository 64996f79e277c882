"""What a worker says of itself at its health endpoint."""

import pytest

from durable_core import Pulse
from sagas.cli.health import WELL_S, told


@pytest.mark.parametrize(
    ("silent_s", "limit_s", "well"),
    [(0.1, 300, True), (WELL_S - 1, 300, True), (WELL_S, 300, False), (3, 4, True), (4, 4, False)],
)
def test_a_worker_is_not_well_once_its_store_is_silent_for_as_long_as_it_may_be(
    silent_s: float, limit_s: float, *, well: bool
) -> None:
    """30 s, or the limit after which it ends where that is less: nobody is told that all is well by a dying worker."""
    pulse = Pulse(silent_s=silent_s, wrote_s=None, runs=0, under_way=0, backlog=0, trouble=None)
    assert told("w-1", pulse, limit_s=limit_s)["well"] is well
