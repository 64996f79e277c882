"""Commands about traces: ``trace export`` and ``trace send``. They read the journal, so they need no worker."""

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
from sagas.tracing import SERVICE, document, send

PATIENCE_S = 15.0
"""How long a person waits for a collector."""


class Format(StrEnum):
    """The forms of the file."""

    JAEGER = "jaeger"
    OTLP = "otlp"


def attach(app: typer.Typer) -> None:
    """Add this group's commands."""
    group = typer.Typer(help="A saga's trace: as a file, or sent again.", no_args_is_help=True, rich_markup_mode=None)
    group.callback()(_about)
    group.command("export")(export)
    group.command("send")(resend)
    app.add_typer(group, name="trace")


def _about() -> None:
    """A saga's trace: as a file, or sent again."""


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

    It has the ids that its workers send. What has ended is one span with its true times; what is under way lasts up to
    now. A child saga is part of its root's trace.
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


def resend(
    ctx: typer.Context,
    saga_id: SagaId,
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Where to. [default: as OTEL_EXPORTER_OTLP_ENDPOINT says, else localhost:4318]"
        ),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Send a saga's whole trace again, for a collector that has lost or refused spans of it.

    It is the same trace, to the byte, as its workers send, so that what is there already is not there twice. A child
    saga is part of its root's trace. OTEL_SERVICE_NAME and the other variables count as for a worker.
    """
    given = common(ctx, store, as_json=as_json)
    try:
        taken, refused = asyncio.run(_sent(given.address, saga_id, endpoint))
    except TimeoutError as error:
        raise CommandError(
            f"the trace of {saga_id} was not taken within {PATIENCE_S:.0f} s: the collector is down, or refuses it, "
            f"as the warning above says; send it again later"
        ) from error
    if given.json:
        screen.document({"saga": saga_id, "taken": taken, "refused": refused})
    else:
        told = f", {refused} were refused" if refused else ""
        screen.show([(Piece(clean(f"{taken} spans of {saga_id} have been taken{told}")),)])
    if refused:
        raise typer.Exit(1)


async def _sent(address: Address, saga_id: str, endpoint: str | None) -> tuple[int, int]:
    async with orchestrator_at(address, worker=False) as orchestrator:
        return await send(orchestrator, saga_id, endpoint=endpoint, service_name=SERVICE, within_s=PATIENCE_S)


async def _trace(address: Address, saga_id: str, form: Format) -> dict[str, Any]:
    async with orchestrator_at(address, worker=False) as orchestrator:
        return await document(orchestrator, saga_id, form=form.value)


def _count(written: dict[str, Any], form: Format) -> int:
    """The spans of a document."""
    if form is Format.JAEGER:
        return len(written["data"][0]["spans"])
    return len(written["resourceSpans"][0]["scopeSpans"][0]["spans"])
