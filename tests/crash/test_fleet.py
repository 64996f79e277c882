"""A fleet on one PostgreSQL: workers are stopped, killed and told the wrong time, and every saga ends as it should."""

import asyncio
import os
import random
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from durable_core import StoreError
from durable_core.stores.postgres.store import PostgresStore
from sagas import Orchestrator, SagaHandle
from tests.crash import verbs_fleet as told_fleet
from tests.crash.fleet import TOLD_FLEET, again, audit, check_journal, opened, sleepy, slow, worker, workers
from tests.crash.verbs_at_random import Fleet, Plan, Saga, broken
from tests.crash.verbs_fleet import Line, Lines
from tests.crash.verbs_sagas import careful, plain_order
from tests.crash.verbs_sagas import order as order_to_tell
from tests.crash.victim import Outside, order, waiting
from tests.kit import Call, End, end_of, reaches, rung, until
from tests.postgres_server import Server, expire

pytestmark = pytest.mark.slow

KILLED = int(os.environ.get("SAGAS_SOAK", "150"))
"""Sagas of the test that kills workers at random; `make soak` takes 2,000."""
TOLD = KILLED // 4
"""Sagas that are told something at random, besides those that are told before any worker comes."""
MUCH_S = 1800.0
"""Far from an hour, and far longer than a test may take."""
AT_ONCE = 24
"""Of these under way at the same time."""


def store_of(running: Orchestrator) -> PostgresStore:
    """Its store."""
    assert isinstance(running.engine.store, PostgresStore)
    return running.engine.store


async def called(outside: Outside, running: Orchestrator, step: str, *, times: int = 1, pid: int = 0) -> None:
    """Wait until a step has been called so often, by that process where one is given."""

    async def there() -> bool:
        calls = [call for call in outside.calls() if call.step == step and (not pid or call.pid == pid)]
        return len(calls) >= times

    await until(there, running)


async def armed(handle: SagaHandle[Any]) -> bool:
    """Whether the saga's sleep has begun."""
    return "armed" in [entry.kind for entry in await handle.history()]


def test_a_worker_that_lost_its_lease_drops_its_runs_and_goes_on(server: Server, tmp_path: Path):
    """Others end its sagas; it writes nothing of them, is told so, and then works again under another name."""
    outside, url = Outside(tmp_path), server.fresh()

    async def main() -> None:
        async with opened(url, outside) as first, opened(url, outside) as second:
            handles = [await first.start(waiting, number, id=f"w{number}") for number in range(20)]
            await called(outside, first, "wait", times=20)
            name = first.engine.name
            expire(store_of(first))
            await store_of(second).claims.release_dead()
            await called(outside, second, "wait", times=40)
            (tmp_path / "go").touch()
            for number, handle in enumerate(handles):
                assert await end_of(handle, first) == End("completed", 2 * number)
                before, *_, after = [entry.worker for entry in await handle.history()]
                assert before == name != after

            async def renamed() -> bool:
                return first.engine.name != name

            await until(renamed, first)
            await second.__aexit__(None, None, None)
            handle = await first.start(order, 7, id="new")
            assert await end_of(handle, first) == End("completed", 21)
            assert {entry.worker for entry in await handle.history()} == {first.engine.name}
            await second.__aenter__()

    asyncio.run(main())


def test_a_start_that_meets_the_loss_was_not_made(server: Server, tmp_path: Path):
    """It is refused with an error that says to start again, and starting again works."""
    outside, url = Outside(tmp_path), server.fresh()

    async def main() -> None:
        async with opened(url, outside) as first, opened(url, outside, worker=False) as observer:
            expire(store_of(first))
            assert await store_of(observer).claims.release_dead() == 0
            refused: list[StoreError] = []
            for number in range(40):
                try:
                    handle: SagaHandle[int] = await first.start(order, number, id=f"o{number}")
                except StoreError as error:
                    refused.append(error)
                    assert await store_of(observer).runs.find([f"o{number}"]) == []
                    handle = await first.start(order, number, id=f"o{number}")
                assert await end_of(handle, first) == End("completed", 3 * number)
            assert [(type(error), error.transient) for error in refused] == [(StoreError, True)]
        audit(outside, ["reserve", "charge", "ship"], orders={f"o{number}": number for number in range(40)})

    asyncio.run(main())


def test_a_worker_that_is_stopped_past_its_lease_does_nothing_late(server: Server, tmp_path: Path):
    """SIGSTOP, a takeover, SIGCONT: no step of those sagas begins in it again, none of its late rows is kept."""
    outside, url = Outside(tmp_path), server.fresh()

    async def main() -> None:
        with workers(url, tmp_path, 0, lease=1) as (process,):
            async with opened(url, outside, worker=False) as observer:
                handles = [await observer.start(waiting, number, id=f"w{number}") for number in range(10)]
                await called(outside, observer, "wait", times=10, pid=process.pid)
                os.kill(process.pid, signal.SIGSTOP)
                async with opened(url, outside) as other:
                    await called(outside, other, "wait", times=10, pid=os.getpid())
                    before = len(outside.calls())
                    journals = [await handle.history() for handle in handles]
                    (tmp_path / "go").touch()
                    os.kill(process.pid, signal.SIGCONT)
                    for number, handle in enumerate(handles):
                        assert await end_of(handle, other) == End("completed", 2 * number)
                    assert len(outside.calls()) == before, "a step was called late"
                    for handle, journal in zip(handles, journals, strict=True):
                        late = (await handle.history())[len(journal) :]
                        assert {entry.worker for entry in late} == {other.engine.name}
                handle = await observer.start(order, 5, id="new")
                assert await end_of(handle, observer) == End("completed", 15)
                assert {call.pid for call in outside.calls() if call.saga == "new"} == {process.pid}

    asyncio.run(main())
    assert "[DC014]" in (tmp_path / "errors").read_text()


def test_workers_that_are_killed_at_random(server: Server, tmp_path: Path):
    """Of four workers one is killed every now and then: all sagas end as they should."""
    outside, url = Outside(tmp_path), server.fresh()
    seed = int(os.environ.get("SAGAS_SEED", "0")) or random.randrange(1 << 30)
    print(f"SAGAS_SEED={seed}")
    chance = random.Random(seed)
    numbers = {f"o{number}": number if number % 4 else -1 - number for number in range(KILLED)}

    async def kill_some(processes: list["subprocess.Popen[str]"], until_done: asyncio.Event) -> None:
        while not until_done.is_set():
            await asyncio.sleep(chance.uniform(0.1, 0.5))
            place = chance.randrange(len(processes))
            processes[place].kill()
            processes[place].communicate()
            processes[place] = worker(url, tmp_path, lease=1)

    async def main() -> None:
        with workers(url, tmp_path, 0, 0, 0, 0, lease=1) as processes:
            async with opened(url, outside, worker=False) as observer:
                done = asyncio.Event()
                killing = asyncio.create_task(kill_some(processes, done))
                handles: dict[str, SagaHandle[int]] = {}
                for name, number in numbers.items():
                    handles[name] = await observer.start(slow, number, id=name)
                    await asyncio.sleep(chance.uniform(0, 0.02))
                done.set()
                await killing
                for name, handle in handles.items():
                    end = await end_of(handle, observer, deadline_s=60)
                    number = numbers[name]
                    assert end.status == ("completed" if number >= 0 else "compensated"), (name, end)
                    check_journal(await handle.history())

    asyncio.run(main())
    audit(outside, ["pack", "charge", "pack#2", "ship"], orders=numbers)
    print(f"{again(outside)} of {len(outside.calls())} calls were repeated")


def test_clocks_that_are_wrong_by_an_hour(server: Server, tmp_path: Path):
    """A worker an hour early begins a sleep, one an hour late wakes from it: it lasts as long as it should."""
    outside, url = Outside(tmp_path), server.fresh()

    async def main() -> None:
        async with opened(url, outside, worker=False) as observer:
            began = time.time()
            handle = await observer.start(sleepy, 6.0, id="s")
            with workers(url, tmp_path, 3600, lease=1):
                await called(outside, observer, "touch")
                await until(lambda: armed(handle), observer)
            with workers(url, tmp_path, -3600, lease=1):
                assert (await end_of(handle, observer)).status == "completed"
            assert 6.0 <= time.time() - began < MUCH_S
            assert len({call.pid for call in outside.calls()}) == 2
            history = await handle.history()
            assert [entry.at for entry in history] == sorted(entry.at for entry in history)
            assert all(abs((entry.at - datetime.now(UTC)).total_seconds()) < MUCH_S for entry in history)
            begin, end = (next(entry.at for entry in history if entry.kind == kind) for kind in ("armed", "fired"))
            assert 6.0 <= (end - begin).total_seconds() < MUCH_S

    asyncio.run(main())


# -- verbs -----------------------------------------------------------------------------------------------------------

EARLY = {"cancel": ("compensated", "cancelled"), "kill, rollback": ("compensated", "failed")}
"""Verbs that are told before any worker comes, and what the saga comes to."""
OVER: dict[str, tuple[Any, str]] = {
    "cancel": (order_to_tell, "second"),
    "pause, resume": (order_to_tell, "second"),
    "kill, rollback": (order_to_tell, "second"),
    "kill, rollback, resolve": (plain_order, "plain"),
    "": (order_to_tell, "second"),
    ", retry": (careful, "once"),
}
"""What is told while which step is in flight: the first verb before its worker ends, the rest after that."""
ENDINGS = {
    "killed": signal.SIGKILL,
    "stopped past its lease": signal.SIGSTOP,
    **{cut.__name__: number for number, cut in told_fleet.CUTS.items()},
}


async def tell(desk: Orchestrator, id: str, verb: str, **about: Any) -> None:
    """Give a verb, as somebody with a name."""
    await getattr(desk, verb)(id, actor="mia", note="by hand", **about)


async def told(handle: SagaHandle[Any]) -> list[str]:
    """The verbs that its history has."""
    return [entry.key for entry in await handle.history() if entry.actor == "mia"]


def test_verbs_before_any_worker(server: Server, tmp_path: Path):
    """Two workers come then: no step begins of what was cancelled, killed or paused; a resume lets it run."""
    lines, url = Lines(tmp_path), server.fresh()

    async def main() -> None:
        async with told_fleet.opened(url, tmp_path, worker=False) as desk:
            handles: dict[str, list[SagaHandle[str]]] = {
                verbs: [await desk.start(order_to_tell, id=f"{verbs} {number}") for number in range(10)]
                for verbs in (*EARLY, "pause, resume")
            }
            for verbs, verb in [
                *((each, verb) for each in EARLY for verb in each.split(", ")),
                ("pause, resume", "pause"),
            ]:
                for handle in handles[verbs]:
                    await tell(desk, handle.id, verb)
            with workers(url, tmp_path, 0, 0, of=TOLD_FLEET):
                for verbs, end in EARLY.items():
                    for handle in handles[verbs]:
                        info = await reaches(handle, desk, "completed", "compensated", "resolved", "stuck")
                        assert (info.status, info.cause) == end
                await rung(desk, times=4)
                assert lines.look() == []
                for handle in handles["pause, resume"]:
                    await tell(desk, handle.id, "resume")
                    assert await end_of(handle, desk) == End("completed", "done")
            for verbs, each in handles.items():
                assert [await told(handle) for handle in each] == [verbs.split(", ")] * len(each)

    asyncio.run(main())


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("taken_up", [False, True], ids=["not taken up", "taken up"])
def test_verbs_over_an_attempt_whose_worker_ends(server: Server, tmp_path: Path, how: str, taken_up: bool):  # noqa: FBT001
    """They count first in the worker that comes next; an attempt that is cut from outside is as one that is killed."""
    url = server.fresh()
    for what in ("second", "plain", "once"):
        told_fleet.gate(tmp_path, what).touch()

    async def main() -> None:
        with workers(url, tmp_path, 0, lease=1, of=TOLD_FLEET) as (process,):
            async with told_fleet.opened(url, tmp_path, worker=False) as desk:
                over = Over(desk, Lines(tmp_path), process)
                await over.begin()
                if not taken_up:
                    process.send_signal(signal.SIGSTOP)
                await over.tell_first(taken_up=taken_up)
                process.send_signal(ENDINGS[how])
                if ENDINGS[how] != signal.SIGSTOP:
                    await over.has_ended()
                async with told_fleet.opened(url, tmp_path, lease=1) as other:
                    await over.taken_over(other)
                    for name in OVER:
                        await over.goes_on(name)

    asyncio.run(main())


@attrs.define
class Over:
    """A saga for each of ``OVER``, a process that only tells, and the worker that has them first."""

    desk: Orchestrator
    lines: Lines
    process: "subprocess.Popen[str]"
    handles: dict[str, SagaHandle[Any]] = attrs.field(factory=dict[str, SagaHandle[Any]])
    begun: dict[str, int] = attrs.field(factory=dict[str, int])
    """How many calls had begun when the first verb had been accepted."""

    async def begin(self) -> None:
        """Each has its step in flight."""
        self.handles = {name: await self.desk.start(saga, id=name or "again") for name, (saga, _) in OVER.items()}
        for name, (_, what) in OVER.items():
            await self.in_flight(name, what, self.process.pid)

    async def in_flight(self, name: str, what: str, pid: int) -> None:
        """Wait until that process has a call of ``what`` under way."""

        async def there() -> bool:
            under_way = self.lines.under_way(self.handles[name].id).get(pid, [])
            return what in [call.what for call in under_way]

        await until(there, self.desk)

    async def tell_first(self, *, taken_up: bool) -> None:
        """Give the first verbs; the worker has taken them up or, being stopped, does not know of them."""
        for name, handle in self.handles.items():
            if verb := name.partition(", ")[0]:
                await tell(self.desk, handle.id, verb)
            self.begun[name] = len(self.lines.calls(handle.id))
        for name, handle in self.handles.items():
            verb = name.partition(", ")[0]

            async def there(verb: str = verb, handle: SagaHandle[Any] = handle) -> bool:
                return verb in await told(handle)

            if verb and taken_up:
                await until(there, self.desk)
            assert await told(handle) == ([verb] if verb and taken_up else [])

    async def has_ended(self) -> None:
        """The process is dead, and no outcome is journalled for what it had in flight."""
        self.process.send_signal(signal.SIGCONT)
        await asyncio.to_thread(self.process.wait, 60)
        self.lines.write(Line("dead", self.process.pid))
        for name, (_, what) in OVER.items():
            history = await self.handles[name].history()
            assert [entry.kind for entry in history if entry.key == what] == ["started"], name
            assert [entry for entry in history if entry.error] == [], name

    async def taken_over(self, other: Orchestrator) -> None:
        """The next worker has them; a process that was stopped only is back, and what it had in flight has returned."""

        async def has_it() -> bool:
            return os.getpid() in self.lines.under_way("again")

        await until(has_it, other)
        for what in ("second", "plain", "once"):
            told_fleet.gate(self.lines.directory, what).unlink()
        self.process.send_signal(signal.SIGCONT)

        async def returned() -> bool:
            return not any(self.process.pid in self.lines.under_way(handle.id) for handle in self.handles.values())

        await until(returned, other)

    async def goes_on(self, name: str) -> None:
        """It stands still as the first verb says, is told the others, and comes to its end."""
        handle, (first, *others) = self.handles[name], name.split(", ")
        if first in ("pause", "kill"):
            await until(lambda: self.has(handle, first), self.desk)
            await rung(self.desk, times=2)
            assert [call.what for call in self.since(name)] == []
        for verb in others:
            await self.tell_next(handle, verb)
        info = await reaches(handle, self.desk, "completed", "compensated", "resolved", "stuck")
        undone = first in ("cancel", "kill")
        cause = {"cancel": "cancelled", "kill": "failed"}.get(first)
        status = "resolved" if "resolve" in others else "compensated" if undone else "completed"
        assert (info.status, info.cause, info.reason) == (status, cause, None)
        assert self.lines.kept(handle.id) == ([] if undone else sorted(["first", OVER[name][1], "sell"]))
        if undone:
            again = [OVER[name][1]] if first == "cancel" else []
            assert [call.what for call in self.since(name) if call.role == "step"] in ([], again)
        history = await handle.history()
        check_journal(history)
        assert [entry.key for entry in history if entry.actor == "mia"] == [verb for verb in (first, *others) if verb]
        if "retry" not in others and "resolve" not in others:
            assert [entry for entry in history if entry.kind == "failed"] == []

    async def has(self, handle: SagaHandle[Any], verb: str) -> bool:
        return verb in await told(handle)

    def since(self, name: str) -> list[Call]:
        """The calls that have begun since its first verb was accepted."""
        return self.lines.calls(self.handles[name].id)[self.begun[name] :]

    async def tell_next(self, handle: SagaHandle[Any], verb: str) -> None:
        """Give it a verb; one that settles a doubt once the saga is stuck on it."""
        about: dict[str, Any] = {}
        if verb in ("retry", "resolve"):
            info = await reaches(handle, self.desk, "stuck")
            (step,) = info.stuck_on
            assert step in (info.reason or "")
            if verb == "resolve":
                happened = step in self.lines.kept(handle.id)
                about = {"step": step, "happened": happened, "result": step if happened else None}
        await tell(self.desk, handle.id, verb, **about)


def test_verbs_while_workers_end_at_random(server: Server, tmp_path: Path):
    """Verbs before any worker and over attempts in flight, whose workers are killed and cut: each counts first.

    Nothing runs beside itself, no end is a lie, no verb is lost, and everything ends.
    """
    seed = int(os.environ.get("SAGAS_SEED", "0")) or random.randrange(1 << 30)
    print(f"SAGAS_SEED={seed}")
    chance, url, lines = random.Random(seed), server.fresh(), Lines(tmp_path)

    async def main() -> list[Saga]:
        with workers(url, tmp_path) as processes:
            async with told_fleet.opened(url, tmp_path, worker=False) as desk:
                fleet = Fleet(url, lines, processes)
                early = [Saga(f"e{n}", Plan.drawn(chance, early=True), desk, fleet) for n in range(TOLD // 4)]
                late = [Saga(f"o{n}", Plan.drawn(chance, early=False), desk, fleet) for n in range(TOLD)]
                for saga in early:
                    await saga.start()
                for _ in range(3):
                    fleet.grow()
                room = asyncio.Semaphore(AT_ONCE)

                async def played(saga: Saga) -> None:
                    async with room:
                        if saga in late:
                            await saga.start()
                        await saga.play()

                await asyncio.gather(*(played(saga) for saga in early + late))
                print(fleet.deaths)
        return early + late

    wrong = [why for saga in asyncio.run(main()) for why in broken(saga)]
    assert not wrong, "\n".join(wrong)
