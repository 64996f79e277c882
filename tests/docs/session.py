"""The terminal sessions on the pages, played as they are shown: commands after ``$``, below each what it prints.

A comment right above a block says what is special about it:

- ``<!-- stays -->``: the command runs until the page has been played; it prints these lines when it is ready.
- ``<!-- eventually -->``: the command is repeated until it prints this.

A command that ends with the line ``Killed`` is killed, by SIGKILL, once it has printed the lines above that one. Times,
spans, process ids and the names of workers differ from run to run, and so does the space that they take.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from tests import forked
from tests.docs.readme import ROOT

BLOCK = re.compile(r"(?:^<!-- (stays|eventually) -->\n)?^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DEADLINE_S = 60.0
LEFT_OUT = ("PYTHON", "SAGAS", "OTEL", "FORCE_COLOR")
A_READERS = {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONUTF8": "1"}
"""The terminal that the pages show."""
SPAN = r"\d+(?:\.\d+)? (?:µs|ms|s|min|h)\b"
CHANGING = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?(?: UTC)?"), "TIME"),
    (re.compile(rf"{SPAN}(?: {SPAN})?"), "SPAN"),
    (re.compile(r"kill -9 \d+"), "kill -9 PID"),
    (re.compile(r"pid \d+"), "pid PID"),
    (re.compile(r"w-[0-9a-f]+@\S+"), "WORKER"),
    (re.compile(r" {2,}"), "  "),
)


@attrs.frozen
class Command:
    """One command of a session, and what it prints."""

    words: list[str]
    prints: list[str]
    mark: str = ""


def commands(page: Path) -> Iterator[Command]:
    """The commands of a page, in order."""
    for mark, session in BLOCK.findall(page.read_text(encoding="utf-8")):
        for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
            line, _, printed = part.partition("\n")
            yield Command(shlex.split(line), steady(printed), mark)


def steady(text: str) -> list[str]:
    """The lines of an output without what differs from run to run."""
    for changing, name in CHANGING:
        text = changing.sub(name, text)
    return [line.rstrip() for line in text.strip().splitlines()]


@attrs.define
class Session:
    """A folder, an environment, and what runs in it."""

    folder: Path
    variables: dict[str, str]

    def play(self, command: Command, running: ExitStack) -> None:
        """Run a command, and compare what it prints."""
        if command.mark == "stays":
            child = running.enter_context(self._begun(command))
            assert self._lines(child, len(command.prints)) == command.prints
        elif command.prints[-1:] == ["Killed"]:
            with self._begun(command) as child:
                assert self._lines(child, len(command.prints) - 1) == command.prints[:-1]
                child.kill()
        else:
            printed = self._printed(command)
            deadline = time.monotonic() + DEADLINE_S
            while command.mark == "eventually" and printed != command.prints and time.monotonic() < deadline:
                printed = self._printed(command)
            assert printed == command.prints

    def _printed(self, command: Command) -> list[str]:
        done = forked.run(**self._call(command), stderr=subprocess.PIPE, timeout=DEADLINE_S, check=False)
        assert done.returncode in (0, 1, 2), done.stderr
        return steady(f"{done.stdout}{done.stderr if done.returncode == 2 else ''}")

    @contextmanager
    def _begun(self, command: Command) -> Generator["subprocess.Popen[str]"]:
        child = forked.Process(**self._call(command), stderr=subprocess.DEVNULL)
        try:
            yield child
        finally:
            child.terminate()
            child.communicate(timeout=DEADLINE_S)

    @staticmethod
    def _lines(child: "subprocess.Popen[str]", count: int) -> list[str]:
        assert child.stdout is not None
        return steady("".join(child.stdout.readline() for _ in range(count)))

    def _call(self, command: Command) -> dict[str, object]:
        program, *arguments = command.words
        programs = {"python": [sys.executable], "sagas": [sys.executable, "-c", SAGAS]}
        environment = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
        return {
            "args": [*programs[program], *arguments],
            "cwd": self.folder,
            "env": {**environment, **self.variables, **A_READERS, "PYTHONPATH": str(ROOT)},
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "encoding": "utf-8",
        }


SAGAS = "import sys; sys.argv[0] = 'sagas'; from sagas.cli import main; main()"
