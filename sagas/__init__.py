"""Sagas in Python that survive anything: steps, compensations, and a durable core under them."""

from durable_core import (
    Callback,
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackFailed,
    CallbackNotFound,
    CallbackTimeout,
    DefinitionError,
    PayloadError,
    PurgeReport,
    RemoteError,
    Retry,
    StepInterrupted,
    StepTimeout,
    StoreError,
    WrongState,
)
from sagas.current import StepInfo, current
from sagas.dsl import lookup, pivot, retriable, saga, step
from sagas.errors import (
    SagaCompensated,
    SagaExists,
    SagaKilled,
    SagaNotFound,
    SagaPastPivot,
    SagasError,
    SagaStuck,
)
from sagas.handle import SagaHandle
from sagas.model.definition import Lookup, Pivot, Retriable, SagaDef, Step
from sagas.model.info import Entry, SagaInfo, SagaStatus, StepState
from sagas.model.outcome import DidNotHappen, Happened, StillUnknown, Unknown
from sagas.model.resource import resource
from sagas.model.versions import VersionInfo, VersionVerdict
from sagas.orchestrator import Orchestrator
from sagas.runtime.saga import Saga

__all__ = [
    "Callback",
    "CallbackAlreadyAnswered",
    "CallbackClosed",
    "CallbackFailed",
    "CallbackNotFound",
    "CallbackTimeout",
    "DefinitionError",
    "DidNotHappen",
    "Entry",
    "Happened",
    "Lookup",
    "Orchestrator",
    "PayloadError",
    "Pivot",
    "PurgeReport",
    "RemoteError",
    "Retriable",
    "Retry",
    "Saga",
    "SagaCompensated",
    "SagaDef",
    "SagaExists",
    "SagaHandle",
    "SagaInfo",
    "SagaKilled",
    "SagaNotFound",
    "SagaPastPivot",
    "SagaStatus",
    "SagaStuck",
    "SagasError",
    "Step",
    "StepInfo",
    "StepInterrupted",
    "StepState",
    "StepTimeout",
    "StillUnknown",
    "StoreError",
    "Unknown",
    "VersionInfo",
    "VersionVerdict",
    "WrongState",
    "current",
    "lookup",
    "pivot",
    "resource",
    "retriable",
    "saga",
    "step",
]
