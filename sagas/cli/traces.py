"""Commands about traces: ``trace export`` and ``trace send``. They read the journal, so they need no worker."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from sagas.cli import output
from sagas.cli.arguments import SagaId
from sagas.cli.options import Options, ask, command
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
        Format, typer.Option("--format", help="Jaeger's JSON, or OTLP as JSON. Jaeger's UI opens both.")
    ] = Format.JAEGER,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The file to write. [default: stdout]")
    ] = None,
) -> None:
    """Write a saga's whole trace to a file for Jaeger's UI.

    The spans have the ids that workers send. Finished work has its true times; work under way lasts until now. A
    child saga is part of its root's trace.
    """
    trace = ask(options.address, lambda orchestrator: document(orchestrator, saga_id, form=form.value))
    written = msgspec.json.format(msgspec.json.encode(trace), indent=1)
    if file is None:
        output.write(written.decode() + "\n")
        return
    try:
        file.write_bytes(written + b"\n")
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror or error}; choose another --output") from error
    count = _count(trace, form)
    if options.json:
        output.document({"saga": saga_id, "spans": count, "file": str(file)})
    else:
        output.say(f"Wrote {count} spans of {saga_id} to {file}. Upload it in Jaeger's UI to see them.")


@command
def resend(
    options: Options,
    saga_id: SagaId,
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The collector. [default: $OTEL_EXPORTER_OTLP_ENDPOINT, else localhost:4318]"),
    ] = None,
) -> None:
    """Send a saga's whole trace to a collector again.

    For a collector that has lost or refused spans. The spans are those of the workers, byte for byte, so that none
    appears twice. A child saga is part of its root's trace. OTEL_SERVICE_NAME and the other variables apply as for a
    worker.
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
            f"the collector did not accept the trace of {saga_id} within {TIMEOUT_S:.0f} s: it is down, or refuses the "
            "spans, see the warning above; send the trace again later"
        ) from error
    if options.json:
        output.document({"saga": saga_id, "taken": taken, "refused": refused})
    else:
        output.say(
            f"The collector accepted {taken} spans of {saga_id}" + (f", and refused {refused}." if refused else ".")
        )
    if refused:
        raise typer.Exit(1)


def _count(written: dict[str, Any], form: Format) -> int:
    """The number of spans in a document."""
    if form is Format.JAEGER:
        return len(written["data"][0]["spans"])
    return len(written["resourceSpans"][0]["scopeSpans"][0]["spans"])
