"""Prints what the trips' demo has to say beyond its scenes: its participants, both forms of a saga, and the audit."""

from collections.abc import Sequence

import attrs
from rich.markup import escape
from rich.table import Table

from examples.booking.agency import Agency
from examples.booking.audit import Audit, Finding
from examples.booking.forms import Form
from examples.booking.scenes import Scene
from examples.participants import screen
from examples.participants.screen import money, word
from sagas import Entry, SagaInfo

CALLED = {Form.GRAPH: "the graph", Form.CODE: "the same saga as code"}


@attrs.frozen
class Outcome:
    """One trip of a scene that was played: what its saga says, and what the participants' books say."""

    scene: Scene
    info: SagaInfo
    finding: Finding

    @property
    def faults(self) -> tuple[str, ...]:
        """Everything that is wrong."""
        ends = (self.info.status, self.info.cause)
        if ends == (self.scene.status, self.scene.cause):
            return self.finding.faults
        return (*self.finding.faults, f"the saga says {ends}, not {(self.scene.status, self.scene.cause)}")


def course(info: SagaInfo) -> set[tuple[str, str, str]]:
    """What happened to each step that is more than a look, whatever the order of those that ran side by side."""
    steps = [step for step in info.steps if step.kind != "lookup"]
    return {(step.key, step.status, "" if (undo := step.compensation) is None else undo.status) for step in steps}


@attrs.frozen
class Screen(screen.Screen):
    """Prints the demo as it goes."""

    def open(self, agency: Agency, forms: Sequence[Form]) -> None:
        """The participants."""
        pids = ", ".join(f"{name} (pid {child.pid})" for name, child in agency.services.items())
        self.console.print("[bold]A travel agency whose trips are sagas.[/]")
        self.say(f"Four services, each a process with a database of its own: {pids}.")
        self.say(
            f"The agency is a front for customers and managers (pid {agency.front.pid}), and a worker (pid "
            f"{agency.workers[0].pid}) that runs the sagas. This process is the customer, and plays tricks."
        )
        if len(forms) > 1:
            self.say("Two trips play each scene at the same time: one by the saga as a graph, one by it as code.")

    def courses(self, played: Sequence[tuple[Form, SagaInfo, Sequence[Entry]]]) -> None:
        """The account of each form's saga: of the first one whole, of the others only if they went another way."""
        _, shown, history = played[0]
        self.timeline(shown, history)
        for form, info, other in played[1:]:
            if course(info) == course(shown):
                self.end(info, f": {CALLED[form]} took the same steps")
            else:
                self.say(f"But {CALLED[form]} took other steps:")
                self.timeline(info, other)

    def verdict(self, outcomes: Sequence[Outcome], found: Audit, seconds: float, *, forms: Sequence[Form]) -> None:
        """The closing audit."""
        self.console.print("\n[bold]The audit[/], from the services' own databases; the sagas were not asked:\n")
        self.console.print(_trips(outcomes))
        for supplier in dict.fromkeys(balance.supplier for balance in found.balances):
            counts = [
                f"{b.city}: {b.offered} offered, {b.booked} booked, {b.held} held"
                for b in found.balances
                if b.supplier == supplier
            ]
            self.console.print(f"{supplier:8} {'; '.join(counts)}")
        paid = sum(finding.traces.paid for finding in found.findings)
        booked = sum(bool(finding.traces.booked) for finding in found.findings)
        self.console.print(f"{'bank':8} {money(paid)} taken for {booked} trips")
        for outcome in outcomes:
            if outcome.faults:
                self.console.print(f"[red]{escape(outcome.info.id)}: {escape('; '.join(outcome.faults))}[/]")
        for fault in found.faults:
            self.console.print(f"[red]{escape(fault)}[/]")
        both = "; both forms left the same" if len(forms) > 1 else ""
        holds = found.holds and not any(outcome.faults for outcome in outcomes)
        text = (
            f"[green]The audit holds:[/] nothing is held that is not booked, money equals bookings{both}."
            if holds
            else "[red]The audit does not hold.[/] See the verdicts above."
        )
        self.console.print(f"\n{text} ({seconds:.1f} s)")


def _trips(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", caption=" ")
    for name in ("trip", "what happened", "saga"):
        table.add_column(name)
    for name in ("held", "booked", "released", "expired", "paid"):
        table.add_column(name, justify="right")
    table.add_column("audit")
    titled: set[str] = set()
    for outcome in outcomes:
        found, title = outcome.finding.traces, outcome.scene.title
        table.add_row(
            escape(outcome.info.id),
            "" if title in titled else title,
            str(outcome.info.status),
            str(len(found.held)),
            str(len(found.booked)),
            str(len(found.released)),
            str(len(found.expired)),
            money(found.paid, found.payments),
            word(good=not outcome.faults),
        )
        titled.add(title)
    return table
