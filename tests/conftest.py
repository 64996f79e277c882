"""What all tests share: how hard Hypothesis searches, rules of stores that say what differs, and a PostgreSQL.

``HYPOTHESIS_PROFILE=thorough make test`` searches longer; a failure prints the line that reproduces it.
"""

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres_server import QUICK, Server, types_looked_up_once

MEMORY, ENOUGH_BYTES = Path("/dev/shm"), 2 << 30
"""Files of tests are kept there where so much is free: nothing then waits for a disk, which no test is about."""
MOST_PROCESSES = 8
"""Each has a PostgreSQL server of its own, and the longest tests end no sooner where there are more."""

pytest.register_assert_rewrite(
    "durable_core.testing.store_checkup_rules",
    "durable_core.testing.store_claim_rules",
    "durable_core.testing.store_commit_rules",
    "durable_core.testing.store_contract",
    "durable_core.testing.store_purge_rules",
    "durable_core.testing.store_rows",
)

settings.register_profile(
    "default",
    max_examples=50,
    deadline=None,  # a shared machine is slow at times, and that is no bug
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure() -> None:
    """Keep temporary files in memory, unless somebody says where; processes that tests start do so too."""
    if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES:
        os.environ["TMPDIR"], tempfile.tempdir = str(MEMORY), None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three processes for two cores that this one may use, where ``-n auto`` asks for them: some tests wait."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min((usable * 3 + 1) // 2, MOST_PROCESSES)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let every other process begin with tests that take long, most of which wait; the others compute meanwhile.

    ``worksteal`` gives each process a stretch of the list, and one that has done its own takes from another's end.
    """
    processes = int(getattr(config, "workerinput", {}).get("workercount", 1))
    slow = [item for item in items if item.get_closest_marker("slow")]
    quick = [item for item in items if not item.get_closest_marker("slow")]
    beginning = (processes + 1) // 2
    ordered: list[pytest.Item] = []
    for process in range(processes):
        if process % 2 == 0:
            ordered += slow[process // 2 :: beginning]
        until = max(0, len(items) * (process + 1) // processes - len(ordered))
        ordered += quick[:until]
        del quick[:until]
    items[:] = ordered


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Let no collection of garbage look through modules and test items again: there are many, and they stay.

    Collecting garbage in a test, and by Python itself, costs what the test has made and no more.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL for all tests of this process; each test takes a schema of its own in it."""
    with Server(**QUICK) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def types_of_postgres() -> Iterator[None]:
    """Connections of this process to a PostgreSQL look its types up once; those of `crash` do so each time."""
    with types_looked_up_once():
        yield
