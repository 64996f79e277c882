"""``python -m examples.booking.demo``: an agency of real processes, made to fail in every way, and audited at the end.

Exit code 0 only if the participants' own books show every trip whole or gone, and the same for both forms of the saga.
No process is left behind.
"""

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import attrs
import httpx
import msgspec
import typer

from examples.booking.agency import Agency, Started, open_agency
from examples.booking.audit import Audit, Expected, audit
from examples.booking.domain import Trip
from examples.booking.forms import Form
from examples.booking.scenes import SCENES, Scene
from examples.booking.screen import Outcome, Screen
from examples.participants.admin import NotHeldError
from examples.participants.launcher import ChildFailedError
from examples.participants.running import FAILED, run_demo
from examples.participants.stage import DemoFailedError


class Forms(StrEnum):
    """Which forms of the saga to play."""

    GRAPH = "graph"
    CODE = "code"
    BOTH = "both"

    @property
    def all(self) -> list[Form]:
        """Them."""
        return list(Form) if self is Forms.BOTH else [Form(self)]


def main(
    *,
    form: Annotated[Forms, typer.Option(help="The saga written as a graph, as code, or both.")] = Forms.BOTH,
    keep: Annotated[Path | None, typer.Option(help="Keep databases and logs here; must be new or empty.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the audit to this file as JSON.")] = None,
) -> None:
    """Play all scenes and audit them."""

    async def play(directory: Path) -> int:
        return await _demo(directory, form.all, json)

    raise typer.Exit(run_demo(play, keep=keep, prefix="booking-demo-"))


async def _demo(directory: Path, forms: Sequence[Form], json: Path | None) -> int:
    """Play and audit; returns the exit code."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    screen = Screen()
    try:
        async with open_agency(directory) as agency:
            screen.open(agency, forms)
            outcomes, found = await _play(agency, screen, forms)
    except (DemoFailedError, ChildFailedError, NotHeldError, httpx.HTTPError) as error:
        screen.say(f"The demo failed: {error!r}")
        return FAILED
    screen.verdict(outcomes, found, loop.time() - began, forms=forms)
    holds = found.holds and not any(outcome.faults for outcome in outcomes)
    if json is not None:
        await asyncio.to_thread(json.write_bytes, _report(outcomes, found, holds=holds))
    return 0 if holds else FAILED


async def _play(agency: Agency, screen: Screen, forms: Sequence[Form]) -> tuple[list[Outcome], Audit]:
    played: list[tuple[Scene, Started]] = []
    for number, scene in enumerate(SCENES, start=1):
        screen.head(number, scene.title)
        trips = [Started(Trip(f"trip-{number}-{form}", scene.city, scene.amount), form) for form in forms]
        async for sentence in scene.play(agency, trips):
            screen.say(sentence)
        handles = [await agency.handle(each) for each in trips]
        screen.courses([(t.form, await h.info(), await h.history()) for t, h in zip(trips, handles, strict=True)])
        played += [(scene, each) for each in trips]
    expected = [
        Expected(each.trip.id, scene.title, each.form, booked=scene.booked, amount=scene.amount)
        for scene, each in played
    ]
    found = audit(agency.directory, expected)
    infos = [await (await agency.handle(each)).info() for _, each in played]
    scenes = [scene for scene, _ in played]
    return [Outcome(*each) for each in zip(scenes, infos, found.findings, strict=True)], found


def _report(outcomes: Sequence[Outcome], found: Audit, *, holds: bool) -> bytes:
    """The audit as JSON, for a program that wants to judge it for itself."""
    trips = [
        {
            "trip": outcome.info.id,
            "scene": outcome.scene.title,
            "form": outcome.finding.expected.form,
            "status": str(outcome.info.status),
            "cause": outcome.info.cause,
            "amount": outcome.scene.amount,
            "faults": list(outcome.faults),
            **attrs.asdict(outcome.finding.traces),
        }
        for outcome in outcomes
    ]
    balances = [attrs.asdict(balance) for balance in found.balances]
    facts = {"holds": holds, "faults": list(found.faults), "trips": trips, "balances": balances}
    return msgspec.json.format(msgspec.json.encode(facts), indent=2)


if __name__ == "__main__":
    typer.run(main)
