"""Durable execution by itself: functions that checkpoint every step and wait, and go on after any crash.

``Engine`` runs functions made by ``@durable``, whose bodies are given a ``Context``. ``step`` and ``Retry`` say how a
step is attempted, and ``current`` what it may know about itself. ``RunHandle``, ``RunInfo``, ``RunStep``,
``RunStatus``, ``HistoryEntry`` and ``VersionInfo`` show runs; ``Branch``, ``Callback``, ``Parallel``, ``Durable`` and
``Step`` are what the calls give. The errors are ``DurableError`` and all that derive from it, ``Fault`` and ``Closed``.

``durable_core.layer`` has the names for another layer on this package, such as ``sagas``. This package knows nothing
of compensation.
"""

from typing import TYPE_CHECKING

from durable_core.errors import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackError,
    CallbackFailed,
    CallbackNotFound,
    CallbackTimeout,
    Closed,
    DefinitionError,
    DurableError,
    Fault,
    ForeignAwaitError,
    LeaseLost,
    NonDeterminismError,
    PayloadError,
    RemoteError,
    RunExists,
    RunKilled,
    RunNotFound,
    RunStuck,
    SiblingFailed,
    StepCrashed,
    StepExited,
    StepInterrupted,
    StepTimeout,
    StoreError,
    StoreFormatError,
    StoreFull,
    StoreNotFound,
    WrongLoop,
    WrongState,
)
from durable_core.lazy import lazy_names

if TYPE_CHECKING:
    from durable_core.body import Callback
    from durable_core.context import Context, Parallel
    from durable_core.dsl import durable, step
    from durable_core.engine.retention import PurgeReport
    from durable_core.model.archive import read_line
    from durable_core.model.declared import Step
    from durable_core.model.durable import Durable
    from durable_core.model.info import HistoryEntry, RunInfo, RunStep, RunSummary
    from durable_core.model.registered import register_type
    from durable_core.model.retry import Retry
    from durable_core.model.run import RunStatus
    from durable_core.model.versions import VersionInfo, VersionVerdict
    from durable_core.ports import Clock
    from durable_core.replay.current import AttemptInfo, current
    from durable_core.replay.scheduler import Branch
    from durable_core.runs import Engine, RunFilters, RunHandle

LATER = {
    "durable_core.body": ("Callback",),
    "durable_core.context": ("Context", "Parallel"),
    "durable_core.dsl": ("durable", "step"),
    "durable_core.engine.retention": ("PurgeReport",),
    "durable_core.model.archive": ("read_line",),
    "durable_core.model.declared": ("Step",),
    "durable_core.model.durable": ("Durable",),
    "durable_core.model.info": ("HistoryEntry", "RunInfo", "RunStep", "RunSummary"),
    "durable_core.model.registered": ("register_type",),
    "durable_core.model.retry": ("Retry",),
    "durable_core.model.run": ("RunStatus",),
    "durable_core.model.versions": ("VersionInfo", "VersionVerdict"),
    "durable_core.ports": ("Clock",),
    "durable_core.replay.current": ("AttemptInfo", "current"),
    "durable_core.replay.scheduler": ("Branch",),
    "durable_core.runs": ("Engine", "RunFilters", "RunHandle"),
}
"""The other names, by the module that they are loaded from on first use: few programs need all of them."""

__all__ = [
    "AttemptInfo",
    "Branch",
    "Callback",
    "CallbackAlreadyAnswered",
    "CallbackClosed",
    "CallbackError",
    "CallbackFailed",
    "CallbackNotFound",
    "CallbackTimeout",
    "Clock",
    "Closed",
    "Context",
    "DefinitionError",
    "Durable",
    "DurableError",
    "Engine",
    "Fault",
    "ForeignAwaitError",
    "HistoryEntry",
    "LeaseLost",
    "NonDeterminismError",
    "Parallel",
    "PayloadError",
    "PurgeReport",
    "RemoteError",
    "Retry",
    "RunExists",
    "RunFilters",
    "RunHandle",
    "RunInfo",
    "RunKilled",
    "RunNotFound",
    "RunStatus",
    "RunStep",
    "RunStuck",
    "RunSummary",
    "SiblingFailed",
    "Step",
    "StepCrashed",
    "StepExited",
    "StepInterrupted",
    "StepTimeout",
    "StoreError",
    "StoreFormatError",
    "StoreFull",
    "StoreNotFound",
    "VersionInfo",
    "VersionVerdict",
    "WrongLoop",
    "WrongState",
    "current",
    "durable",
    "read_line",
    "register_type",
    "step",
]

__getattr__ = lazy_names(__name__, LATER)
