"""``plan``: keeps what each saga of a module runs as a small text, so that a change shows in a review.

Invariant: no saga of the module runs, and no store is touched.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import attrs
import typer

from sagas.check.plans import SagaPlan, plan_of
from sagas.check.scan import scan
from sagas.cli import output
from sagas.cli.modules import load, sagas_of
from sagas.cli.options import Json, Modules, wants_json
from sagas.cli.output import CommandError, Line, Piece, clean

Write = Annotated[
    Path | None,
    typer.Option("--write", metavar="DIR", help="Keep each plan in a file of this folder, instead of printing it."),
]


@attrs.frozen
class Kept:
    """What a folder of plans says of one."""

    plan: SagaPlan
    path: Path
    state: str
    """``new``, ``same`` or ``changed``."""
    changes: Sequence[str] = ()


def plan(ctx: typer.Context, modules: Modules, *, write: Write = None, as_json: Json = False) -> None:
    """Print what each saga of MODULE runs, in which order: its plan.

    `sagas check --plans DIR` fails where a plan has changed and its version has not.
    """
    plans = plans_of(modules)
    kept = [] if write is None else [written(each, write) for each in plans]
    if wants_json(ctx, given=as_json):
        output.document([{**attrs.asdict(each), "file": each.file} for each in plans])
    elif write is None:
        output.show([(Piece(clean(line)),) for each in plans for line in [*each.text.splitlines(), ""]][:-1])
    else:
        output.show([line for each in kept for line in _said(each)])


def plans_of(modules: Sequence[str]) -> list[SagaPlan]:
    """The plans of all sagas of these modules, by name and version.

    Raises:
        CommandError: a saga has faults, or two have one name and version.
    """
    plans: dict[tuple[str, int], SagaPlan] = {}
    for definition in sagas_of([load(name) for name in modules]):
        found, key = scan(definition), (definition.name, definition.version)
        if found.faults:
            raise CommandError(f"saga {definition.name!r} has faults; see them with `sagas check {' '.join(modules)}`")
        if key in plans:
            raise CommandError(
                f"two sagas are named {definition.name!r} version {definition.version}; give one of them another name"
            )
        plans[key] = plan_of(definition, found)
    return [plans[key] for key in sorted(plans)]


def kept_in(folder: Path, plans: Sequence[SagaPlan]) -> list[Kept]:
    """Compare the plans with those that a folder keeps.

    Raises:
        CommandError: the folder or a plan in it cannot be read.
    """
    if not folder.is_dir():
        raise CommandError(f"there is no folder {folder}; make one with `sagas plan MODULE --write {folder}`")
    return [_compared(each, folder / each.file) for each in plans]


def _compared(plan: SagaPlan, path: Path) -> Kept:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Kept(plan, path, "new")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"the plan {path} cannot be read: {error}") from error
    changes = plan.changes(text)
    return Kept(plan, path, "changed" if changes else "same", changes)


def written(plan: SagaPlan, folder: Path) -> Kept:
    """Keep a plan; says how it compares with the one that was kept before.

    Raises:
        CommandError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = _compared(plan, folder / plan.file)
        if before.state != "same":
            before.path.write_text(plan.text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"the plan of saga {plan.saga!r} cannot be kept in {folder}: {error}") from error
    return before


def _said(kept: Kept) -> Iterator[Line]:
    words = {"new": "new", "same": "unchanged", "changed": "changed under its version"}
    style = "yellow" if kept.state == "changed" else ""
    yield (
        Piece(f"{clean(kept.plan.saga)} v{kept.plan.version}: "),
        Piece(words[kept.state], style),
        Piece(f" {clean(str(kept.path))}"),
    )
    for line in kept.changes:
        yield (Piece(f"  {clean(line)}"),)
