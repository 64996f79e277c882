"""``export asl``: writes a graph as a state machine of AWS Step Functions.

Invariant: nothing is run, no store is touched, and nothing is written unless all of the graph can be expressed.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from sagas.asl.export import FUNCTION, machine_text
from sagas.cli import output
from sagas.cli.modules import load, sagas_of
from sagas.cli.options import Json, wants_json
from sagas.cli.output import CommandError
from sagas.model.definition import SagaDef


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
    """Write a graph as a state machine of AWS Step Functions (Amazon States Language).

    Its tasks are served by `sagas.hosts.stepfunctions.handler`. What Step Functions cannot do as our engine does it is
    refused, with all reasons and their places, and exit code 2.
    """
    saga = _saga(target)
    text = machine_text(saga, function)
    if file is None:
        output.write(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror or error}; choose another --output") from error
    if wants_json(ctx, given=as_json):
        output.document({"saga": saga.name, "version": saga.version, "file": str(file)})
        return
    output.say(f"Wrote {len(text.encode()):,} bytes to {file}.")


def _saga(target: str) -> SagaDef[..., Any]:
    """The saga that ``MODULE:NAME`` means: the variable of that name, else the saga of that name."""
    name, colon, wanted = target.rpartition(":")
    if not colon or not name or not wanted:
        raise CommandError(f"{target} names no graph; give MODULE:GRAPH, such as shop.trips:book_trip")
    module = load(name)
    found: object = getattr(module, wanted, None)
    if isinstance(found, SagaDef):
        return found  # pyright: ignore[reportUnknownVariableType] - of any parameters
    named = [saga for saga in sagas_of([module]) if saga.name == wanted]
    if named:
        return max(named, key=lambda saga: saga.version)
    known = ", ".join(sorted(saga.name for saga in sagas_of([module])))
    raise CommandError(f"{name} has no saga {wanted!r}; it has {known}")
