"""Prints the demo, in short lines that read the same in a terminal, a log and a pipe."""

import sys
import textwrap
from collections.abc import Sequence

import attrs
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from examples.orders.audit import Audit, Finding
from examples.orders.scenes import Scene
from examples.orders.shop import Shop
from sagas import Entry, SagaInfo, StepState

SAID = {
    "succeeded": ("[green]done[/]", ""),
    "compensated": ("[green]done[/]", ", undone below"),
    "rejected": ("[red]no[/]  ", ""),
    "failed": ("[red]fail[/]", ""),
}


WELL = frozenset({"succeeded", "compensated"})


@attrs.frozen
class Outcome:
    """A scene that was played: what the saga says of its order, and what the participants' books say."""

    scene: Scene
    info: SagaInfo
    finding: Finding

    @property
    def faults(self) -> tuple[str, ...]:
        """Everything that is wrong."""
        if self.info.status == self.scene.status:
            return self.finding.faults
        return (*self.finding.faults, f"the saga says {self.info.status}, not {self.scene.status}")


def _console() -> Console:
    width = None if sys.stdout.isatty() else 100  # a log has no width of its own
    return Console(highlight=False, soft_wrap=True, width=width)


@attrs.frozen
class Screen:
    """Prints the demo as it goes."""

    console: Console = attrs.field(factory=_console)

    def open(self, shop: Shop) -> None:
        """The participants."""
        pids = ", ".join(f"{name} (pid {child.pid})" for name, child in shop.services.items())
        self.console.print("[bold]A shop whose orders are sagas.[/]")
        self.say(f"Four services, each a process with a database of its own: {pids}.")
        worker = f" (pid {', '.join(str(worker.pid) for worker in shop.workers)})"
        self.say(f"A worker{worker} runs the sagas. This process places the orders, watches, and plays tricks.")

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
        cause = f" ({info.cause})" if info.cause else ""
        self.console.print(f"   [bold]{escape(info.id)}: {info.status}{cause}[/]")

    def _line(self, state: StepState, name: str, *, more: str = "") -> None:
        word, undone = SAID.get(state.status, (f"[yellow]{escape(state.status)}[/]", ""))
        tries = f", {state.attempts} attempts" if state.attempts > 1 else ""
        error = f": {state.error}" if state.error is not None and state.status not in WELL else ""
        self.console.print(f"     {word}  {escape(name)}[dim]{tries}{more}{undone}{escape(error)}[/]")

    def _fill(self, text: str) -> str:
        width = min(self.console.width, 100)
        return textwrap.fill(text, width, initial_indent="   ", subsequent_indent="   ", break_long_words=False)

    def verdict(self, outcomes: Sequence[Outcome], audit: Audit, seconds: float) -> None:
        """The closing audit."""
        self.console.print("\n[bold]The audit[/], from the services' own databases; the sagas were not asked:\n")
        self.console.print(_orders(outcomes))
        for shelf in audit.shelves:
            parts = f"{shelf.on_hand} on the shelf + {shelf.reserved} reserved + {shelf.sold} sold"
            self.console.print(f"{shelf.sku}: {shelf.delivered} came in = {parts}: {_word(good=shelf.balanced)}")
        wrong = [(outcome.info.id, outcome.faults) for outcome in outcomes]
        wrong += [(finding.traces.order_id, finding.faults) for finding in audit.findings[len(outcomes) :]]
        for order_id, faults in wrong:
            if faults:
                self.console.print(f"[red]{escape(order_id)}: {escape('; '.join(faults))}[/]")
        holds = audit.holds and not any(outcome.faults for outcome in outcomes)
        text = (
            "[green]The audit holds:[/] nothing charged twice, nothing left reserved, every order whole or gone."
            if holds
            else "[red]The audit does not hold.[/] See the verdicts above."
        )
        self.console.print(f"\n{text} ({seconds:.1f} s)")


def _orders(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", caption=" ")
    for name in ("order", "what happened", "saga"):
        table.add_column(name)
    for name in ("reserved", "charged", "refunded", "shipped"):
        table.add_column(name, justify="right")
    table.add_column("audit")
    for outcome in outcomes:
        found = outcome.finding.traces
        table.add_row(
            escape(found.order_id),
            outcome.scene.title,
            str(outcome.info.status),
            str(found.reserved),
            _money(found.charged, found.charges),
            _money(found.refunded, found.refunds),
            str(found.dispatched),
            _word(good=not outcome.faults),
        )
    return table


def _money(cents: int, times: int) -> str:
    amount = f"{cents // 100}.{cents % 100:02}"
    return amount if times <= 1 else f"{amount} in {times}"


def _word(*, good: bool) -> str:
    return "[green]good[/]" if good else "[red]WRONG[/]"
