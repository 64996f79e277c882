"""What is to be undone, and in which order: a pure function of the steps that the journal tells of.

Invariant: reverse order of completion (Garcia-Molina & Salem 1987, section 2), each completed step once, and never a step
that cannot have run.
"""

from collections.abc import Collection, Iterable, Mapping

from durable_core import StepRecord, StepStatus, derived

UNDO = "undo"
PROBE = "probe"


def undo_key(key: str) -> str:
    """The key of the compensation of the step at ``key``."""
    return derived(key, UNDO)


def probe_key(key: str) -> str:
    """The key of the probe of the step at ``key``."""
    return derived(key, PROBE)


def in_doubt(steps: Mapping[str, StepRecord], prefix: str = "", *, answered: Collection[str] = ()) -> list[str]:
    """The steps under ``prefix`` whose effect may have happened and that nobody has settled, latest first."""
    return _latest_first(
        step
        for step in _under(steps, prefix)
        if step.status is StepStatus.UNKNOWN and step.kind in ("step", "pivot") and step.key not in answered
    )


def to_undo(steps: Mapping[str, StepRecord], prefix: str = "", *, done: Collection[str] = ()) -> list[str]:
    """The steps under ``prefix`` that have completed and are not undone, latest first.

    Args:
        steps: all steps of the run, by key.
        prefix: only keys that begin so.
        done: keys counted as undone: compensated, or skipped by an operator.
    """
    return _latest_first(
        step
        for step in _under(steps, prefix)
        if step.kind == "step" and step.status is StepStatus.SUCCEEDED and step.key not in done
    )


def _under(steps: Mapping[str, StepRecord], prefix: str) -> Iterable[StepRecord]:
    return (step for step in steps.values() if step.key.startswith(prefix))


def _latest_first(steps: Iterable[StepRecord]) -> list[str]:
    return [step.key for step in sorted(steps, key=lambda step: step.ended_seq, reverse=True)]
