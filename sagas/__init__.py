"""Sagas in Python that survive anything: steps, compensations, and a durable core under them."""

from typing import TYPE_CHECKING

import sagas.codec as codec  # noqa: PLR0402 - no module imports the package root, this one no more than others
from durable_core import (
    CallbackAlreadyAnswered,
    CallbackClosed,
    CallbackFailed,
    CallbackNotFound,
    CallbackTimeout,
    DefinitionError,
    PayloadError,
    RemoteError,
    Retry,
    StepExited,
    StepInterrupted,
    StepTimeout,
    StoreError,
    WrongLoop,
    WrongState,
)
from durable_core import HistoryEntry as Entry
from durable_core.layer import lazy_names
from sagas.current import StepInfo, current
from sagas.dsl import lookup, pivot, retriable, saga, step
from sagas.errors import (
    KeyReused,
    SagaCompensated,
    SagaExists,
    SagaKilled,
    SagaNotFound,
    SagaPastPivot,
    SagasError,
    SagaStuck,
    Undone,
    Unsupported,
)
from sagas.model.definition import (
    DidNotHappen,
    Happened,
    Lookup,
    Pivot,
    Retriable,
    SagaDef,
    Step,
    StillUnknown,
    Unknown,
)
from sagas.model.info import SagaInfo, SagaSummary, StepState
from sagas.model.phases import SagaStatus
from sagas.model.resource import resource

if TYPE_CHECKING:
    from durable_core import Callback, PurgeReport, VersionVerdict
    from sagas.bulk import BulkReport
    from sagas.graph import SagaGraph
    from sagas.model.graph import Ref
    from sagas.model.versions import VersionInfo
    from sagas.orchestrator import Orchestrator, SagaFilters, SagaHandle
    from sagas.runtime.saga import Saga

LATER = {
    "durable_core": ("Callback", "PurgeReport", "VersionVerdict"),
    "sagas.bulk": ("BulkReport",),
    "sagas.graph": ("SagaGraph",),
    "sagas.model.graph": ("Ref",),
    "sagas.model.versions": ("VersionInfo",),
    "sagas.orchestrator": ("Orchestrator", "SagaFilters", "SagaHandle"),
    "sagas.runtime.saga": ("Saga",),
}
"""The names for running sagas, by the module that they are loaded from: declaring sagas takes half of the whole."""

__all__ = [
    "BulkReport",
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
    "KeyReused",
    "Lookup",
    "Orchestrator",
    "PayloadError",
    "Pivot",
    "PurgeReport",
    "Ref",
    "RemoteError",
    "Retriable",
    "Retry",
    "Saga",
    "SagaCompensated",
    "SagaDef",
    "SagaExists",
    "SagaFilters",
    "SagaGraph",
    "SagaHandle",
    "SagaInfo",
    "SagaKilled",
    "SagaNotFound",
    "SagaPastPivot",
    "SagaStatus",
    "SagaStuck",
    "SagaSummary",
    "SagasError",
    "Step",
    "StepExited",
    "StepInfo",
    "StepInterrupted",
    "StepState",
    "StepTimeout",
    "StillUnknown",
    "StoreError",
    "Undone",
    "Unknown",
    "Unsupported",
    "VersionInfo",
    "VersionVerdict",
    "WrongLoop",
    "WrongState",
    "codec",
    "current",
    "lookup",
    "pivot",
    "resource",
    "retriable",
    "saga",
    "step",
]

__getattr__ = lazy_names(__name__, LATER)
