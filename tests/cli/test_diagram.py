"""`sagas diagram`: pictures of a module's sagas and of runs in a store; anything wrong exits 2 and says why."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import pytest

from sagas import Orchestrator, SagasError
from sagas.cli import main
from sagas.cli.modules import load

SHOP = """
from sagas import Saga, SagaGraph, pivot, retriable, saga, step

class Declined(Exception): ...

@step
async def reserve(amount: int) -> int:
    return amount

@reserve.compensate
async def put_back(reserved: int) -> None: ...

@pivot(rejects=(Declined,))
async def charge(amount: int) -> int:
    if amount > 40:
        raise Declined("no cover")
    return amount

@saga("place-order", version=1)
async def old_order(s: Saga, amount: int) -> int:
    return await s.run(charge, amount)

@saga("place-order", version=2)
async def place_order(s: Saga, amount: int) -> int:
    reserved = await s.run(reserve, amount)
    return await s.run(charge, reserved)

g = SagaGraph("order-graph", version=1, input=int)
g.returns(g.pivot(charge, g.step(reserve, g.input)))

order = "no saga"
"""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Shop:
    """A directory with a module of sagas and a store with runs of them."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.directory = directory
        self.url = f"sqlite:///{directory}/orders.db"
        self.path = directory / f"shop_{directory.name.replace('-', '_')}.py"
        self.path.write_text(SHOP, encoding="utf-8")

    def run(self, *arguments: str) -> Ended:
        with pytest.raises(SystemExit) as end:
            main(["diagram", *arguments])
        out, err = self.capsys.readouterr()
        code: Any = end.value.code
        return Ended(code or 0, out, err)

    def named(self, name: str) -> str:
        return f"{self.path}:{name}"

    def serve(self, *amounts: int) -> None:
        """Run an order for each amount to its end; their ids are `order-<amount>`."""

        async def work() -> None:
            module = load(str(self.path))
            async with Orchestrator(self.url, sagas=[module.old_order, module.place_order]) as orchestrator:
                for amount in amounts:
                    handle = await orchestrator.start(module.place_order, amount, id=f"order-{amount}")
                    try:
                        await handle.result(timeout=30)
                    except SagasError:
                        continue  # that it fails is what its picture is about

        asyncio.run(work())


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A shop of its own for each test, whose store is in SAGAS_STORE."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    found = Shop(tmp_path, capsys)
    monkeypatch.setenv("SAGAS_STORE", found.url)
    yield found
    sys.modules.pop(found.path.stem, None)


def test_a_definition_needs_no_store(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    """Mermaid is the default, the text is the method's, and no store is asked for or made."""
    monkeypatch.delenv("SAGAS_STORE")
    ended = shop.run(shop.named("place_order"))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == load(str(shop.path)).place_order.diagram("mermaid")
    assert not (shop.directory / "orders.db").exists()


def test_a_saga_is_found_by_its_variable_or_by_its_name(shop: Shop):
    """The variable goes before the name; of a name's versions the newest is drawn; a graph is found alike."""
    module = load(str(shop.path))
    assert shop.run(shop.named("old_order")).out == module.old_order.diagram()
    assert shop.run(shop.named("place-order")).out == module.place_order.diagram()
    assert shop.run(shop.named("g")).out == shop.run(shop.named("order-graph")).out == module.g.diagram()


@pytest.mark.parametrize(("form", "begin"), [("dot", "digraph"), ("svg", "<svg"), ("bpmn", "<?xml")])
def test_every_format(shop: Shop, form: str, begin: str):
    """Each format is written as it is, twice the same."""
    first, again = (shop.run(shop.named("place_order"), "--format", form) for _ in range(2))
    assert first.code == 0
    assert first.out.startswith(begin)
    assert first == again


def test_it_can_write_a_file(shop: Shop):
    """`--output` writes the picture, in UTF-8, and says where."""
    file = shop.directory / "order.svg"
    ended = shop.run(shop.named("place_order"), "--format", "svg", "--output", str(file))
    assert (ended.code, ended.err) == (0, "")
    assert "order.svg" in ended.out.replace("\n", "")
    assert "put_back" in "".join(ET.fromstring(file.read_text(encoding="utf-8")).itertext())


def test_json(shop: Shop):
    """With `--json` the picture is in a document, also where a file is written."""
    document = json.loads(shop.run(shop.named("place_order"), "--json").out)
    assert document["format"] == "mermaid"
    assert document["file"] is None
    file = shop.directory / "order.mmd"
    written = json.loads(shop.run(shop.named("place_order"), "--json", "-o", str(file)).out)
    assert written == document | {"file": str(file)}
    assert file.read_text(encoding="utf-8") == document["diagram"]


def test_a_run_is_drawn_alone_or_on_its_definition(shop: Shop):
    """Alone it has its steps; with the module also what it did not reach, and the compensation's own name."""
    shop.serve(42)
    alone = shop.run("--id", "order-42")
    assert alone.code == 0
    assert "undo reserve" in alone.out
    assert "rejected" in alone.out
    laid = shop.run(shop.named("place-order"), "--id", "order-42")
    assert "put_back" in laid.out
    assert shop.run(shop.named("place_order"), "--id", "order-42").out == laid.out


def test_many_runs_are_counted(shop: Shop):
    """`--observed` counts over the runs of that version in the store, the newest of them with `--limit`."""
    shop.serve(1, 2, 42)
    text = shop.run(shop.named("place_order"), "--observed").out
    assert "3 reached · 1 undone" in text
    assert "3 reached · 1 failed" in text
    assert "1 runs" not in shop.run(shop.named("place_order"), "--observed", "--limit", "2").out
    assert "2 reached" in shop.run(shop.named("place_order"), "--observed", "--limit", "2").out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to draw: give MODULE:NAME"),
        (["--observed"], "--observed needs the saga"),
        (["{shop}:place_order", "--observed", "--id", "order-1"], "give one of the two"),
        (["{shop}"], "give MODULE:NAME, such as shop.orders:place-order"),
        (["{shop}:"], "names no saga"),
        (["nowhere:thing"], "there is no module 'nowhere'"),
        (["{shop}:other"], "has no saga 'other'; it has order-graph, place-order"),
        (["{shop}:order"], ":order is no saga but a str"),
        (["{shop}:reserve"], ":reserve is no saga but a Step; the sagas of"),
        (["{shop}:Saga"], ":Saga is no saga but a class; the sagas of"),
        (["--id", "order-1", "--store", "sqlite:///nowhere.db"], "there is no store at nowhere.db"),
        (["{shop}:place_order", "--format", "png"], "png"),
        (["{shop}:place_order", "--output", "/nowhere/x.svg"], "cannot be written"),
        (["--id", "order-9"], "order-9"),
        (["{shop}:old_order", "--id", "order-1"], "order-1 is a run of place-order v2"),
        (["{shop}:old_order", "--observed"], "no run of place-order v1 to count"),
    ],
)
def test_what_is_wrong_is_said(shop: Shop, arguments: list[str], told: str):
    """Exit code 2, nothing on stdout, and a message that says what to give instead."""
    shop.serve(1)
    ended = shop.run(*(each.replace("{shop}", str(shop.path)) for each in arguments))
    assert (ended.code, ended.out) == (2, "")
    assert told in " ".join(ended.err.split())


def test_a_store_that_is_not_there(shop: Shop):
    """A run of no store, and a store that does not exist: exit code 2."""
    ended = shop.run("--id", "order-1")
    assert ended.code == 2
    assert "there is no store" in ended.err


def test_help(shop: Shop):
    """`sagas diagram --help` needs no store and names what to give: the saga, each format and each option."""
    ended = shop.run("--help")
    assert ended.code == 0
    named = ("MODULE:NAME", "mermaid|dot|svg|bpmn", "--id ID", "--observed", "--limit N", "--output FILE", "--json")
    assert [each for each in named if each not in ended.out] == []
