"""Sagas in Python that survive anything: steps, compensations, and a durable core under them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from sagas.model.info import Entry, SagaInfo, SagaStatus, StepState
from sagas.model.resource import resource

if TYPE_CHECKING:
    from durable_core import Callback, PurgeReport, VersionVerdict
    from sagas.graph import SagaGraph
    from sagas.model.graph import Ref
    from sagas.model.versions import VersionInfo
    from sagas.orchestrator import Orchestrator, SagaHandle
    from sagas.runtime.saga import Saga

LATER = {
    "Callback": "durable_core",
    "PurgeReport": "durable_core",
    "Ref": "sagas.model.graph",
    "SagaGraph": "sagas.graph",
    "Saga": "sagas.runtime.saga",
    "SagaHandle": "sagas.orchestrator",
    "VersionInfo": "sagas.model.versions",
    "VersionVerdict": "durable_core",
    "Orchestrator": "sagas.orchestrator",
}
"""What runs sagas, by the module that it is loaded from once it is asked for: to declare them costs half of all."""

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
    "Ref",
    "RemoteError",
    "Retriable",
    "Retry",
    "Saga",
    "SagaCompensated",
    "SagaDef",
    "SagaExists",
    "SagaGraph",
    "SagaHandle",
    "SagaInfo",
    "SagaKilled",
    "SagaNotFound",
    "SagaPastPivot",
    "SagaStatus",
    "SagaStuck",
    "SagasError",
    "Step",
    "StepExited",
    "StepInfo",
    "StepInterrupted",
    "StepState",
    "StepTimeout",
    "StillUnknown",
    "StoreError",
    "Unknown",
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


def __getattr__(name: str) -> Any:
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(LATER[name]), name)
    return found
