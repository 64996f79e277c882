"""Commands about traces: ``trace export``. They read the journal, so they need no collector and no worker."""

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from sagas.cli import screen
from sagas.cli.address import Address, orchestrator_at
from sagas.cli.exits import CommandError
from sagas.cli.layout import Piece, clean
from sagas.cli.options import Common, Json, SagaId, Store, common
from sagas.tracing import document


class Format(StrEnum):
    """The forms of the file."""

    JAEGER = "jaeger"
    OTLP = "otlp"


def attach(app: typer.Typer) -> None:
    """Add this group's commands."""
    group = typer.Typer(help="A saga's trace, as a file.", no_args_is_help=True, rich_markup_mode=None)
    group.callback()(_about)
    group.command("export")(export)
    app.add_typer(group, name="trace")


def _about() -> None:
    """A saga's trace, as a file."""


def export(
    ctx: typer.Context,
    saga_id: SagaId,
    *,
    form: Annotated[
        Format, typer.Option("--format", help="Jaeger's own JSON, or OTLP as JSON. Jaeger's page opens either.")
    ] = Format.JAEGER,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it. [default: stdout]")
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Write a saga's whole trace, as its journal tells it: drop the file on Jaeger's page to look at it.

    It is the same trace, to the byte of each id, as its workers send. A child saga is part of its root's trace.
    """
    given = common(ctx, store, as_json=as_json)
    trace = asyncio.run(_trace(given.address, saga_id, form))
    written = msgspec.json.format(msgspec.json.encode(trace), indent=1)
    if output is None:
        sys.stdout.write(written.decode() + "\n")
        return
    try:
        output.write_bytes(written + b"\n")
    except OSError as error:
        raise CommandError(f"{output} cannot be written: {error.strerror or error}; give another --output") from error
    _told(given, saga_id, _count(trace, form), output)


def _told(given: Common, saga_id: str, count: int, output: Path) -> None:
    if given.json:
        screen.document({"saga": saga_id, "spans": count, "file": str(output)})
        return
    screen.show([(Piece(clean(f"{count} spans of {saga_id} are in {output}; drop it on Jaeger's page to see them")),)])


async def _trace(address: Address, saga_id: str, form: Format) -> dict[str, Any]:
    async with orchestrator_at(address, worker=False) as orchestrator:
        return await document(orchestrator, saga_id, form=form.value)


def _count(written: dict[str, Any], form: Format) -> int:
    """The spans of a document."""
    if form is Format.JAEGER:
        return len(written["data"][0]["spans"])
    return len(written["resourceSpans"][0]["scopeSpans"][0]["spans"])
