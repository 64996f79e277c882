"""Runs a saga once for each thing that can go wrong in it, and checks what is left of each run.

Cases come from what runs have passed: first the undisturbed one, then those in which one thing went wrong, whose
recoveries pass further places. Invariant: a place is explored in the first run that passes it, so each failing case is
the shortest of its kind, and nothing is built on a case that fails by itself.
"""

import logging
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from durable_core import DefinitionError
from sagas.model.definition import SagaDef
from sagas.testing.cases import Case, Event, Trail, events_of
from sagas.testing.stage import Check, MakeWorld, Scene, Stage

LOGGERS = ("sagas", "durable_core")
MOST_EVENTS = 2
"""What goes wrong in one run: one thing, and one more on the way that the saga takes because of it."""


@attrs.frozen
class Report:
    """What an exploration has run, when every case has passed."""

    names: tuple[str, ...]
    """Each case, as ``only=`` takes it."""
    ends: Mapping[str, int]
    """How many of them ended with each status."""

    @property
    def cases(self) -> int:
        """How many there were, with the undisturbed run."""
        return len(self.names)


@attrs.frozen
class FailingCase:
    """A case that broke the check."""

    case: str
    """As ``only=`` takes it."""
    error: Exception
    """What the check raised, or why there was nothing to check."""

    def __str__(self) -> str:
        text = " ".join(str(self.error).split("\n")[0].split())
        return f"{type(self.error).__name__}: {text}" if text else type(self.error).__name__


class ExploreFailed(AssertionError):
    """Cases of an exploration broke its check.

    ``failures`` has them, the shortest first; ``cases`` is how many there were. Each line of the message is the call
    that runs one of them again.
    """

    def __init__(self, saga: str, failures: Sequence[FailingCase], cases: int) -> None:
        lines = [f'  explore({saga}, ..., only="{each.case}")  # {each}' for each in failures]
        super().__init__("\n".join((f"{len(failures)} of {cases} cases of saga {saga!r} failed:", *lines)))
        self.failures = tuple(failures)
        self.cases = cases


async def explore(
    saga: SagaDef[..., Any],
    /,
    *args: Any,
    check: Check,
    resources: MakeWorld = list[object],
    answers: Mapping[str, Any] | None = None,
    only: str | None = None,
    **kwargs: Any,
) -> Report:
    """Run a saga once for each thing that can go wrong in it, restart, and check the world each time.

    Each step is rejected, fails, and loses its answer before and after its effect; each step, compensation and probe
    meets a crash before and after its effect and is delivered twice; each compensation fails once; the worker dies
    before and after every commit, also those of a recovery; the saga is cancelled in every step and wait; each callback
    is not answered (if it has a timeout), failed, and answered twice. Once the saga has ended or is stuck, the store is
    opened once more, and the check is made.

    Args:
        saga: coded, or a graph.
        *args: its arguments.
        check: called with the world and the saga's info, also where it is stuck; raises if something is wrong. May be a
            coroutine function.
        resources: makes the world of one case, a list of resources; may be a coroutine function. What it returns is
            given to ``check`` too.
        answers: by name, the answer to each callback: a value, an exception for a refusal, or a function of the world.
            A callback without one is not answered.
        only: run just this case, copied from a failure.
        **kwargs: the saga's arguments.

    Raises:
        ExploreFailed: cases failed the check; one line each runs it again.
        DefinitionError: the saga is invalid, a resource is missing, or ``only`` is no case, or one that never comes up.
    """
    scene = Scene(saga=saga, args=args, kwargs=kwargs, resources=resources, check=check, answers=answers or {})
    exploration = _Exploration(scene)
    with _quiet():
        if only is None:
            await exploration.all()
        else:
            await exploration.one(Case.parse(only))
    return exploration.report()


@attrs.define(eq=False)
class _Exploration:
    scene: Scene
    passed: dict[str, str] = attrs.field(factory=dict[str, str])
    """How each case has ended."""
    failures: list[FailingCase] = attrs.field(factory=list[FailingCase])
    _places: set[tuple[Event, bool]] = attrs.field(factory=set[tuple[Event, bool]])
    """What is to go wrong in some case already."""

    async def all(self) -> None:
        """Every case."""
        frontier = [Case()]
        for _ in range(MOST_EVENTS + 1):
            found: list[Case] = []
            for case in frontier:
                trail = await self._play(case)
                if trail is not None and len(case.events) < MOST_EVENTS:
                    found += [case.then(event) for event in self._new(trail)]
            frontier = found

    async def one(self, case: Case) -> None:
        """Just this one."""
        stage = await self._played(case)
        if stage.left:
            raise DefinitionError(
                f"the case {str(case)!r} never came up: nothing of this saga is {', '.join(map(str, stage.left))}",
                "Copy it from the message of ExploreFailed, and give the same arguments and answers",
            )

    def _new(self, trail: Trail) -> Iterator[Event]:
        for event in events_of(trail, answered=self.scene.answers_to):
            place = trail.place(event)
            if place not in self._places:
                self._places.add(place)
                yield event

    async def _play(self, case: Case) -> Trail | None:
        """What the run has passed; None if it failed."""
        failed = len(self.failures)
        stage = await self._played(case)
        return stage.trail if len(self.failures) == failed else None

    async def _played(self, case: Case) -> Stage:
        stage = Stage(self.scene, case)
        try:
            info = await stage.play()
        except DefinitionError:
            raise
        except Exception as error:  # noqa: BLE001 - the border of the user's check, which raises what it likes
            self.failures.append(FailingCase(str(case), error))
        else:
            self.passed[str(case)] = info.status
        return stage

    def report(self) -> Report:
        """All cases passed.

        Raises:
            ExploreFailed: not all of them.
        """
        if self.failures:
            raise ExploreFailed(
                self.scene.saga.name, self.failures, len(self.failures) + len(self.passed)
            ) from self.failures[0].error
        return Report(tuple(self.passed), dict(Counter(self.passed.values())))


@contextmanager
def _quiet() -> Generator[None]:
    """What goes wrong here is asked for, and no news for a log."""

    def drop(_: logging.LogRecord) -> bool:
        return False

    for name in LOGGERS:
        logging.getLogger(name).addFilter(drop)
    try:
        yield
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(drop)
