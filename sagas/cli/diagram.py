"""``diagram``: a picture of a saga, of one run, or of many runs together.

Invariant: nothing runs and nothing is changed; the same definition, or the same state of a run, gives the same text.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagas.cli import output
from sagas.cli.modules import saga_at, versions_at
from sagas.cli.options import Json, Store, address_of, ask, wants_json
from sagas.cli.output import CommandError
from sagas.model.definition import SagaDef
from sagas.model.info import SagaInfo

if TYPE_CHECKING:
    from sagas.diagram.picture import Picture
    from sagas.orchestrator import Orchestrator


class Format(StrEnum):
    """The formats of a picture."""

    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"
    BPMN = "bpmn"


Target = Annotated[
    str | None,
    typer.Argument(
        metavar="MODULE:NAME",
        help="A saga: its module, and the variable that holds it, or else its name.",
        show_default=False,
    ),
]
Run = Annotated[
    str | None, typer.Option("--id", metavar="ID", help="Draw this run; over its definition if MODULE:NAME is given.")
]
Form = Annotated[Format, typer.Option("--format", help="The format of the picture.")]
Observed = Annotated[bool, typer.Option("--observed", help="Count how often the runs in the store took each way.")]
Limit = Annotated[int, typer.Option(min=1, metavar="N", help="With --observed: the newest N runs.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="The file to write. [default: stdout]")
]


def diagram(
    ctx: typer.Context,
    target: Target = None,
    *,
    saga_id: Run = None,
    form: Form = Format.MERMAID,
    observed: Observed = False,
    limit: Limit = 1000,
    file: Output = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Draw a saga, a run of it, or many runs together.

    Give MODULE:NAME for the definition, --id for a run, or both for a run on its definition. A definition needs no
    store.
    """
    from sagas.diagram.formats import drawn, picture_of  # noqa: PLC0415 - `--help` needs none of it

    if target is None and (saga_id is None or observed):
        raise CommandError(
            "--observed needs the saga: give MODULE:NAME, such as shop.orders:place-order"
            if observed
            else "nothing to draw: give MODULE:NAME, such as shop.orders:place-order, or --id with the id of a run"
        )
    if observed and saga_id is not None:
        raise CommandError("--observed draws many runs and --id draws one; give one of the two")
    if saga_id is not None:
        picture = _of_run(ctx, store, saga_id, target)
    elif target is not None and observed:
        picture = _of_many(ctx, store, saga_at(target), limit)
    else:
        picture = picture_of(saga_at(target or ""))
    text = drawn(picture, form.value)
    if file is not None:
        output.save(text, file)
    if wants_json(ctx, given=as_json):
        output.document({"format": form.value, "file": None if file is None else str(file), "diagram": text})
    elif file is None:
        output.write(text)
    else:
        output.say(f"Wrote {file}.")


def _of_run(ctx: typer.Context, store: str | None, saga_id: str, target: str | None) -> "Picture":
    from sagas.diagram.formats import picture_of  # noqa: PLC0415 - as above
    from sagas.diagram.runs import run_picture  # noqa: PLC0415 - as above

    known = None if target is None else versions_at(target)
    info = ask(address_of(ctx, store), lambda orchestrator: orchestrator.info(saga_id))
    if known is None:
        return run_picture(info)
    definition = next((each for each in known if (each.name, each.version) == (info.saga, info.version)), None)
    if definition is None:
        found = ", ".join(f"{each.name} v{each.version}" for each in known)
        raise CommandError(
            f"{saga_id} is a run of {info.saga} v{info.version}, and {target} is {found}; give the saga that it runs, "
            "or --id alone to draw its steps without a definition"
        )
    return run_picture(info, picture_of(definition))


def _of_many(ctx: typer.Context, store: str | None, definition: SagaDef[..., Any], limit: int) -> "Picture":
    from sagas.diagram.formats import picture_of  # noqa: PLC0415 - as above
    from sagas.diagram.runs import observed_picture  # noqa: PLC0415 - as above

    async def select(orchestrator: "Orchestrator") -> list[SagaInfo]:
        query = orchestrator.client.query(name=definition.name, version=definition.version, limit=limit)
        return await orchestrator.client.select(query)

    infos = ask(address_of(ctx, store), select)
    if not infos:
        raise CommandError(
            f"the store has no run of {definition.name} v{definition.version} to count; leave out --observed to draw "
            "the saga itself"
        )
    return observed_picture(picture_of(definition), infos)
