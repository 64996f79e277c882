"""``export asl``: writes a graph as a state machine of AWS Step Functions.

Invariant: nothing is run, no store is touched, and nothing is written unless all of the graph can be expressed.
"""

from pathlib import Path
from typing import Annotated

import typer

from sagas.asl.export import FUNCTION, machine_text
from sagas.cli import output
from sagas.cli.modules import saga_at
from sagas.cli.options import Json, wants_json


def asl(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:GRAPH",
            help="The graph: a module, and the variable or the name of the saga in it.",
            show_default=False,
        ),
    ],
    *,
    function: Annotated[
        str, typer.Option(metavar="NAME", help="The Lambda function that serves the tasks: its name or ARN.")
    ] = FUNCTION,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The file to write. [default: stdout]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a graph as a state machine of AWS Step Functions.

    Its tasks are served by `sagas.hosts.stepfunctions.handler`. What Step Functions cannot do as our engine does it is
    refused, with all reasons and their places, and exit code 2.
    """
    saga = saga_at(target, "MODULE:GRAPH")
    text = machine_text(saga, function)
    if file is None:
        output.write(text)
        return
    output.save(text, file)
    if wants_json(ctx, given=as_json):
        output.document({"saga": saga.name, "version": saga.version, "file": str(file)})
        return
    output.say(f"Wrote {len(text.encode()):,} bytes to {file}.")
