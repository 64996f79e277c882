"""``top``: the state of a store, drawn anew every few seconds. It changes nothing."""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from sagas.cli import output, overview
from sagas.cli.options import Options, ask, command
from sagas.cli.output import Line, Piece
from sagas.errors import SagasError

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator


@command
def top(
    options: Options,
    *,
    interval: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="How long between two looks.")] = 2,
    once: Annotated[bool, typer.Option("--once", help="Look once and exit; so does --json, or a pipe.")] = False,
) -> None:
    """Watch a store: its workers, and what needs attention. Ctrl-C ends it."""
    if options.json or once or not output.is_terminal():
        taken = ask(options.address, lambda orchestrator: overview.look(orchestrator, rows=overview.LEAST * 2))
        if options.json:
            output.document(overview.document_of(taken))
        else:
            output.show(overview.lines_of(taken, store=options.address.shown, width=output.width()))
        return
    with contextlib.suppress(KeyboardInterrupt), output.Screen() as screen:
        ask(options.address, lambda orchestrator: _watch(orchestrator, screen, options, interval))


async def _watch(orchestrator: "Orchestrator", screen: output.Screen, options: Options, interval: float) -> None:
    """Draw for ever. A store that is lost is said in the picture, and found again when it returns."""
    before: overview.Overview | None = None
    lines: list[Line] = []
    while True:
        width, height = output.width(), screen.height
        try:
            taken = await overview.look(orchestrator, rows=overview.rows_for(height))
        except SagasError as error:
            screen.draw([*output.wrapped(f"error: {error}", width=width, indent="", style="bold red"), (), *lines])
        else:
            drawn = overview.lines_of(taken, store=options.address.shown, width=width, height=height - 2, before=before)
            lines, before = drawn[: height - 2], taken
            screen.draw([*lines, (), (Piece(f"every {interval:g} s; Ctrl-C ends", "dim"),)])
        await asyncio.sleep(interval)
