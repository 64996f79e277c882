"""What the command line shows, as a pure function of a saga: readable in 80 columns, without colours, and safe."""

import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from durable_core import HistoryEntry as Entry
from sagas.cli.app import program
from sagas.cli.durations import shown as shown_duration
from sagas.cli.options import Address
from sagas.cli.output import Column, Piece, Table, cells, clean, plain, wrapped
from sagas.cli.remedies import remedies
from sagas.cli.snapshot import Snapshot
from sagas.cli.views import MEANINGS, SIGNS, Page, journal_table, sagas_table
from sagas.model.info import SagaInfo, StepState
from sagas.model.phases import SAGA_ENDS, SagaStatus
from sagas.model.verbs import VERBS, Accept, judge

ROOT = Path(__file__).parents[2]
BEGAN = datetime(2026, 8, 1, 10, 0, 0, tzinfo=UTC)
NOW_NS = int((BEGAN + timedelta(seconds=90)).timestamp()) * 1_000_000_000


def state(key: str, status: str, *, kind: str = "step", **more: object) -> StepState:
    """A step that began with the saga and took 12 ms."""
    step = StepState(
        key=key,
        name=key,
        kind=kind,
        status=status,
        attempts=1,
        started_at=BEGAN,
        ended_at=None if status == "running" else BEGAN + timedelta(milliseconds=12),
    )
    return attrs.evolve(step, **more)


def saga(status: SagaStatus, *steps: StepState, **more: object) -> SagaInfo:
    """A saga of these steps."""
    info = SagaInfo(
        id="order-17",
        saga="place-order",
        version=1,
        status=status,
        cause=None,
        input={},
        result=None,
        error=None,
        status_detail=None,
        created_at=BEGAN,
        updated_at=BEGAN,
        ended_at=None,
        wake_at=None,
        paused=False,
        reason=None,
        stuck_on=tuple(step.key for step in steps if step.status in ("unknown", "compensation_failed")),
        steps=list(steps),
    )
    return attrs.evolve(info, **more)


def shown(info: SagaInfo, error: str | None = None, **look: object) -> str:
    """The page of a saga, without its colours."""
    return shown_whole(Snapshot(info, error, NOW_NS), **look)


def shown_whole(snapshot: Snapshot, **look: object) -> str:
    """The same, of a saga with all that is known of it."""
    return plain(Page(snapshot=snapshot, **look).lines())


def test_the_page_of_a_stuck_saga():
    """One glance shows its status, what to do, and what became of each step; docs/reference/cli.md shows the same."""
    undo = state("charge~undo", "failed", kind="compensation", attempts=10, error="BankDown: call again on Monday")
    info = saga(
        SagaStatus.STUCK,
        state("reserve", "succeeded"),
        state("charge", "compensation_failed", compensation=undo),
        state("book", "rejected", error="NoCourier: none is free"),
        cause="failed",
        reason="saga order-17: the compensation of step 'charge' was given up: BankDown: call again on Monday",
    )
    page = shown(info, "BankDown: call again on Monday")
    assert page.splitlines() == [
        "saga     order-17  place-order v1",
        "status   STUCK: it cannot continue without your help",
        "started  2026-08-01 10:00:00 UTC, 1 min 30 s ago",
        "changed  2026-08-01 10:00:00 UTC",
        "reason   the compensation of step 'charge' was given up: BankDown: call again on",
        "         Monday",
        "to fix   sagas retry order-17",
        "           after you fixed the cause: undo charge again",
        "or       sagas skip order-17 charge",
        "           if you undid charge by hand: count it as undone",
        "",
        "  step               kind          attempts  status                took",
        "  ✓ reserve          step                 1  succeeded            12 ms",
        "  ! charge           step                 1  compensation failed  12 ms",
        "    └ ✗ undo charge  compensation        10  failed               12 ms",
        "        BankDown: call again on Monday",
        "  ✗ book             step                 1  rejected             12 ms",
        "      NoCourier: none is free",
    ]
    assert f"```text\n{page}\n```" in (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("status", sorted(set(SagaStatus) - SAGA_ENDS))
def test_the_page_of_a_saga_that_no_worker_serves(status: SagaStatus):
    """The status never says that a worker runs it, or that it waits for a time, above a reason that says otherwise."""
    reason = "saga order-17: waits for version 1 of 'place-order', which no worker serves; start a worker"
    page = shown(saga(status, cause="failed", reason=reason, unserved=True))
    assert f"status   {status.upper()}: " in page
    assert "which no worker serves" in page
    assert "on a worker" not in page
    assert "waiting for a time" not in page
    assert ": rolling back" not in page
    assert "{" not in page


@pytest.mark.parametrize("status", SagaStatus)
def test_every_status_is_told_in_words(status: SagaStatus):
    """Each status has a sentence, also with each cause and when paused; nothing is left to fill in."""
    assert status in MEANINGS
    for cause in (None, "failed", "cancelled", "deadline"):
        text = shown(saga(status, cause=cause, paused=True))
        assert f"status   {status.upper()}: " in text
        assert "paused" in text
        assert "{" not in text


@pytest.mark.parametrize(
    "status",
    [
        "pending",
        "running",
        "succeeded",
        "rejected",
        "failed",
        "unknown",
        "skipped",
        "compensated",
        "compensation_failed",
    ],
)
def test_every_step_status_has_a_sign(status: str):
    """A step's status is a word and a sign, of one cell each, in ASCII where the terminal has nothing else."""
    assert cells(SIGNS[status].sign) == cells(SIGNS[status].ascii) == 1
    text = shown(saga(SagaStatus.RUNNING, state("charge", status)), ascii=True)
    assert f"{SIGNS[status].ascii} charge" in text
    assert status.replace("_", " ") in text
    assert text.isascii()


@pytest.mark.parametrize(("width", "columns"), [(59, 3), (80, 5), (120, 5)])
def test_a_narrow_table_leaves_out_columns(width: int, columns: int):
    """Below 80 columns a row of `list` loses its times rather than its line; with room for all, nothing is left out."""
    info = saga(SagaStatus.COMPENSATED, cause="failed")
    title, row = plain(sagas_table([info], now_ns=NOW_NS, width=width)).splitlines()
    assert len(re.split(r" {2,}", title)) == columns
    assert cells(row) <= width


def test_a_row_with_a_random_id_stays_whole_in_80_columns():
    """The start of a saga gives way to its id; the rows that have room for both show both."""
    info = saga(SagaStatus.COMPENSATED, cause="deadline", id="k3v9x0m2q8w1z7ab", saga="confirm-booking")
    title, row = plain(sagas_table([info], now_ns=NOW_NS, width=80)).splitlines()
    assert re.split(r" {2,}", title.strip()) == ["id", "saga", "status", "duration"]
    assert row.startswith("k3v9x0m2q8w1z7ab  confirm-booking v1  ")
    assert "started" in plain(sagas_table([info], now_ns=NOW_NS, width=100))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit_the_width(width: int):
    """No line is wider than asked for, whatever the length of keys and errors; a key stays whole."""
    key = "parallel.1/branch-of-some-length#12/charge-the-customers-card"
    info = saga(
        SagaStatus.STUCK,
        state(key, "unknown", error="Timeout: " + "no answer " * 30),
        reason="it may have happened, " * 20,
        status_detail={"waiting for": "the bank " * 20},
    )
    lines = shown(info, width=width, payloads=True).splitlines()
    assert all(cells(line) <= width for line in lines if key not in line)
    assert sum(key in line for line in lines) >= 1


def test_text_from_a_store_cannot_move_the_cursor():
    """Escape sequences and line ends in ids, keys and errors are spelled out."""
    evil = "\x1b[2J\x07\u202egone"
    info = saga(
        SagaStatus.STUCK,
        state(f"a{evil}", "failed", error=f"Evil: {evil}\nsecond line"),
        id=f"o{evil}",
        saga=f"s{evil}",
        reason=evil,
        status_detail={"x": evil},
    )
    text = shown(info, payloads=True) + plain(sagas_table([info], now_ns=NOW_NS, width=80))
    assert all(char.isprintable() for char in text.replace("\n", ""))
    assert "\\x1b[2J" in text
    assert clean("a\nb\tc") == "a b c"


AFTER_5_S = {"ended_at": BEGAN + timedelta(seconds=5)}
UNDONE = saga(SagaStatus.COMPENSATED, cause="failed")
QUOTES = saga(SagaStatus.STUCK, reason="because of A: b. Mend it")
AGAIN = saga(SagaStatus.COMPENSATING, cause="failed", reason="step 'pay' has failed 10 times")


@pytest.mark.parametrize(
    ("info", "error", "says", "never"),
    [
        pytest.param(saga(SagaStatus.PENDING), None, "`sagas worker MODULE`", "", id="pending: what is missing"),
        pytest.param(saga(SagaStatus.RUNNING), None, "No step has started.", "", id="running: no step yet"),
        pytest.param(
            saga(SagaStatus.RUNNING, state("charge", "running")), None, "1 min 30 s so far", "", id="running: how long"
        ),
        pytest.param(
            saga(SagaStatus.KILLED, state("charge", "running"), **AFTER_5_S), None, "after 5.0 s", "so far", id="cut"
        ),
        pytest.param(
            saga(SagaStatus.WAITING, wake_at=BEGAN + timedelta(hours=1)),
            None,
            "resumes 2026-08-01 11:00:00 UTC",
            "",
            id="waiting: until when",
        ),
        pytest.param(
            saga(SagaStatus.WAITING, paused=True), None, "paused by an operator, so no new step starts", "", id="paused"
        ),
        pytest.param(
            saga(SagaStatus.WAITING, paused=True), None, "continue sagas resume order-17", "", id="paused: how to go on"
        ),
        pytest.param(UNDONE, "CardDeclined: no", "error CardDeclined: no", "", id="the error that left the body"),
        pytest.param(QUOTES, "A: b", "because of A: b", "error ", id="the error, unless the reason quotes it"),
        pytest.param(AGAIN, None, "reason step 'pay' has failed 10 times", "", id="not stuck, and needs a look"),
    ],
)
def test_a_page_says_what_a_person_asks(info: SagaInfo, error: str | None, says: str, never: str):
    """What is missing, how long it takes, when and how it goes on, why it failed: told, and told once."""
    text = " ".join(shown(info, error).split())
    assert says in text
    assert not never or never not in text


def offered(snapshot: Snapshot) -> list[list[str]]:
    """The verb of each remedy with its arguments, as a shell would read it."""
    return [shlex.split(remedy.command)[1:] for remedy in remedies(snapshot)]


def offers(info: SagaInfo, **more: object) -> list[str]:
    """The verbs that are offered, in order."""
    return [verb for verb, *_ in offered(attrs.evolve(Snapshot(info, None, NOW_NS), **more))]


@pytest.mark.parametrize("cause", [None, "failed"])
@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize("phase", ["", "past-pivot"])
@pytest.mark.parametrize("status", SagaStatus)
def test_whatever_is_offered_is_accepted(status: SagaStatus, phase: str, cause: str | None, *, paused: bool):
    """Each remedy is a verb that the program knows and that makes sense as the saga stands."""
    known = {command.name for command in program().registered_commands}
    over = BEGAN if status in SAGA_ENDS else None
    steps = state("a", "unknown"), state("b", "compensation_failed"), state("c", "succeeded")
    info = saga(status, *steps, cause=cause, paused=paused, ended_at=over)
    for verb, saga_id, *more in offered(Snapshot(info, None, NOW_NS, phase=phase)):
        step = more[0] if VERBS[verb].steps else None
        assert verb in known
        assert saga_id == info.id
        assert judge(verb, info, phase, step) == Accept()


def test_each_kind_of_stuck_has_its_remedies():
    """What is offered follows from what the saga is stuck on, the most likely first."""
    stuck = SagaStatus.STUCK
    doubt = saga(stuck, state("pay", "unknown"))
    assert offers(doubt) == ["resolve", "resolve", "retry", "rollback"]
    assert offers(saga(stuck, state("pay", "compensation_failed"), cause="failed")) == ["retry", "skip"]
    assert offers(saga(stuck, state("pay", "succeeded", kind="pivot")), phase="past-pivot") == ["retry"]
    assert offers(saga(stuck, state("pay", "succeeded"))) == ["retry", "rollback"]
    held = saga(stuck, state("pay", "failed"), stuck_on=("pay",))
    assert offers(held) == ["resolve", "resolve", "retry", "rollback"]
    assert offers(held, phase="past-pivot") == ["retry"]
    assert offers(saga(stuck, state("fly", "unknown", kind="pivot"))) == ["resolve", "resolve", "retry"]
    assert offers(saga(stuck, state("pay", "unknown"), stuck_on=())) == ["retry", "rollback"]
    assert offers(saga(stuck, paused=True)) == ["resume", "retry", "rollback"]
    assert "under the same key" in remedies(Snapshot(doubt, None, NOW_NS))[2].effect
    assert "ask it again" in remedies(Snapshot(doubt, None, NOW_NS, probed=frozenset({"pay"})))[2].effect


def test_a_saga_that_needs_nobody_is_offered_nothing():
    """Only a stuck, a paused, or a killed saga that has left something behind has commands to type."""
    for status in set(SagaStatus) - {SagaStatus.STUCK, SagaStatus.KILLED}:
        assert offers(saga(status, state("a", "succeeded"))) == []
    over = {"ended_at": BEGAN}
    assert offers(saga(SagaStatus.KILLED, state("a", "rejected"), **over)) == []
    assert offers(saga(SagaStatus.KILLED, state("a", "succeeded"), **over)) == ["rollback"]
    assert offers(saga(SagaStatus.KILLED, state("a", "succeeded"), paused=True, **over)) == ["rollback"]
    assert offers(saga(SagaStatus.KILLED, state("a", "succeeded"), **over), phase="past-pivot") == []


def test_remedies_can_be_typed():
    """An id with blanks, quotes or dashes is quoted for a shell, and the store is named where it must be."""
    (remedy, *_) = remedies(Snapshot(saga(SagaStatus.STUCK, id="it's 1"), None, 0), option=" --store sqlite:///x.db")
    assert remedy.command == """sagas retry 'it'"'"'s 1' --store sqlite:///x.db"""
    (remedy, *_) = remedies(Snapshot(saga(SagaStatus.STUCK, id="--x; reboot"), None, 0))
    assert remedy.command == "sagas retry '--x; reboot'"


def test_children_and_sleeps_are_told():
    """Beneath a child are its steps, and those of its own children; a sleep says until when, or that it is over."""
    tomorrow = BEGAN + timedelta(days=1)
    root = saga(
        SagaStatus.WAITING,
        state("sleep", "succeeded", kind="sleep"),
        state("trip", "running", kind="child"),
    )
    undo = state("book~undo", "succeeded", kind="compensation")
    inner = {
        "trip": [state("book", "compensated", compensation=undo), state("hotel", "running", kind="child")],
        "trip/hotel": [state("sleep", "running", kind="sleep"), state("sleep#2", "skipped", kind="sleep")],
    }
    snapshot = Snapshot(root, None, NOW_NS, inner=inner, due={"trip/hotel/sleep": tomorrow})
    assert shown_whole(snapshot).splitlines()[-9:] == [
        "  step               kind          attempts  status                    took",
        "  ✓ sleep            sleep                   over                     12 ms",
        "  ▶ trip             child                   running      1 min 30 s so far",
        "    └ ↩ book         step                 1  compensated              12 ms",
        "      └ ✓ undo book  compensation         1  succeeded                12 ms",
        "    └ ▶ hotel        child                   running      1 min 30 s so far",
        "      └ ▶ sleep      sleep                   waiting      1 min 30 s so far",
        "          until 2026-08-02 10:00:00 UTC",
        "      └ » sleep#2    sleep                   given up                 12 ms",
    ]


def test_history_shows_who_and_why():
    """An operator's entry shows actor and note, a failure its error, each beneath its row; 80 columns hold it."""
    entries = [
        Entry(seq=9, at=BEGAN, kind="started", key="a/very/long/scope/" * 4 + "charge", attempt=1, worker="w"),
        Entry(seq=10, at=BEGAN, kind="failed", key="charge", attempt=1, worker="w", error="Boom: x", detail="failed"),
        Entry(seq=11, at=BEGAN, kind="signalled", key="retry", attempt=0, worker="w", actor="ada", note="why not"),
        Entry(seq=12, at=BEGAN + timedelta(seconds=2), kind="ended", key="", attempt=0, worker="w", note="just so"),
    ]
    text = plain(journal_table(entries, width=80))
    assert "      by ada: why not" in text
    assert "      by somebody: just so" in text
    assert "      Boom: x" in text
    assert text.splitlines()[-2].endswith("2.0 s")
    assert " 9 started" in text
    assert "Nothing has happened yet." in plain(journal_table([], width=80))


def test_a_list_of_those_that_need_a_person_says_why():
    """With reasons, a row has the reason beneath it, without the id that it tells already."""
    stuck = saga(SagaStatus.STUCK, reason="saga order-17: the bank is closed")
    (_, _, told) = plain(sagas_table([stuck], now_ns=NOW_NS, width=80, reasons=True)).splitlines()
    assert told == "      the bank is closed"
    assert "bank" not in plain(sagas_table([stuck], now_ns=NOW_NS, width=80))


def test_a_list_tells_cause_and_pause():
    """A row of `list` has the cause of a rollback, and says that a saga is paused."""
    rows = plain(
        sagas_table(
            [
                saga(SagaStatus.COMPENSATED, cause="deadline", ended_at=BEGAN + timedelta(seconds=1)),
                saga(SagaStatus.WAITING, paused=True),
            ],
            now_ns=NOW_NS,
            width=80,
        )
    ).splitlines()
    assert rows[1].split()[3:5] == ["compensated", "(deadline)"]
    assert "waiting, paused" in rows[2]
    assert rows[2].endswith("2026-08-01 10:00  1 min 30 s")
    assert max(map(cells, rows)) <= 80


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-1, "0 ms"),
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (0.9996, "1.0 s"),
        (3.21, "3.2 s"),
        (59.96, "1 min"),
        (250, "4 min 10 s"),
        (7500, "2 h 5 min"),
        (86_400 * 3 + 4 * 3600 + 5, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, told: str):
    """Two units at most, the larger ones without fractions."""
    assert shown_duration(timedelta(seconds=seconds)) == told


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:///orders.db?durability=process", "sqlite:///orders.db?durability=process"),
        ("sqlite:////tmp/a:b@c.db", "sqlite:////tmp/a:b@c.db"),
        ("postgresql://ada:hunter2@db/orders", "postgresql://ada:***@db/orders"),
        ("postgresql://ada:hun@ter/2@db/orders", "postgresql://ada:***@db/orders"),
        ("postgresql://:hunter2@db/orders", "postgresql://:***@db/orders"),
        ("postgresql://ada@db/orders?sslmode=require", "postgresql://ada@db/orders?sslmode=require"),
        ("postgresql://db/o?PASSWORD=hunter2&x=1", "postgresql://db/o?PASSWORD=***&x=1"),
        ("postgresql://db/o?x=1&access_token=hunter2", "postgresql://db/o?x=1&access_token=***"),
    ],
)
def test_passwords_are_masked(url: str, told: str):
    """An address is shown without its secrets, and its repr has none of it."""
    address = Address(url, given=True)
    assert address.shown == told
    assert "hunter2" not in repr(address)
    assert "hunter2" not in address.option


def test_wide_and_combining_characters_keep_the_columns():
    """Columns are measured in cells of the terminal, not in characters."""
    table = Table((Column("a"), Column("b")), width=40)
    for text in ("注文", "e\u0301te\u0301", "abcd"):
        table.row((Piece(text), Piece("|")))
    lines = plain(table.lines()).splitlines()[1:]
    assert {cells(line) for line in lines} == {7}
    assert wrapped("", width=80, indent="  ") == [(Piece("  "), Piece("", ""))]
