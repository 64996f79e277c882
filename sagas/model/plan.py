"""Which steps to undo, and in which order: a pure function of the steps in the journal.

Invariant: reverse order of completion (Garcia-Molina & Salem 1987, section 2), each completed step once, and never
a step that cannot have run. Whether a step is undone is read from its compensation's record, not from another list.
"""

from collections.abc import Collection, Iterable, Mapping

from durable_core.layer import StepRecord, StepStatus, derived, served

UNDO = "undo"
PROBE = "probe"
SETTLED_BY_PROBE = ("step", "pivot")


def undo_key(key: str) -> str:
    """The key of the compensation of the step at ``key``."""
    return derived(key, UNDO)


def probe_key(key: str) -> str:
    """The key of the probe of the step at ``key``."""
    return derived(key, PROBE)


def is_undone(steps: Mapping[str, StepRecord], key: str) -> bool:
    """Whether the compensation of the step at ``key`` has succeeded, since the step was begun anew last."""
    undo = steps.get(undo_key(key))
    return undo is not None and undo.status is StepStatus.SUCCEEDED and undo.edition == steps[key].edition


def is_spent(steps: Mapping[str, StepRecord], key: str) -> bool:
    """Whether the step at ``key`` can no longer happen under its idempotency key: it was undone, or a probe says so."""
    probe = steps.get(probe_key(key))
    asked = probe is not None and probe.status is StepStatus.SUCCEEDED and probe.edition == steps[key].edition
    return asked or is_undone(steps, key)


def in_doubt(steps: Mapping[str, StepRecord], prefix: str = "", *, skipped: Collection[str] = ()) -> list[str]:
    """The steps under ``prefix`` whose outcome is unknown and not settled, latest first."""
    return _latest_first(
        step
        for step in _under(steps, prefix)
        if step.status is StepStatus.UNKNOWN
        and step.kind in SETTLED_BY_PROBE
        and step.key not in skipped
        and not is_undone(steps, step.key)
    )


def to_undo(steps: Mapping[str, StepRecord], prefix: str = "", *, skipped: Collection[str] = ()) -> list[str]:
    """The steps under ``prefix`` that have completed and are not undone, latest first.

    Args:
        steps: all steps of the run, by key.
        prefix: only keys that begin so.
        skipped: keys whose compensation an operator counts as done.
    """
    return _latest_first(
        step
        for step in _under(steps, prefix)
        if step.kind == "step"
        and step.status is StepStatus.SUCCEEDED
        and step.key not in skipped
        and not is_undone(steps, step.key)
    )


def undone(steps: Mapping[str, StepRecord]) -> list[str]:
    """The keys of the steps that were undone, in that order."""
    done = [step for step in steps.values() if step.kind == "compensation" and step.status is StepStatus.SUCCEEDED]
    return [served(step.key) for step in sorted(done, key=lambda step: step.ended_seq)]


def _under(steps: Mapping[str, StepRecord], prefix: str) -> Iterable[StepRecord]:
    return [step for step in steps.values() if step.key.startswith(prefix)] if prefix else steps.values()


def _latest_first(steps: Iterable[StepRecord]) -> list[str]:
    return [step.key for step in sorted(steps, key=lambda step: step.ended_seq, reverse=True)]
