"""One turn of the event loop: every body that has something to answer is driven, all under one guard.

Invariant: a bug met while one body is driven parks that run alone; the others go on.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from durable_core.errors import Fault
from durable_core.replay.guard import LoopGuard

if TYPE_CHECKING:
    from durable_core.replay.run import Run


def drive(runs: "Sequence[Run]", guard: LoopGuard) -> None:
    """Drive the bodies of ``runs``, all under one guard; then let each take note of what its body did."""
    broken: dict[Run, Exception] = {}
    _tell_deadlines(runs)
    guard.enter()
    try:
        for run in runs:
            run.undriven = False
            if run.dead or run.shell.leaving or run.held:
                continue
            guard.operations = run.definition.operations
            try:
                run.context.run(run.run_ready)
            except Fault as fault:  # code and journal part while a block is closed, with no command to blame
                run.fault = run.fault or fault
            except Exception as bug:  # noqa: BLE001 - a bug of the engine: this run is parked, the others go on
                broken[run] = bug
            except BaseException:
                run.dead = True  # Ctrl-C amid a body: this process knows no more where it stands, its journal does
                raise
            run.current = None
            if guard.caught is not None:
                run.fault, guard.caught = run.fault or guard.caught, None
    finally:
        guard.leave()
    for run in runs:
        if not run.shell.leaving:
            run.driven(broken.get(run))


def _tell_deadlines(runs: "Sequence[Run]") -> None:
    """Have the runs whose deadline has passed take that up, before their bodies can ask for anything new."""
    for run in runs:
        if run.deadline_at_ns is not None and run.is_overdue() and not run.shell.leaving:
            run.shell.tell_deadline(run)
