"""``check``: finds faults in the sagas of a module before any of them is started.

Invariant: no saga of the module runs, and no store is touched.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer

from sagas.check.scan import scan
from sagas.cli import output
from sagas.cli.modules import is_users, load, sagas_of
from sagas.cli.options import Json, Modules, wants_json
from sagas.cli.output import DONE, FAULTY, CommandError, Line, Piece, clean
from sagas.cli.plan import kept_in, plans_of
from sagas.errors import SagasError
from sagas.model.definition import SagaDef

PLACE = re.compile(r"(?P<file>.+?):(?P<line>\d+): (?P<message>.*)", re.DOTALL)
_NOWHERE = logging.NullHandler()
"""Registering logs the warnings that ``check`` shows."""


@attrs.frozen(order=True)
class Finding:
    """A fault or a warning, at one place."""

    file: str
    line: int
    message: str

    @classmethod
    def parse(cls, text: str, default: str = "") -> "Finding":
        """A text such as ``file:line: message``; without a place it gets the place ``default`` (``file:line``)."""
        found = PLACE.fullmatch(text) or PLACE.fullmatch(f"{default}: {text}")
        if found is None:
            return cls("", 0, text)
        return cls(found["file"], int(found["line"]), found["message"])

    @property
    def place(self) -> str:
        """``file:line``, relative to the current directory if the file is in it."""
        path = Path(self.file)
        return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{self.line}"


@attrs.frozen
class Findings:
    """The findings in all sagas."""

    sagas: Sequence[tuple[str, int]]
    faults: Sequence[Finding]
    warnings: Sequence[Finding]


Plans = Annotated[
    Path | None,
    typer.Option(
        "--plans", metavar="DIR", help="Also compare with the plans that `sagas plan --write DIR` has kept there."
    ),
]


def check(ctx: typer.Context, modules: Modules, *, plans: Plans = None, as_json: Json = False) -> None:
    """Find faults in the sagas of MODULE without running them.

    A worker refuses a saga with a fault: exit code 1. So is it if a plan has changed and its version has not. Warnings
    alone exit with 0.
    """
    found = findings(modules)
    if plans is not None and not found.faults:
        changed, unkept = _compared(modules, plans)
        found = attrs.evolve(found, faults=changed, warnings=[*found.warnings, *unkept])
    if wants_json(ctx, given=as_json):
        output.document(_document(found))
    else:
        output.show(_lines(found))
    raise typer.Exit(FAULTY if found.faults else DONE)


def findings(modules: Sequence[str]) -> Findings:
    """Check all sagas of these modules.

    Raises:
        CommandError: a module cannot be imported, or none of them holds a saga.
    """
    try:
        definitions = sagas_of([load(name) for name in modules])
    except CommandError as refused:
        if isinstance(refused.__cause__, SagasError):  # raised by a declaration in the module
            return Findings([], [_raised(refused.__cause__)], [])
        raise
    scans = [scan(definition) for definition in definitions]
    faults = [Finding.parse(fault) for found in scans for fault in found.faults]
    faults += _refused([definition for definition, found in zip(definitions, scans, strict=True) if not found.faults])
    warnings = [Finding.parse(warning) for found in scans for warning in found.warnings]
    return Findings(
        sagas=sorted((definition.name, definition.version) for definition in definitions),
        faults=sorted(dict.fromkeys(faults)),  # a child's findings are also those of its parents
        warnings=sorted(dict.fromkeys(warnings)),
    )


def _compared(modules: Sequence[str], folder: Path) -> tuple[list[Finding], list[Finding]]:
    """The plans that have changed under their version, and the versions that have none."""
    kept = kept_in(folder, plans_of(modules))
    changed = [
        Finding(
            str(each.path),
            1,
            f"the plan of saga {each.plan.saga!r} has changed and its version is still {each.plan.version}: "
            f"{'; '.join(each.changes)}. Give the saga a new version and keep the old one while sagas of it are "
            f"open, or keep the new plan with `sagas plan --write {folder}` if none is",
        )
        for each in kept
        if each.state == "changed"
    ]
    unkept = [
        Finding(
            str(each.path),
            1,
            f"saga {each.plan.saga!r} version {each.plan.version} has no plan here; keep it with `sagas plan --write "
            f"{folder}`",
        )
        for each in kept
        if each.state == "new"
    ]
    return changed, unkept


def _refused(definitions: Sequence[SagaDef[..., Any]]) -> list[Finding]:
    """The faults that only registering finds, in the words of a worker."""
    from sagas.orchestrator import Orchestrator, log  # noqa: PLC0415 - slow to import, and `--help` needs none of it

    log.addHandler(_NOWHERE)
    orchestrator = Orchestrator("memory://", worker=False)  # never entered
    faults: list[Finding] = []
    for definition in definitions:
        try:
            orchestrator.register(definition)
        except SagasError as error:
            faults.append(Finding.parse(error.message, definition.place))
    return faults


def _raised(error: BaseException) -> Finding:
    """An error that a module raised, at the line in its own code."""
    last, link = "", error.__traceback__
    while link is not None:
        file = link.tb_frame.f_code.co_filename
        if not file.startswith("<") and is_users(file):
            last = f"{file}:{link.tb_lineno}"
        link = link.tb_next
    return Finding.parse(error.message if isinstance(error, SagasError) else str(error), last)


def _lines(found: Findings) -> list[Line]:
    """One line for each finding, as compilers print them, and the number of findings."""
    lines: list[Line] = []
    for style, kind, some in (("bold red", "fault", found.faults), ("yellow", "warning", found.warnings)):
        lines += [
            (Piece(f"{clean(each.place)}: "), Piece(f"{kind}: ", style), Piece(clean(each.message))) for each in some
        ]
    sagas = ", ".join(f"{name} v{version}" for name, version in found.sagas) or "no sagas"
    counts = f"{_count(found.faults, 'fault')}, {_count(found.warnings, 'warning')}"
    return [*lines, (Piece(f"{clean(sagas)}: {counts}"),)]


def _count(found: Sequence[Finding], word: str) -> str:
    return f"{len(found)} {word}" if len(found) == 1 else f"{len(found)} {word}s"


def _document(found: Findings) -> dict[str, Any]:
    return {
        "sagas": [{"saga": name, "version": version} for name, version in found.sagas],
        "faults": [attrs.asdict(each) for each in found.faults],
        "warnings": [attrs.asdict(each) for each in found.warnings],
    }
