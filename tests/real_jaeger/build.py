"""Jaeger's backend, built once from its published source: ``python -m tests.real_jaeger.build`` prints its path.

Invariant: the program is in the cache whole or not at all, also where two builds meet or one is cut.

The first build takes 5 to 40 minutes and a network; later ones take nothing. Where there is no
Go it says so, prints an empty path and exits 0: the tests of this folder then skip, with that reason.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MODULE = "github.com/jaegertracing/jaeger"
PROGRAM = f"{MODULE}/cmd/jaeger"
VERSION = "v1.76.0"
"""The last release whose module path Go resolves; it is the program that is published as v2.13."""
USUAL_PLACE = "/usr/local/go/bin"
NOT_TRIED = (
    "Jaeger was NOT tried: there is no Go here to build it with. Install Go from https://go.dev/dl/, or name it: "
    "make test-jaeger GO=/path/to/go"
)


class BuildError(Exception):
    """Jaeger could not be built. The message says which command failed."""


def cached() -> Path:
    """Where the program is, once it has been built."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "durable-sagas" / f"jaeger-{VERSION.removeprefix('v')}" / "jaeger"


def go() -> str | None:
    """The Go to build with: ``GO`` where it is set, else the one on the path or in its usual place."""
    named = os.environ.get("GO")
    return shutil.which(named) if named else shutil.which("go", path=f"{os.environ.get('PATH', '')}:{USUAL_PLACE}")


def built() -> Path | None:
    """The program, built now if it has not been before; None where it is not there and there is no Go.

    Raises:
        BuildError: Go failed.
    """
    program = cached()
    if program.exists():
        return program
    compiler = go()
    if compiler is None:
        return None
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _build(compiler, program)
    return program


def _build(compiler: str, program: Path) -> None:
    """Build it in a module that is thrown away, and put it in its place in one move."""
    say(f"building Jaeger {VERSION} into {program.parent}, once; that takes 5 to 40 minutes and a network")
    part = program.with_name("jaeger.part")
    with tempfile.TemporaryDirectory(prefix="sagas-jaeger-") as module:
        _run(module, compiler, "mod", "init", "throwaway")
        _run(module, compiler, "get", "-tool", f"{PROGRAM}@{VERSION}")
        _run(module, compiler, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", str(part), PROGRAM)
    part.replace(program)
    say(f"built: {program}")


def _run(folder: str, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        raise BuildError(
            f"Jaeger {VERSION} cannot be built: `{' '.join(command)}` ended with {done.returncode}:\n{tail}"
        )


def say(what: str) -> None:
    """Tell a person, on stderr: stdout has the path alone."""
    print(what, file=sys.stderr, flush=True)


def main() -> int:
    """Print the path of the program, empty where there is none and no Go; the exit code."""
    try:
        program = built()
    except BuildError as error:
        say(str(error))
        return 1
    if program is None:
        say(NOT_TRIED)
    print(program or "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
