"""The program ``sagas``: its groups of commands, and the border at which errors become messages and exit codes."""

import sys
from collections.abc import Sequence

import typer

from sagas.cli import (
    callback,
    checking,
    doctoring,
    migrating,
    purging,
    reading,
    serving,
    starting,
    traces,
    verbs,
)
from sagas.cli.exits import INTERRUPTED, refused
from sagas.cli.options import Before, Json, Store

GROUPS = (serving, starting, checking, reading, verbs, callback, purging, doctoring, migrating, traces)

ABOUT = """Run, start, watch and mend sagas.

The store is given with --store, before or behind the command, or in SAGAS_STORE.

Exit codes: 0 done; 1 the saga failed (compensated, resolved, stuck or killed), or `check` found a fault; 2 bad usage or
an error, told on stderr.
SAGAS_DEBUG=1 adds the traceback of an error.
"""


def program() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        name="sagas", help=ABOUT, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    app.callback()(_before)
    for group in GROUPS:
        group.attach(app)
    return app


def _before(ctx: typer.Context, *, store: Store = None, as_json: Json = False) -> None:
    ctx.obj = Before(store=store, json=as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code.

    Args:
        arguments: of the command line; default those of the process.
    """
    command = typer.main.get_command(program())
    try:
        command.main(args=None if arguments is None else list(arguments), prog_name="sagas")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the border of the program: a person gets a message, never a traceback
        sys.exit(refused(error))
