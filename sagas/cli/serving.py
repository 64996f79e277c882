"""``worker``: serves the sagas of modules until it is asked to stop.

Invariant: a signal never loses anything. The first lets attempts under way end and be recorded; what a second SIGINT
cuts is found again by the next worker, as after any crash.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from types import ModuleType
from typing import Annotated, Any

import attrs
import typer

from durable_core import Runs
from sagas.cli import gc_settings, logs, screen
from sagas.cli.address import orchestrator_at
from sagas.cli.exits import DONE, INTERRUPTED, CommandError, tell
from sagas.cli.health import Endpoint, endpoint_of, lost, shown
from sagas.cli.layout import Piece, clean
from sagas.cli.modules import load, resources_of, sagas_of
from sagas.cli.options import Common, Json, Store, common
from sagas.cli.spans import retention_of
from sagas.tracing import configure, finish, is_set, wanted

log = logging.getLogger("sagas")


@attrs.frozen
class Limits:
    """How a worker works; the names are those of the orchestrator's options."""

    concurrency: int
    threads: int
    grace: float
    """Seconds."""
    lease: float
    """Seconds."""
    retention: timedelta | None
    id_retention: timedelta | None


@attrs.frozen
class Watch:
    """How it is watched over."""

    health: Endpoint | None
    store_limit: float
    """Seconds."""


def attach(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("worker")(worker)


def worker(  # noqa: PLR0913 - one option for each thing that a person may decide
    ctx: typer.Context,
    modules: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE",
            help="Dotted names, or paths of .py files, of the modules with the sagas.",
            show_default=False,
        ),
    ],
    *,
    concurrency: Annotated[int, typer.Option(min=1, metavar="N", help="Sagas that may be under way at once.")] = 1000,
    threads: Annotated[int, typer.Option(min=1, metavar="N", help="Plain functions that may run at once.")] = 32,
    grace: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait, when stopping, for attempts under way.")
    ] = 10,
    retention: Annotated[
        str, typer.Option(metavar="AGE", help="Purge sagas that ended so long ago, such as 30d, or `forever`.")
    ] = "forever",
    id_retention: Annotated[
        str, typer.Option(metavar="AGE", help="How long ids of purged sagas stay refused, or `forever`.")
    ] = "90d",
    lease: Annotated[
        float,
        typer.Option(min=0.5, metavar="SECONDS", help="How long a silent worker keeps its sagas, on PostgreSQL."),
    ] = 15,
    health: Annotated[str | None, typer.Option(metavar="[HOST:]PORT", help="Answer there whether it works.")] = None,
    store_limit: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long the store may be lost before the worker ends.")
    ] = 300,
    log_level: Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error; to stderr.")] = "info",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Run the sagas of MODULE until SIGTERM or Ctrl-C; a second Ctrl-C stops at once.

    With OTEL_EXPORTER_OTLP_ENDPOINT set, the traces of its sagas are sent there.

    A module may have `resources`: a list of the objects that its steps ask for, or a callable (plain, async, or a
    context manager) that gives one.
    """
    given = common(ctx, store, as_json=as_json)
    logs.begin(log_level, as_json=given.json)
    watch = Watch(endpoint_of(health), store_limit)
    ages = retention_of(retention, "--retention"), retention_of(id_retention, "--id-retention")
    limits = Limits(concurrency, threads, grace, lease, *ages)
    _run([load(name) for name in modules], given, limits, watch)


def _run(modules: Sequence[ModuleType], given: Common, limits: Limits, watch: Watch) -> None:
    """Serve until asked to stop; spans are sent where the environment says so."""
    if wanted() and not is_set():
        configure()
    say = log.info if given.json else tell  # a log that is an object a line has no other lines in it
    asyncio.run(_serve(modules, given, limits, watch, say))
    finish()
    _leave(say)


async def _serve(
    modules: Sequence[ModuleType], given: Common, limits: Limits, watch: Watch, say: Callable[[str], None]
) -> None:
    sagas = sagas_of(modules)
    async with AsyncExitStack() as stack:
        resources: list[object] = []
        for module in modules:
            resources += await resources_of(module, stack)
        orchestrator = orchestrator_at(
            given.address,
            create=True,
            sagas=sagas,
            resources=resources,
            **attrs.asdict(limits),
        )
        stop = _stop_on_signals(say)
        await stack.enter_async_context(orchestrator)
        gc_settings.settle()
        served = sorted((saga.name, saga.version) for saga in sagas)
        port = await stack.enter_async_context(shown(watch.health, orchestrator.engine, watch.store_limit))
        _ready(orchestrator.engine.name, served, given, port)
        await _until_asked(stop, orchestrator.engine, watch.store_limit)
    say("stopped; its sagas are left for other workers")


async def _until_asked(stop: asyncio.Event, engine: Runs, limit_s: float) -> None:
    """Return once it was asked to stop.

    Raises:
        CommandError: the store is lost for longer than ``limit_s``.
    """
    asked, silent = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(lost(engine, limit_s))
    await asyncio.wait((asked, silent), return_when=asyncio.FIRST_COMPLETED)
    for waiting in (asked, silent):
        waiting.cancel()
    if not stop.is_set():
        raise CommandError(
            f"the store has not answered for {silent.result():.0f} s, longer than --store-limit allows; this worker "
            "ends, so that whoever runs it notices. Nothing is lost: the next worker goes on"
        )


def _stop_on_signals(say: Callable[[str], None]) -> asyncio.Event:
    """Set on SIGTERM or SIGINT; a SIGINT after that ends the process."""
    stop = asyncio.Event()

    def asked(number: int) -> None:
        if stop.is_set():
            if number == signal.SIGINT:
                say("stopped at once; the next worker goes on from what was recorded")
                os._exit(INTERRUPTED)  # nothing may hold it up now, and the store is made for the death of a process
            return
        stop.set()
        say("stopping: attempts under way may end first; Ctrl-C (again) stops at once")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    return stop


def _ready(name: str, served: Sequence[tuple[str, int]], given: Common, port: int | None) -> None:
    if given.json:
        facts: dict[str, Any] = {
            "worker": name,
            "pid": os.getpid(),
            "store": given.address.shown,
            "health": port,
            "sagas": [{"saga": saga, "version": version} for saga, version in served],
        }
        screen.document(facts, indent=None)
        return
    told = ", ".join(f"{saga} v{version}" for saga, version in served)
    screen.show([(Piece(clean(f"worker {name} (pid {os.getpid()}) is ready: {told} on {given.address.shown}")),)])


def _leave(say: Callable[[str], None]) -> None:
    """End even if the thread of a step that nothing can stop still runs: its attempt counts as cut."""
    held = [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]
    if held:
        say(f"{len(held)} threads of steps did not end in time and are cut")
        logging.shutdown()
        sys.stdout.flush()
        os._exit(DONE)
