"""The names of ``durable_core`` for another layer on it, beside those of its users; ``sagas`` uses these and no others.

``Client``, ``Face`` and ``Handle`` are what a layer's calls are made of, ``BodyContext``, ``Operation``,
``ParallelBlock`` and ``ChildBlock`` what its bodies are given, ``DeclaredStep`` and ``CallShape`` its declarations.
``Runtime`` drives a ``DurableFunction``, whose body is given a ``HostContext``.

Invariant: a name is loaded on first use, so declaring sagas loads no engine and no store.
"""

from typing import TYPE_CHECKING

from durable_core.errors import in_words, sentences, without_code
from durable_core.lazy import lazy_names
from durable_core.model.children import COMPLETED as CHILD_COMPLETED
from durable_core.model.children import OPENED as CHILD_OPENED
from durable_core.model.entry import MISFIT, EntryKind, effective, held
from durable_core.model.entry import Entry as JournalEntry

if TYPE_CHECKING:
    from durable_core.blocks import ChildBlock, ParallelBlock, all_of, branch_body, in_lanes
    from durable_core.body import BodyContext, Operation, watched
    from durable_core.client import AnswerReceipt, CallbackAddress, Client, Handle
    from durable_core.engine.callback_delivery import CallbackDelivery
    from durable_core.engine.clock import SystemClock, SystemIds
    from durable_core.engine.home import at_home
    from durable_core.engine.polling import Health
    from durable_core.engine.registry import warn_of_others
    from durable_core.engine.runtime import Runtime
    from durable_core.engine.settings import Settings
    from durable_core.engine.waiting import RunOutcome
    from durable_core.engine.watch import AttentionLog
    from durable_core.face import Face, Order, Standing
    from durable_core.hosts.attempt import Clocked, attempt
    from durable_core.hosts.hosted import CallStep, HostedRun, Reply, Wake, Want
    from durable_core.model.callback import COMPLETED, FAILED, HEARTBEAT, Answer, CallbackState, Taken, same, state_of
    from durable_core.model.calls import Done, StepCall
    from durable_core.model.checkup import Checkup, Facts, Finding, Group, Level, WorkerSeen
    from durable_core.model.codec import Codec
    from durable_core.model.decide import Final, after_failure
    from durable_core.model.declared import (
        DeclaredStep,
        check_timeout,
        check_version,
        place_of,
        positional,
        says_what_to_write,
    )
    from durable_core.model.duration import Duration, at, maybe_at, not_before, ns_of, shown, to_ns
    from durable_core.model.failure import FailureText, capture, describe, rebuild
    from durable_core.model.info import (
        error_text,
        history_of,
        plain_input,
        read_or_plain,
        step_of,
        stuck_error,
        told_reason,
        waits_of,
    )
    from durable_core.model.keys import check_id, check_name, derived, idempotency_key, name_of, served
    from durable_core.model.outcome import DEFAULT_UNKNOWN, Outcome
    from durable_core.model.record import ABANDON, StepRecord, StepStatus, fold
    from durable_core.model.retry import duration
    from durable_core.model.run import ENDS, OPEN, RunQuery, RunRecord, RunRef
    from durable_core.model.shape import CallShape
    from durable_core.model.spec import DurableFunction, StepSpec, is_async
    from durable_core.model.startable import StartOptions, Takes0, Takes1, Takes2, Takes3
    from durable_core.model.tags import TAGGED, check_tags, read_tags
    from durable_core.model.texts import check_text, is_text
    from durable_core.model.verbs import faulted_on
    from durable_core.model.version import Announced, Offer, Tally
    from durable_core.model.versions import versions_of
    from durable_core.ports import AttemptFaults, Ids, MortalWorker, Store
    from durable_core.replay.blocks import Branches
    from durable_core.replay.callbacks import PendingCallback
    from durable_core.replay.current import CURRENT
    from durable_core.replay.cursor import End
    from durable_core.replay.host_context import HostContext
    from durable_core.replay.run import MANY_FAILURES
    from durable_core.replay.steps import OutcomeUnknown, Perform
    from durable_core.stores import Migrated, migrate, open_store
    from durable_core.tracing.answers import Posting
    from durable_core.tracing.caller import called_by, caller
    from durable_core.tracing.documents import jaeger_document, otlp_document
    from durable_core.tracing.enabled import spans_wanted
    from durable_core.tracing.ending import AtExit
    from durable_core.tracing.fold import RunTrace, spans_of
    from durable_core.tracing.metrics import METRICS, Measure, Metric
    from durable_core.tracing.span import SpanEvent, SpanLink, SpanRecord
    from durable_core.tracing.vocabulary import Closes, Ending, Meaning, Notes, Opens, StepWords, Vocabulary
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
    "durable_core.blocks": ("ChildBlock", "ParallelBlock", "all_of", "branch_body", "in_lanes"),
    "durable_core.body": ("BodyContext", "Operation", "watched"),
    "durable_core.client": ("AnswerReceipt", "CallbackAddress", "Client", "Handle"),
    "durable_core.engine.watch": ("AttentionLog",),
    "durable_core.engine.callback_delivery": ("CallbackDelivery",),
    "durable_core.engine.clock": ("SystemClock", "SystemIds"),
    "durable_core.engine.polling": ("Health",),
    "durable_core.engine.home": ("at_home",),
    "durable_core.engine.registry": ("warn_of_others",),
    "durable_core.engine.runtime": ("Runtime",),
    "durable_core.engine.settings": ("Settings",),
    "durable_core.engine.waiting": ("RunOutcome",),
    "durable_core.hosts.attempt": ("Clocked", "attempt"),
    "durable_core.hosts.hosted": ("CallStep", "HostedRun", "Reply", "Wake", "Want"),
    "durable_core.face": ("Face", "Order", "Standing"),
    "durable_core.model.awaited": ("waits_for_person",),
    "durable_core.model.callback": (
        "COMPLETED",
        "FAILED",
        "HEARTBEAT",
        "Answer",
        "CallbackState",
        "Taken",
        "same",
        "state_of",
    ),
    "durable_core.model.calls": ("Done", "StepCall"),
    "durable_core.model.checkup": ("Checkup", "Facts", "Finding", "Group", "Level", "WorkerSeen"),
    "durable_core.model.codec": ("Codec",),
    "durable_core.model.decide": ("Final", "after_failure"),
    "durable_core.model.declared": (
        "DeclaredStep",
        "check_timeout",
        "check_version",
        "place_of",
        "positional",
        "says_what_to_write",
    ),
    "durable_core.model.duration": ("Duration", "at", "maybe_at", "not_before", "ns_of", "shown", "to_ns"),
    "durable_core.model.failure": ("FailureText", "capture", "describe", "rebuild"),
    "durable_core.model.info": (
        "error_text",
        "history_of",
        "plain_input",
        "read_or_plain",
        "step_of",
        "stuck_error",
        "told_reason",
        "waits_of",
    ),
    "durable_core.model.keys": ("check_id", "check_name", "derived", "idempotency_key", "name_of", "served"),
    "durable_core.model.outcome": ("DEFAULT_UNKNOWN", "Outcome"),
    "durable_core.model.record": ("ABANDON", "StepRecord", "StepStatus", "fold"),
    "durable_core.model.retry": ("duration",),
    "durable_core.model.run": ("ENDS", "OPEN", "RunQuery", "RunRecord", "RunRef"),
    "durable_core.model.shape": ("CallShape",),
    "durable_core.model.spec": ("DurableFunction", "StepSpec", "is_async"),
    "durable_core.model.startable": ("StartOptions", "Takes0", "Takes1", "Takes2", "Takes3"),
    "durable_core.model.tags": ("TAGGED", "check_tags", "read_tags", "tags_in"),
    "durable_core.model.texts": ("check_text", "is_text"),
    "durable_core.model.verbs": ("faulted_on",),
    "durable_core.model.version": ("Announced", "Offer", "Tally"),
    "durable_core.model.versions": ("versions_of",),
    "durable_core.ports": ("AttemptFaults", "Ids", "MortalWorker", "Store"),
    "durable_core.replay.blocks": ("Branches",),
    "durable_core.replay.callbacks": ("PendingCallback",),
    "durable_core.replay.current": ("CURRENT",),
    "durable_core.replay.cursor": ("End",),
    "durable_core.replay.host_context": ("HostContext",),
    "durable_core.replay.run": ("MANY_FAILURES",),
    "durable_core.replay.steps": ("OutcomeUnknown", "Perform"),
    "durable_core.stores": ("Migrated", "migrate", "open_store"),
    "durable_core.tracing.answers": ("Posting",),
    "durable_core.tracing.caller": ("called_by", "caller"),
    "durable_core.tracing.documents": ("jaeger_document", "otlp_document"),
    "durable_core.tracing.enabled": ("spans_wanted",),
    "durable_core.tracing.ending": ("AtExit",),
    "durable_core.tracing.fold": ("RunTrace", "spans_of"),
    "durable_core.tracing.metrics": ("METRICS", "Measure", "Metric"),
    "durable_core.tracing.span": ("SpanEvent", "SpanLink", "SpanRecord"),
    "durable_core.tracing.vocabulary": ("Closes", "Ending", "Meaning", "Notes", "Opens", "StepWords", "Vocabulary"),
    "durable_core.tracing.whole": ("whole_spans",),
    "durable_core.tracing.wiring": (
        "Tracing",
        "bring_spans",
        "collector_at",
        "export_directly",
        "export_failures",
        "tracing_with",
    ),
}
"""The names by the module that they are loaded from."""

__all__ = [
    "ABANDON",
    "CHILD_COMPLETED",
    "CHILD_OPENED",
    "COMPLETED",
    "CURRENT",
    "DEFAULT_UNKNOWN",
    "ENDS",
    "FAILED",
    "HEARTBEAT",
    "MANY_FAILURES",
    "METRICS",
    "MISFIT",
    "OPEN",
    "TAGGED",
    "Announced",
    "Answer",
    "AnswerReceipt",
    "AtExit",
    "AttemptFaults",
    "AttentionLog",
    "BodyContext",
    "Branches",
    "CallShape",
    "CallStep",
    "CallbackAddress",
    "CallbackDelivery",
    "CallbackState",
    "Checkup",
    "ChildBlock",
    "Client",
    "Clocked",
    "Closes",
    "Codec",
    "DeclaredStep",
    "Done",
    "DurableFunction",
    "Duration",
    "End",
    "Ending",
    "EntryKind",
    "Face",
    "Facts",
    "FailureText",
    "Final",
    "Finding",
    "Group",
    "Handle",
    "Health",
    "HostContext",
    "HostedRun",
    "Ids",
    "JournalEntry",
    "Level",
    "Meaning",
    "Measure",
    "Metric",
    "Migrated",
    "MortalWorker",
    "Notes",
    "Offer",
    "Opens",
    "Operation",
    "Order",
    "Outcome",
    "OutcomeUnknown",
    "ParallelBlock",
    "PendingCallback",
    "Perform",
    "Posting",
    "Reply",
    "RunOutcome",
    "RunQuery",
    "RunRecord",
    "RunRef",
    "RunTrace",
    "Runtime",
    "Settings",
    "SpanEvent",
    "SpanLink",
    "SpanRecord",
    "Standing",
    "StartOptions",
    "StepCall",
    "StepRecord",
    "StepSpec",
    "StepStatus",
    "StepWords",
    "Store",
    "SystemClock",
    "SystemIds",
    "Taken",
    "Takes0",
    "Takes1",
    "Takes2",
    "Takes3",
    "Tally",
    "Tracing",
    "Vocabulary",
    "Wake",
    "Want",
    "WorkerSeen",
    "after_failure",
    "all_of",
    "at",
    "at_home",
    "attempt",
    "branch_body",
    "bring_spans",
    "called_by",
    "caller",
    "capture",
    "check_id",
    "check_name",
    "check_tags",
    "check_text",
    "check_timeout",
    "check_version",
    "collector_at",
    "derived",
    "describe",
    "duration",
    "effective",
    "error_text",
    "export_directly",
    "export_failures",
    "faulted_on",
    "fold",
    "held",
    "history_of",
    "idempotency_key",
    "in_lanes",
    "in_words",
    "is_async",
    "is_text",
    "jaeger_document",
    "lazy_names",
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
    "read_or_plain",
    "read_tags",
    "rebuild",
    "same",
    "says_what_to_write",
    "sentences",
    "served",
    "shown",
    "spans_of",
    "spans_wanted",
    "state_of",
    "step_of",
    "stuck_error",
    "to_ns",
    "told_reason",
    "tracing_with",
    "versions_of",
    "waits_of",
    "warn_of_others",
    "watched",
    "whole_spans",
    "without_code",
]

__getattr__ = lazy_names(__name__, LATER)
