"""Durable execution by itself: functions that checkpoint every step and wait, and go on after any crash.

For users: ``Engine`` runs functions made by ``@durable``, whose bodies are given a ``Context``; ``step`` and ``Retry``
say how a step is attempted, ``current`` what it may know about itself. ``RunHandle``, ``RunInfo``, ``RunStep``,
``RunStatus`` and ``HistoryEntry`` show runs; ``Branch``, ``Callback``, ``Parallel``, ``Durable`` and ``Step`` are what
the calls give. And the errors: ``DurableError`` and all that derive from it, ``Fault`` and ``Closed``.

For whoever builds another layer: all else. ``Runs`` drives a ``DurableFunction`` and gives its body ``HostContext``;
``BodyContext``, ``Operation``, ``ParallelBlock``, ``in_lanes``, ``all_of``, ``branch_body`` and ``ChildBlock`` are what
a layer's own context is made of, ``DeclaredStep`` and ``CallShape`` its declarations. ``sagas`` stands on the names
listed here and on no others; this package knows nothing of compensation.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from durable_core.model.children import COMPLETED as CHILD_COMPLETED
from durable_core.model.children import OPENED as CHILD_OPENED
from durable_core.model.entry import Entry as JournalEntry
from durable_core.model.entry import EntryKind, held

if TYPE_CHECKING:
    from durable_core.bodies.blocks import ChildBlock, ParallelBlock, all_of, branch_body, in_lanes
    from durable_core.bodies.body import BodyContext
    from durable_core.bodies.callback import Callback
    from durable_core.bodies.context import Context
    from durable_core.bodies.operation import Operation, watched
    from durable_core.bodies.parallel import Parallel
    from durable_core.client import Engine
    from durable_core.dsl import durable, step
    from durable_core.engine.attention import AttentionLog
    from durable_core.engine.callback_delivery import CallbackDelivery
    from durable_core.engine.health import Pulse
    from durable_core.engine.home import at_home
    from durable_core.engine.purge import PurgeReport
    from durable_core.engine.runs import Runs
    from durable_core.engine.settings import Settings
    from durable_core.engine.waiters import RunOutcome
    from durable_core.handle import RunHandle
    from durable_core.model.archive import read_line
    from durable_core.model.callback import Answer, Taken
    from durable_core.model.calls import Done, StepCall
    from durable_core.model.checkup import Checkup, Facts, Finding, Group, Level, WorkerSeen
    from durable_core.model.codec import Codec
    from durable_core.model.declared import (
        DeclaredStep,
        Step,
        check_timeout,
        check_version,
        place_of,
        positional,
    )
    from durable_core.model.durable import Durable
    from durable_core.model.duration import Duration, at, maybe_at, not_before, ns_of, shown, to_ns
    from durable_core.model.failure import FailureText, capture, describe, rebuild
    from durable_core.model.info import (
        HistoryEntry,
        RunInfo,
        RunStep,
        error_text,
        history_of,
        plain_input,
        read_or_plain,
        step_of,
        stuck_error,
        waits_of,
    )
    from durable_core.model.keys import check_name, derived, idempotency_key, name_of, served
    from durable_core.model.outcome import DEFAULT_UNKNOWN, Outcome
    from durable_core.model.record import StepRecord, StepStatus, fold
    from durable_core.model.registered import register_type
    from durable_core.model.retry import Retry, duration
    from durable_core.model.run import ENDS, RunQuery, RunRecord, RunRef, RunStatus
    from durable_core.model.shape import CallShape
    from durable_core.model.spec import DurableFunction, StepSpec, is_async
    from durable_core.model.startable import Takes0, Takes1, Takes2, Takes3
    from durable_core.model.texts import check_text, is_text
    from durable_core.model.verbs import faulted_on
    from durable_core.model.version import Announced, Offer, Tally
    from durable_core.ports import Clock, Ids, Store
    from durable_core.replay.blocks import Branches
    from durable_core.replay.callbacks import PendingCallback
    from durable_core.replay.current import CURRENT, AttemptInfo, current
    from durable_core.replay.cursor import End
    from durable_core.replay.host_context import HostContext
    from durable_core.replay.run import MANY_FAILURES
    from durable_core.replay.scheduler import Branch
    from durable_core.replay.steps import OutcomeUnknown, Perform
    from durable_core.stores import Migrated, migrate, open_store
    from durable_core.tracing.answers import Posting
    from durable_core.tracing.documents import jaeger_document, otlp_document
    from durable_core.tracing.enabled import spans_wanted
    from durable_core.tracing.ending import AtExit
    from durable_core.tracing.fold import RunTrace, spans_of
    from durable_core.tracing.metrics import METRICS, Metric
    from durable_core.tracing.span import SpanEvent, SpanLink, SpanRecord
    from durable_core.tracing.vocabulary import (
        Closes,
        Ending,
        Meaning,
        Notes,
        Opens,
        StepWords,
        Vocabulary,
    )
    from durable_core.tracing.whole import whole_spans
    from durable_core.tracing.wiring import (
        Tracing,
        bring_spans,
        collector_at,
        export_directly,
        export_failures,
        tracing_with,
    )


LATER = {
    "bodies.blocks": ("ChildBlock", "ParallelBlock", "all_of", "branch_body", "in_lanes"),
    "bodies.body": ("BodyContext",),
    "bodies.callback": ("Callback",),
    "bodies.context": ("Context",),
    "bodies.operation": ("Operation", "watched"),
    "bodies.parallel": ("Parallel",),
    "dsl": ("durable", "step"),
    "client": ("Engine",),
    "handle": ("RunHandle",),
    "model.archive": ("read_line",),
    "model.callback": ("Answer", "Taken"),
    "model.calls": ("Done", "StepCall"),
    "model.checkup": ("Checkup", "Facts", "Finding", "Group", "Level", "WorkerSeen"),
    "model.codec": ("Codec",),
    "model.declared": ("DeclaredStep", "Step", "check_timeout", "check_version", "place_of", "positional"),
    "model.durable": ("Durable",),
    "model.failure": ("FailureText", "capture", "describe", "rebuild"),
    "model.info": (
        "HistoryEntry",
        "RunInfo",
        "RunStep",
        "error_text",
        "history_of",
        "plain_input",
        "read_or_plain",
        "step_of",
        "stuck_error",
        "waits_of",
    ),
    "model.keys": ("check_name", "derived", "idempotency_key", "name_of", "served"),
    "model.outcome": ("DEFAULT_UNKNOWN", "Outcome"),
    "model.registered": ("register_type",),
    "model.record": ("StepRecord", "StepStatus", "fold"),
    "model.retry": ("Retry", "duration"),
    "model.run": ("ENDS", "RunQuery", "RunRecord", "RunRef", "RunStatus"),
    "model.shape": ("CallShape",),
    "model.duration": ("Duration", "at", "maybe_at", "not_before", "ns_of", "shown", "to_ns"),
    "model.spec": ("DurableFunction", "StepSpec", "is_async"),
    "model.startable": ("Takes0", "Takes1", "Takes2", "Takes3"),
    "model.texts": ("check_text", "is_text"),
    "model.verbs": ("faulted_on",),
    "model.version": ("Announced", "Offer", "Tally"),
    "ports": ("Clock", "Ids", "Store"),
    "engine.runs": ("Runs",),
    "engine.callback_delivery": ("CallbackDelivery",),
    "engine.attention": ("AttentionLog",),
    "replay.blocks": ("Branches",),
    "replay.callbacks": ("PendingCallback",),
    "replay.current": ("AttemptInfo", "CURRENT", "current"),
    "replay.scheduler": ("Branch",),
    "engine.home": ("at_home",),
    "replay.cursor": ("End",),
    "replay.host_context": ("HostContext",),
    "engine.health": ("Pulse",),
    "engine.purge": ("PurgeReport",),
    "engine.settings": ("Settings",),
    "replay.run": ("MANY_FAILURES",),
    "replay.steps": ("OutcomeUnknown", "Perform"),
    "engine.waiters": ("RunOutcome",),
    "stores": ("Migrated", "migrate", "open_store"),
    "tracing.answers": ("Posting",),
    "tracing.documents": ("jaeger_document", "otlp_document"),
    "tracing.ending": ("AtExit",),
    "tracing.fold": ("RunTrace", "spans_of"),
    "tracing.metrics": ("METRICS", "Metric"),
    "tracing.span": ("SpanEvent", "SpanLink", "SpanRecord"),
    "tracing.vocabulary": ("Closes", "Ending", "Meaning", "Notes", "Opens", "StepWords", "Vocabulary"),
    "tracing.enabled": ("spans_wanted",),
    "tracing.whole": ("whole_spans",),
    "tracing.wiring": ("Tracing", "bring_spans", "collector_at", "export_directly", "export_failures", "tracing_with"),
}
"""The other names, by the module that they are loaded from once they are asked for: few programs need them all."""

_HOMES = {name: module for module, names in LATER.items() for name in names}

__all__ = [
    "CHILD_COMPLETED",
    "CHILD_OPENED",
    "CURRENT",
    "DEFAULT_UNKNOWN",
    "ENDS",
    "MANY_FAILURES",
    "METRICS",
    "Announced",
    "Answer",
    "AtExit",
    "AttemptInfo",
    "AttentionLog",
    "BodyContext",
    "Branch",
    "Branches",
    "CallShape",
    "Callback",
    "CallbackAlreadyAnswered",
    "CallbackClosed",
    "CallbackDelivery",
    "CallbackError",
    "CallbackFailed",
    "CallbackNotFound",
    "CallbackTimeout",
    "Checkup",
    "ChildBlock",
    "Clock",
    "Closed",
    "Closes",
    "Codec",
    "Context",
    "DeclaredStep",
    "DefinitionError",
    "Done",
    "Durable",
    "DurableError",
    "DurableFunction",
    "Duration",
    "End",
    "Ending",
    "Engine",
    "EntryKind",
    "Facts",
    "FailureText",
    "Fault",
    "Finding",
    "ForeignAwaitError",
    "Group",
    "HistoryEntry",
    "HostContext",
    "Ids",
    "JournalEntry",
    "LeaseLost",
    "Level",
    "Meaning",
    "Metric",
    "Migrated",
    "NonDeterminismError",
    "Notes",
    "Offer",
    "Opens",
    "Operation",
    "Outcome",
    "OutcomeUnknown",
    "Parallel",
    "ParallelBlock",
    "PayloadError",
    "PendingCallback",
    "Perform",
    "Posting",
    "Pulse",
    "PurgeReport",
    "RemoteError",
    "Retry",
    "RunExists",
    "RunHandle",
    "RunInfo",
    "RunKilled",
    "RunNotFound",
    "RunOutcome",
    "RunQuery",
    "RunRecord",
    "RunRef",
    "RunStatus",
    "RunStep",
    "RunStuck",
    "RunTrace",
    "Runs",
    "Settings",
    "SiblingFailed",
    "SpanEvent",
    "SpanLink",
    "SpanRecord",
    "Step",
    "StepCall",
    "StepCrashed",
    "StepExited",
    "StepInterrupted",
    "StepRecord",
    "StepSpec",
    "StepStatus",
    "StepTimeout",
    "StepWords",
    "Store",
    "StoreError",
    "StoreFormatError",
    "StoreFull",
    "StoreNotFound",
    "Taken",
    "Takes0",
    "Takes1",
    "Takes2",
    "Takes3",
    "Tally",
    "Tracing",
    "Vocabulary",
    "WorkerSeen",
    "WrongLoop",
    "WrongState",
    "all_of",
    "at",
    "at_home",
    "branch_body",
    "bring_spans",
    "capture",
    "check_name",
    "check_text",
    "check_timeout",
    "check_version",
    "collector_at",
    "current",
    "derived",
    "describe",
    "durable",
    "duration",
    "error_text",
    "export_directly",
    "export_failures",
    "faulted_on",
    "fold",
    "held",
    "history_of",
    "idempotency_key",
    "in_lanes",
    "is_async",
    "is_text",
    "jaeger_document",
    "maybe_at",
    "migrate",
    "name_of",
    "not_before",
    "ns_of",
    "open_store",
    "otlp_document",
    "place_of",
    "plain_input",
    "positional",
    "read_line",
    "read_or_plain",
    "rebuild",
    "register_type",
    "served",
    "shown",
    "spans_of",
    "spans_wanted",
    "step",
    "step_of",
    "stuck_error",
    "to_ns",
    "tracing_with",
    "waits_of",
    "watched",
    "whole_spans",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return found
