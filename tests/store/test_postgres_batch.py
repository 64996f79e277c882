"""What the PostgreSQL store sends for a batch, and whether others are told."""

import asyncio
import itertools
import re
from typing import Any, cast

import pytest

from durable_core import RunStatus
from durable_core.ports import Batch
from durable_core.stores.postgres.batch import MANY_ENTRIES, MANY_RUNS, Sender, concerns_others, write
from durable_core.stores.postgres.connection import Connection
from durable_core.stores.postgres.statements import Statements
from durable_core.testing.store_rows import new_batch, new_entry, new_run, new_update

TEXTS = Statements('"here"')
OWN = [range(100, 200), range(500, 600)]


class Recorder:
    """A connection that says yes, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[object, ...]]] = []

    async def fetchrow(self, query: str, *values: object) -> tuple[int, str]:
        self.asked.append((query, values))
        return 1, ""

    async def execute(self, query: str, *values: object) -> str:
        self.asked.append((query, values))
        return ""

    async def copy_records_to_table(self, _name: str, **_options: Any) -> str:
        self.asked.append(("COPY", ()))
        return ""


def sent(batch: Batch, *, worker: str | None = "w1", notify: bool = False) -> list[tuple[str, tuple[object, ...]]]:
    """The statements for a batch, with their parameters."""
    recorder = Recorder()
    sender = Sender(worker, 7, "channel", "token", notify)
    asyncio.run(write(cast("Connection", recorder), TEXTS, batch, sender))
    return recorder.asked


@pytest.mark.parametrize("entries", [0, 1, 4, 5, MANY_ENTRIES])
@pytest.mark.parametrize("updates", [0, 1, 2, MANY_RUNS])
@pytest.mark.parametrize("starts", [0, 1, 2, MANY_RUNS])
def test_each_statement_has_as_many_parameters_as_are_bound(starts: int, updates: int, entries: int):
    """Of every size and kind of batch, with and without a worker and word to others; each number is used."""
    for worker, notify, apart in itertools.product(("w1", None), (True, False), (0, 1000)):
        batch = new_batch(
            starts=[new_run(num, f"r{num}") for num in range(starts)],
            entries=[new_entry(num, 1) for num in range(entries)],
            updates=[new_update(num, owner="w1") for num in range(apart, apart + updates)],
        )
        batch.consumed = [1] * (entries % 2)
        for text, values in sent(batch, worker=worker, notify=notify):
            assert {int(mark) for mark in re.findall(r"\$(\d+)", text)} == set(range(1, len(values) + 1))


def test_what_one_run_commits_is_one_statement_of_values():
    """It takes one round trip, and no array."""
    batch = new_batch(
        starts=[new_run(1, "a")], entries=[new_entry(1, 1), new_entry(2, 1)], updates=[new_update(2, owner="w1")]
    )
    ((text, values),) = sent(batch)
    assert "unnest" not in text
    assert not any(isinstance(value, list) for value in values)


def test_what_many_runs_have_alike_is_bound_once():
    """Their names and versions are single values, their numbers an array."""
    ((text, values),) = sent(new_batch(starts=[new_run(num, f"r{num}") for num in range(MANY_RUNS)]))
    assert "order" in values
    assert list(range(MANY_RUNS)) in values
    ((text, values),) = sent(
        new_batch(starts=[new_run(num, f"r{num}", name=f"saga{num % 2}") for num in range(MANY_RUNS)])
    )
    assert ["saga0", "saga1"] * (MANY_RUNS // 2) in values
    assert "::text[]" in text


def test_a_run_that_is_let_go_takes_four_round_trips():
    """A transaction with one statement for all rows, and one that looks for signals which came meanwhile."""
    asked = [text for text, _ in sent(new_batch(entries=[new_entry(2, 1)], updates=[new_update(2)]))]
    assert [text.split()[0] for text in asked] == ["BEGIN", "WITH", "UPDATE", "COMMIT"]
    assert asked[2] == TEXTS["wake"]


@pytest.mark.parametrize(
    "batch",
    [
        new_batch(starts=[new_run(1, "a")]),  # to be claimed
        new_batch(updates=[new_update(1, wake_at_ns=18)]),  # due at once
        new_batch(updates=[new_update(1, status=RunStatus.COMPLETED, ended_at_ns=18)]),
        new_batch(updates=[new_update(200, status=RunStatus.COMPLETED, ended_at_ns=18)]),
        new_batch(updates=[new_update(1, status=RunStatus.STUCK)]),
        new_batch(updates=[new_update(100, owner="w1"), new_update(1, wake_at_ns=0)]),
    ],
)
def test_others_are_told_where_they_may_wait_for_it(batch: Batch):
    """For something to claim, and for the end of a run, or its need of a person, that was started elsewhere."""
    assert concerns_others(batch, OWN)


@pytest.mark.parametrize(
    "batch",
    [
        new_batch(starts=[new_run(1, "a", owner="w1")]),
        new_batch(updates=[new_update(1, owner="w1")]),
        new_batch(updates=[new_update(1)]),  # waits
        new_batch(updates=[new_update(1, wake_at_ns=19)]),  # due later
        new_batch(updates=[new_update(150, status=RunStatus.COMPLETED, ended_at_ns=18)]),  # started here
        new_batch(updates=[new_update(550, status=RunStatus.COMPLETED, ended_at_ns=18)]),
        new_batch(updates=[new_update(100, status=RunStatus.STUCK)]),
    ],
)
def test_others_are_not_told_of_what_is_not_theirs(batch: Batch):
    """Runs that go on here or wait for a later time, and ends of what was started here."""
    assert not concerns_others(batch, OWN)
