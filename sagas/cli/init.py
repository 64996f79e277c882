"""``init``: writes a small project that runs and is tested, to begin with."""

import keyword
import re
import shlex
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from sagas.cli import output
from sagas.cli.output import CommandError

TEMPLATE = "project"
SUFFIX = ".txt"
"""Ends the names of the template's files, so that no tool takes them for code of ours."""
HIDDEN = {"gitignore": ".gitignore"}
NAMES = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The project's name, such as order-service.")]
Directory = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where to write it: a new or empty directory. [default: ./NAME]")
]


def init(name: Name, *, directory: Directory = None) -> None:
    """Write a small project: an order saga behind FastAPI.

    It has tests, and a compose file with PostgreSQL and Jaeger.
    """
    if not NAMES.fullmatch(name):
        raise CommandError(f"{name!r} is no name for a project; use small letters, digits and hyphens: order-service")
    if keyword.iskeyword(name):
        raise CommandError(
            f"{name!r} is a word of Python's own, and no name for a project; for example: {name}-service"
        )
    place = directory or Path(name)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise CommandError(f"{place} is there already, and is not an empty directory; choose another --directory")
    for path, text in _project(name):
        try:
            (place / path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"{place} cannot be made: {error.strerror or error}") from error
        output.save(text, place / path)
    output.say(f"Wrote {place}. Its README says how to run it:", command=f"cd {shlex.quote(str(place))}")


def _project(name: str) -> Iterator[tuple[Path, str]]:
    """Its files: the path of each, and its text."""
    for source, path in _sources(files("sagas.cli") / TEMPLATE, Path()):
        yield path, source.read_text(encoding="utf-8").replace("{name}", name)


def _sources(folder: Traversable, path: Path) -> Iterator[tuple[Traversable, Path]]:
    for source in sorted(folder.iterdir(), key=lambda each: each.name):
        if source.is_dir():
            yield from _sources(source, path / source.name)
        else:
            plain = source.name.removesuffix(SUFFIX)
            yield source, path / HIDDEN.get(plain, plain)
