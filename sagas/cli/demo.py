"""``demo``: plays an example application of real processes, which the package brings along."""

import importlib.util
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sagas.cli.output import CommandError

PACKAGE = Path(__file__).parents[1]
PLACES = (PACKAGE / "demo", PACKAGE.parent)
"""Where the folder ``examples`` is: in the installed package, and in a clone."""
NEEDED = ("fastapi", "httpx", "starlette", "uvicorn", "opentelemetry.exporter.otlp.proto.http")


class Example(StrEnum):
    """An example application."""

    ORDERS = "orders"
    BOOKING = "booking"


Which = Annotated[Example, typer.Argument(help="What to play.", metavar="orders|booking")]
Keep = Annotated[Path | None, typer.Option(metavar="DIR", help="Keep databases and logs here; must be new or empty.")]


def demo(which: Which = Example.ORDERS, *, keep: Keep = None) -> None:
    """Play a shop, or a travel agency, whose participants fail.

    They are real processes, and their books are audited in the end.

    Exit code 0 if every order and trip is whole or gone at the end.
    """
    missing = [name for name in NEEDED if not _is_here(name)]
    if missing:
        raise CommandError(
            f"the demo needs {', '.join(missing)}: pip install 'durable-sagas[demo]'. To try it without installing: "
            "pipx run --spec 'durable-sagas[demo]' durable-sagas demo"
        )
    arguments = [sys.executable, "-m", f"examples.{which}.demo", *([] if keep is None else ["--keep", str(keep)])]
    place = next(place for place in PLACES if (place / "examples" / which / "demo.py").is_file())
    # Its processes find the examples before a folder of that name in the current directory.
    os.execve(arguments[0], arguments, os.environ | {"PYTHONPATH": str(place), "PYTHONSAFEPATH": "1"})  # noqa: S606


def _is_here(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a package around it is missing
        return False
