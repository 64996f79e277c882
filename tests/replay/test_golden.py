"""Journals of the released format replay on today's code, whole and from wherever they break off; for ever."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

from durable_core import RunStatus
from durable_core.layer import EntryKind, JournalEntry, describe, idempotency_key
from durable_core.model.entry import ROLES, Role, effective
from durable_core.replay.restoring import killed_by
from durable_core.stores.memory.data import MemoryData
from durable_core.stores.memory.store import MemoryStore
from tests.replay.definitions import SAGAS, Participants
from tests.replay.journal import Golden, load, paths, process

PATHS = paths()
LONG = timedelta(days=400)
DEADLINE_S = 60.0

golden = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
ended_by_itself = pytest.mark.parametrize(
    "path", [path for path in PATHS if load(path).row.status != "killed"], ids=lambda path: path.stem
)
"""A kill comes from outside: nothing before it leads to that end."""


async def go_on(journal: Golden, cut: int) -> tuple[MemoryData, Participants]:
    """Have today's code go on with the run from ``cut``, until nothing is left to do but for somebody outside."""
    data, world, clock = journal.upto(cut), Participants(plan=journal.plan), journal.clock(cut)
    async with process(MemoryStore(data), clock, world, journal.definition):
        await asyncio.wait_for(clock.advance(LONG), DEADLINE_S)
    return data, world


def told(entry: JournalEntry) -> tuple[Any, ...]:
    """What an entry says, without when and by whom."""
    error = None if entry.error is None else (describe(entry.error).type_name, describe(entry.error).message)
    return entry.kind, entry.key, entry.attempt, entry.label, entry.payload, error


def end(journal: MemoryData | Golden) -> tuple[Any, ...]:
    """How the run ended; what was undone in parallel has no order."""
    row = journal.row if isinstance(journal, Golden) else next(iter(journal.runs.values()))
    output = msgspec.json.decode(row.output or b"null")
    if isinstance(output, dict) and "compensated" in output:
        output["compensated"] = sorted(output["compensated"])
    return row.status, row.phase, output, None if row.error is None else describe(row.error).message


def test_every_kind_of_entry_is_kept():
    """Between them the journals have every kind of entry that there is."""
    assert {entry.kind for path in PATHS for entry in load(path).entries} == {kind.value for kind in EntryKind}


@ended_by_itself
def test_a_whole_journal_replays_to_its_end_and_adds_nothing_else(path: Path):
    """All but the end of a journal is fed, and the code asks for exactly that end: no call, no other entry."""
    journal = load(path)
    data, world = asyncio.run(go_on(journal, journal.length))
    new = [entry for seq, entry in sorted(data.journals[journal.row.num].items()) if seq > journal.length]
    assert [told(entry) for entry in new] == [told(journal.entries[journal.length])]
    assert world.calls == []
    assert end(data) == end(journal)


@golden
def test_a_journal_that_breaks_off_anywhere_is_gone_on_with(path: Path):
    """From every prefix today's code fits, calls nothing again that was completed, and comes to the recorded end.

    Where somebody outside had a part in the rest it comes to some end, or waits for them.
    """
    journal = load(path)
    for cut in range(len(journal.entries) + 1):
        if journal.ended(cut):
            continue
        data, world = asyncio.run(go_on(journal, cut))
        entries = [entry for _, entry in sorted(data.journals[journal.row.num].items())]
        assert not [entry for entry in entries[cut:] if entry.label == "NonDeterminismError"], cut
        succeeded = {e.key for e in effective(journal.entries[:cut]) if e.kind == EntryKind.SUCCEEDED}
        keys = {idempotency_key(journal.row.uid, key) for key in succeeded}
        assert not [call for call in world.calls if call[1] in keys], cut
        if journal.alone(cut):
            assert end(data) == end(journal), cut


@golden
def test_other_code_is_told_apart_at_every_entry(path: Path):
    """An entry of what the code asked for that is another one makes the run stuck there, before any call."""
    journal = load(path)
    for place, entry in enumerate(journal.entries[: journal.length]):
        if ROLES[EntryKind(entry.kind)] is not Role.OUTPUT or entry.kind == EntryKind.ENDED or _void(journal, entry):
            continue
        changed = [*journal.entries]
        changed[place] = entry._replace(key=f"other{entry.key}")
        altered = Golden(journal.row, journal.plan, changed)
        data, world = asyncio.run(go_on(altered, journal.length))
        if killed_by(altered.entries[: journal.length]) is not None:
            continue  # its end is all that is left to be done, and no code is asked
        last = data.journals[journal.row.num][max(data.journals[journal.row.num])]
        if entry.kind == EntryKind.MARKED and entry.key.startswith("patched:"):
            continue  # a patch that was not noted was not there: the run goes the old way
        assert last.kind == EntryKind.FAULTED, (place, entry, last)
        assert world.calls == []


def test_a_mismatch_while_a_block_is_closed_parks_that_run_alone():
    """Where code and journal part with no command to blame, the run is stuck and its worker goes on with others."""
    journal = load(PATHS[0].with_name("blocks.jsonl"))
    (place,) = [place for place, entry in enumerate(journal.entries) if entry.kind == EntryKind.CLOSED]
    changed = [*journal.entries]
    changed[place] = changed[place]._replace(key="other")
    altered = Golden(journal.row, journal.plan, changed)
    data, world, clock = altered.upto(journal.length), Participants(plan=journal.plan), altered.clock(journal.length)

    async def main() -> None:
        async with process(MemoryStore(data), clock, world, journal.definition, SAGAS["pair"]) as running:
            await clock.advance(LONG)
            assert (await running.info("golden")).status == "stuck"
            data.runs[1] = attrs.evolve(data.runs[1], status=RunStatus.PENDING, wake_at_ns=0)  # claimed again, later
            clients = process(MemoryStore(data), clock, world, SAGAS["pair"])
            clients.engine.settings = attrs.evolve(clients.engine.settings, worker=False)
            async with clients:
                handle = await clients.start("pair", "tea")
                assert await handle.result(timeout=DEADLINE_S) == ["flight of tea", "car of tea"]

    asyncio.run(main())


def _void(journal: Golden, entry: JournalEntry) -> bool:
    """Whether a replay does not see this entry: it was made void, or is read off the journal of an abandoned body."""
    abandoned = [e.seq for e in journal.entries if e.kind == EntryKind.SIGNALLED and e.label == "abandon"]
    return entry not in effective(journal.entries) or (bool(abandoned) and entry.seq < abandoned[-1])
