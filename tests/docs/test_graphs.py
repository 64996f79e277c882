"""The page about graphs: its saga runs, and its plan is the one that `sagas plan` prints."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

from sagas import SagaGraph
from sagas.model.node_types import AddNode
from tests import forked
from tools.node_types import FILE, module

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "graphs.md"


def block(language: str) -> str:
    """The first block of the page in this language."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def run(folder: Path, *command: str) -> str:
    """What a command in that folder prints."""
    done = forked.run(
        [sys.executable, *command],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_the_page_is_true(tmp_path: Path):
    """The example completes, checkers of plans accept it, and its plan is as the page shows it."""
    module = tmp_path / "trips.py"
    module.write_text(block("python"), encoding="utf-8")
    assert run(tmp_path, "trips.py") == "confirmed: paid 300\n"
    module.write_text(block("python").replace("asyncio.run(main())", ""), encoding="utf-8")
    printed = run(tmp_path, "-c", "from sagas.cli import main; main(['plan', 'trips.py'])")
    assert printed.partition("\n")[2].strip() == block("text").strip()
    checked = run(tmp_path, "-c", "from sagas.cli import main; main(['check', 'trips.py'])")
    assert checked == "book-trip v1: 0 faults, 0 warnings\n"


def test_the_reference_has_every_call():
    """Each public member of a graph has a heading, with its signature as it is."""
    page = (ROOT / "docs/reference/graphs.md").read_text(encoding="utf-8")
    calls = dict.fromkeys(("step", "pivot", "retriable", "lookup"), AddNode.__call__)
    calls |= {name: getattr(SagaGraph, name) for name in ("sleep", "callback", "returns", "check", "diagram")}
    own = {name for name in vars(SagaGraph) if not name.startswith("_")} - {"add_step"}
    assert own <= {*calls, "input"}
    expected = [f"SagaGraph{signature(SagaGraph.__init__)}", "g.input"]
    expected += [f"g.{name}{signature(call)}" for name, call in calls.items()]
    assert re.findall(r"^### `(.*)`", page, re.MULTILINE) == expected


def signature(call: Any) -> str:
    """A signature without types."""
    whole = inspect.signature(call)
    parameters = [each.replace(annotation=each.empty) for each in whole.parameters.values() if each.name != "self"]
    return str(whole.replace(parameters=parameters, return_annotation=whole.empty))


def test_the_types_of_nodes_are_current():
    """sagas/model/node_types.py is what `python -m tools.node_types` writes."""
    assert FILE.read_text(encoding="utf-8") == module()
