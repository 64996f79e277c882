"""A verb before any worker, a verb over an attempt in flight, an attempt cut from outside; and the worker dies.

It dies at any of its commits, and the next one goes on: what was told first counts first all the same.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import pytest

from durable_core.stores.memory.data import MemoryData
from sagas import Entry, Orchestrator, SagaHandle, SagaInfo
from sagas.testing import ManualClock
from tests.crash.fleet import check_journal
from tests.crash.mortal import Side
from tests.crash.successors import Successors
from tests.crash.verbs_sagas import SAGAS, careful, firm, order, plain_order
from tests.kit import Call, Place, World, end_of, reaches, rung, until
from tests.postgres_server import Server

DEADLINE = ("signalled", "deadline")
MOST_CUTS = 2
"""By the program, and by the death of the worker."""
AGAIN = 2

ENDS = ("completed", "compensated", "resolved", "killed", "stuck")


# -- one play --------------------------------------------------------------------------------------------------------


@attrs.define
class TaskWatch(World):
    """A watch that knows the tasks of the calls on the loop."""

    tasks: "dict[str, asyncio.Task[Any]]" = attrs.field(factory=dict[str, "asyncio.Task[Any]"])
    """The task of the last call of each step."""

    async def act(self, party: str = "", about: Any = None) -> Call:
        task = asyncio.current_task()
        assert task is not None
        self.tasks[Call.here(party).what] = task
        return await super().act(party, about)


@attrs.define
class Play:
    """One saga, a process that only tells, and what both did."""

    id: str
    desk: Orchestrator
    watch: TaskWatch
    clock: ManualClock
    """The worker's; the next worker begins at its time."""
    handle: SagaHandle[Any] = attrs.field(init=False)

    async def start(self, of: Any = order, **options: Any) -> None:
        self.handle = await self.desk.start(of, id=self.id, **options)

    async def tell(self, verb: str) -> int:
        """Give a verb, as somebody with a name; how many calls had begun when it had been accepted."""
        await getattr(self.desk, verb)(self.id, actor="mia", note="by hand")
        return len(self.watch.calls)

    def pass_time(self, seconds: float) -> int:
        """Time goes on for the worker; how many calls had begun by then."""
        self.clock._ring(self.clock.now_ns() + round(seconds * 1e9))
        return len(self.watch.calls)

    async def in_flight(self, what: str) -> None:
        """Wait until a call of ``what`` is under way."""

        async def there() -> bool:
            return what in [call.what for call in self.watch.under_way]

        await until(there, self.desk)

    async def told(self) -> list[str]:
        """The verbs that the history has, with who gave them, and the deadline."""
        history = await self.handle.history()
        return [entry.key for entry in history if entry.actor == "mia" or (entry.kind, entry.key) == DEADLINE]

    async def taken_up(self, verb: str) -> None:
        """Wait until the verb is in the history."""

        async def there() -> bool:
            return verb in await self.told()

        await until(there, self.desk)

    async def ended(self, status: str, cause: str | None = None) -> list[Entry]:
        """The saga comes to this end, and what holds of every play holds of this one."""
        info: SagaInfo = await reaches(self.handle, self.desk, *ENDS)
        assert (info.status, info.cause, info.reason) == (status, cause, None)
        assert self.watch.beside == []
        assert self.watch.torn == []
        assert self.watch.kept() == (sorted(["first", self.middle, "sell"]) if status == "completed" else [])
        assert len({(call.what, call.attempt) for call in self.watch.calls}) == len(self.watch.calls)
        assert len({(call.step, call.key) for call in self.watch.calls}) == len({c.step for c in self.watch.calls})
        history = await self.handle.history()
        check_journal(history)
        return history

    @property
    def middle(self) -> str:
        return next((name for name in ("once", "plain") if self.watch.count(name)), "second")

    def nothing_new(self, since: int) -> None:
        """No step that had not begun before call ``since`` began after it, and none at all once it was undone."""
        before = {call.step for call in self.watch.calls[:since]}
        new = [call.what for call in self.watch.calls[since:] if call.role == "step" and call.step not in before]
        assert new == [], "it began after the verb had been accepted"
        assert "sell" not in [call.step for call in self.watch.calls]

    def nothing(self, since: int) -> None:
        """Nothing at all has begun since."""
        assert [call.what for call in self.watch.calls[since:]] == [], "it began after the verb had been accepted"


Scene = Callable[[Play], Awaitable[None]]
"""What the desk does before the worker comes, or while it works."""


async def nobody_tells(_: Play) -> None: ...


async def each_death(place: Place, before: Scene, then: Scene, *, side: Side, fewest: int) -> None:
    """Play with the death of the worker at its first commit, at its second, ..., until it outlives the whole."""
    for commit in count(1):
        watch, now = TaskWatch(), ManualClock()
        for what in ("second", "plain", "once"):
            watch.gate(what)
        async with place.orchestrator(*SAGAS, world=watch, clock=now, grace=1, worker=False) as desk:
            play = Play(f"o{side}{commit}", desk, watch, now)
            await before(play)

            def successor(play: Play = play) -> Orchestrator:
                play.clock = ManualClock(play.clock.now())
                return place.orchestrator(*SAGAS, world=play.watch, clock=play.clock, grace=1)

            async with Successors(successor, commit, side) as workers:
                try:
                    await then(play)
                finally:
                    for gate in watch.gates.values():
                        gate.open()
        if not workers.deaths:
            assert commit > fewest, "there are fewer commits than this test supposes"
            gc.collect()  # what the dead left is torn down while their loop is open, and in the test that it is about
            return


# -- verbs before any worker -----------------------------------------------------------------------------------------


async def started(play: Play) -> None:
    await play.start(deadline=60)


async def start_and_cancel(play: Play) -> None:
    await play.start()
    await play.tell("cancel")


async def cancelled_early(play: Play) -> None:
    await play.ended("compensated", "cancelled")
    play.nothing(0)
    assert await play.told() == ["cancel"]


async def start_and_pause(play: Play) -> None:
    await play.start()
    await play.tell("pause")


async def resumed_later(play: Play) -> None:
    await rung(play.desk, times=2)
    play.nothing(0)
    play.watch.gate("second").open()
    await play.tell("resume")
    await play.ended("completed")
    assert await play.told() == ["pause", "resume"]


async def start_kill_and_roll_back(play: Play) -> None:
    await play.start()
    await play.tell("kill")
    await play.tell("rollback")


async def rolled_back_early(play: Play) -> None:
    await play.ended("compensated", "failed")
    play.nothing(0)
    assert await play.told() == ["kill", "rollback"]


async def start_and_be_late(play: Play) -> None:
    await play.start(deadline=60)
    play.pass_time(61)


async def late_already(play: Play) -> None:
    await play.ended("compensated", "deadline")
    play.nothing(0)
    assert await play.told() == ["deadline"]


BEFORE: dict[str, tuple[Scene, Scene, int]] = {
    "cancel": (start_and_cancel, cancelled_early, 1),
    "pause, resume": (start_and_pause, resumed_later, 3),
    "kill, rollback": (start_kill_and_roll_back, rolled_back_early, 1),
    "deadline": (start_and_be_late, late_already, 1),
}

# -- verbs over an attempt in flight ---------------------------------------------------------------------------------


def over_an_attempt(verb: str, *, waits: bool) -> Scene:
    """The verb comes while ``second`` is under way, which ends at once, or when the verb has been taken up."""

    async def scene(play: Play) -> None:
        told, *release = verb.split(", ")
        await play.in_flight("second")
        at = play.pass_time(61) if told == "deadline" else await play.tell(told)
        if waits:
            await play.taken_up(told)
        play.watch.gate("second").open()
        if release:
            await stands_still(play, told, *release, at)
        else:
            await play.ended("compensated", "cancelled" if told == "cancel" else told)
            play.nothing_new(at)
            assert await play.told() == [told]

    return scene


async def stands_still(play: Play, verb: str, release: str, at: int) -> None:
    """Nothing begins until the second verb."""
    await play.taken_up(verb)
    await rung(play.desk, times=2)
    play.nothing(at)
    await play.tell(release)
    if release == "resume":
        await play.ended("completed")
    else:
        await play.ended("compensated", "failed")
        assert {call.role for call in play.watch.calls[at:]} == {"undo"}
    assert await play.told() == [verb, release]


async def start(play: Play) -> None:
    await play.start(deadline=60)


# -- cancellation from outside ---------------------------------------------------------------------------------------


async def start_careful(play: Play) -> None:
    await play.start(careful)


async def cut_and_retried(play: Play) -> None:
    """The program cancels its task; as it is ``at_most_once``, a person says whether it is attempted again."""

    async def called_or_stuck() -> bool:
        return "once" in [call.what for call in play.watch.under_way] or (await play.handle.info()).status == "stuck"

    await until(called_or_stuck, play.desk)
    for task in play.watch.tasks.values():
        task.cancel()
    play.watch.gate("once").open()
    retries = 0
    while (end := await end_of(play.handle, play.desk)).status == "stuck":
        assert end.error[1] == ("once",)
        assert play.watch.count("sell") == 0
        await play.tell("retry")
        retries += 1
        assert retries <= MOST_CUTS
    assert retries >= 1
    await play.ended("completed")
    assert await play.told() == ["retry"] * retries


async def cut_and_run_again(play: Play) -> None:
    """The program cancels its task; it is attempted again, with no outcome journalled for the one that was cut."""
    await play.in_flight("second")
    play.watch.tasks["second"].cancel()
    play.watch.gate("second").open()
    history = await play.ended("completed")
    assert play.watch.count("second") >= AGAIN
    assert [entry.kind for entry in history if entry.error or entry.kind == "failed"] == []


async def cut_and_cancelled(play: Play) -> None:
    """The program cancels its task after a cancel of the saga; whether it happened is settled, and all is undone."""
    await play.in_flight("second")
    at = await play.tell("cancel")
    play.watch.tasks["second"].cancel()
    play.watch.gate("second").open()
    await play.ended("compensated", "cancelled")
    play.nothing_new(at)
    assert await play.told() == ["cancel"]


async def start_plain(play: Play) -> None:
    await play.start(plain_order)


async def killed_in_doubt(play: Play) -> None:
    """Killed over an attempt that nothing settles, and rolled back: a person who looks into it says what is so."""
    await play.in_flight("plain")
    at = await play.tell("kill")
    play.watch.gate("plain").open()
    await play.taken_up("kill")
    await play.tell("rollback")
    verbs = ["kill", "rollback"]
    end = await end_of(play.handle, play.desk)
    if end.status == "stuck":
        assert end.error[1] == ("plain",)
        happened = "plain" in play.watch.kept()
        await play.desk.resolve(play.id, "plain", happened=happened, result="plain" if happened else None, actor="mia")
        verbs.append("resolve")
        end = await end_of(play.handle, play.desk)
    await play.ended("resolved" if "resolve" in verbs else "compensated", "failed")
    play.nothing_new(at)
    assert await play.told() == verbs


async def start_firm(play: Play) -> None:
    play.watch.plan("plain", "broken", "broken", "broken", "ok").gate("plain").open()
    await play.start(firm)


async def held_back_and_retried(play: Play) -> None:
    """A failure is held back as often as it comes, and the body sees none of them."""
    retries = 0
    while (await end_of(play.handle, play.desk)).status == "stuck":
        assert (play.watch.undone, play.watch.count("sell")) == ([], 0)
        await play.tell("retry")
        retries += 1
    await play.ended("completed")
    assert await play.told() == ["retry"] * retries
    assert retries >= 1


async def held_back_and_rolled_back(play: Play) -> None:
    """A failure that was held back is the cause of the rollback; an attempt that was cut is settled before it."""
    assert (await end_of(play.handle, play.desk)).status == "stuck"
    verbs = ["rollback"]
    await play.tell("rollback")
    if (await end_of(play.handle, play.desk)).status == "stuck":
        await play.desk.resolve(play.id, "plain", happened=False, actor="mia")
        verbs.append("resolve")
    await play.ended("resolved" if "resolve" in verbs else "compensated", "failed")
    assert await play.told() == verbs


CUT: dict[str, tuple[Scene, Scene]] = {
    "run again": (start, cut_and_run_again),
    "retried": (start_careful, cut_and_retried),
    "cancelled": (start, cut_and_cancelled),
    "in doubt": (start_plain, killed_in_doubt),
}

# -- where -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "memory":
        return Place("memory://", MemoryData())
    return Place(f"sqlite:///{tmp_path / 'sagas.db'}")


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers look at the store all the time, so that nobody waits long for what another process is to take up."""
    monkeypatch.setattr("durable_core.engine.polling.POLL_S", 0.002)
    monkeypatch.setattr("durable_core.engine.process.FIRST_LOOK_S", 0.002)


WHERE = pytest.mark.parametrize(
    ("place", "side"), [("memory", "before"), ("memory", "after"), ("sqlite", "after")], indirect=["place"]
)
"""What a file holds is the same right before a commit and right after the one before it."""
LATER = pytest.mark.parametrize("waits", [False, True], ids=["ends at once", "ends later"])


@WHERE
@pytest.mark.parametrize("verbs", BEFORE)
def test_verbs_before_any_worker(place: Place, verbs: str, side: Side):
    """No step begins, whichever commit is the first worker's last; the end is the verb's, which is kept once."""
    before, then, fewest = BEFORE[verbs]
    asyncio.run(each_death(place, before, then, side=side, fewest=fewest))


@WHERE
@LATER
@pytest.mark.parametrize("verbs", BEFORE)
def test_verbs_over_an_attempt_in_flight(place: Place, verbs: str, waits: bool, side: Side):  # noqa: FBT001
    """No step begins, and what was in flight is settled before it is undone, whichever commit is a worker's last."""
    asyncio.run(each_death(place, start, over_an_attempt(verbs, waits=waits), side=side, fewest=3))


HELD: dict[str, Scene] = {"retried": held_back_and_retried, "rolled back": held_back_and_rolled_back}


@WHERE
@pytest.mark.parametrize("then", HELD)
def test_a_failure_that_is_held_back(place: Place, then: str, side: Side):
    """It waits for the operator, whose verb counts once, whichever commit is a worker's last."""
    asyncio.run(each_death(place, start_firm, HELD[then], side=side, fewest=3))


@WHERE
@pytest.mark.parametrize("then", CUT)
def test_an_attempt_that_is_cut_from_outside(place: Place, then: str, side: Side):
    """It is no outcome, whichever commit is a worker's last: run again, retried by a person, or undone by a cancel."""
    asyncio.run(each_death(place, *CUT[then], side=side, fewest=3))


ON_POSTGRES: dict[str, tuple[Side, Scene, Scene]] = {
    "cancel before any worker": ("after", start_and_cancel, cancelled_early),
    "cancel over an attempt, before": ("before", start, over_an_attempt("cancel", waits=True)),
    "cancel over an attempt, after": ("after", start, over_an_attempt("cancel", waits=True)),
    "kill, rollback over an attempt": ("after", start, over_an_attempt("kill, rollback", waits=False)),
    "cut and retried": ("before", *CUT["retried"]),
    "held back and retried": ("after", start_firm, held_back_and_retried),
}


@pytest.mark.parametrize("scene", ON_POSTGRES)
def test_on_postgres(server: Server, scene: str):
    """So it is where the lease of the worker that died has ended, and another one takes its sagas over."""
    side, before, then = ON_POSTGRES[scene]
    asyncio.run(each_death(Place(server.fresh()), before, then, side=side, fewest=1))
