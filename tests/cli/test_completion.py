"""What a shell offers at Tab, and errors as JSON."""

import asyncio
import json
import logging
from importlib import metadata
from pathlib import Path

import pytest

from sagas import Orchestrator, Saga, saga, step
from tests.cli.line import Line


@step(compensation=None, because="nothing is kept")
def look(item: str) -> str:
    return item


@saga("find", version=1)
async def find(s: Saga, item: str) -> str:
    return await s.run(look, item)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store with two ended sagas."""
    url = f"sqlite:///{tmp_path / 'sagas.db'}"

    async def fill() -> None:
        async with Orchestrator(url, sagas=[find]) as orchestrator:
            for name in ("north-1", "south-1"):
                await (await orchestrator.start(find, "teapot", id=name)).result()

    asyncio.run(fill())
    return url


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Line:
    """A command line without a store in its environment."""
    monkeypatch.delenv("SAGAS_STORE", raising=False)
    return Line(capsys)


def offers(line: Line, monkeypatch: pytest.MonkeyPatch, typed: str) -> list[str]:
    """What bash would offer for the last word of ``typed``."""
    with monkeypatch.context() as shell:
        shell.setenv("_SAGAS_COMPLETE", "complete_bash")
        shell.setenv("COMP_WORDS", typed)
        shell.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
        ended = line.run()
    assert (ended.code, ended.err) == (0, "")
    return ended.out.split()


def test_ids_steps_and_statuses_are_offered(line: Line, store: str, monkeypatch: pytest.MonkeyPatch):
    """A shell offers the ids in the store, the steps of the saga that stands before, and statuses, as they begin."""
    monkeypatch.setenv("SAGAS_STORE", store)
    assert offers(line, monkeypatch, "sagas show ") == ["south-1", "north-1"]
    assert offers(line, monkeypatch, "sagas cancel no") == ["north-1"]
    assert offers(line, monkeypatch, "sagas skip north-1 ") == ["look"]
    assert offers(line, monkeypatch, "sagas list --status comp") == ["compensating", "completed", "compensated"]


def test_the_store_is_found_before_and_after_the_command(line: Line, store: str, monkeypatch: pytest.MonkeyPatch):
    """``--store`` counts for completion wherever it may stand."""
    assert offers(line, monkeypatch, f"sagas --store {store} show n") == ["north-1"]
    assert offers(line, monkeypatch, f"sagas show --store {store} n") == ["north-1"]


@pytest.mark.parametrize("url", ["", "sqlite:///none.db", "memory://", "nonsense"])
def test_a_store_that_cannot_be_asked_offers_nothing(line: Line, monkeypatch: pytest.MonkeyPatch, url: str):
    """No store, or one that cannot be read: no offers, and no message in the line that is being typed."""
    monkeypatch.setenv("SAGAS_STORE", url)
    assert offers(line, monkeypatch, "sagas show ") == []
    assert offers(line, monkeypatch, "sagas skip north-1 ") == []
    assert logging.getLogger("sagas").isEnabledFor(logging.ERROR)


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (("show", "nobody"), "SagaNotFound", "SG002"),
        (("resolve", "north-1", "look", "--happened", "--result", "{"), "CommandError", None),
        (("show",), "MissingParameter", None),
        (("frobnicate",), "UsageError", None),
        (("list", "--limit", "0"), "BadParameter", None),
    ],
)
def test_an_error_is_json_with_json(line: Line, store: str, arguments: tuple[str, ...], kind: str, code: str | None):
    """With ``--json`` an error is one document on stderr, whose page is that of its code; the exit code stays 2."""
    ended = line.run("--store", store, "--json", *arguments)
    assert (ended.code, ended.out) == (2, "")
    told = json.loads(ended.err)["error"]
    assert (told["type"], told["code"]) == (kind, code)
    assert told["message"]
    assert told["page"] == (code and f"https://durable-sagas.readthedocs.io/errors/{code}")


def test_a_bug_is_json_with_json(line: Line, store: str, monkeypatch: pytest.MonkeyPatch):
    """An exception that nobody expects is a document too, and asks for a report."""
    monkeypatch.setattr("sagas.cli.snapshot.take", lambda *_: 1 / 0)
    told = json.loads(line.run("show", "north-1", "--store", store, "--json").err)["error"]
    assert told["type"] == "ZeroDivisionError"
    assert "SAGAS_DEBUG=1" in told["message"]


def test_the_version_is_that_of_the_package(line: Line):
    """`sagas --version` prints the installed version, on one line, and needs no store."""
    ended = line.run("--version")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"sagas {metadata.version('durable-sagas')}\n"
