"""Commands on a store: their exit codes, what they print, and what they leave alone."""

import asyncio
import json
import os
import re
import shlex
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest
from typer.main import get_command

from sagas import Orchestrator, SagaInfo, SagasError, StepState
from sagas.cli import main
from sagas.cli.app import program
from sagas.cli.modules import load
from sagas.model.verbs import VERBS
from tests.cli.line import Ended, Line

SHOP = '''
from pathlib import Path
import attrs
from sagas import Retry, Saga, saga, step

class CardDeclined(Exception): ...

@attrs.frozen
class Order:
    item: str
    amount: int

CLOSED = Path(__file__).with_name("closed")
"""While it is there, nothing can be put back."""

@step
async def reserve(order: Order) -> str:
    return f"{order.item} from shelf 7"

@reserve.compensate(retry=Retry(attempts=1))
async def put_back(reserved: str) -> None:
    if CLOSED.exists():
        raise RuntimeError("the warehouse is closed")

@step(rejects=(CardDeclined,), compensation=None, because="the card is charged last")
async def charge(order: Order) -> None:
    if order.amount > 40:
        raise CardDeclined(f"no cover for {order.amount}")

@saga("place-order", version=1)
async def place_order(s: Saga, order: Order, *, express: bool = False) -> str:
    reserved = await s.run(reserve, order)
    await s.run(charge, order)
    return reserved
'''


class Shop(Line):
    """A directory with a store and a module of sagas, and the command line on it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        super().__init__(capsys)
        self.url = f"sqlite:///{directory}/orders.db"
        self.file = directory / "orders.db"
        self.closed = directory / "closed"
        self.path = directory / f"shop_{directory.name.replace('-', '_')}.py"
        self.path.write_text(SHOP, encoding="utf-8")

    def start(self, saga_id: str, amount: int, *more: str) -> Ended:
        order = json.dumps({"item": "teapot", "amount": amount})
        return self.run("start", "place-order", order, "--id", saga_id, "--module", str(self.path), *more)

    def work(self, *ids: str) -> None:
        """Have a worker in this process bring these sagas to their end, or until they are stuck."""
        module = load(str(self.path))
        asyncio.run(drive(self.url, module, ids))

    def stuck(self, saga_id: str) -> None:
        self.closed.touch()
        self.start(saga_id, 99)
        self.work(saga_id)


async def drive(url: str, module: ModuleType, ids: tuple[str, ...]) -> None:
    async with Orchestrator(url, sagas=[module.place_order]) as orchestrator:
        for saga_id in ids:
            handle = await orchestrator.get(saga_id)
            try:
                await handle.result(timeout=30)
            except SagasError:
                continue  # that it fails is what these tests are about


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A shop of its own for each test, whose store is in SAGAS_STORE."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    found = Shop(tmp_path, capsys)
    monkeypatch.setenv("SAGAS_STORE", found.url)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("SAGAS_DEBUG", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    yield found
    sys.modules.pop(found.path.stem, None)


# -- starting ----------------------------------------------------------------------------------------------------------


def test_start_makes_a_saga_durable_and_says_how_to_look(shop: Shop):
    """After `start` the saga is in the store, not begun, and the command to look at it is printed."""
    ended = shop.start("o-1", 4)
    assert ended.code == 0
    assert "sagas show o-1\n" in ended.out
    shown = shop.run("show", "o-1", "--json", "--payloads")
    assert shown.code == 0
    assert (shown.document["status"], shown.document["input"]) == ("pending", {"0": {"item": "teapot", "amount": 4}})


def test_start_twice_is_harmless_and_other_input_is_refused(shop: Shop):
    """The same id with the same input gives the same saga, whatever the order of keys; other input: exit code 2."""
    assert shop.start("o-1", 4, "--json").document == {"id": "o-1", "saga": "place-order", "version": 1}
    same = json.dumps([{"amount": 4, "item": "teapot"}])
    assert shop.run("start", "place-order", "--args", same, "--id", "o-1", "--module", str(shop.path)).code == 0
    other = shop.start("o-1", 5)
    assert (other.code, other.out) == (2, "")
    assert "'o-1' is taken" in other.err
    assert shop.run("list", "--json").document["count"] == 1


def test_start_takes_arguments_by_name(shop: Shop):
    """`--args` with an object gives arguments by parameter name, keyword-only ones too."""
    given = json.dumps({"order": {"item": "cup", "amount": 1}, "express": True})
    assert shop.run("start", "place-order", "--args", given, "--id", "o-1", "--module", str(shop.path)).code == 0
    shown = shop.run("show", "o-1", "--json", "--payloads").document
    assert shown["input"] == {"0": {"item": "cup", "amount": 1}, "express": True}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["teapot"], "argument 1 is not JSON"),
        (['{"item": "cup"}'], "missing required field `amount`"),
        (['{"item": "cup", "amount": "x"}'], "Expected `int`, got `str`"),
        ([], "missing a required argument: 'order'"),
        (["1", "--args", "[1]"], "not both"),
        (["--args", "1"], "--args takes a JSON array"),
        (["1", "--version", "7"], "has no saga 'place-order v7'; it has place-order v1"),
    ],
)
def test_start_refuses_wrong_arguments_before_anything(shop: Shop, arguments: list[str], told: str):
    """Arguments that do not fit the saga: exit code 2, a message that says why, and no store is made."""
    ended = shop.run("start", "place-order", *arguments, "--module", str(shop.path))
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert not shop.file.exists()


def test_start_waits_for_the_end(shop: Shop):
    """`start --wait` of a saga that has completed prints its result alone and exits with 0."""
    shop.start("o-1", 4)
    shop.work("o-1")
    ended = shop.start("o-1", 4, "--wait")
    assert (ended.code, ended.out) == (0, '"teapot from shelf 7"\n')


def test_start_wait_of_a_failed_saga_exits_with_1(shop: Shop):
    """`start --wait` of a saga that is rolled back exits with 1 and says which way it failed, and why."""
    shop.start("o-1", 99)
    shop.work("o-1")
    ended = shop.start("o-1", 99, "--wait")
    assert (ended.code, ended.out) == (1, "")
    assert "compensated: " in ended.err
    assert "CardDeclined: no cover for 99" in ended.err
    assert shop.start("o-1", 99, "--wait", "--json").document["status"] == "compensated"


def test_start_stops_waiting_after_its_timeout(shop: Shop):
    """A saga that nobody runs: `--timeout` ends the waiting with exit code 2, and the saga is still there."""
    ended = shop.start("o-1", 4, "--timeout", "0.01")
    assert ended.code == 2
    assert "has not ended within 0.01 s" in ended.err
    assert shop.run("show", "o-1").code == 0


# -- looking -----------------------------------------------------------------------------------------------------------

OF_A_SAGA = {
    "id", "saga", "version", "status", "cause", "paused", "reason", "stuck_on", "created_at", "updated_at", "ended_at",
    "wake_at", "tags", "restarted_from", "restarted_as",
}  # fmt: skip
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def fields(of: type[Any]) -> list[str]:
    """The names of a class's fields, in order."""
    return [field.name for field in attrs.fields(of)]


def test_show_json_is_the_whole_info(shop: Shop):
    """`show --json` has the fields of `SagaInfo`, with input and results, whatever its state; times are ISO 8601."""
    shop.start("o-1", 4)
    shop.work("o-1")
    shop.stuck("o-2")
    shop.start("o-3", 4)
    for saga_id, code, amount in (("o-1", 0, 4), ("o-2", 1, 99), ("o-3", 0, 4)):
        shown = shop.run("show", saga_id, "--json")
        assert (shown.code, shown.err) == (code, "")
        assert list(shown.document) == fields(SagaInfo)
        assert shown.document["input"] == {"0": {"item": "teapot", "amount": amount}}
        assert MOMENT.fullmatch(shown.document["created_at"])
        for step in shown.document["steps"]:
            assert set(step) == set(fields(StepState))
            assert step["compensation"] is None or set(step["compensation"]) == set(fields(StepState))
    assert shop.run("show", "o-1", "--json").document["steps"][0]["result"] == "teapot from shelf 7"


def test_show_hides_payloads_unless_asked(shop: Shop):
    """In the text neither the input nor a result is shown without `--payloads`."""
    shop.start("o-1", 4)
    shop.work("o-1")
    assert "teapot" not in shop.run("show", "o-1").out
    assert "teapot from shelf 7" in shop.run("show", "o-1", "--payloads").out


def test_show_of_a_stuck_saga_says_what_mends_it(shop: Shop):
    """A stuck saga: exit code 1, why it is stuck, which step, and a command that mends it, to be typed as it stands."""
    shop.stuck("o 1")
    shown = shop.run("show", "o 1")
    assert shown.code == 1
    assert "STUCK: it cannot continue without your help" in shown.out
    assert "RuntimeError: the warehouse is closed" in shown.out
    assert re.search(r"^ +! reserve +step +1 +compensation failed", shown.out, re.MULTILINE)
    assert max(map(len, shown.out.splitlines())) <= 80
    command = re.search(r"^to fix +sagas (retry .*)$", shown.out, re.MULTILINE)
    assert command is not None
    assert shop.run(*shlex.split(command[1])).code == 0


def test_commands_to_type_name_the_store_that_was_given(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    """Where the store was given as an option, the printed commands have it too."""
    shop.stuck("o-1")
    monkeypatch.delenv("SAGAS_STORE")
    assert f"sagas retry o-1 --store {shop.url}\n" in shop.run("show", "o-1", "--store", shop.url).out


def test_list_filters_and_counts(shop: Shop):
    """`list` shows the newest first, filters by status and name, and counts beyond its limit."""
    shop.start("o-0", 4)
    shop.work("o-0")
    shop.start("o-1", 4)
    shop.start("o-2", 4)
    listed = shop.run("list", "--json", "--limit", "2")
    assert [found["id"] for found in listed.document["sagas"]] == ["o-2", "o-1"]
    assert listed.document["count"] == 3
    assert all(set(found) == OF_A_SAGA for found in listed.document["sagas"])
    assert [found["id"] for found in shop.run("list", "--json", "--status", "completed").document["sagas"]] == ["o-0"]
    assert shop.run("list", "--json", "--saga", "other").document == {"sagas": [], "count": 0}
    assert "Showing 2 of 3; use --limit" in shop.run("list", "--limit", "2").out
    assert "No sagas found" in shop.run("list", "--saga", "other").out


def test_list_finds_by_tag_version_and_age(shop: Shop):
    """`start --tag` and `list --tag --since --version`: all must match; what is no filter is refused."""
    for number, tags in enumerate((("customer=42", "shop=7"), ("customer=42",), ())):
        shop.start(f"o-{number}", 4, *(word for tag in tags for word in ("--tag", tag)))

    def found(*filters: str) -> list[str]:
        return [each["id"] for each in shop.run("list", "--json", *filters).document["sagas"]]

    assert found("--tag", "customer=42") == ["o-1", "o-0"]
    assert found("--tag", "customer=42", "--tag", "shop=7") == ["o-0"]
    assert found("--since", "1h", "--version", "1", "--tag", "shop=7") == ["o-0"]
    assert found("--version", "2") == found("--since", "2200-01-01T00:00Z") == []
    assert "customer=42, shop=7" in shop.run("show", "o-0").out
    for wrong, told in (
        (("--tag", "customer"), "give a key and a value"),
        (("--tag", "a=1", "--tag", "a=2"), "given twice"),
        (("--since", "2026-01-01T00:00"), "no time zone"),
        (("--since", "yesterday"), "not a duration"),
    ):
        ended = shop.run("list", *wrong)
        assert (ended.code, told in ended.err) == (2, True)


def test_history_is_the_journal(shop: Shop):
    """`history` prints every entry, in order; in JSON with stable keys."""
    shop.stuck("o-1")
    document = shop.run("history", "o-1", "--json").document
    assert [entry["seq"] for entry in document["entries"]] == list(range(1, len(document["entries"]) + 1))
    fields = {"seq", "at", "kind", "key", "attempt", "worker", "actor", "note", "error", "detail"}
    assert all(set(entry) == fields for entry in document["entries"])
    text = shop.run("history", "o-1")
    assert text.code == 0
    assert "CardDeclined: no cover for 99" in text.out
    assert max(map(len, text.out.splitlines())) <= 80


# -- operators' verbs --------------------------------------------------------------------------------------------------


def test_retry_mends_a_stuck_saga(shop: Shop):
    """A given-up compensation: once its cause is mended, `retry` and a worker end the saga; the journal says who."""
    shop.stuck("o-1")
    shop.closed.unlink()
    ended = shop.run("retry", "o-1", "--actor", "ada", "--note", "it is Monday", "--json")
    assert ended.code == 0
    assert ended.document == {
        "verb": "retry", "id": "o-1", "step": None, "happened": None, "repeated": False, "actor": "ada",
        "note": "it is Monday", "saga": "place-order", "version": 1, "status_before": "stuck",
    }  # fmt: skip
    shop.work("o-1")
    shown = shop.run("show", "o-1", "--json")
    assert (shown.code, shown.document["status"]) == (1, "compensated")
    entries = shop.run("history", "o-1", "--json").document["entries"]
    signed = [(entry["key"], entry["actor"], entry["note"]) for entry in entries if entry["kind"] == "signalled"]
    assert signed == [("retry", "ada", "it is Monday")]
    assert "by ada: it is Monday" in shop.run("history", "o-1").out


def test_cancel_rolls_back(shop: Shop):
    """`cancel` of a saga that has not begun: a worker ends it compensated, because it was cancelled."""
    shop.start("o-1", 4)
    ended = shop.run("cancel", "o-1", "--note", "changed my mind")
    assert ended.code == 0
    assert "cancel of o-1 is recorded" in ended.out
    shop.work("o-1")
    shown = shop.run("show", "o-1", "--json").document
    assert (shown["status"], shown["cause"]) == ("compensated", "cancelled")


def test_the_actor_is_the_user_unless_named(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    """Without `--actor` a verb is signed by the system's user."""
    monkeypatch.setenv("LOGNAME", "grace")
    shop.start("o-1", 4)
    assert shop.run("cancel", "o-1", "--json").document["actor"] == "grace"


@pytest.mark.parametrize("verb", ["retry", "cancel", "rollback", "kill", "pause", "resume"])
def test_a_verb_in_the_wrong_state_is_refused(shop: Shop, verb: str):
    """A saga that has ended: exit code 2, the message says how it stands, and nothing is journalled."""
    shop.start("o-1", 4)
    shop.work("o-1")
    before = shop.run("history", "o-1", "--json").out
    ended = shop.run(verb, "o-1")
    assert (ended.code, ended.out) == (2, "")
    assert "'o-1' is completed" in ended.err
    assert shop.run("history", "o-1", "--json").out == before


def test_retry_of_a_step_that_is_not_there_is_refused(shop: Shop):
    """`--step` with a wrong key: exit code 2, and the message lists the saga's steps."""
    shop.stuck("o-1")
    ended = shop.run("retry", "o-1", "--step", "resreve")
    assert ended.code == 2
    assert "its steps are: reserve, charge" in ended.err


# -- what is refused ---------------------------------------------------------------------------------------------------

ON_ONE_SAGA = [
    ["show", "o-9"],
    ["history", "o-9"],
    ["retry", "o-9"],
    ["skip", "o-9", "charge"],
    ["resolve", "o-9", "charge", "--happened"],
    ["cancel", "o-9/charge"],
    *([verb, "o-9"] for verb in ("cancel", "rollback", "kill", "pause", "resume")),
]


@pytest.mark.parametrize("command", ON_ONE_SAGA, ids=" ".join)
def test_an_unknown_id_is_an_error(shop: Shop, command: list[str]):
    """No saga of this id: exit code 2, one line on stderr, nothing on stdout, no traceback."""
    shop.start("o-1", 4)
    ended = shop.run(*command)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    assert f"no saga has the id {command[1]!r}" in ended.err


@pytest.mark.parametrize("command", [["list"], *ON_ONE_SAGA], ids=" ".join)
def test_a_command_that_looks_makes_no_store(shop: Shop, command: list[str]):
    """No file there, or an empty one: exit code 2, and the directory stays as it was."""
    before = sorted(shop.directory.iterdir())
    ended = shop.run(*command)
    assert (ended.code, ended.out) == (2, "")
    assert f"there is no store at {shop.file}" in ended.err
    assert sorted(shop.directory.iterdir()) == before
    shop.file.touch()
    assert shop.run(*command).code == 2
    assert shop.file.stat().st_size == 0


@pytest.mark.parametrize("command", [["list"], ["start", "place-order", "1"]], ids=" ".join)
def test_no_store_is_bad_usage(shop: Shop, command: list[str], monkeypatch: pytest.MonkeyPatch):
    """Neither `--store` nor SAGAS_STORE: exit code 2, and the message names both."""
    monkeypatch.delenv("SAGAS_STORE")
    ended = shop.run(*command)
    assert ended.code == 2
    assert "--store" in ended.err
    assert "SAGAS_STORE" in ended.err


def test_the_nearest_store_wins(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    """The option behind the command wins over the one before it, and both over the environment."""
    shop.start("o-1", 4)
    monkeypatch.setenv("SAGAS_STORE", "sqlite:////no/such/file.db")
    assert shop.run("list").code == 2
    assert shop.run("--store", shop.url, "--json", "list").document["count"] == 1
    assert shop.run("--store", "sqlite:////no/such/file.db", "list", "--store", shop.url).code == 0


def test_a_foreign_file_is_left_alone(shop: Shop):
    """A file of another program: exit code 2, and not a byte of it is changed."""
    connection = sqlite3.connect(shop.file)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = shop.file.read_bytes()
    for command in (["list"], ["start", "place-order", '{"item": "cup", "amount": 1}', "--module", str(shop.path)]):
        ended = shop.run(*command)
        assert ended.code == 2
        assert "another program" in ended.err
    assert shop.file.read_bytes() == before


def test_a_newer_store_is_refused(shop: Shop):
    """A store of a newer release: exit code 2, and the message says to upgrade."""
    shop.start("o-1", 4)
    connection = sqlite3.connect(shop.file)
    connection.execute("UPDATE meta SET value = 999 WHERE key = 'format'")
    connection.commit()
    connection.close()
    ended = shop.run("list")
    assert ended.code == 2
    assert "stored format 999" in ended.err
    assert "Upgrade" in ended.err


def test_a_store_in_memory_is_refused(shop: Shop):
    """A store in memory cannot be seen from another process; the message says so."""
    assert "ends with the process" in shop.run("list", "--store", "memory://").err


def test_no_secret_is_printed(shop: Shop):
    """The password of an address that cannot be served is not repeated."""
    ended = shop.run("list", "--store", "postgresql://ada:hunter2@db/orders?sslpassword=hunter2")
    assert ended.code == 2
    assert "hunter2" not in ended.out + ended.err


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["list", "--status", "sleepy"], "'sleepy' is no status"),
        (["list", "--limit", "0"], "--limit"),
        (["show"], "ID"),
        (["dance"], "dance"),
        (["start", "place-order", "--module", "no_such_module"], "there is no module 'no_such_module'"),
        (["start", "place-order", "--module", "no_such_file.py"], "there is no file no_such_file.py"),
        (["start", "place-order", "--module", "json"], "json has no sagas"),
        (["start", "place-order", "1"], "'place-order' is not registered here"),
        (["worker", "no_such_module"], "there is no module"),
        (["worker", "json", "--log-level", "loud"], "'loud'"),
        (["worker", "json", "--retention", "3m"], "minutes or months"),
        (["worker", "json", "--id-retention", "soon"], "not a duration"),
        (["resolve", "o-1", "charge"], "--happened"),
        (["resolve", "o-1", "charge", "--happened", "--result", "teapot"], "--result is not JSON"),
        (["resolve", "o-1", "charge", "--did-not-happen", "--result", "1"], "--result needs --happened"),
        (["skip", "o-1"], "STEP"),
        (["check", "json"], "json has no sagas"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_exits_with_2(shop: Shop, command: list[str], told: str):
    """Whatever is wrong with a command: exit code 2, and a message on stderr that names it."""
    shop.start("o-1", 4)
    ended = shop.run(*command)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert "Traceback" not in ended.err


def test_a_module_that_raises_is_told_with_its_line(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    """A module that cannot be imported: the error and its place, a traceback only with SAGAS_DEBUG=1."""
    broken = shop.directory / "broken_shop.py"
    broken.write_text("x = 1\ny = x / 0\n", encoding="utf-8")
    ended = shop.run("worker", str(broken))
    assert ended.code == 2
    assert f"ZeroDivisionError: division by zero at {broken}:2" in ended.err
    assert "Traceback" not in ended.err
    monkeypatch.setenv("SAGAS_DEBUG", "1")
    assert "Traceback" in shop.run("worker", str(broken)).err


def test_help_names_every_command(shop: Shop):
    """`--help` needs no store and lists the commands, with a line for each that is whole in 80 columns."""
    ended = shop.run("--help")
    assert ended.code == 0
    assert "..." not in ended.out.replace("[ARGS]...", "")
    names = {
        "worker",
        "start",
        "check",
        "list",
        "show",
        "history",
        "versions",
        "callback",
        "purge",
        "doctor",
        "trace",
        *VERBS,
    }
    assert {name for name in names if not re.search(rf"^ +{name} ", ended.out, re.MULTILINE)} == set()


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its whole name, such as ``trace export``."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def test_every_command_and_option_has_its_place_on_the_page():
    """docs/reference/cli.md has a heading for each command, and names each option in its section or in a shared one."""
    page = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text(encoding="utf-8")
    shared = page.partition("## Running")[0] + page.partition("## Operators' verbs")[2].partition("###")[0]
    shared += page.partition("## Answering")[2].partition("###")[0]
    for name, command in commands(get_command(program())):
        section = page.partition(f"\n### {name}\n")[2].partition("\n#")[0]
        assert section, name
        told = [option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)]
        options = {option for option in told if option.startswith("--")}
        assert {option for option in options if f"`{option}" not in section + shared} == set(), name


def test_a_reader_that_has_gone_is_no_error(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    """Output into a pipe that nobody reads any more, as with `head`, ends quietly."""
    shop.start("o-1", 4)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        with pytest.raises(SystemExit) as end:
            main(["list"])
        assert end.value.code == 141
