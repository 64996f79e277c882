"""Runs mypy --strict and pyright strict over the files beside it, and compares their reports with what the files say.

Above a line that must be refused stands ``# error: mypy[rule, rule] pyright[rule]``, with every rule that reports it.
Where a line is wrong and no checker sees it, ``# missed:`` says who finds it instead; once one does, the test fails.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = sorted(path for path in HERE.glob("*.py") if path != Path(__file__))
EXPECTED = re.compile(r"^ *# error:(?: mypy\[(?P<mypy>[\w, -]+)\])?(?: pyright\[(?P<pyright>[\w, -]+)\])?$")
MYPY = re.compile(r"^(?P<path>.+?):(?P<line>\d+):(?:\d+:)? error: .* \[(?P<rule>[\w-]+)\]$")
ECHOES = {"untyped-decorator", "reportUntypedFunctionDecorator", "reportUnknownMemberType"}
"""Reported because something else was reported on the same line."""
Found = Mapping[str, set[str]]
"""The rules that report something, by ``file:line: code``."""

pytest.importorskip("mypy", reason="`make types` installs the checkers")
pytest.importorskip("pyright", reason="`make types` installs the checkers")


def start(*command: str) -> subprocess.Popen[str]:
    """A checker at work on the files."""
    return subprocess.Popen(
        [sys.executable, "-m", *command, *map(str, FILES)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def place(path: str, number: int) -> str:
    """A line as a person finds it."""
    code = Path(path).read_text(encoding="utf-8").splitlines()[number - 1]
    return f"{Path(path).name}:{number}: {code.strip()}"


def mypy_found(said: str) -> Found:
    """What mypy reports in the files; what it reports elsewhere is for `make types`."""
    found: dict[str, set[str]] = {}
    for match in filter(None, map(MYPY.match, said.splitlines())):
        path = ROOT / match["path"]
        if path in FILES and match["rule"] not in ECHOES:
            found.setdefault(place(str(path), int(match["line"])), set()).add(match["rule"])
    return found


def pyright_found(said: str) -> Found:
    """What pyright reports in the files."""
    found: dict[str, set[str]] = {}
    for told in json.loads(said)["generalDiagnostics"]:
        number, rule = told["range"]["start"]["line"] + 1, told.get("rule", told["severity"])
        if rule not in ECHOES:
            found.setdefault(place(told["file"], number), set()).add(rule)
    return found


@pytest.fixture(scope="module")
def reports() -> dict[str, Found]:
    """What each checker reports; both run once, side by side."""
    mypy = start("mypy", "--strict", "--no-pretty", "--no-error-summary", "--show-error-codes")
    pyright = start("pyright", "--outputjson", "--pythonpath", sys.executable)
    (mypy_said, mypy_trouble), (pyright_said, pyright_trouble) = mypy.communicate(), pyright.communicate()
    assert mypy.returncode in (0, 1), mypy_trouble or mypy_said
    assert pyright.returncode in (0, 1), pyright_trouble or pyright_said
    return {"mypy": mypy_found(mypy_said), "pyright": pyright_found(pyright_said)}


def expected(checker: str) -> Found:
    """What the files say that a checker reports."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip().startswith("# error:"):
                continue
            told = EXPECTED.match(line)
            assert told is not None, f"{path.name}:{number}: this expectation cannot be read"
            if told[checker]:
                found[place(str(path), number + 1)] = set(told[checker].split(", "))
    return found


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_checker_refuses_exactly_what_is_wrong(checker: str, reports: Mapping[str, Found]):
    """The checker accepts what a user may write, infers the types that are pinned, and refuses each wrong line."""
    wanted, found = expected(checker), reports[checker]
    assert found == wanted


def test_the_refusals_are_many():
    """The comparison is not of nothing with nothing."""
    assert len(expected("mypy")) > 50
    assert len(expected("pyright")) > 50
