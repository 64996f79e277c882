"""Commands about traces: ``trace export`` and ``trace send``. They read the journal, so they need no worker."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from sagas.cli import output
from sagas.cli.options import Options, SagaId, ask, command
from sagas.cli.output import CommandError
from sagas.tracing import SERVICE, document, send

TIMEOUT_S = 15.0
"""How long the command waits for the collector."""


class Format(StrEnum):
    """The formats of the file."""

    JAEGER = "jaeger"
    OTLP = "otlp"


@command
def export(
    options: Options,
    saga_id: SagaId,
    *,
    form: Annotated[
        Format, typer.Option("--format", help="Jaeger's own JSON, or OTLP as JSON. Jaeger's page opens either.")
    ] = Format.JAEGER,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it. [default: stdout]")
    ] = None,
) -> None:
    """Write a saga's whole trace, as its journal tells it: drop the file on Jaeger's page to look at it.

    It has the ids that its workers send. What has ended is one span with its true times; what is under way lasts up to
    now. A child saga is part of its root's trace.
    """
    trace = ask(options.address, lambda orchestrator: document(orchestrator, saga_id, form=form.value))
    written = msgspec.json.format(msgspec.json.encode(trace), indent=1)
    if file is None:
        output.write(written.decode() + "\n")
        return
    try:
        file.write_bytes(written + b"\n")
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror or error}; give another --output") from error
    count = _count(trace, form)
    if options.json:
        output.document({"saga": saga_id, "spans": count, "file": str(file)})
    else:
        output.say(f"{count} spans of {saga_id} are in {file}; drop it on Jaeger's page to see them")


@command
def resend(
    options: Options,
    saga_id: SagaId,
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Where to. [default: as OTEL_EXPORTER_OTLP_ENDPOINT says, else localhost:4318]"
        ),
    ] = None,
) -> None:
    """Send a saga's whole trace again, for a collector that has lost or refused spans of it.

    It is the same trace, to the byte, as its workers send, so that what is there already is not there twice. A child
    saga is part of its root's trace. OTEL_SERVICE_NAME and the other variables count as for a worker.
    """
    try:
        taken, refused = ask(
            options.address,
            lambda orchestrator: send(
                orchestrator, saga_id, endpoint=endpoint, service_name=SERVICE, within_s=TIMEOUT_S
            ),
        )
    except TimeoutError as error:
        raise CommandError(
            f"the trace of {saga_id} was not taken within {TIMEOUT_S:.0f} s: the collector is down, or refuses it, "
            f"as the warning above says; send it again later"
        ) from error
    if options.json:
        output.document({"saga": saga_id, "taken": taken, "refused": refused})
    else:
        output.say(f"{taken} spans of {saga_id} have been taken" + (f", {refused} were refused" if refused else ""))
    if refused:
        raise typer.Exit(1)


def _count(written: dict[str, Any], form: Format) -> int:
    """The number of spans in a document."""
    if form is Format.JAEGER:
        return len(written["data"][0]["spans"])
    return len(written["resourceSpans"][0]["scopeSpans"][0]["spans"])
