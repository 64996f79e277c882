"""``purge``: removes sagas that ended long ago, and keeps them in an archive first if asked to."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any

import typer

from durable_core import PurgeReport
from sagas.cli import screen
from sagas.cli.address import Address, orchestrator_at
from sagas.cli.layout import Line, Piece, clean
from sagas.cli.options import Json, Store, common
from sagas.cli.spans import retention_of, span_of
from sagas.cli.times import duration


def attach(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("purge")(purge)


def purge(
    ctx: typer.Context,
    *,
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="How long ago they ended, at least: 30d, 12h, 90s.", show_default=False)
    ],
    archive: Annotated[
        str | None, typer.Option(metavar="FILE", help="Append each to FILE first, as a line of JSON.")
    ] = None,
    saga: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this name.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many. [default: all]")] = None,
    id_retention: Annotated[
        str, typer.Option(metavar="AGE", help="How long their ids stay refused, or `forever`.")
    ] = "90d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Remove sagas that ended long ago; workers may run meanwhile.

    Sagas that have not ended, or are stuck, stay whatever their age. A killed one that is removed can no longer be
    rolled back.
    """
    given = common(ctx, store, as_json=as_json)
    age = span_of(older_than, "--older-than")
    kept = retention_of(id_retention, "--id-retention")
    which: dict[str, Any] = {"older_than": age, "saga": saga, "limit": limit, "archive": archive, "dry_run": dry_run}
    report = asyncio.run(_purge(given.address, kept, which))
    if given.json:
        screen.document(
            {
                "dry_run": report.dry_run,
                "sagas": report.runs,
                "entries": report.entries,
                "archived": report.archived,
                "archive": archive,
                "ids_freed": report.ids_freed,
            }
        )
        return
    screen.show(list(_told(report, age, archive)))


async def _purge(address: Address, id_retention: timedelta | None, which: dict[str, Any]) -> PurgeReport:
    async with orchestrator_at(address, worker=False, id_retention=id_retention) as orchestrator:
        return await orchestrator.purge(**which)


def _told(report: PurgeReport, age: timedelta, archive: str | None) -> Iterator[Line]:
    sagas = f"{report.runs} saga{'' if report.runs == 1 else 's'} that ended more than {duration(age)} ago"
    if report.dry_run:
        yield (Piece(f"{sagas} would be purged; nothing was."),)
        return
    yield (Piece(f"{sagas} purged, with {report.entries} journal entries."),)
    if archive is not None:
        yield (Piece(clean(f"{report.archived} lines were added to {archive}.")),)
    if report.ids_freed:
        yield (Piece(f"{report.ids_freed} ids of earlier purges are free again."),)
