"""`sagas purge` and `sagas doctor` on a store: what they print, their exit codes, and what they leave alone."""

import asyncio
import os
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from durable_core import read_line
from durable_core.testing import ManualClock
from sagas import Orchestrator, Retry, Saga, SagasError, saga, step
from sagas.cli.durations import duration_of
from tests.cli.line import Ended, Line

NS = 1_000_000_000


@step
async def book(hotel: str) -> str:
    return hotel


@book.compensate(retry=Retry(attempts=1))
async def unbook(hotel: str) -> None:
    raise RuntimeError("the hotel is closed")


@saga("stay", version=1)
async def stay(s: Saga, hotel: str) -> str:
    booked = await s.run(book, hotel)
    if hotel == "closed":
        raise ValueError(hotel)
    return booked


@saga("nap", version=3)
async def nap(s: Saga) -> None:
    await s.sleep(timedelta(days=1))


def findings(ended: Ended) -> dict[str, tuple[str, str, str]]:
    """What the doctor found, by check."""
    return {found["check"]: (found["level"], found["what"], found["advice"]) for found in ended.document["findings"]}


class Desk(Line):
    """A directory with a store in it, and the command line."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.file = directory / "stays.db"
        self.url = f"sqlite:///{self.file}"
        super().__init__(capsys)

    def run(self, *arguments: str) -> Ended:
        return super().run(*arguments, "--store", self.url)

    def doctor(self, *options: str) -> Ended:
        """Look at the store, which must not change it."""
        before = self.state()
        ended = self.run("doctor", "--json", *options)
        assert self.state() == before
        return ended

    def state(self) -> dict[str, Any]:
        """All files of the directory with their contents, as far as anything in them is stored."""
        files = [file for file in self.directory.iterdir() if not file.name.endswith("-shm")]
        return {file.name: (file.stat().st_mode, file.read_bytes()) for file in files if file.is_file()}

    def work(self, *hotels: str, clock: ManualClock | None = None) -> None:
        """Have sagas end, or get stuck, each with its hotel as id."""

        async def run() -> None:
            async with Orchestrator(self.url, sagas=[stay], clock=clock) as running:
                for hotel in hotels:
                    handle = await running.start(stay, hotel, id=hotel)
                    try:
                        await handle.result()
                    except SagasError:
                        continue  # that it gets stuck is what some of these tests are about

        asyncio.run(run())

    def write(self, statement: str, *values: object) -> None:
        """Make the store as only years could have made it."""
        connection = sqlite3.connect(self.file, isolation_level=None)
        connection.execute(statement, values)
        connection.close()


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A directory of its own for each test."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("SAGAS_STORE", raising=False)
    for name in ("SAGAS_DEBUG", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return Desk(tmp_path, capsys)


# -- lengths of time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30d", 30 * 86400),
        ("12h", 43200),
        ("90s", 90),
        ("90", 90),
        ("0", 0),
        ("1.5", 1.5),
        ("5min", 300),
        ("2w", 1209600),
        ("1y", 31536000),
        ("1d12h", 129600),
        ("1d 12h", 129600),
        ("1.5 h", 5400),
        (" 30D ", 30 * 86400),
        ("P30D", 30 * 86400),
        ("PT12H", 43200),
        ("p1dt12h5m1.5s", 129901.5),
        ("P2W", 1209600),
    ],
)
def test_lengths_of_time_are_read(text: str, seconds: float):
    """Units, several of them, ISO 8601 durations, and plain seconds."""
    assert duration_of(text, "--older-than") == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "", "d", "-1d", "-5", "3m", "30 days", "1d2d", "1e9", "nan", "inf", "P", "PT", "P1M", "P1Y", "P1DT", "1d,5h",
        "200y", "36501d", "9" * 400, "1h!", "٣d", "d30", "0x10", "forever", "1 2", "--dry-run",
    ],
)  # fmt: skip
def test_a_length_of_time_that_is_none_is_refused(text: str):
    """So is one that could be meant in two ways (`3m`), and one of more than a hundred years."""
    with pytest.raises(typer.BadParameter) as refused:
        duration_of(text, "--older-than")
    assert refused.value.param_hint == "--older-than"


# -- purge -------------------------------------------------------------------------------------------------------------


def test_purge_removes_what_is_old_enough(desk: Desk):
    """Old ones go into the archive and out of the store; young and stuck ones stay; it says how many, twice."""
    desk.work("closed", "old", "older", clock=ManualClock(start=ManualClock().now().replace(year=2020)))
    desk.work("young")
    archive = desk.directory / "gone.jsonl"
    dry = desk.run("purge", "--older-than", "30d", "--archive", str(archive), "--dry-run", "--json")
    assert dry.document == {
        "dry_run": True,
        "sagas": 2,
        "entries": 0,
        "archived": 0,
        "archive": str(archive),
        "ids_freed": 0,
    }
    assert not archive.exists()
    told = desk.run("purge", "--older-than", "30d", "--dry-run")
    assert told == (0, "Would purge 2 sagas that ended more than 30 d ago. Nothing was removed.\n", "")
    done = desk.run("purge", "--older-than", "P30D", "--archive", str(archive))
    assert done.code == 0
    assert done.out.startswith("Purged 2 sagas that ended more than 30 d ago: ")
    assert "Added 2 lines" in done.out
    assert sorted(read_line(line)[0].id for line in archive.read_bytes().splitlines()) == ["old", "older"]
    left = {info["id"] for info in desk.run("list", "--json").document["sagas"]}
    assert left == {"closed", "young"}
    assert "was purged at" in desk.run("show", "old").err
    assert desk.run("purge", "--older-than", "30d", "--json").document["sagas"] == 0


def test_purge_takes_a_name_a_limit_and_how_long_ids_are_refused(desk: Desk):
    """`--saga` and `--limit` narrow it; an id whose retention is over is freed by a later purge."""
    desk.work("a", "b", "c")
    assert desk.run("purge", "--older-than", "0", "--saga", "nap", "--json").document["sagas"] == 0
    narrow = ("--saga", "stay", "--limit", "2", "--id-retention", "0.001")
    first = desk.run("purge", "--older-than", "0", *narrow, "--json").document
    assert first["sagas"] == 2
    last = desk.run("purge", "--older-than", "0", "--id-retention", "forever", "--json").document
    assert last["sagas"] == 1
    assert first["ids_freed"] + last["ids_freed"] == 2
    assert "was purged at" in desk.run("show", "c").err
    desk.work("a")
    assert desk.run("show", "a").code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--older-than", "3m"], "could be minutes or months"),
        (["--older-than", "200y"], "longer than a hundred years"),
        (["--older-than", "soon"], "is not a duration"),
        ([], "--older-than"),
        (["--older-than", "1d", "--limit", "0"], "--limit"),
        (["--older-than", "0", "--archive", "/nowhere/a.jsonl"], "/nowhere/a.jsonl"),
        (["--older-than", "0", "--id-retention", "x"], "--id-retention"),
        (["--older-than", "0", "--id-retention", "0"], "id_retention"),
    ],
)
def test_a_purge_that_makes_no_sense_removes_nothing(desk: Desk, options: list[str], told: str):
    """Exit code 2, one message, and everything is still there."""
    desk.work("a")
    ended = desk.run("purge", *options)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert desk.run("list", "--json").document["count"] == 1


def test_purge_makes_no_store(desk: Desk):
    """No file there: exit code 2, and none after."""
    assert desk.run("purge", "--older-than", "1d").code == 2
    assert list(desk.directory.iterdir()) == []


# -- doctor ------------------------------------------------------------------------------------------------------------

OF_THE_STORE = ["sqlite", "file", "mode", "files", "disk", "format", "settings", "pages"]
OF_ITS_SAGAS = ["clock", "workers", "stuck", "overdue", "deadline", "versions", "open", "kept", "rows"]


def test_a_good_store_is_all_right(desk: Desk):
    """One line for each check, in order, all of them ok, and exit code 0; `--deep` reads the pages too."""
    desk.work("a", "b")
    ended = desk.doctor()
    assert (ended.code, ended.err, ended.document["level"]) == (0, "", "ok")
    assert list(findings(ended)) == [*OF_THE_STORE, *OF_ITS_SAGAS]
    assert {level for level, _, _ in findings(ended).values()} == {"ok"}
    deep = desk.doctor("--deep")
    assert list(findings(deep)) == [*OF_THE_STORE, "integrity", *OF_ITS_SAGAS]
    assert deep.code == 0
    text = desk.run("doctor")
    assert [line.split()[:2] for line in text.out.splitlines() if line[0] != " "] == [
        ["ok", check] for check in [*OF_THE_STORE, *OF_ITS_SAGAS]
    ]


def test_a_store_in_use_is_looked_at_beside_its_worker(desk: Desk):
    """The worker is told as alive, the store does not change, and sagas go on."""

    async def run() -> None:
        async with Orchestrator(desk.url, sagas=[stay, nap]) as running:
            await running.start(nap, id="asleep")
            await (await running.start(stay, "a", id="a")).result()
            await running.engine.flushed()
            found = findings(await asyncio.to_thread(desk.run, "doctor", "--deep", "--json"))
            assert running.engine.name in found["workers"][1]
            assert {level for level, _, _ in found.values()} == {"ok"}
            Path(f"{desk.file}-wal").chmod(0o644)
            found = findings(await asyncio.to_thread(desk.run, "doctor", "--json"))
            assert "-wal (0644)" in found["mode"][1]
            assert await (await running.start(stay, "b")).result() == "b"

    asyncio.run(run())


def test_a_file_that_others_may_read_is_a_warning(desk: Desk):
    """Exit code stays 0, and the advice is the command that mends it."""
    desk.work("a")
    desk.file.chmod(0o640)
    ended = desk.doctor()
    level, what, advice = findings(ended)["mode"]
    assert (ended.code, ended.document["level"], level) == (0, "warn", "warn")
    assert f"{desk.file.name} (0640)" in what
    assert advice == f"chmod 600 {desk.file}"


def foreign(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE t (a)")
    connection.commit()
    connection.close()


def rubbish(file: Path) -> None:
    file.write_bytes(os.urandom(9000))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda _: None, "there is no store at"),
        (Path.touch, "is empty"),
        (Path.mkdir, "is a directory"),
        (foreign, "another program"),
        (rubbish, "is not a SQLite database"),
        (os.mkfifo, "no ordinary file"),
    ],
)
def test_what_is_no_store_is_told_and_left_alone(desk: Desk, make: Any, told: str):
    """Missing, empty, foreign or no file at all: it says why, exit code 1, and nothing is made or changed."""
    make(desk.file)
    ended = desk.doctor()
    assert ended.code == 1
    level, what, _ = findings(ended)["file"]
    assert level == "fail"
    assert told in what


def test_a_newer_format_and_a_damaged_file_fail(desk: Desk):
    """The stored format that this release does not know, and pages that are not as they should be."""
    desk.work(*map(str, range(40)))
    desk.write("UPDATE meta SET value = 99 WHERE key = 'format'")
    ended = desk.doctor()
    assert (ended.code, findings(ended)["format"][0]) == (1, "fail")
    assert "newer release" in findings(ended)["format"][1]
    desk.write("UPDATE meta SET value = 2 WHERE key = 'format'")
    with desk.file.open("r+b") as file:
        file.seek(4096 * 5)
        file.write(os.urandom(4096 * 4))
    damaged = desk.doctor("--deep")
    assert damaged.code == 1
    failed = {check for check, (level, _, _) in findings(damaged).items() if level == "fail"}
    assert len(failed) == 1
    assert failed <= {"integrity", "database"}


def test_stuck_overdue_and_unserved_sagas_are_warnings(desk: Desk):
    """Each is told by its id, with the command that helps; the exit code stays 0."""
    desk.work("closed")

    async def start() -> None:
        async with Orchestrator(desk.url, worker=False) as observer:
            await observer.start(nap, id="overdue", deadline=1)

    asyncio.run(start())
    young = findings(desk.doctor())
    assert young["overdue"][0] == "ok"
    assert "overdue" in young["overdue"][1]
    desk.write("UPDATE runs SET updated_at_ns = updated_at_ns - ?, deadline_at_ns = 5 WHERE id = 'overdue'", 120 * NS)
    ended = desk.doctor()
    assert (ended.code, ended.document["level"]) == (0, "warn")
    levels = {check: found for check, found in findings(ended).items() if found[0] != "ok"}
    assert set(levels) == {"workers", "stuck", "overdue", "deadline", "versions"}
    assert "closed" in levels["stuck"][1]
    assert "sagas show" in levels["stuck"][2]
    assert "overdue" in levels["overdue"][1]
    assert "sagas worker" in levels["overdue"][2]
    assert "nap v3 (1 open)" in levels["versions"][1]


def test_a_clock_that_is_behind_the_rows_fails(desk: Desk):
    """Rows of the year 2030: the machine's clock is wrong, or was."""
    desk.work("a", clock=ManualClock(start=ManualClock().now().replace(year=2100)))
    ended = desk.doctor()
    assert (ended.code, findings(ended)["clock"][0]) == (1, "fail")


def test_a_dead_worker_is_told_from_a_living_one(desk: Desk):
    """What was left by a crash is looked at as it lies there, log and all."""

    async def run() -> None:
        running = Orchestrator(desk.url, sagas=[nap])
        await running.__aenter__()
        await running.start(nap, id="a")
        running.engine.store.crash()  # type: ignore[attr-defined]
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()  # type: ignore[union-attr]
        await asyncio.gather(*left, return_exceptions=True)  # type: ignore[arg-type]

    asyncio.run(run())
    level, what, advice = findings(desk.doctor())["workers"]
    assert level == "warn"
    assert "1 died without signing off" in what
    assert "sagas worker" in advice


def test_an_address_that_is_none_is_bad_usage(desk: Desk):
    """That is no question of health: exit code 2."""
    desk.url = "mysql://there"
    assert desk.run("doctor").code == 2
