"""Prints a demo, in short lines that read the same in a terminal, a log and a pipe."""

import sys
import textwrap
from collections.abc import Sequence

import attrs
from rich.console import Console
from rich.markup import escape

from sagas import Entry, SagaInfo, StepState

SAID = {
    "succeeded": ("[green]done[/]", ""),
    "compensated": ("[green]done[/]", ", undone below"),
    "rejected": ("[red]no[/]  ", ""),
    "failed": ("[red]fail[/]", ""),
}
WELL = frozenset({"succeeded", "compensated"})
WIDTH = 100
"""A log has no width of its own."""


def _console() -> Console:
    width = None if sys.stdout.isatty() else WIDTH
    return Console(highlight=False, soft_wrap=True, width=width)


@attrs.frozen
class Screen:
    """Prints a demo as it goes."""

    console: Console = attrs.field(factory=_console)

    def say(self, text: str) -> None:
        """One sentence about the current event."""
        self.console.print(escape(self._fill(text)))

    def head(self, number: int, title: str) -> None:
        """The start of a scene."""
        self.console.print(f"\n[bold]{number}. {escape(title[0].upper() + title[1:])}[/]")

    def timeline(self, info: SagaInfo, history: Sequence[Entry]) -> None:
        """The saga's account: its steps, then its compensations in the order in which they ran."""
        asked = {entry.key for entry in history if entry.kind == "settled"}
        for state in info.steps:
            self._line(state, state.name, more=", outcome unknown at first, found out" if state.key in asked else "")
        undone = [(state, state.compensation) for state in info.steps if state.compensation is not None]
        for state, undo in sorted(undone, key=lambda pair: pair[1].started_at or info.updated_at):
            self._line(undo, f"undo {state.name}")
        self.end(info)

    def end(self, info: SagaInfo, more: str = "") -> None:
        """How the saga ended."""
        cause = f" ({info.cause})" if info.cause else ""
        self.console.print(f"   [bold]{escape(info.id)}: {info.status}{cause}[/]{escape(more)}")

    def _line(self, state: StepState, name: str, *, more: str = "") -> None:
        word, undone = SAID.get(state.status, (f"[yellow]{escape(state.status)}[/]", ""))
        tries = f", {state.attempts} attempts" if state.attempts > 1 else ""
        error = f": {state.error}" if state.error is not None and state.status not in WELL else ""
        self.console.print(f"     {word}  {escape(name)}[dim]{tries}{more}{undone}{escape(error)}[/]")

    def _fill(self, text: str) -> str:
        width = min(self.console.width, WIDTH)
        return textwrap.fill(text, width, initial_indent="   ", subsequent_indent="   ", break_long_words=False)


def money(cents: int, times: int = 1) -> str:
    """An amount, and in how many parts it was moved if that was not one."""
    amount = f"{cents // 100}.{cents % 100:02}"
    return amount if times <= 1 else f"{amount} in {times}"


def word(*, good: bool) -> str:
    """One word for a table."""
    return "[green]good[/]" if good else "[red]WRONG[/]"
