"""Prints what the orders' demo has to say beyond its scenes: its participants, and the audit."""

from collections.abc import Sequence

import attrs
from rich.markup import escape
from rich.table import Table

from examples.orders.audit import Audit, Finding
from examples.orders.scenes import Scene
from examples.orders.shop import Shop
from examples.participants import screen
from examples.participants.screen import money, word
from sagas import SagaInfo


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


@attrs.frozen
class Screen(screen.Screen):
    """Prints the demo as it goes."""

    def open(self, shop: Shop) -> None:
        """The participants."""
        pids = ", ".join(f"{name} (pid {child.pid})" for name, child in shop.services.items())
        self.console.print("[bold]A shop whose orders are sagas.[/]")
        self.say(f"Four services, each a process with a database of its own: {pids}.")
        worker = f" (pid {', '.join(str(worker.pid) for worker in shop.workers)})"
        self.say(f"A worker{worker} runs the sagas. This process places the orders, watches, and plays tricks.")

    def verdict(self, outcomes: Sequence[Outcome], audit: Audit, seconds: float) -> None:
        """The closing audit."""
        self.console.print("\n[bold]The audit[/], from the services' own databases; the sagas were not asked:\n")
        self.console.print(_orders(outcomes))
        for shelf in audit.shelves:
            parts = f"{shelf.on_hand} on the shelf + {shelf.reserved} reserved + {shelf.sold} sold"
            self.console.print(f"{shelf.sku}: {shelf.delivered} came in = {parts}: {word(good=shelf.balanced)}")
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
            money(found.charged, found.charges),
            money(found.refunded, found.refunds),
            str(found.dispatched),
            word(good=not outcome.faults),
        )
    return table
