"""``worker``: serves the sagas of modules until it is asked to stop.

Invariant: a signal never loses anything. After the first, attempts under way may end and are recorded; a second
SIGINT ends the process, and the next worker continues as after any crash.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Annotated, Any

import attrs
import typer

from durable_core.layer import Runtime
from sagas.cli import output
from sagas.cli.durations import retention_of
from sagas.cli.health import HealthEndpoint, answering, store_lost
from sagas.cli.modules import load, outbox_names, outboxes_of, resources_of, sagas_of
from sagas.cli.options import IdRetention, Modules, Options, command, orchestrator_at
from sagas.cli.output import DONE, INTERRUPTED, CommandError, Piece, clean, tell
from sagas.cli.reload import folders_of, supervise
from sagas.tracing import STEP_FIELDS, StepLogs, configure, finish, is_set, wanted

log = logging.getLogger("sagas")

STEP_THREADS = "sagas-step"
"""How the names of the threads of steps begin; the store's own threads may also still be ending."""
LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s%(saga)s"
GC_THRESHOLDS = (10_000, 20, 10)
"""A saga ends without reference cycles, so collections mostly find nothing. Measured with W2: 31 of 178 µs a saga with
Python's own thresholds, 10 of 158 with these; the price is that up to 10,000 objects of a step's own cycles stay."""
PYTHONS_THRESHOLDS = frozenset({(700, 10, 10), (2000, 10, 10), (2000, 10, 0)})
"""Python's defaults: the first until 3.12, one of the others later."""

Grace = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="When stopping, how long to wait for attempts under way.")
]
HealthAt = Annotated[str | None, typer.Option(metavar="[HOST:]PORT", help="Serve health checks over HTTP here.")]
LogLevel = Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error; the log goes to stderr.")]
Reload = Annotated[bool, typer.Option("--reload", help="For development: start anew when a Python file changes.")]


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
class Monitoring:
    """How others see whether it works."""

    health: HealthEndpoint | None
    store_limit: float
    """Seconds."""


@command
def worker(
    options: Options,
    modules: Modules,
    *,
    concurrency: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many sagas may be under way at once.")
    ] = 1000,
    threads: Annotated[int, typer.Option(min=1, metavar="N", help="How many plain functions may run at once.")] = 32,
    grace: Grace = 10,
    retention: Annotated[
        str, typer.Option(metavar="AGE", help="How long to keep ended sagas, such as 30d, or `forever`.")
    ] = "forever",
    id_retention: IdRetention = "90d",
    lease: Annotated[
        float,
        typer.Option(min=0.5, metavar="SECONDS", help="On PostgreSQL, how long a silent worker keeps its sagas."),
    ] = 15,
    health: HealthAt = None,
    store_limit: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Exit when the store has not answered for so long.")
    ] = 300,
    log_level: LogLevel = "info",
    reload: Reload = False,
) -> None:
    """Run the sagas of MODULE until SIGTERM or Ctrl-C.

    A second Ctrl-C stops at once. If OTEL_EXPORTER_OTLP_ENDPOINT is set, traces are sent there.

    A module may define `resources`: a list of the objects that its steps need, or a callable (plain, async, or a
    context manager) that returns one. What is committed in its outboxes (sagas.outbox) is handed on.
    """
    log_to_stderr(log_level, as_json=options.json)
    monitoring = Monitoring(HealthEndpoint.parse(health), store_limit)
    ages = retention_of(retention, "--retention"), retention_of(id_retention, "--id-retention")
    limits = Limits(concurrency, threads, grace, lease, *ages)
    say = log.info if options.json else tell  # a log of JSON objects contains no other lines
    if reload:
        raise typer.Exit(supervise(sys.argv[1:], folders_of(modules), say))
    loaded = [load(name) for name in modules]
    if wanted() and not is_set():
        configure()
    asyncio.run(_serve(loaded, options, limits, monitoring, say))
    finish()
    _leave(say)


async def _serve(
    modules: Sequence[ModuleType],
    options: Options,
    limits: Limits,
    monitoring: Monitoring,
    say: Callable[[str], None],
) -> None:
    sagas = sagas_of(modules)
    async with AsyncExitStack() as stack:
        resources: list[object] = []
        for module in modules:
            resources += await resources_of(module, stack)
        orchestrator = orchestrator_at(
            options.address,
            create=True,
            sagas=sagas,
            resources=resources,
            outboxes=outboxes_of(modules),
            **attrs.asdict(limits),
        )
        stop = stop_on_signals(say)
        await stack.enter_async_context(orchestrator)
        settle_gc()
        engine = orchestrator.engine
        port = await stack.enter_async_context(answering(monitoring.health, engine, monitoring.store_limit))
        served = sorted((saga.name, saga.version) for saga in sagas)
        _ready(engine.name, served, outbox_names(modules), options, port)
        await _until_asked(stop, engine, monitoring.store_limit)
    say("stopped; other workers can continue its sagas")


async def _until_asked(stop: asyncio.Event, engine: Runtime, limit_s: float) -> None:
    """Return once it was asked to stop.

    Raises:
        CommandError: the store has not answered for longer than ``limit_s``.
    """
    asked, silent = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(store_lost(engine, limit_s))
    await asyncio.wait((asked, silent), return_when=asyncio.FIRST_COMPLETED)
    for waiting in (asked, silent):
        waiting.cancel()
    if not stop.is_set():
        raise CommandError(
            f"the store has not answered for {silent.result():.0f} s, longer than --store-limit allows; this worker "
            "exits, so that its supervisor notices. No data is lost: the next worker continues its sagas"
        )


def stop_on_signals(say: Callable[[str], None]) -> asyncio.Event:
    """Set on SIGTERM or SIGINT; a SIGINT after that ends the process."""
    stop = asyncio.Event()

    def asked(number: int) -> None:
        if stop.is_set():
            if number == signal.SIGINT:
                say("stopped at once; the next worker continues from the journal")
                os._exit(INTERRUPTED)  # nothing may delay it now, and the store survives the death of a process
            return
        stop.set()
        say("stopping: waiting for attempts under way; Ctrl-C now stops at once")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    return stop


def _ready(
    name: str, served: Sequence[tuple[str, int]], outboxes: Sequence[str], options: Options, port: int | None
) -> None:
    store = options.address.shown
    if options.json:
        facts: dict[str, Any] = {
            "worker": name,
            "pid": os.getpid(),
            "store": store,
            "health": port,
            "sagas": [{"saga": saga, "version": version} for saga, version in served],
            "outboxes": list(outboxes),
        }
        output.document(facts, indent=None)
        return
    sagas = ", ".join(f"{saga} v{version}" for saga, version in served)
    ready = f"worker {name} (pid {os.getpid()}) is ready: {sagas} on {store}"
    if outboxes:
        count = "1 outbox" if len(outboxes) == 1 else f"{len(outboxes)} outboxes"
        ready += f", hands on {count}: {', '.join(outboxes)}"
    output.show([(Piece(clean(ready)),)])


def _leave(say: Callable[[str], None]) -> None:
    """End the process even if the thread of a step still runs; its attempt counts as interrupted."""
    held = [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]
    steps = [thread for thread in held if thread.name.startswith(STEP_THREADS)]
    if steps:
        say(f"interrupted threads of steps that did not end in time: {len(steps)}")
    if held:
        logging.shutdown()
        sys.stdout.flush()
        os._exit(DONE)


def settle_gc() -> None:
    """Collect less often, and never again look at what exists now, since it lives as long as the process.

    For a process that is a worker and nothing else. Thresholds that a module of the user's has set stay.
    """
    gc.collect()
    gc.freeze()
    if gc.get_threshold() in PYTHONS_THRESHOLDS:
        gc.set_threshold(*GC_THRESHOLDS)


class JsonLines(logging.Formatter):
    """One object a line: ``{"at", "level", "logger", "message"}``, and ``"error"`` if there is a traceback.

    A record of a step also has ``saga_id``, ``saga_step``, ``saga_attempt``, ``trace_id``, ``span_id``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, str | int] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in STEP_FIELDS:
            value = getattr(record, name, "")
            if value:
                line[name] = value
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr(level: str, *, as_json: bool) -> None:
    """Log records of at least this level to stderr: lines for people, or one object of JSON a line."""
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise typer.BadParameter(f"{level!r} is not debug, info, warning or error", param_hint="--log-level")
    handler = logging.StreamHandler()
    handler.addFilter(StepLogs())
    logging.basicConfig(level=levels[level.upper()], format=LOG_LINE, handlers=[handler])
    if as_json:
        handler.setFormatter(JsonLines())
