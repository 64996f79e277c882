"""The command line in this process: what a command printed, and how it ended."""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sagas.cli import main


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


def run_here(directory: Path, environment: Mapping[str, str], *arguments: str) -> Ended:
    """Run a command, any but ``worker``, as a shell would in ``directory``, whose modules are imported anew."""
    out, err = io.StringIO(), io.StringIO()
    modules = [path.stem for path in directory.glob("*.py")]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(directory)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(sys, "path", [str(directory), *sys.path])
        for name in modules:
            patch.delitem(sys.modules, name, raising=False)
        try:
            code = ended_with(arguments)
        finally:
            for name in modules:
                sys.modules.pop(name, None)
    return Ended(code, out.getvalue(), err.getvalue())


def ended_with(arguments: Sequence[str]) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    code = end.value.code
    assert code is None or isinstance(code, int)
    return code or 0


class Line:
    """The command line of a test, whose output is captured."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def run(self, *arguments: str) -> Ended:
        """Run a command to its end."""
        code = ended_with(arguments)
        out, err = self.capsys.readouterr()
        return Ended(code, out, err)
