"""Options that many commands share, declared once."""

import getpass
import os
from typing import Annotated

import attrs
import typer

from sagas.cli.address import VARIABLE, Address, address_of

Store = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help=f"Where the sagas are kept: sqlite:///FILE.db. [default: ${VARIABLE}]"),
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]
Actor = Annotated[
    str | None,
    typer.Option("--actor", metavar="NAME", help="Who asks; kept in the journal. [default: the system's user]"),
]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; kept in the journal.")]
SagaId = Annotated[
    str, typer.Argument(metavar="ID", help="The saga's id; `sagas list` shows them.", show_default=False)
]


@attrs.frozen
class Before:
    """What was given before the command's name."""

    store: str | None
    json: bool


@attrs.frozen
class Common:
    """What every command knows."""

    address: Address
    json: bool


def common(ctx: typer.Context, store: str | None, *, as_json: bool) -> Common:
    """Put together what was given before the command, behind it and in the environment.

    Raises:
        CommandError: no store was given.
    """
    before = ctx.find_object(Before) or Before(store=None, json=False)
    return Common(
        address_of(store if store is not None else before.store, os.environ.get(VARIABLE)), json=as_json or before.json
    )


def actor_or_user(actor: str | None) -> str:
    """Who asks: as given, else the system's user; empty where the system does not know."""
    if actor is not None:
        return actor
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user in this container; KeyError until Python 3.13
        return ""
