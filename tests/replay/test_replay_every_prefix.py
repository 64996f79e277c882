"""Wherever its journal breaks off, a saga comes to the same end, and nothing that is on disk is done again."""

import asyncio
from collections.abc import Collection, Sequence
from itertools import count
from typing import Any, Literal

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from durable_core.layer import EntryKind, JournalEntry
from durable_core.model.run import NewRun, RunRecord
from durable_core.ports import Batch
from durable_core.stores.memory.store import MemoryStore
from sagas import Retry, Saga, SagaDef, Unknown, current, lookup, pivot, resource, retriable, saga, step
from tests.kit import BodyFailed, Broken, End, Rejected, World, end_of, orchestrator
from tests.replay.searching import covering, some

pytestmark = pytest.mark.timeout(400)  # a machine with other work to do takes its time for so many sagas

ATTEMPTS = 3
AT_ONCE = Retry(attempts=ATTEMPTS, first=0, jitter=False)


@attrs.frozen
class Op:
    """One step of a random saga, and what its participant does."""

    kind: Literal["step", "lookup", "blind"] = "step"
    """``blind`` is a step whose compensation admits Unknown."""
    script: Literal["ok", "reject", "fail"] = "ok"
    failures: int = 0
    """With ``fail``: how many attempts fail; from ATTEMPTS on it means all of them."""
    caught: bool = False
    """Whether the body catches the step's exception and goes on."""
    undo_failures: int = 0
    """How many attempts of the compensation fail."""

    @property
    def succeeds(self) -> bool:
        return self.script == "ok" or (self.script == "fail" and self.failures < ATTEMPTS)


async def _play(number: int, op: Op, world: World) -> int:
    if op.script == "reject":
        await world.act()
        raise Rejected(number, "the participant said no")
    if op.script == "fail" and (op.failures >= ATTEMPTS or current().attempt <= op.failures):
        world.note()
        raise Broken(number)
    await world.act()
    return number


async def _undo(op: Op, world: World) -> None:
    if current().attempt <= op.undo_failures:
        world.note()
        raise Broken("the undo")
    await world.act()


@step(retry=AT_ONCE, rejects=(Rejected,))
async def act(number: int, op: Op, *, world: World = resource()) -> int:
    return await _play(number, op, world)


@act.compensate(retry=AT_ONCE)
async def undo_act(result: int, number: int, op: Op, *, world: World = resource()) -> None:
    assert result == number
    await _undo(op, world)


@step(retry=AT_ONCE, rejects=(Rejected,))
async def blind(number: int, op: Op, *, world: World = resource()) -> int:
    return await _play(number, op, world)


@blind.compensate(retry=AT_ONCE)
async def undo_blind(result: int | Unknown, number: int, op: Op, *, world: World = resource()) -> None:
    assert result == (number if op.succeeds else Unknown())
    assert op.succeeds or isinstance(result.error, Broken)  # type: ignore[union-attr]
    await _undo(op, world)


@lookup(retry=AT_ONCE, rejects=(Rejected,))
async def look(number: int, op: Op, *, world: World = resource()) -> int:
    return await _play(number, op, world)


KINDS = {"step": act, "blind": blind, "lookup": look}


@saga("linear", version=1)
async def linear(s: Saga, ops: list[Op], *, fails: bool) -> list[str]:
    seen: list[str] = []
    for number, op in enumerate(ops):
        try:
            seen.append(str(await s.run(KINDS[op.kind], number, op)))
        except (Rejected, Broken) as error:
            if not op.caught:
                raise
            seen.append(repr(error))
    if fails:
        raise BodyFailed("of its own accord", len(ops))
    return seen


# -- a small model of the whole -------------------------------------------------------------------------------------


@attrs.define
class Model:
    """What a linear saga does, told without an engine."""

    completed: list[tuple[str, Op]] = attrs.field(factory=list)
    undone: list[str] = attrs.field(factory=list)
    calls: dict[str, int] = attrs.field(factory=dict)
    undo_calls: dict[str, int] = attrs.field(factory=dict)
    hopeless: set[str] = attrs.field(factory=set)
    """Steps that fail for good and have no way to settle a doubt."""

    def end(self, ops: Sequence[Op], *, fails: bool) -> End:
        seen: list[str] = []
        names: dict[str, count[int]] = {}
        for number, op in enumerate(ops):
            occurrence = next(names.setdefault(op.kind, count(1)))
            name = KINDS[op.kind].name
            key = name if occurrence == 1 else f"{name}#{occurrence}"
            error = self._run(key, number, op)
            if error is None:
                seen.append(str(number))
            elif op.caught:
                seen.append(repr(error))
            else:
                return self._rolled_back(error)
        return self._rolled_back(BodyFailed("of its own accord", len(ops))) if fails else End("completed", seen)

    def _run(self, key: str, number: int, op: Op) -> Exception | None:
        self.calls[key] = 1 if op.script != "fail" else min(op.failures + 1, ATTEMPTS)
        if op.succeeds:
            if op.kind != "lookup":
                self.completed.append((key, op))
            return None
        if op.script == "reject":
            return Rejected(number, "the participant said no")
        if op.kind == "blind":
            self._undo(key, op)
        elif op.kind == "step":
            self.hopeless.add(key)
        return Broken(number)

    def _undo(self, key: str, op: Op) -> None:
        self.undone.append(key)
        self.undo_calls[key] = op.undo_failures + 1

    def _rolled_back(self, error: Exception) -> End:
        for key, op in reversed(self.completed):
            self._undo(key, op)
        return End("compensated", None, (type(error), error.args, vars(error)), tuple(self.undone))


# -- lives ----------------------------------------------------------------------------------------------------------


async def straight(
    definition: SagaDef[..., Any], *args: Any, **kwargs: Any
) -> tuple[End, World, RunRecord, list[JournalEntry]]:
    """The saga, undisturbed: its end, its effects, its row and its journal."""
    store = MemoryStore()
    world = World()
    async with orchestrator(store, definition, resources=[world]) as running:
        end = await end_of(await running.start(definition, *args, id="one", **kwargs), running)
        (row,) = await store.runs.find(["one"])
        journal = (await store.journal.load([row.num]))[row.num]
    return end, world, row, journal


async def resumed(definition: SagaDef[..., Any], row: RunRecord, prefix: Sequence[JournalEntry]) -> tuple[End, World]:
    """The same saga, taken up by a new process from a journal that breaks off."""
    store = MemoryStore()
    await store.open(worker=None)
    num = store.journal.next_num()
    new = NewRun(
        num, row.id, row.uid, row.name, row.version, "running", None, 0, None, row.input, None, row.created_at_ns
    )
    await store.journal.commit(Batch(starts=[new], entries=[entry._replace(run=num) for entry in prefix]))
    await store.close()
    world = World()
    async with orchestrator(store, definition, resources=[world]) as running:
        return await end_of(await running.get(row.id), running), world


def finished(entries: Sequence[JournalEntry]) -> list[str]:
    """The keys of the steps and compensations with a success on disk, in order."""
    return [entry.key for entry in entries if entry.kind == EntryKind.SUCCEEDED]


def cut(prefix: Sequence[JournalEntry]) -> str | None:
    """The step whose attempt is cut where the journal breaks off here."""
    last = prefix[-1] if prefix else None
    return last.key if last is not None and last.kind in (EntryKind.STARTED, EntryKind.RETRIED) else None


async def check_every_prefix(
    definition: SagaDef[..., Any], *args: Any, hopeless: Collection[str] = (), **kwargs: Any
) -> tuple[End, World]:
    """Break the journal off after each entry but the last, which is one commit with the row's end; compare.

    A cut attempt of a ``hopeless`` step may have happened, no later failure tells, and nothing can settle it.
    """
    end, world, row, journal = await straight(definition, *args, **kwargs)
    assert journal[-1].kind == EntryKind.ENDED, "the straight run came to no end"
    whole = finished(journal)
    for length in range(len(journal)):
        prefix = journal[:length]
        about = f"after {length} entries, the last {prefix[-1].kind if prefix else 'none'}"
        end_again, world_again = await resumed(definition, row, prefix)
        on_disk = finished(prefix)
        again = [f"{info.step}~undo" if info.compensating else info.step for info in world_again.calls]
        assert not set(again) & set(on_disk), f"{about}: done again"
        if (doubtful := cut(prefix)) in hopeless:
            assert end_again.status == "stuck", about
            assert end_again.error[1] == (doubtful,), about
            assert set(again) == {doubtful}, about
            continue
        assert end_again == end, about
        assert set(again) | set(on_disk) >= set(whole), f"{about}: left out"
        assert [key for key in whole if key not in on_disk] == [key for key in dict.fromkeys(again) if key in whole], (
            about
        )
        for identity, keys in world_again.keys().items():
            assert len(keys) == 1, f"{about}: {identity} was called under several keys"
            if identity in world.keys():  # noqa: SIM118 - a method of the world, no dict
                assert keys == world.keys()[identity], f"{about}: {identity} has another key than before the crash"
    return end, world


ops = st.lists(
    st.builds(
        Op,
        kind=st.sampled_from(["step", "step", "lookup", "blind"]),
        script=st.sampled_from(["ok", "ok", "ok", "fail", "reject"]),
        failures=st.integers(1, ATTEMPTS),
        caught=st.booleans(),
        undo_failures=st.integers(0, ATTEMPTS - 1),
    ),
    max_size=5,
)


OPS = [
    [Op(kind, script=script, failures=failures, caught=True, undo_failures=undo_failures), Op("lookup"), Op("blind")]
    for kind, undo_failures in (("step", 1), ("blind", 2), ("lookup", 0))
    for script, failures in (("ok", 0), ("reject", 0), ("fail", 1), ("fail", ATTEMPTS))
]
"""Each kind of step with each answer of its participant."""


@some
@covering(*({"ops": ops, "fails": place % 3 == 0} for place, ops in enumerate(OPS)))
@given(ops=ops, fails=st.booleans())
@example(ops=[Op(), Op("lookup"), Op("blind"), Op()], fails=False)
@example(ops=[Op(), Op(undo_failures=2), Op(script="reject")], fails=False)
@example(ops=[Op(script="fail", failures=2), Op(script="fail", failures=ATTEMPTS, caught=True), Op()], fails=True)
@example(ops=[Op(), Op("blind", script="fail", failures=ATTEMPTS, caught=True, undo_failures=1), Op()], fails=True)
@example(ops=[Op(script="fail", failures=ATTEMPTS, caught=True), Op(script="fail", failures=ATTEMPTS)], fails=False)
def test_a_random_saga_ends_as_its_model_says_from_every_prefix(ops: list[Op], *, fails: bool):
    """A random linear saga ends as a small model says, with as many calls, and equally so from every journal prefix."""

    async def main() -> None:
        model = Model()
        expected = model.end(ops, fails=fails)
        end, world = await check_every_prefix(linear, ops, fails=fails, hopeless=model.hopeless)
        assert end == expected
        assert world.called() == model.calls
        assert world.called(compensating=True) == model.undo_calls
        live = [] if expected.status != "completed" else [key for key, _ in model.completed]
        kept = [call.step for call in world.live.values() if not call.step.startswith("look")]
        assert [key for key in kept if key not in _refused(ops)] == live

    asyncio.run(main())


def _refused(ops: Sequence[Op]) -> set[str]:
    """Steps whose participant refused: the world noted the call, and there is nothing to undo."""
    names: dict[str, count[int]] = {}
    found: set[str] = set()
    for op in ops:
        occurrence = next(names.setdefault(op.kind, count(1)))
        name = KINDS[op.kind].name
        if op.script == "reject":
            found.add(name if occurrence == 1 else f"{name}#{occurrence}")
    return found


# -- what a random saga does not do ---------------------------------------------------------------------------------


@pivot(retry=AT_ONCE, rejects=(Rejected,))
async def pay(amount: int, *, world: World = resource()) -> int:
    await world.act()
    if amount < 0:
        raise Rejected(amount, "not with me")
    return amount


@retriable(retry=Retry.forever(first=0, jitter=False))
async def confirm(amount: int, *, world: World = resource()) -> str:
    world.note()
    if len([info for info in world.calls if info.step == "confirm"]) < 3:
        raise Broken("the mail server")
    return f"paid {amount}"


@saga("with-a-pivot", version=1)
async def with_a_pivot(s: Saga, amount: int) -> tuple[str, float]:
    await s.run(act, 1, Op())
    s.set_status({"chance": s.random(), "id": str(s.uuid())})
    await s.run(pay, amount)
    return await s.run(confirm, amount), s.now().timestamp()


@pytest.mark.parametrize(("amount", "status"), [(7, "completed"), (-7, "compensated")])
def test_a_pivot_is_passed_or_refused_equally_from_every_prefix(amount: int, status: str):
    """With a pivot, a saga goes forward, or back before it, from every prefix of its journal."""

    async def main() -> None:
        end, _, row, journal = await straight(with_a_pivot, amount)
        assert end.status == status
        for length in range(len(journal)):
            again, world = await resumed(with_a_pivot, row, journal[:length])
            assert again.status == status, f"after {length} entries"
            if end.value is not None:
                assert again.value[0] == end.value[0]
            assert again.undone == end.undone
            assert not set(world.called()) & set(finished(journal[:length]))

    asyncio.run(main())


@saga("chance", version=1)
async def chance(s: Saga) -> list[str]:
    await s.run(act, 1, Op())
    first = [str(s.uuid()), repr(s.random()), s.now().isoformat()]
    await s.sleep(0.001)
    return [*first, str(s.uuid()), str(s.id)] if await s.run(look, 2, Op()) else []


def test_chance_and_time_are_the_same_once_they_are_on_disk():
    """uuid, random and now are those of the first run wherever the journal reaches past them."""

    async def main() -> None:
        end, _, row, journal = await straight(chance)
        for length in range(len(journal)):
            again, _ = await resumed(chance, row, journal[:length])
            known = finished(journal[:length])
            assert [again.value[0], again.value[1], again.value[3]] == [end.value[0], end.value[1], end.value[3]]
            if "act" in known:
                assert again == end, f"after {length} entries"

    asyncio.run(main())
