"""Durable execution by itself: runs that checkpoint every step and wait, and go on after any crash.

It knows nothing of compensation; the ``sagas`` package stands on the names listed here and on no others.
"""

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
from durable_core.model.version import Announced, Offer, Tally
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

__all__ = [
    "CURRENT",
    "DEFAULT_UNKNOWN",
    "ENDS",
    "Announced",
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
    "Codec",
    "Context",
    "DefinitionError",
    "DurableError",
    "DurableFunction",
    "End",
    "EntryKind",
    "FailureText",
    "Fault",
    "ForeignAwaitError",
    "Ids",
    "JournalEntry",
    "NonDeterminismError",
    "Offer",
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
    "Runs",
    "Settings",
    "SiblingFailed",
    "StepCrashed",
    "StepInterrupted",
    "StepRecord",
    "StepSpec",
    "StepStatus",
    "StepTimeout",
    "Store",
    "StoreError",
    "StoreFormatError",
    "StoreFull",
    "StoreNotFound",
    "Tally",
    "WrongState",
    "capture",
    "check_name",
    "derived",
    "describe",
    "fold",
    "idempotency_key",
    "is_async",
    "name_of",
    "open_store",
    "rebuild",
    "served",
    "to_ns",
]
