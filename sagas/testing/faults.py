"""Faults on demand: the next attempts of a step fail, lose their answer, wait, or take the worker down.

Invariant: each declared fault befalls one attempt, in the order of declaration; an attempt without one runs as ever.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from datetime import timedelta
from enum import Enum
from typing import Any, NoReturn

import attrs

from durable_core import DefinitionError
from durable_core.layer import Duration, MortalWorker, StepSpec, duration, name_of, served
from durable_core.testing import sleep_by

ROLES = {"compensation": "undo ", "probe": "probe "}
"""How the name of a step that serves another begins."""


class Kind(Enum):
    """What happens to an attempt."""

    FAIL = "fail"
    UNKNOWN = "unknown"
    CRASH_BEFORE = "crash_before"
    CRASH_AFTER = "crash_after"
    DELAY = "delay"


@attrs.define(eq=False)
class Fault:
    """One declaration, for one attempt or several."""

    kind: Kind
    step: str
    times: int | None = 1
    """None: every attempt."""
    error: Exception | type[Exception] | None = None
    effect: bool = True
    """Of an unknown outcome: whether the step's own code runs."""
    span: timedelta = timedelta()
    used: int = 0
    """How many attempts it has befallen."""

    @property
    def spent(self) -> bool:
        """Whether it befalls no further attempt."""
        return self.times is not None and self.used >= self.times

    @property
    def unused(self) -> bool:
        """Whether attempts that it was declared for have not come."""
        return self.used < (self.times or 1)

    def __str__(self) -> str:
        used = f"; {self.used} came" if self.used else ""
        return f"{self.kind.value}({self.step!r}), for {'every attempt' if self.times is None else self.times}{used}"


class WorkerDied(BaseException):
    """Ends the thread of an attempt whose worker has died. Nobody catches it: nothing of that worker is left."""


class Faults:
    """What is to go wrong; give it to ``Orchestrator(faults=)``, and declare faults before or while sagas run.

    A step is named by its name (``charge``: any saga's) or by its key within its saga (``charge#2``,
    ``book-hotel/charge``), a compensation by ``undo charge``, a probe by ``probe charge``. Each declaration befalls the
    next attempt, or the next ``times`` attempts (None: every one), after those that were declared before it.

    Examples:
        >>> faults = Faults()
        >>> faults.crash_after("charge")
        >>> faults.fail("undo reserve", ConnectionRefusedError("the shop is closed"), times=2)
        >>> faults.assert_used()
        Traceback (most recent call last):
        AssertionError: these faults did not come up: crash_after('charge'), for 1; fail('undo reserve'), for 2
    """

    def __init__(self) -> None:
        self._declared: list[Fault] = []
        self._waiting: dict[str, deque[Fault]] = {}
        self._names: Callable[[], Iterable[str] | None] | None = None
        self._lock = threading.Lock()
        """Plain functions are attempted on threads."""

    # -- what a test declares --------------------------------------------------------------------------------------

    def fail(self, step: str, error: Exception | type[Exception], *, times: int | None = 1) -> None:
        """Have attempts raise ``error`` before the step's own code: nothing happened.

        Args:
            step: the step; see the class.
            error: an exception, or its class. Its type says how the attempt ends, as for the step's own code.
            times: how many attempts.

        Raises:
            DefinitionError: no registered saga has this step, or an argument is invalid.
        """
        if not issubclass(error if isinstance(error, type) else type(error), Exception):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"fail({step!r}, {error!r}): that is no exception", "Give one, or its class")
        self._declare(Fault(Kind.FAIL, step, times, error))

    def unknown(self, step: str, *, effect: bool = True, times: int | None = 1) -> None:
        """Have the answers of attempts lost: they raise ``TimeoutError``, or else an exception of ``unknown=``.

        Args:
            step: the step; see the class.
            effect: whether the step's own code runs before that.
            times: how many attempts.

        Raises:
            DefinitionError: no registered saga has this step, or an argument is invalid.
        """
        self._declare(Fault(Kind.UNKNOWN, step, times, effect=effect))

    def crash_before(self, step: str, *, times: int | None = 1) -> None:
        """Have the worker die before the step's own code runs, its intent being durable; another one takes over.

        Nothing that the worker has not committed by then is written, and what its other attempts return is ignored.
        The same orchestrator opens the next worker at once.

        Args:
            step: the step; see the class.
            times: how many attempts.

        Raises:
            DefinitionError: no registered saga has this step, or an argument is invalid.
        """
        self._declare(Fault(Kind.CRASH_BEFORE, step, times))

    def crash_after(self, step: str, *, times: int | None = 1) -> None:
        """Have the worker die right after the step's own code, before its result is written; see ``crash_before``.

        Args:
            step: the step; see the class.
            times: how many attempts.

        Raises:
            DefinitionError: no registered saga has this step, or an argument is invalid.
        """
        self._declare(Fault(Kind.CRASH_AFTER, step, times))

    def delay(self, step: str, span: Duration, *, times: int | None = 1) -> None:
        """Have attempts wait before the step's own code, within its timeout, by the orchestrator's ``clock=``.

        Args:
            step: the step; see the class.
            span: how long, a timedelta or seconds.
            times: how many attempts.

        Raises:
            DefinitionError: no registered saga has this step, or an argument is invalid.
        """
        self._declare(Fault(Kind.DELAY, step, times, span=duration(span, f"delay({step!r}): span")))

    def assert_used(self) -> None:
        """Check that every declared fault has come up, as often as it was declared.

        Raises:
            AssertionError: one has not; the message lists them.
        """
        unused = [str(fault) for fault in self._declared if fault.unused]
        if unused:
            raise AssertionError(f"these faults did not come up: {'; '.join(unused)}")

    def _declare(self, fault: Fault) -> None:
        if fault.times is not None and (type(fault.times) is not int or fault.times < 1):
            raise DefinitionError(f"times={fault.times!r} is invalid: it must be an integer of at least 1, or None.")
        if self._names is not None:
            _check([fault], self._names())
        with self._lock:
            self._declared.append(fault)
            self._waiting.setdefault(fault.step, deque()).append(fault)

    # -- what an orchestrator asks -----------------------------------------------------------------------------------

    def check(self, names: Callable[[], Iterable[str] | None]) -> None:
        """Refuse faults of steps that do not exist, now and from here on.

        Args:
            names: gives the names of the steps of registered sagas, and of what serves them; None if a body runs steps
                that cannot be known before it does.

        Raises:
            DefinitionError: there is such a fault.
        """
        _check(self._declared, names())
        self._names = names

    def function(self, spec: StepSpec, key: str, worker: MortalWorker) -> Callable[..., Any]:
        """What an orchestrator calls in an attempt, instead of the step's own function.

        Args:
            spec: the step.
            key: its key.
            worker: makes the attempt.
        """
        if not self._waiting:
            return spec.fn
        role = ROLES.get(spec.kind, "")
        names = dict.fromkeys((role + served(key), role + spec.name))
        if not any(name in self._waiting for name in names):
            return spec.fn
        return (
            _on_loop(spec, worker, lambda: self._next(names))
            if spec.is_async
            else _on_thread(spec, worker, lambda: self._next(names))
        )

    def _next(self, names: Iterable[str]) -> Fault | None:
        """The fault of the attempt that begins here."""
        with self._lock:
            for name in names:
                waiting = self._waiting.get(name, ())
                fault = next((one for one in waiting if not one.spent), None)
                if fault is not None:
                    fault.used += 1
                    return fault
        return None


def _check(faults: Iterable[Fault], names: Iterable[str] | None) -> None:
    if names is None:
        return
    known = set(names)
    wrong = dict.fromkeys(fault.step for fault in faults if _plain(fault.step) not in known)
    if wrong:
        raise DefinitionError(
            f"faults are declared for {', '.join(map(repr, wrong))}, and no registered saga has such a step; there "
            f"are: {', '.join(map(repr, sorted(known))) or 'none'}",
            "Correct the name, or register the saga",
        )


def _plain(step: str) -> str:
    """``undo charge`` for ``undo hotel/charge#2``."""
    role = next((role for role in ROLES.values() if step.startswith(role)), "")
    return role + name_of(step.removeprefix(role))


# -- attempts --------------------------------------------------------------------------------------------------------


def _on_loop(spec: StepSpec, worker: MortalWorker, take: Callable[[], Fault | None]) -> Callable[..., Any]:
    async def attempt(*args: Any, **kwargs: Any) -> Any:
        fault = take()
        if fault is None:
            return await spec.fn(*args, **kwargs)
        if fault.kind is Kind.DELAY:
            await sleep_by(worker.clock, fault.span)
        runs_then = _before(fault)
        result = None
        if runs_then:
            with _ignoring(fault):
                result = await spec.fn(*args, **kwargs)
        if fault.kind in {Kind.CRASH_BEFORE, Kind.CRASH_AFTER}:
            worker.die()
            await asyncio.Event().wait()  # cut with all attempts of the worker
        return _after(fault, spec, result)

    return attempt


def _on_thread(spec: StepSpec, worker: MortalWorker, take: Callable[[], Fault | None]) -> Callable[..., Any]:
    def attempt(*args: Any, **kwargs: Any) -> Any:
        fault = take()
        if fault is None:
            return spec.fn(*args, **kwargs)
        if fault.kind is Kind.DELAY:
            asyncio.run_coroutine_threadsafe(sleep_by(worker.clock, fault.span), worker.loop).result()
        runs_then = _before(fault)
        result = None
        if runs_then:
            with _ignoring(fault):
                result = spec.fn(*args, **kwargs)
        if fault.kind in {Kind.CRASH_BEFORE, Kind.CRASH_AFTER}:
            _die_on_loop(worker)
        return _after(fault, spec, result)

    return attempt


def _die_on_loop(worker: MortalWorker) -> NoReturn:
    """From a thread: have the worker die, and go no further before it has."""
    died = threading.Event()

    def die() -> None:
        worker.die()
        died.set()

    worker.loop.call_soon_threadsafe(die)
    died.wait()
    raise WorkerDied


def _before(fault: Fault) -> bool:
    """Whether the step's own code runs; raises where the attempt fails before that."""
    if fault.kind is Kind.FAIL and fault.error is not None:
        error = fault.error
        raise made(error, f"{fault.step} fails because a test asked for it") if isinstance(error, type) else error
    return fault.kind in {Kind.DELAY, Kind.CRASH_AFTER} or (fault.kind is Kind.UNKNOWN and fault.effect)


@contextlib.contextmanager
def _ignoring(fault: Fault) -> Generator[None]:
    """Where nobody hears of its end, what the step's own code raises is lost too."""
    try:
        yield
    except Exception:
        if fault.kind is Kind.DELAY:
            raise


def _after(fault: Fault, spec: StepSpec, result: Any) -> Any:
    if fault.kind is Kind.UNKNOWN:
        raise lost_answer(spec)
    return result


def lost_answer(spec: StepSpec) -> BaseException:
    """What an attempt raises whose answer is lost: something of the step's ``unknown=``."""
    text = f"the answer to {spec.name} is lost because a test asked for it"
    if not spec.unknown or issubclass(TimeoutError, spec.unknown):
        return TimeoutError(text)
    return made(spec.unknown[0], text)


def made(kind: type[BaseException], text: str) -> BaseException:
    """An exception of this type, whatever its constructor asks for."""
    for args in ((text,), ()):
        with contextlib.suppress(Exception):
            return kind(*args)
    error = kind.__new__(kind)
    error.args = (text,)
    return error
