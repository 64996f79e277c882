"""The blocking orchestrator: the asynchronous one's calls, from plain threads; no thread, loop or wait is left over."""

import asyncio
import contextvars
import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, get_overloads

import pytest

import sagas
from sagas import (
    DefinitionError,
    Saga,
    SagaCompensated,
    SagaExists,
    SagaNotFound,
    SagaPastPivot,
    SagaStatus,
    SagaStuck,
    StepExited,
    StoreError,
    WrongState,
    lookup,
    pivot,
    saga,
    step,
)
from sagas.blocking import Orchestrator, SagaHandle

ROOT = Path(__file__).parents[3]
PATIENCE_S = 20.0


class Declined(Exception):
    """The participant said no."""


class Gate:
    """Lets a step begin, tells that it has, and holds it until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def hold(self) -> None:
        """Called by a step on its thread."""
        self.reached.set()
        assert self.opened.wait(PATIENCE_S)


undone: list[int] = []


@step
def reserve(number: int) -> int:
    return number * 2


@reserve.compensate
def put_back(reserved: int) -> None:
    undone.append(reserved)


@step(compensation=None, because="a test")
async def decline(number: int) -> None:
    raise Declined("no cover") from KeyError(number)


@pivot
def pay(amount: int) -> int:
    return amount


@lookup
def leave_by(how: str) -> None:
    raise SystemExit(how)


@saga("double", version=1)
async def double(s: Saga, number: int) -> int:
    return await s.run(reserve, number)


@saga("declined", version=1)
async def declined(s: Saga, number: int) -> None:
    await s.run(reserve, number)
    await s.run(decline, number)


@saga("sleepy", version=1)
async def sleepy(s: Saga) -> str:
    await s.run(pay, 1)
    await s.sleep(timedelta(days=300))
    return "awake"


@saga("napping", version=1)
async def napping(s: Saga) -> None:
    await s.run(reserve, 5)
    await s.sleep(timedelta(days=300))


@saga("leaving", version=1)
async def leaving(s: Saga, how: str) -> None:
    await s.run(leave_by, how)


ALL = (double, declined, sleepy, napping, leaving)


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/sagas.db?durability=process"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test ends with the threads that it began with."""
    before = set(threading.enumerate())
    undone.clear()
    yield
    # An idle thread of a pool that was told to end takes a moment; one of a store that could not be opened ends when
    # the store is collected. What asyncio logs about lost tasks belongs to this test too.
    gc.collect()
    until(lambda: set(threading.enumerate()) <= before or gc.collect() < 0)


@pytest.fixture
def running(url: str) -> Iterator[Orchestrator]:
    """An orchestrator within its block."""
    with Orchestrator(url, sagas=ALL, grace=1) as orchestrator:
        yield orchestrator


def until(condition: Callable[[], bool]) -> None:
    """Ask again until it holds: another thread makes it so, and tells nobody."""
    moment = threading.Event()
    for _ in range(int(PATIENCE_S / 0.005)):
        if condition():
            return
        moment.wait(0.005)
    raise AssertionError("it never held")


# -- the same calls --------------------------------------------------------------------------------------------------


def public(owner: type) -> dict[str, Any]:
    """The public methods of a class."""
    names = [name for name in dir(owner) if not name.startswith("_") and callable(getattr(owner, name))]
    return {name: getattr(owner, name) for name in names}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(Orchestrator, sagas.Orchestrator), (SagaHandle, sagas.SagaHandle)],
    ids=["orchestrator", "handle"],
)
def test_every_call_has_its_blocking_twin(ours: type, theirs: type):
    """What the asynchronous class can do, this one can, with the same arguments and defaults, and without `await`."""
    wanted = public(theirs)
    assert wanted.keys() - public(ours).keys() == set(), "add `name = forward(Served.name)` to sagas/blocking.py"
    for name in wanted.keys() - {"start"}:
        assert parameters(public(ours)[name]) == parameters(wanted[name]), name
    assert not any(inspect.iscoroutinefunction(value) for value in public(ours).values())


def test_the_constructor_takes_the_same():
    """The blocking orchestrator is made with the arguments of the asynchronous one."""
    assert inspect.signature(Orchestrator) == inspect.signature(sagas.Orchestrator)


def test_start_has_the_same_overloads():
    """A type checker sees the same calls of `start`, each with a handle of this module."""
    ours, theirs = get_overloads(Orchestrator.start), get_overloads(sagas.Orchestrator.start)
    assert [parameters(overload) for overload in ours] == [parameters(overload) for overload in theirs]


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any, str]]:
    """A function's parameters; type variables by their name, since each module has its own."""
    return [
        (parameter.name, parameter.kind, parameter.default, str(parameter.annotation))
        for parameter in inspect.signature(function).parameters.values()
    ]


def test_a_saga_from_a_script(running: Orchestrator):
    """Start, result, info, history, get, list and count, each a plain call."""
    handle = running.start(double, 21, id="answer")
    assert handle.result(timeout=PATIENCE_S) == 42
    assert handle.id == "answer"
    assert handle.status() is handle.info().status is SagaStatus.COMPLETED
    assert handle.history()[-1].kind == "ended"
    assert running.get("answer").result() == 42
    assert running.info("answer").steps[0].result == 42
    assert [info.id for info in running.list(saga="double")] == ["answer"]
    assert running.count(status="completed") == 1
    assert repr(handle) == "<SagaHandle double v1 'answer'>"


def test_registering_before_and_within_the_block(url: str):
    """A saga may be registered later, and is then started by its name."""
    orchestrator = Orchestrator(url)
    orchestrator.register(double)
    with orchestrator:
        orchestrator.register(declined)
        assert orchestrator.start("double", 2).result(PATIENCE_S) == 4
        with pytest.raises(SagaCompensated):
            orchestrator.start("declined", 2).result(PATIENCE_S)


def test_a_store_outlives_its_orchestrator(tmp_path: Path):
    """The next orchestrator on the file finds what the first one left."""
    url = f"sqlite:///{tmp_path}/sagas.db"
    with Orchestrator(url, sagas=ALL) as first:
        first.start(double, 4, id="kept").result(PATIENCE_S)
    with Orchestrator(url, sagas=ALL) as second:
        assert second.get("kept").result(PATIENCE_S) == 8


def test_many_threads_at_once(running: Orchestrator):
    """Twenty threads start sagas, wait for them and look, on one orchestrator; each gets its own answer."""
    together = threading.Barrier(20)

    def work(number: int) -> list[int]:
        together.wait(PATIENCE_S)
        mine = [running.start(double, 100 * number + index, id=f"s-{number}-{index}") for index in range(5)]
        assert all(running.get(handle.id).info().id == handle.id for handle in mine)
        return [handle.result(PATIENCE_S) for handle in mine]

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(work, range(20)))
    assert answers == [[2 * (100 * number + index) for index in range(5)] for number in range(20)]
    assert running.count(status="completed") == 100


def test_one_id_from_many_threads_is_one_saga(running: Orchestrator):
    """Twenty threads that start the same saga under the same id get the same run."""
    with ThreadPoolExecutor(20) as threads:
        handles = list(threads.map(lambda _: running.start(double, 1, id="one"), range(20)))
    assert {handle.result(PATIENCE_S) for handle in handles} == {2}
    assert running.count() == 1


def test_a_call_takes_its_context_along(running: Orchestrator):
    """A call sees the context variables of its caller, so a trace goes on across the thread."""
    trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="none")

    async def seen() -> str:
        return trace.get()

    trace.set("mine")
    assert running.home.call(seen) == "mine"


# -- what is raised --------------------------------------------------------------------------------------------------


def test_a_failure_crosses_with_its_cause(running: Orchestrator):
    """The caller's thread gets the exception of the loop's, with its type, attributes and cause."""
    handle = running.start(declined, 3, id="no")
    with pytest.raises(SagaCompensated) as caught:
        handle.result(PATIENCE_S)
    assert caught.value.saga_id == "no"
    assert caught.value.compensated == ["reserve"]
    assert isinstance(caught.value.__cause__, Declined)
    assert caught.value.__cause__.args == ("no cover",)
    assert undone == [6]


def test_refusals_are_the_same(running: Orchestrator):
    """Each call raises what its asynchronous twin raises."""
    running.start(double, 1, id="taken").result(PATIENCE_S)
    with pytest.raises(SagaExists):
        running.start(double, 2, id="taken")
    with pytest.raises(SagaNotFound):
        running.get("nobody")
    with pytest.raises(WrongState):
        running.retry("taken", actor="me", note="why not")
    with pytest.raises(DefinitionError):
        running.start(double, 1, 2, 3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError):
        running.list(nonsense=1)  # pyright: ignore[reportCallIssue]


def test_a_wait_that_takes_too_long(running: Orchestrator):
    """`result(timeout=)` ends with TimeoutError; the saga and the orchestrator go on."""
    handle = running.start(sleepy)
    with pytest.raises(TimeoutError):
        handle.result(timeout=0.05)
    with pytest.raises(TimeoutError):
        handle.result(timeout=timedelta(milliseconds=1))
    until(lambda: handle.info().status == "waiting")
    with pytest.raises(SagaPastPivot):
        handle.cancel("too late")
    assert running.start(double, 1).result(PATIENCE_S) == 2


def test_cancel_undoes(running: Orchestrator):
    """A saga that is cancelled from another thread is undone, and whoever waits for it hears so."""
    handle = running.start(napping)
    until(lambda: handle.info().status == "waiting")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(handle.result, PATIENCE_S)
        handle.cancel("changed my mind")
        error = waiting.exception(PATIENCE_S)
    assert isinstance(error, SagaCompensated)
    assert error.cause == "cancelled"
    assert undone == [10]


def test_a_stuck_saga_is_retried(running: Orchestrator):
    """A stuck saga raises in the waiting thread; after `retry` the wait begins anew."""
    failing = [True]

    @pivot
    def sell() -> None:
        if failing:
            raise ConnectionError("lost")

    @saga("touchy", version=1)
    async def selling(s: Saga) -> str:
        await s.run(sell)
        return "sold"

    handle = running.start(selling)
    with pytest.raises(SagaStuck) as stuck:
        handle.result(PATIENCE_S)
    assert stuck.value.steps == ("sell",)
    failing.clear()
    running.retry(handle.id, actor="op", note="mended")
    assert handle.result(PATIENCE_S) == "sold"


# -- life ------------------------------------------------------------------------------------------------------------


def test_a_block_that_fails(url: str):
    """An exception in the block leaves it as it is; the step under way ends and is kept."""
    gate = Gate()

    @step(compensation=None, because="a test")
    def held() -> str:
        gate.hold()
        return "kept"

    @saga("held", version=1)
    async def holding(s: Saga) -> str:
        return await s.run(held)

    orchestrator = Orchestrator(url, sagas=[holding])

    def block() -> None:
        with orchestrator:
            orchestrator.start(holding)
            assert gate.reached.wait(PATIENCE_S)
            threading.Timer(0.05, gate.opened.set).start()
            raise Declined("out of the block")

    with pytest.raises(Declined):
        block()
    with pytest.raises(StoreError, match="was left"):
        orchestrator.count()


def test_a_wait_that_outlives_the_block(url: str):
    """A thread that still waits when the block is left gets a StoreError; nobody waits for ever."""
    orchestrator = Orchestrator(url, sagas=ALL)
    with ThreadPoolExecutor(1) as threads:
        with orchestrator:
            handle = orchestrator.start(sleepy)
            waiting = threads.submit(handle.result)
            until(lambda: bool(orchestrator.served.engine._poller.waiters))
        assert isinstance(waiting.exception(PATIENCE_S), StoreError)
    with pytest.raises(StoreError, match="was left"):
        handle.result()


def test_outside_the_block(url: str):
    """Before its block an orchestrator takes no call, and a block cannot be entered twice."""
    orchestrator = Orchestrator(url)
    with pytest.raises(StoreError, match="not been entered"):
        orchestrator.count()
    with orchestrator, pytest.raises(DefinitionError, match="twice"):
        orchestrator.__enter__()
    with pytest.raises(DefinitionError, match="twice"), orchestrator:
        pass
    orchestrator.__exit__(None, None, None)


def test_a_store_that_cannot_be_opened(tmp_path: Path):
    """What the store says on entry is raised by the `with` statement, and no thread is left."""
    with pytest.raises(StoreError) as refused, Orchestrator(f"sqlite:///{tmp_path}/none/sagas.db"):
        pass
    assert refused.value.code == "DC011"


def test_arguments_are_checked_where_it_is_made():
    """A wrong argument is refused before any thread is started."""
    with pytest.raises(StoreError):
        Orchestrator("nonsense")
    with pytest.raises(DefinitionError):
        Orchestrator("memory://", sagas=[reserve])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


async def test_within_an_event_loop(running: Orchestrator):
    """In a thread that runs an event loop a call is refused, because it would block the loop."""
    with pytest.raises(DefinitionError, match=r"sagas\.Orchestrator"):
        running.count()
    with pytest.raises(DefinitionError, match=r"sagas\.Orchestrator"), Orchestrator("memory://"):
        pass
    assert await asyncio.to_thread(running.count) == 0


def test_a_step_may_call_it(running: Orchestrator):
    """A plain step runs on a thread of its own, so it may use the blocking orchestrator; an async one may not."""

    @step(compensation=None, because="a test")
    def nested(number: int) -> int:
        return running.start(double, number).result(PATIENCE_S)

    @step(compensation=None, because="a test")
    async def looping() -> int:
        return running.count()

    @saga("nesting", version=1)
    async def nesting(s: Saga) -> int:
        return await s.run(nested, 3)

    @saga("looping", version=1)
    async def in_loop(s: Saga) -> int:
        return await s.run(looping)

    assert running.start(nesting).result(PATIENCE_S) == 6
    with pytest.raises(SagaCompensated) as refused:
        running.start(in_loop).result(PATIENCE_S)
    assert isinstance(refused.value.__cause__, DefinitionError)


def test_ctrl_c_while_waiting(running: Orchestrator):
    """KeyboardInterrupt ends the wait of the main thread, and neither the loop nor the saga."""
    handle = running.start(sleepy)
    until(lambda: handle.info().status == "waiting")
    waiters = running.served.engine._poller.waiters
    main = threading.get_ident()

    def press() -> None:
        until(lambda: bool(waiters))
        signal.pthread_kill(main, signal.SIGINT)

    interrupt = threading.Thread(target=press)
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        handle.result()
    interrupt.join()
    until(lambda: not waiters)
    assert running.start(double, 1).result(PATIENCE_S) == 2


def test_a_step_that_would_end_the_process(url: str):
    """SystemExit in a step fails that step; the loop and the other sagas on it go on."""
    with Orchestrator(url, sagas=ALL, grace=1) as orchestrator:
        with pytest.raises(SagaCompensated) as ended:
            orchestrator.start(leaving, "enough").result(PATIENCE_S)
        assert isinstance(ended.value.__cause__, StepExited)
        assert "SystemExit('enough')" in str(ended.value.__cause__)
        assert orchestrator.start(double, 1).result(PATIENCE_S) == 2


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


FORK = """
import os
from sagas import StoreError
from sagas.blocking import Orchestrator

with Orchestrator("sqlite:///sagas.db") as orchestrator:
    child = os.fork()
    if not child:
        try:
            orchestrator.count()
        except StoreError as refused:
            print(refused, flush=True)
    else:
        _, status = os.waitpid(child, 0)
        print("child", os.waitstatus_to_exitcode(status), "parent", orchestrator.count())
"""


def test_a_fork_is_refused(tmp_path: Path):
    """In a forked child every call is refused with advice, leaving does nothing, and the parent is not disturbed."""
    done = python(f"import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n{FORK}", tmp_path)
    refusal, parent = done.stdout.splitlines()
    assert "is a fork of it" in refusal
    assert refusal.endswith("/errors/DC010")
    assert parent == "child 0 parent 0"
    told = [line for line in done.stderr.splitlines() if not line.startswith("Executing ")]  # a slow turn of the loop
    assert told == []


FORGOTTEN = """
from sagas.blocking import Orchestrator

orchestrator = Orchestrator("sqlite:///sagas.db")
orchestrator.__enter__()
print(orchestrator.count())
"""


TOO_LATE = (
    FORGOTTEN
    + """
import atexit
atexit.register(orchestrator.__exit__, None, None, None)
"""
)


def test_a_program_that_leaves_in_atexit_is_told_that_it_is_too_late(tmp_path: Path):
    """A line of the log, no traceback; the store is usable afterwards."""
    ended = python(TOO_LATE, tmp_path)
    assert ended.stdout == "0\n"
    assert "too late" in ended.stderr
    assert "Traceback" not in ended.stderr
    with Orchestrator(f"sqlite:///{tmp_path}/sagas.db", sagas=ALL) as orchestrator:
        assert orchestrator.count() == 0


def test_a_program_that_forgets_to_leave_ends(tmp_path: Path):
    """A program that never leaves the block ends nevertheless, as by a crash, and the store is usable afterwards."""
    assert python(FORGOTTEN, tmp_path).stdout == "0\n"
    with Orchestrator(f"sqlite:///{tmp_path}/sagas.db", sagas=ALL) as orchestrator:
        assert orchestrator.start(double, 1).result(PATIENCE_S) == 2
