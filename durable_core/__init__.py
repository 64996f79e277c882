"""Durable execution by itself: runs that checkpoint every step and wait, and go on after any crash.

It knows nothing of compensation; the ``sagas`` package stands on the names listed here and on no others.
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
    NonDeterminismError,
    PayloadError,
    RemoteError,
    RunExists,
    RunKilled,
    RunNotFound,
    RunStuck,
    SiblingFailed,
    StepCrashed,
    StepInterrupted,
    StepTimeout,
    StoreError,
    StoreFormatError,
    StoreFull,
    StoreNotFound,
    WrongState,
)
from durable_core.model.callback import Answer
from durable_core.model.codec import Codec
from durable_core.model.entry import Entry as JournalEntry
from durable_core.model.entry import EntryKind
from durable_core.model.failure import FailureText, capture, describe, rebuild
from durable_core.model.keys import check_name, derived, idempotency_key, name_of, served
from durable_core.model.outcome import DEFAULT_UNKNOWN, Outcome
from durable_core.model.record import StepRecord, StepStatus, fold
from durable_core.model.retry import Retry
from durable_core.model.run import ENDS, RunQuery, RunRecord, RunRef, RunStatus
from durable_core.model.shape import CallShape
from durable_core.model.spec import DurableFunction, StepSpec, is_async
from durable_core.ports import Clock, Ids, Store
from durable_core.runs import Runs
from durable_core.runtime.answers import Answers
from durable_core.runtime.attempts import CURRENT, AttemptInfo
from durable_core.runtime.blocks import Branches
from durable_core.runtime.callbacks import PendingCallback
from durable_core.runtime.clock import to_ns
from durable_core.runtime.context import Context
from durable_core.runtime.fibers import Branch
from durable_core.runtime.ledger import End
from durable_core.runtime.settings import Settings
from durable_core.runtime.steps import OutcomeUnknown
from durable_core.runtime.waiters import RunOutcome
from durable_core.stores import open_store
from durable_core.tracing.wanted import spans_wanted

if TYPE_CHECKING:
    from durable_core.tracing.counting import METRICS, Metric
    from durable_core.tracing.documents import jaeger_document, otlp_document
    from durable_core.tracing.fold import RunTrace, spans_of
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
    from durable_core.tracing.wiring import Tracing, export_directly, export_failures, tracing_with

LATER = {
    "counting": ("METRICS", "Metric"),
    "documents": ("jaeger_document", "otlp_document"),
    "fold": ("RunTrace", "spans_of"),
    "span": ("SpanEvent", "SpanLink", "SpanRecord"),
    "vocabulary": ("Closes", "Ending", "Meaning", "Notes", "Opens", "StepWords", "Vocabulary"),
    "wiring": ("Tracing", "export_directly", "export_failures", "tracing_with"),
}
"""What only those need who want spans: loaded when it is asked for, by the module of ``durable_core.tracing``."""

__all__ = [
    "CURRENT",
    "DEFAULT_UNKNOWN",
    "ENDS",
    "METRICS",
    "Answer",
    "Answers",
    "AttemptInfo",
    "Branch",
    "Branches",
    "CallShape",
    "CallbackAlreadyAnswered",
    "CallbackClosed",
    "CallbackError",
    "CallbackFailed",
    "CallbackNotFound",
    "CallbackTimeout",
    "Clock",
    "Closed",
    "Closes",
    "Codec",
    "Context",
    "DefinitionError",
    "DurableError",
    "DurableFunction",
    "End",
    "Ending",
    "EntryKind",
    "FailureText",
    "Fault",
    "ForeignAwaitError",
    "Ids",
    "JournalEntry",
    "Meaning",
    "Metric",
    "NonDeterminismError",
    "Notes",
    "Opens",
    "Outcome",
    "OutcomeUnknown",
    "PayloadError",
    "PendingCallback",
    "RemoteError",
    "Retry",
    "RunExists",
    "RunKilled",
    "RunNotFound",
    "RunOutcome",
    "RunQuery",
    "RunRecord",
    "RunRef",
    "RunStatus",
    "RunStuck",
    "RunTrace",
    "Runs",
    "Settings",
    "SiblingFailed",
    "SpanEvent",
    "SpanLink",
    "SpanRecord",
    "StepCrashed",
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
    "Tracing",
    "Vocabulary",
    "WrongState",
    "capture",
    "check_name",
    "derived",
    "describe",
    "export_directly",
    "export_failures",
    "fold",
    "idempotency_key",
    "is_async",
    "jaeger_document",
    "name_of",
    "open_store",
    "otlp_document",
    "rebuild",
    "served",
    "spans_of",
    "spans_wanted",
    "to_ns",
    "tracing_with",
]


def __getattr__(name: str) -> Any:
    for module, names in LATER.items():
        if name in names:
            return getattr(import_module(f"durable_core.tracing.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
