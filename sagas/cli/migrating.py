"""``migrate``: brings the tables of a store to this release's."""

import asyncio

import typer

from sagas.cli import screen
from sagas.cli.layout import Piece, clean
from sagas.cli.options import Json, Store, common


def attach(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("migrate")(migrate)


def migrate(ctx: typer.Context, *, store: Store = None, as_json: Json = False) -> None:
    """Make the tables of a store, or bring them to this release's. Safe to repeat.

    Workers make them by themselves where there are none, if their role may. End those of an older release first.
    """
    from durable_core import migrate as migrated  # noqa: PLC0415 - slow to import, and `--help` needs none of it

    given = common(ctx, store, as_json=as_json)
    step = asyncio.run(migrated(given.address.url))
    if given.json:
        screen.document({"store": given.address.shown, "before": step.before, "after": step.after})
        return
    if step.before == step.after:
        told = f"{given.address.shown} is at migration {step.after} already; nothing was changed"
    else:
        told = f"{given.address.shown} was at migration {step.before}, and is at {step.after} now"
    screen.show([(Piece(clean(told)),)])
