"""Arguments that name something in a store: a saga, a step, a status; and what a shell offers for them at Tab.

Invariant: a store that is missing, silent or of another program gives no offers and no message, since a shell would
print it into the line that is being typed.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from sagas.cli.options import address_of, ask
from sagas.cli.output import CommandError
from sagas.errors import SagasError
from sagas.model.phases import SagaStatus

if TYPE_CHECKING:
    from sagas.orchestrator import Orchestrator

Offer = tuple[str, str]
"""A word, and what some shells show beside it."""
NEWEST = 200
"""How many sagas are offered."""
PATIENCE_S = 2.0
"""How long a shell may wait for a store."""


def saga_ids(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """The ids of the newest sagas."""

    async def newest(orchestrator: "Orchestrator") -> list[Offer]:
        found = await orchestrator.list(limit=NEWEST)
        return [(info.id, f"{info.saga}, {info.status}") for info in found]

    return _begun(_asked(ctx, newest), incomplete)


def ids_and_steps(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """The keys of the steps of the first saga that stands before; where none does, the ids of the newest sagas."""
    words: list[str] = list(ctx.params.get("saga_ids") or ())
    if not words:
        return saga_ids(ctx, incomplete)

    async def steps(orchestrator: "Orchestrator") -> list[Offer]:
        return [(step.key, step.status) for step in (await orchestrator.info(words[0])).steps]

    return _begun(_asked(ctx, steps), incomplete)


def statuses(incomplete: str) -> list[Offer]:
    """The statuses of sagas."""
    return _begun([(status.value, "") for status in SagaStatus], incomplete)


def _begun(offers: list[Offer], incomplete: str) -> list[Offer]:
    return [offer for offer in offers if offer[0].startswith(incomplete)]


def _asked(ctx: typer.Context, question: "Callable[[Orchestrator], Awaitable[list[Offer]]]") -> list[Offer]:
    logging.disable()
    try:
        return ask(address_of(ctx, _store(ctx)), question, store_timeout=PATIENCE_S)
    except (CommandError, SagasError):
        return []
    finally:
        logging.disable(logging.NOTSET)


def _store(ctx: typer.Context) -> str | None:
    """``--store`` after the command or before it; a shell asks before the command line has been read to its end."""
    before = None if ctx.parent is None else ctx.parent.params.get("store")
    return ctx.params.get("store") or before


SagaId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The saga's id, as listed by `sagas list`.", show_default=False, autocompletion=saga_ids
    ),
]
OneStep = Annotated[
    str | None, typer.Option("--step", metavar="STEP", help="Only this step, as named by `sagas show`. [default: all]")
]
Status = Annotated[
    str | None,
    typer.Option(
        metavar="STATUS",
        help="Only sagas with this status: stuck, running, completed, ...",
        autocompletion=statuses,
    ),
]
