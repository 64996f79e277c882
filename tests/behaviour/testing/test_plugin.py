"""The pytest plugin: three fixtures, for tests of every runner, in a pytest of its own."""

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).parents[3]
INSTALLED = bool(entry_points(group="pytest11", name="sagas"))
"""Whether it comes with the package; else this tree was installed before it had the plugin."""
SHOP = """
from datetime import timedelta
from sagas import Saga, resource, saga, step

class Declined(Exception): ...

class Bank:
    def __init__(self): self.calls = []

@step(rejects=(Declined,), timeout=10)
async def charge(amount: int, *, bank: Bank = resource()) -> int:
    bank.calls.append(amount)
    return amount

@charge.compensate
async def refund(amount: int, *, bank: Bank = resource()) -> None:
    bank.calls.append(-amount)

@saga("place-order", version=1)
async def place_order(s: Saga, amount: int) -> int:
    paid = await s.run(charge, amount)
    await s.sleep(timedelta(days=30))
    return paid
"""
BODY = """
    bank = Bank()
    sagas_faults.crash_after("charge")
    began = sagas_clock.now()
    async with sagas_orchestrator(place_order, resources=[bank]) as orchestrator:
        order = await orchestrator.start(place_order, 30, id="one")
        assert await order.result(timeout=30) == 30
    assert bank.calls == [30, 30]
    assert sagas_clock.now() - began == timedelta(days=30)
    async with sagas_orchestrator(place_order, resources=[bank], concurrency=5) as orchestrator:
        assert await orchestrator.count() == 0
"""
ARGUMENTS = "sagas_orchestrator, sagas_faults, sagas_clock"
RUNNERS = {
    "anyio": f"""
import pytest
@pytest.fixture
def anyio_backend(): return "asyncio"
@pytest.mark.anyio
async def test_order({ARGUMENTS}):{BODY}""",
    "pytest_asyncio": f"""
import pytest
@pytest.mark.asyncio
async def test_order({ARGUMENTS}):{BODY}""",
    "plain": f"""
import asyncio
def test_order({ARGUMENTS}):
    async def main():{BODY.replace(chr(10), chr(10) + "    ")}
    asyncio.run(main())""",
    "unittest": f"""
import unittest
from sagas import Orchestrator
from sagas.testing import Faults, ManualClock
class Orders(unittest.IsolatedAsyncioTestCase):
    async def test_order(self):
        sagas_clock, sagas_faults = ManualClock(auto=True), Faults()
        def sagas_orchestrator(*sagas, **options):
            return Orchestrator("memory://", sagas=sagas, clock=sagas_clock, faults=sagas_faults, **options)
{BODY.replace(chr(10), chr(10) + "    ")}
        sagas_faults.assert_used()""",
}


def run(tmp_path: Path, tests: str, *options: str, code: int = 0) -> str:
    """What a pytest of its own says about these tests."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "test_shop.py").write_text(f"from datetime import timedelta\nfrom shop import *\n{tests}\n")
    scope = "asyncio_default_fixture_loop_scope = function\n" if "mark.asyncio" in tests else ""
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = .\n{scope}")
    options = (*options, *(() if scope else ("-p", "no:asyncio")))
    plugin = [] if INSTALLED else ["-p", "sagas.testing.plugin"]
    bootstrap = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-W", "error", "-c", bootstrap, "-p", "no:cacheprovider", *plugin]
    done = forked.run(
        [*command, *options, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("runner", RUNNERS)
def test_fixtures_work_under_every_runner(tmp_path: Path, runner: str):
    """A saga crashes, sleeps for thirty days and ends at once; a second orchestrator has a store of its own."""
    if runner == "pytest_asyncio" and find_spec(runner) is None:
        pytest.skip("pytest-asyncio is not installed here")
    assert "1 passed" in run(tmp_path, RUNNERS[runner])


def test_a_fault_that_did_not_come_up_fails_its_test(tmp_path: Path):
    """The fixture says so at the end of the test."""
    said = run(tmp_path, "def test_nothing(sagas_faults): sagas_faults.crash_after('charge')", code=1)
    assert "these faults did not come up: crash_after('charge'), for 1" in said
    assert "1 passed, 1 error" in said


def test_options_win_over_the_fixtures(tmp_path: Path):
    """A clock, faults, a store or an address that the test gives is the one that is used."""
    test = """
from sagas.testing import Faults, ManualClock
def test_own(sagas_orchestrator, sagas_clock, sagas_faults, tmp_path):
    clock, faults = ManualClock(), Faults()
    made = sagas_orchestrator(place_order, clock=clock, faults=faults, url=f"sqlite:///{tmp_path}/a.db", worker=False)
    assert made.engine.clock is clock and made.engine.settings.faults is faults
    assert type(made.engine.store).__name__ == "SqliteStore"
    store = made.engine.store
    assert sagas_orchestrator(store=store).engine.store is store
    other = sagas_orchestrator(place_order)
    assert other.engine.clock is sagas_clock and other.engine.settings.faults is sagas_faults
"""
    assert "1 passed" in run(tmp_path, test)


def test_fixtures_are_listed_with_what_they_are_for(tmp_path: Path):
    """`pytest --fixtures` shows a line for each."""
    said = run(tmp_path, "def test_none(): ...", "--fixtures")
    for name in ("sagas_clock", "sagas_faults", "sagas_orchestrator"):
        assert f"\n{name} -- " in said


def test_it_is_declared_by_the_package():
    """Pytest finds it where the package is installed."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared == {"pytest11": {"sagas": "sagas.testing.plugin"}}


def test_loading_it_costs_other_projects_next_to_nothing():
    """It loads neither an engine nor a store, no database library, and no tracing: only what declaring sagas loads."""
    program = f"""
import subprocess
import sys
sys.path.insert(0, {str(ROOT)!r})
import pytest
import sagas
before = set(sys.modules)
import sagas.testing.plugin
print(sorted(set(sys.modules) - before))
print([name for name in ("sqlalchemy", "sqlmodel", "asyncpg", "opentelemetry", "sqlite3", "durable_core.engine.worker",
    "sagas.orchestrator") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["['sagas.testing', 'sagas.testing.plugin']", "[]"]
