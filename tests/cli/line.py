"""The command line in this process: what a command printed, and how it ended."""

import json
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


class Line:
    """The command line of a test, whose output is captured."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def run(self, *arguments: str) -> Ended:
        """Run a command to its end."""
        with pytest.raises(SystemExit) as end:
            main(arguments)
        out, err = self.capsys.readouterr()
        code = end.value.code
        assert code is None or isinstance(code, int)
        return Ended(code or 0, out, err)
